import * as fs from "node:fs";
import * as net from "node:net";
import * as path from "node:path";
import type { Database } from "../database/database.ts";
import { nodeFiles } from "../database/files.ts";
import type { DatabaseHost } from "../database/host.ts";
import { PageChecksums } from "../database/page-checksums.ts";
import { openDatabase } from "../database/recover.ts";
import { checksumFile } from "../database/whole-database.ts";
import { LitefsError } from "../lib/errors.ts";
import { silentLogger } from "../lib/log.ts";
import { formatChecksum, formatPosition } from "../lib/position.ts";
import { halvesToBigint } from "../ltx/crc64.ts";
import { checkIntegrity } from "./check-integrity.ts";
import { checkLog } from "./check-log.ts";
import { OverlayFiles } from "./check-overlay.ts";
import type { DatabaseCheck } from "./check-result.ts";
import { databasesIn } from "./data-directory.ts";

/** SQLite's own check needs the whole database in memory, since it must not write beside it. */
const INTEGRITY_MAX_BYTES = 1024 * 1024 * 1024;

export interface CheckDirectoryOptions {
  readonly dataDirectory: string;
  /** Only this database. */
  readonly name?: string | undefined;
}

/**
 * Checks the data directory of a node that does not run. What a start would recover is recovered
 * in memory and looked at; not a byte of the directory changes.
 */
export async function checkDirectory(options: CheckDirectoryOptions): Promise<DatabaseCheck[]> {
  const { dataDirectory } = options;
  await refuseRunning(dataDirectory);
  const names = listNames(dataDirectory).filter(
    (name) => options.name === undefined || name === options.name,
  );
  if (options.name !== undefined && names.length === 0) {
    throw new LitefsError("check", `no database "${options.name}" in ${dataDirectory}`);
  }
  return names.sort().map((name) => checkOne(name, path.join(dataDirectory, "dbs", name)));
}

function listNames(dataDirectory: string): string[] {
  try {
    fs.accessSync(dataDirectory, fs.constants.R_OK | fs.constants.X_OK);
  } catch (cause) {
    throw new LitefsError("check", `cannot read data directory ${dataDirectory}`, { cause });
  }
  return nodeFiles.list(databasesIn(dataDirectory, "check"));
}

function checkOne(name: string, directory: string): DatabaseCheck {
  const files = new OverlayFiles(nodeFiles);
  try {
    return inspect(name, directory, openDatabase(name, onlookerHost, files, directory));
  } finally {
    files.close();
  }
}

function inspect(name: string, directory: string, db: Database): DatabaseCheck {
  const { position, log } = db;
  const { pageSize, pageCount } = log.state;
  const problems: string[] = [];
  const notes: string[] = [];
  const chain = checkLog(directory, position);
  problems.push(...chain.problems);
  const isDeleted = db.status === "deleted";
  if (db.status === "quarantined") {
    problems.push(db.reason);
  } else if (pageCount > 0) {
    const file = db.files.getOrCreate("database");
    const sum = checksumFile(file, pageSize, pageCount, new PageChecksums());
    if (sum.hi !== log.checksumHi || sum.lo !== log.checksumLo) {
      problems.push(
        `the pages have checksum ${formatChecksum(halvesToBigint(sum.hi, sum.lo))}, ` +
          `the position is ${formatPosition(position)}`,
      );
    }
    const sizeBytes = pageCount * pageSize;
    if (sizeBytes > INTEGRITY_MAX_BYTES) {
      notes.push(`integrity_check needs a running node for a database of ${sizeBytes} bytes`);
    } else {
      const bytes = Buffer.alloc(sizeBytes);
      file.readAt(bytes, 0, sizeBytes, 0);
      // In memory there is no WAL: bytes 18 and 19 of the header say so.
      bytes.fill(1, 18, 20);
      problems.push(...checkIntegrity(bytes));
    }
  }
  const transactionCount = chain.transactionCount;
  return { name, position, pageCount, transactionCount, isDeleted, problems, notes };
}

/** A host that only looks on: nobody writes, and nobody is told. */
const onlookerHost: DatabaseHost = {
  isPrimary: () => false,
  mayCommit: () => false,
  historyEpoch: () => 0,
  nodeId: 0n,
  nowMs: () => Date.now(),
  logger: silentLogger,
  keepAside: { maxCount: Infinity, maxBytes: 0 },
  changed: () => undefined,
  retired: () => undefined,
};

/** Files that are being written would look damaged. */
async function refuseRunning(dataDirectory: string): Promise<void> {
  const address = path.join(dataDirectory, "lock.sock");
  if (!fs.existsSync(address)) return;
  const isAlive = await new Promise<boolean>((resolve) => {
    const socket = net.connect(address);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
  if (!isAlive) return;
  throw new LitefsError(
    "check",
    `a node runs on ${dataDirectory}; check it with -url, or stop it first`,
  );
}
