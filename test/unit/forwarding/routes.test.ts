import { afterEach, expect, test } from "vitest";
import { PrimaryLink } from "../../../src/cluster/forwarding/primary-link.ts";
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
