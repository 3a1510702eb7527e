import * as fs from "node:fs";
import * as path from "node:path";
import { nodeFiles } from "../database/files.ts";
import type { OpenFile } from "../database/files.ts";
import type { DatabaseHost } from "../database/host.ts";
import { DATABASE_PARTS } from "../database/keep-aside.ts";
import type { KeepAsideLimits } from "../database/keep-aside.ts";
import { TransactionLog } from "../database/log/transaction-log.ts";
import { PageChecksums } from "../database/page-checksums.ts";
import { QUARANTINE_MARK } from "../database/quarantine-mark.ts";
import { highestTxid, rebuildFromLog } from "../database/rebuild.ts";
import { openDatabase } from "../database/recover.ts";
import { checksumFile, databasePageCount, readDatabaseHeader } from "../database/whole-database.ts";
import { errorText, FormatError, LitefsError } from "../lib/errors.ts";
import { silentLogger } from "../lib/log.ts";
import { formatPosition, positionsEqual } from "../lib/position.ts";
import type { Position } from "../lib/position.ts";
import { halvesToBigint, bigintHi, bigintLo } from "../ltx/crc64.ts";
import { OverlayFiles } from "./check-overlay.ts";
import { exchange } from "./repair-exchange.ts";
import { copyAsSqliteSeesIt, download } from "./repair-sources.ts";

export type RepairMethod =
  /** From its own log; whatever else is needed is in the database file. */
  | { readonly kind: "rebuild" }
  /** What SQLite finds in the database file and its WAL is the truth. */
  | { readonly kind: "accept"; readonly isForced: boolean }
  /** The database of another node. */
  | { readonly kind: "from"; readonly url: string };

export interface RepairOptions {
  readonly dataDirectory: string;
  readonly name: string;
  readonly method: RepairMethod;
  readonly isDryRun: boolean;
  readonly limits: KeepAsideLimits;
  /** One line for whoever has asked for it. */
  readonly say: (line: string) => void;
}

/** Where the working copy is made: on the same file system, so that it can take its place. */
const WORK_DIRECTORY = "repair.tmp";

/** Resolves to whether the database is well, or with a dry run would be. */
export async function repairDatabase(options: RepairOptions): Promise<boolean> {
  const directory = path.join(options.dataDirectory, "dbs", options.name);
  if (!fs.statSync(directory, { throwIfNoEntry: false })?.isDirectory()) {
    throw new LitefsError("repair", `no database "${options.name}" in ${options.dataDirectory}`);
  }
  const repair = new Repair(options, directory);
  try {
    return await repair.run();
  } finally {
    repair.close();
  }
}

class Repair {
  readonly #options: RepairOptions;
  readonly #directory: string;
  readonly #work: string;
  readonly #host: DatabaseHost;

  constructor(options: RepairOptions, directory: string) {
    this.#options = options;
    this.#directory = directory;
    this.#work = path.join(directory, WORK_DIRECTORY);
    this.#host = {
      isPrimary: () => false,
      mayCommit: () => false,
      historyEpoch: () => 0,
      nodeId: 0n,
      nowMs: () => Date.now(),
      logger: silentLogger,
      keepAside: options.limits,
      changed: () => undefined,
      retired: () => undefined,
    };
    this.close();
    fs.mkdirSync(this.#work);
  }

  /** Only the working copy. */
  close(): void {
    fs.rmSync(this.#work, { recursive: true, force: true });
  }

  async run(): Promise<boolean> {
    const { method } = this.#options;
    if (method.kind === "from") return await this.#takeFrom(method.url);
    if (method.kind === "accept") return this.#accept(method.isForced);
    return this.#isWell() || this.#rebuild();
  }

  /** Nothing but an earlier finding may keep it from being opened. */
  #isWell(): boolean {
    const { name, isDryRun, say } = this.#options;
    const files = new OverlayFiles(nodeFiles);
    const mark = path.join(this.#directory, QUARANTINE_MARK);
    try {
      files.remove(mark);
      const db = openDatabase(name, this.#host, files, this.#directory);
      if (db.status === "quarantined") {
        say(db.reason);
        return false;
      }
      const { position, log } = db;
      const { pageSize, pageCount } = log.state;
      if (pageCount > 0) {
        const file = db.files.getOrCreate("database");
        const sum = checksumFile(file, pageSize, pageCount, new PageChecksums());
        if (sum.hi !== log.checksumHi || sum.lo !== log.checksumLo) {
          say(`the pages do not have the checksum of the position ${formatPosition(position)}`);
          return false;
        }
      }
      say(`is well, at ${formatPosition(position)}; nothing was replaced`);
    } finally {
      files.close();
    }
    if (!isDryRun) fs.rmSync(mark, { force: true });
    return true;
  }

  #rebuild(): boolean {
    const { name, say } = this.#options;
    const files = new OverlayFiles(nodeFiles);
    try {
      const target = this.#copyDatabase();
      try {
        const rebuilt = rebuildFromLog(name, this.#host, files, this.#directory, target);
        if (!rebuilt.isRight) {
          say(
            `its log has ${rebuilt.transactionCount} transactions, and not all that is damaged is in them`,
          );
          return this.#sayWhatElse();
        }
        target.sync();
        const { transactionCount: count, position } = rebuilt;
        say(`rebuilt from ${count} transactions of its log, at ${formatPosition(position)}`);
      } finally {
        target.close();
      }
    } catch (error) {
      if (!(error instanceof FormatError)) throw error;
      say(`cannot be rebuilt from its log: ${errorText(error)}`);
      return this.#sayWhatElse();
    } finally {
      files.close();
    }
    this.#putInPlace(["database", "journal", "wal", QUARANTINE_MARK]);
    return true;
  }

  #sayWhatElse(): false {
    const { say, name } = this.#options;
    const command = `litefs repair -name ${name}`;
    say(`"${command} -from URL" takes it from another node, such as a replica that is well`);
    say(`"${command} -accept" goes on with what SQLite finds in the file, as a new history`);
    return false;
  }

  /** The database file as it is; an empty one in its place if there is none. */
  #copyDatabase(): OpenFile {
    const source = path.join(this.#directory, "database");
    const target = path.join(this.#work, "database");
    if (fs.statSync(source, { throwIfNoEntry: false })?.isFile() === true) {
      fs.copyFileSync(source, target, fs.constants.COPYFILE_FICLONE);
    }
    const file = nodeFiles.open(target, { create: true });
    if (file === undefined) throw new LitefsError("repair", `cannot create ${target}`);
    return file;
  }

  #accept(isForced: boolean): boolean {
    const { say } = this.#options;
    const problems = copyAsSqliteSeesIt(this.#directory, this.#work);
    for (const problem of problems) say(problem);
    if (problems.length > 0 && !isForced) {
      say("SQLite itself finds damage in the file: take another copy with -from, or use -force");
      return false;
    }
    const known = this.#positionOfLog();
    const position = this.#beginLog((checksum) =>
      // What the log says is what is there: the same position, so replicas need no snapshot.
      known?.checksum === checksum ? known.txid : this.#nextTxid(),
    );
    if (known !== undefined && positionsEqual(known, position)) {
      say(
        `the file has all transactions through ${formatPosition(position)}; a new log begins there`,
      );
    } else this.#sayNewHistory(position, known);
    this.#putInPlace(this.#everything());
    return true;
  }

  async #takeFrom(url: string): Promise<boolean> {
    const { name, say } = this.#options;
    const problems = await download(url, name, path.join(this.#work, "database"));
    const known = this.#positionOfLog();
    if (problems.problems.length > 0) {
      for (const problem of problems.problems) say(`on ${url}: ${problem}`);
      return false;
    }
    const { position: theirs } = problems;
    const position = this.#beginLog((checksum) => {
      const isTheirs = theirs !== undefined && theirs.checksum === checksum;
      return isTheirs ? theirs.txid : this.#nextTxid();
    });
    if (theirs !== undefined && positionsEqual(theirs, position)) {
      say(
        `taken from ${url} at ${formatPosition(position)}; replicas at that position go on from it`,
      );
      this.#sayWhatIsLost(position, known);
    } else this.#sayNewHistory(position, known);
    this.#putInPlace(this.#everything());
    return true;
  }

  #sayNewHistory(position: Position, known: Position | undefined): void {
    const { say } = this.#options;
    say(`a new history begins at ${formatPosition(position)}; replicas get it as a snapshot`);
    this.#sayWhatIsLost(position, known);
  }

  #sayWhatIsLost(position: Position, known: Position | undefined): void {
    const { say } = this.#options;
    const highest = highestTxid(nodeFiles, this.#directory);
    if (known === undefined) {
      say(`its log cannot be read to the end; the last transaction that it tells of is ${highest}`);
      say("what of it is not in the copy that is taken now is lost, and stays in what is kept");
    } else if (known.txid > position.txid) {
      say(`transactions ${position.txid + 1} to ${known.txid} are lost, and stay in what is kept`);
    } else if (!positionsEqual(known, position)) {
      say(`what the log says of ${formatPosition(known)} and is not in the copy is lost`);
    }
  }

  /** Where the log ends, if it can be read to its end. */
  #positionOfLog(): Position | undefined {
    const files = new OverlayFiles(nodeFiles);
    try {
      const log = TransactionLog.open(files, path.join(this.#directory, "log"));
      return log.isEmpty ? undefined : log.position;
    } catch (error) {
      if (error instanceof FormatError) return undefined;
      throw error;
    } finally {
      files.close();
    }
  }

  #nextTxid(): number {
    return highestTxid(nodeFiles, this.#directory) + 1;
  }

  /** A log that begins with what the working copy holds. */
  #beginLog(txidFor: (checksum: bigint) => number): Position {
    const file = nodeFiles.open(path.join(this.#work, "database"));
    if (file === undefined) throw new LitefsError("repair", "the working copy is gone");
    try {
      const header = readDatabaseHeader(file);
      if (header instanceof FormatError) throw header;
      const { pageSize } = header;
      const pageCount = databasePageCount(header, file.size());
      file.truncate(pageCount * pageSize);
      const sum = checksumFile(file, pageSize, pageCount, new PageChecksums());
      file.sync();
      const checksum = halvesToBigint(sum.hi, sum.lo);
      const txid = txidFor(checksum);
      const log = TransactionLog.open(nodeFiles, path.join(this.#work, "log"));
      log.appendBase(
        { txid, hi: bigintHi(checksum), lo: bigintLo(checksum) },
        { pageSize, pageCount, timestampMs: Date.now(), durableTxid: txid },
      );
      log.close();
      return { txid, checksum };
    } finally {
      file.close();
    }
  }

  /** All that belongs to the history that ends. */
  #everything(): string[] {
    const names = nodeFiles.list(this.#directory);
    const snapshots = names.filter((name) => /^snapshot-[0-9a-f]{16}\.ltx$/.test(name));
    return [...DATABASE_PARTS, ...snapshots];
  }

  #putInPlace(parts: readonly string[]): void {
    const { name, isDryRun, say } = this.#options;
    if (isDryRun) {
      say("dry run: nothing was changed");
      return;
    }
    const kept = exchange(name, this.#host, this.#directory, this.#work, parts);
    say(`mended; what was there is kept in ${kept}`);
  }
}
