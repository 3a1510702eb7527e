import * as path from "node:path";
import { listHistories } from "../../../src/cli/histories.ts";
import type { OpenFile } from "../../../src/database/files.ts";
import { nodeFiles } from "../../../src/database/files.ts";
import {
  decodeRecordHeader,
  parseSegmentName,
  RECORD_HEADER_SIZE,
  RECORD_KIND,
} from "../../../src/database/log/record.ts";
import { readLtxFile } from "../../../src/database/ltx-to-file.ts";
import { formatPosition } from "../../../src/lib/position.ts";
import type { TestNode } from "../../support/test-node.ts";
import type { DivergedHistory } from "./history.ts";
import { ROW_KEYS } from "./history.ts";

/** A transaction of some log. */
interface Transaction {
  readonly txid: number;
  /** The position before and after it. */
  readonly from: string;
  readonly to: string;
  /** All rows that stand on its pages, as `rowKey`. */
  readonly rows: readonly string[];
}

export interface Branches {
  readonly histories: readonly DivergedHistory[];
  /** In which transaction of the history that won a row came; empty when its log is not whole. */
  readonly txids: ReadonlyMap<string, number>;
  /** Transactions on which the logs of the nodes do not agree. */
  readonly conflicts: readonly string[];
}

/** What the logs of all nodes have of one database, and what they have kept aside. */
export function readBranches(nodes: readonly TestNode[], database: string): Branches {
  const winner = new Map<number, Transaction>();
  const conflicts: string[] = [];
  for (const node of nodes) {
    for (const transaction of readLog(node.dataFile(database, "log"))) {
      const other = winner.get(transaction.txid);
      if (other !== undefined && other.to !== transaction.to) {
        conflicts.push(`${database}: ${node.name} has ${transaction.to}, another ${other.to}`);
      }
      winner.set(transaction.txid, transaction);
    }
  }
  const histories = nodes.flatMap((node) =>
    listHistories(node.dataDirectory, database).map((history) => {
      const directory = node.dataFile(database, path.join("diverged", history.name, "log"));
      return readHistory(node.name, database, history.name, readLog(directory), winner);
    }),
  );
  return { histories, txids: firstSeen(winner), conflicts };
}

function readHistory(
  node: string,
  database: string,
  name: string,
  transactions: readonly Transaction[],
  winner: ReadonlyMap<number, Transaction>,
): DivergedHistory {
  const rows = new Set(transactions.flatMap((transaction) => transaction.rows));
  const own = transactions.find(({ txid, from, to }) => {
    const other = winner.get(txid);
    return other !== undefined && other.from === from && other.to !== to;
  });
  return { node, database, name, forkTxid: own === undefined ? undefined : own.txid - 1, rows };
}

/** Only of a log that has every transaction is it known in which one a row came. */
function firstSeen(transactions: ReadonlyMap<number, Transaction>): Map<string, number> {
  const seen = new Map<string, number>();
  for (let txid = 1; txid <= transactions.size; txid++) {
    const transaction = transactions.get(txid);
    if (transaction === undefined) return new Map();
    for (const row of transaction.rows) if (!seen.has(row)) seen.set(row, txid);
  }
  return seen;
}

function readLog(directory: string): Transaction[] {
  const transactions: Transaction[] = [];
  const names = nodeFiles.list(directory).filter((name) => parseSegmentName(name) !== undefined);
  for (const name of names.sort()) {
    const file = nodeFiles.open(path.join(directory, name), { readOnly: true });
    if (file === undefined) continue;
    try {
      readSegment(file, transactions);
    } finally {
      file.close();
    }
  }
  return transactions;
}

function readSegment(file: OpenFile, transactions: Transaction[]): void {
  const bytes = new Uint8Array(RECORD_HEADER_SIZE);
  for (let offset = 0; offset < file.size();) {
    const count = file.readAt(bytes, 0, bytes.length, offset);
    const record = decodeRecordHeader(bytes.subarray(0, count), 0);
    if (record === undefined) return;
    const start = offset + RECORD_HEADER_SIZE;
    if (record.kind === RECORD_KIND.transaction) {
      transactions.push(readTransaction(file, start, record.payloadLength));
    }
    offset = start + record.payloadLength;
  }
}

function readTransaction(file: OpenFile, offset: number, lengthBytes: number): Transaction {
  const rows: string[] = [];
  const { header, trailer } = readLtxFile(file, offset, lengthBytes, (_, page) => {
    const text = Buffer.from(page.buffer, page.byteOffset, page.length).toString("latin1");
    for (const [row] of text.matchAll(ROW_KEYS)) rows.push(row);
  });
  return {
    txid: header.maxTxid,
    from: formatPosition({ txid: header.minTxid - 1, checksum: header.preApplyChecksum }),
    to: formatPosition({ txid: header.maxTxid, checksum: trailer.postApplyChecksum }),
    rows,
  };
}
