import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { nodeFiles } from "../../../src/database/files.ts";
import { TransactionLog } from "../../../src/database/log/transaction-log.ts";
import type { LtxBytes } from "../../../src/database/log/received-record.ts";
import type { LtxHeader } from "../../../src/ltx/header.ts";

const SEGMENT_BYTES = 16 * 1024 * 1024;

function header(txid: number): LtxHeader {
  return {
    flags: 0,
    pageSize: 4096,
    commit: 1,
    minTxid: txid,
    maxTxid: txid,
    timestampMs: 1_000,
    preApplyChecksum: 0n,
    walOffset: 0,
    walSize: 0,
    walSalt1: 0,
    walSalt2: 0,
    nodeId: 0n,
  };
}

function bytes(lengthBytes: number): LtxBytes {
  return { lengthBytes, pieces: () => [new Uint8Array(lengthBytes)] };
}

test("a full segment is followed by a new one, also when it was never synced", () => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-log-"));
  onTestFinished(() => fs.rmSync(directory, { recursive: true }));
  const log = TransactionLog.open(nodeFiles, directory);
  log.appendReceived(header(1), 1, 1, bytes(SEGMENT_BYTES));
  log.appendReceived(header(2), 2, 2, bytes(100));
  log.sync();
  expect(log.txid).toBe(2);
  const segments = nodeFiles.list(directory).filter((name) => name.endsWith(".seg"));
  expect(segments).toHaveLength(2);
  log.close();
});
