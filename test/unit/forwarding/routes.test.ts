import { once } from "node:events";
import * as http2 from "node:http2";
import { afterEach, expect, onTestFinished, test, vi } from "vitest";
import { PrimaryLink } from "../../../src/cluster/forwarding/primary-link.ts";
import { assert } from "../../../src/lib/assert.ts";
import type { Position } from "../../../src/lib/position.ts";
import { formatPosition } from "../../../src/lib/position.ts";
import { serveNode } from "../cluster/node-harness.ts";
import type { ServedNode } from "../cluster/node-harness.ts";
import { newEngine } from "../cluster/stand-ins.ts";
import { FakeWriteEngine } from "../../support/fake-write-engine.ts";

const POSITION: Position = { txid: 7, checksum: 0x8000000000000123n };
const REPLICA = "00000000000000B2";
const OTHER = "00000000000000C3";
const signal = (): AbortSignal => AbortSignal.timeout(20_000);
const links: PrimaryLink[] = [];
afterEach(() => {
  for (const link of links.splice(0)) link.close();
});

async function serve(): Promise<{ node: ServedNode; writes: FakeWriteEngine }> {
  const writes = new FakeWriteEngine();
  writes.positions.set("app.db", POSITION);
  return { node: await serveNode(newEngine(), { writes }), writes };
}

function linkTo(node: ServedNode, id = REPLICA): PrimaryLink {
  const link = new PrimaryLink(node.url, id);
  links.push(link);
  return link;
}

async function post(node: ServedNode, path: string, body = "", method = "POST"): Promise<string> {
  const answer = await fetch(`${node.url}${path}`, {
    method,
    ...(body === "" ? {} : { body }),
    signal: signal(),
  });
  return `${answer.status} ${(await answer.text()).trim()}`;
}

test("a LiteFS node gets a halt lock in LiteFS's words, and gives it back", async () => {
  const { node } = await serve();
  const id = "9223372036854775807";
  const text = await post(node, `/halt?name=app.db&id=${id}`);
  expect(text).toMatch(
    /^200 \{"id":9223372036854775807,"pos":\{"TXID":"0000000000000007","PostApplyChecksum":"8000000000000123"\},"expires":"[^"]+"\}$/,
  );
  expect(node.api.loans.has("app.db", id)).toBe(true);
  // The same ID again is the same lock.
  expect(await post(node, `/halt?name=app.db&id=${id}`)).toContain('"id":9223372036854775807');
  expect(await post(node, "/halt?name=app.db&id=5", "", "DELETE")).toBe("200 ");
  expect(node.api.loans.has("app.db", id)).toBe(true);
  expect(await post(node, `/halt?name=app.db&id=${id}`, "", "DELETE")).toBe("200 ");
  expect(node.api.loans.has("app.db", id)).toBe(false);
});

test.each([
  ["/halt", "400 name required"],
  ["/halt?name=app.db", "400 invalid halt lock id"],
  ["/halt?name=app.db&id=0", "400 invalid halt lock id"],
  ["/halt?name=app.db&id=9223372036854775808", "400 invalid halt lock id"],
  ["/halt?name=app.db&id=x", "400 invalid halt lock id"],
  ["/halt?name=..%2Fx&id=1", "400 invalid database name"],
  ["/tx", "400 name required"],
  ["/tx?name=app.db", "400 lockID required"],
  ["/tx?name=nowhere.db&lockID=1", "404 database not found"],
  ["/tx/outcome?name=app.db&lockID=1&pos=x", "400 name, lockID and pos required"],
  ["/tx/sync?name=app.db&pos=x", "400 name and pos required"],
])("POST %s is %s", async (path, expected) => {
  const { node } = await serve();
  expect(await post(node, path)).toBe(expected);
});

test("DELETE of a halt lock on a database that is not there is no error", async () => {
  const { node } = await serve();
  expect(await post(node, "/halt?name=nowhere.db&id=1", "", "DELETE")).toBe("200 ");
});

test("nothing is lent and nothing taken by a node that is not the primary", async () => {
  const { node } = await serve();
  node.role = { isPrimary: false, primaryHostname: "other", phase: "replica" };
  expect(await post(node, "/halt?name=app.db&id=1")).toMatch(/^503 .*not the primary/);
  expect(await post(node, `/tx/outcome?name=a&lockID=1&pos=${formatPosition(POSITION)}`)).toMatch(
    /^503/,
  );
});

test("a borrower is told when somebody else waits, who gets it when it is given back", async () => {
  const { node } = await serve();
  const link = linkTo(node);
  const first = await link.borrow("app.db", "1", signal());
  expect(first).toMatchObject({ position: POSITION, isHeld: true, isWanted: false });
  const wanted = new Promise<void>((resolve) => {
    first.onWanted = resolve;
  });
  const second = linkTo(node, OTHER).borrow("app.db", "2", signal());
  await wanted;
  expect(node.api.loans.has("app.db", "1")).toBe(true);
  await link.giveBack("app.db", "1", signal());
  expect((await second).isHeld).toBe(true);
  expect(node.api.loans.has("app.db", "2")).toBe(true);
});

test("a loan ends with the connection of its borrower", async () => {
  const { node } = await serve();
  const link = linkTo(node);
  await link.borrow("app.db", "1", signal());
  const second = linkTo(node, OTHER).borrow("app.db", "2", signal());
  link.close();
  expect((await second).position).toEqual(POSITION);
});

test("whoever waits for too long is told so, and a loan that came too late is nobody's", async () => {
  const { node } = await serve();
  await linkTo(node).borrow("app.db", "1", signal());
  await expect(linkTo(node, OTHER).borrow("app.db", "2", signal())).rejects.toThrow(/withdrawn/);
  expect(node.api.loans.has("app.db", "1")).toBe(true);
});

test("a transaction is taken under a loan only, as durable as it says", async () => {
  const { node, writes } = await serve();
  const link = linkTo(node);
  const transaction = { ltx: Buffer.from("an LTX file"), path: undefined };
  const submit = (isDurable: boolean): Promise<unknown> =>
    link.submit("app.db", "1", transaction, isDurable, signal());
  await link.borrow("app.db", "1", signal());
  expect(await submit(true)).toBe("committed");
  expect(await submit(false)).toBe("committed");
  expect(writes.forwarded.map(({ isDurable }) => isDurable)).toEqual([true, false]);
  expect(Buffer.from(writes.forwarded[0]?.ltx ?? []).toString()).toBe("an LTX file");
  writes.forwardResult = { kind: "refused", reason: "it follows another history" };
  expect(await submit(true)).toEqual({ refused: "it follows another history" });
  await link.giveBack("app.db", "1", signal());
  expect(await submit(true)).toMatchObject({ refused: expect.any(String) });
  expect(writes.forwarded).toHaveLength(3);
});

test("the same goes over the request of the loan itself, in any number at once", async () => {
  const { node, writes } = await serve();
  const link = linkTo(node);
  const { channel } = await link.borrow("app.db", "1", signal());
  assert(channel !== undefined, "both ends know of it");
  const ltx = Buffer.alloc(300_000, 7);
  const submit = (isDurable: boolean): Promise<unknown> => channel.submit(ltx, isDurable, signal());
  expect(await Promise.all([submit(true), submit(false)])).toEqual(["committed", "committed"]);
  expect(writes.forwarded.map(({ isDurable }) => isDurable)).toEqual([true, false]);
  expect(Buffer.from(writes.forwarded[1]?.ltx ?? []).equals(ltx)).toBe(true);
  writes.forwardResult = { kind: "refused", reason: "it follows\nanother history" };
  expect(await submit(true)).toEqual({ refused: "it follows another history" });
  // Nobody knows what became of it, so it must be asked for.
  writes.applyForwarded = () => Promise.reject(new Error("the disk is full"));
  await expect(submit(true)).rejects.toThrow(/failed.*the disk is full/);
  node.role = { isPrimary: false, primaryHostname: "other", phase: "replica" };
  expect(await submit(true)).toMatchObject({ refused: expect.stringMatching(/not the primary/) });
});

test("a sync is answered when the log is on the disk, and denied for what is not there", async () => {
  const { node, writes } = await serve();
  const link = linkTo(node);
  const { channel } = await link.borrow("app.db", "1", signal());
  assert(channel !== undefined, "both ends know of it");
  const ask = (): Promise<boolean[]> =>
    Promise.all([channel.sync(POSITION, signal()), link.makeDurable("app.db", POSITION, signal())]);
  expect(await ask()).toEqual([false, false]);
  expect(writes.calls).not.toContain("make-durable app.db");
  writes.known.add(`app.db ${formatPosition(POSITION)}`);
  expect(await ask()).toEqual([false, false]);
  writes.durable = POSITION;
  expect(await ask()).toEqual([true, true]);
  writes.makeDurable = () => Promise.reject(new Error("an error of the disk"));
  await expect(channel.sync(POSITION, signal())).rejects.toThrow(/an error of the disk/);
});

test("what is under way when the connection breaks has no answer", async () => {
  const { node, writes } = await serve();
  const link = linkTo(node);
  const right = await link.borrow("app.db", "1", signal());
  assert(right.channel !== undefined, "both ends know of it");
  writes.applyForwarded = () => new Promise(() => undefined);
  const under = right.channel.submit(Buffer.from("ltx"), true, signal());
  link.close();
  await expect(under).rejects.toThrow(/broke before an answer/);
  await vi.waitFor(() => expect(right.isEnded).toBe(true));
  const after = right.channel.submit(Buffer.from("ltx"), true, signal());
  await expect(after).rejects.toThrow(/broke before an answer/);
});

test("a node of before frames keeps its right, and one that sends nonsense loses it", async () => {
  const { node } = await serve();
  const session = http2.connect(node.url);
  onTestFinished(() => session.destroy());
  const ask = (hold: string, id: string): http2.ClientHttp2Stream =>
    session.request({
      ":method": "POST",
      ":path": `/halt?name=app.db&id=${id}`,
      "litefs-id": REPLICA,
      "litefs-hold": hold,
    });
  const former = ask("1", "1");
  former.end();
  const [headers] = await once(former, "response");
  expect(headers).toMatchObject({ ":status": 200, "litefs-hold": "1" });
  expect(node.api.loans.has("app.db", "1")).toBe(true);
  former.close();
  const broken = ask("2", "2");
  broken.on("error", () => undefined);
  const [answered] = await once(broken, "response");
  expect(answered).toMatchObject({ ":status": 200, "litefs-hold": "2" });
  const closed = new Promise((resolve) => broken.once("close", resolve));
  broken.write("nonsense, and long enough");
  await closed;
  expect(broken.rstCode).toBe(http2.constants.NGHTTP2_PROTOCOL_ERROR);
  await vi.waitFor(() => expect(node.api.loans.has("app.db", "2")).toBe(false));
});

test("whoever asks for an outcome gets it for good: his loan ends", async () => {
  const { node, writes } = await serve();
  const link = linkTo(node);
  await link.borrow("app.db", "1", signal());
  writes.known.add(`app.db ${formatPosition(POSITION)}`);
  expect(await link.resolve("app.db", "1", POSITION, signal())).toBe(true);
  expect(node.api.loans.has("app.db", "1")).toBe(false);
  expect(await link.resolve("app.db", "1", { ...POSITION, txid: 8 }, signal())).toBe(false);
  expect(writes.calls).toContain("end-loan app.db 1");
});
