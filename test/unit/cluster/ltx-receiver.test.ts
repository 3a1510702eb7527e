import * as fs from "node:fs";
import * as path from "node:path";
import { expect, test } from "vitest";
import { LtxReceiver } from "../../../src/cluster/replication/ltx-receiver.ts";
import type { LogFields } from "../../../src/lib/log.ts";
import { encodeSnapshot } from "../database/support/encode-snapshot.ts";
import { Content } from "../database/support/mini-pager.ts";
import { silentLogger } from "../database/support/node.ts";
import { FakeClock, temporaryDirectory } from "./stand-ins.ts";

const content = new Content();
content.pageCount = 4;
for (const pgno of [1, 2, 3, 4]) content.pages.set(pgno, new Uint8Array(512).fill(pgno));
const snapshot = encodeSnapshot(content, 512, 7);

/** Receives it in pieces of 100 bytes, each after so long. Returns what the log says. */
async function receive(stepMs: number): Promise<[string, LogFields | undefined][]> {
  const clock = new FakeClock();
  const told: [string, LogFields | undefined][] = [];
  const file = path.join(temporaryDirectory(), "snapshot.ltx.tmp");
  const receiver = new LtxReceiver("app.db", {
    engine: { snapshotPath: () => file },
    clock,
    log: { ...silentLogger, info: (message, fields) => void told.push([message, fields]) },
    spoolIsFree: () => Promise.resolve(),
  });
  for (let at = 0; at < snapshot.length; at += 100) {
    await receiver.push(snapshot.subarray(at, at + 100));
    clock.advance(stepMs);
  }
  await receiver.finishFile();
  expect(fs.readFileSync(file).equals(snapshot)).toBe(true);
  return told;
}

test("a snapshot that takes long says how far it is", async () => {
  const told = await receive(2_000);
  const expected = { db: "app.db", databaseBytes: 4 * 512 };
  expect(told[0]).toEqual(["receiving snapshot", { ...expected, bytes: 400, seconds: 6 }]);
  const seconds = 2 * Math.ceil(snapshot.length / 100);
  const last = { ...expected, bytes: snapshot.length, seconds };
  expect(told.at(-1)).toEqual(["received snapshot", last]);
  expect(told.length).toBeLessThan(snapshot.length / 100 / 2);
});

test("one that does not says nothing", async () => {
  expect(await receive(10)).toEqual([]);
});
