import type { Database } from "../../../src/database/database.ts";
import { LocalWal } from "../../../src/database/local-wal.ts";
import { LogReader } from "../../../src/database/log/log-reader.ts";
import { openDatabase } from "../../../src/database/recover.ts";
import { decodeShelved, encodeShelved } from "../../../src/database/shelf-file.ts";
import { shelve, takeFromShelf } from "../../../src/database/shelved-database.ts";
import { decodeRecordHeader, RECORD_HEADER_SIZE } from "../../../src/database/log/record.ts";
import type { Job } from "../../../src/database/host.ts";
import { runJob } from "../../../src/database/host.ts";
import { FakeDisk, PowerCut } from "../database/support/fake-disk.ts";
import type { Random } from "../database/support/fake-disk.ts";
import { FakeKernel, FakeLocks } from "../database/support/fake-mount.ts";
import { FakeHost } from "../database/support/node.ts";
import { Violation } from "./oracle.ts";

const DATABASES = "/data/dbs";

/** The kernel may take its time with notifications. */
class SlowKernel extends FakeKernel {
  isSlow = false;
  readonly #waiting: (() => void)[] = [];
  override settled(then: () => void): void {
    if (this.isSlow) this.#waiting.push(then);
    else then();
  }
  catchUp(): void {
    this.isSlow = false;
    for (const then of this.#waiting.splice(0)) then();
  }
}

/** One database as the mount thread has it. */
export class SimDatabase {
  readonly db: Database;
  readonly kernel: SlowKernel = new SlowKernel();
  readonly locks: FakeLocks = new FakeLocks();
  readonly local: LocalWal;
  readonly reader: LogReader;
  /** A job is under way: the next one waits for it. */
  isBusy = false;

  constructor(db: Database, reader: LogReader) {
    this.db = db;
    db.kernel = this.kernel;
    this.local = new LocalWal(db, this.locks);
    this.reader = reader;
  }

  /** Readers leave and the kernel answers: no job has anything left to wait for. */
  unblock(): void {
    while (this.isBusy) {
      this.kernel.catchUp();
      this.locks.release();
    }
  }
}

/** A node of the cluster: its disk, and what its process knows. */
export class SimNode {
  readonly name: string;
  disk: FakeDisk = new FakeDisk();
  host: FakeHost = new FakeHost();
  isUp = false;
  /** Incremented at each start: what was begun before it is void. */
  life = 0;
  readonly databases: Map<string, SimDatabase> = new Map<string, SimDatabase>();
  /** Left by an orderly stop, or by a start, for the start after it. */
  #shelf = new Map<string, string>();
  /** How many databases were taken from it. */
  takenFromShelf = 0;

  constructor(name: string) {
    this.name = name;
    this.disk.mkdir(DATABASES);
    this.disk.syncAll();
  }

  boot(isPrimary: boolean): void {
    this.life++;
    this.databases.clear();
    const { now } = this.host;
    this.host = new FakeHost();
    this.host.now = now;
    this.host.primary = isPrimary;
    this.host.epoch = 0;
    this.isUp = true;
    for (const name of this.disk.list(DATABASES).sort()) this.open(name);
    this.#shelf.clear();
    for (const { db } of this.databases.values()) this.#putOnShelf(db);
  }

  #putOnShelf(db: Database): void {
    const shelved = shelve(db);
    if (shelved !== undefined) this.#shelf.set(db.name, encodeShelved(shelved));
  }

  #takeFromShelf(name: string, directory: string): Database | undefined {
    const line = this.#shelf.get(name);
    if (line === undefined) return undefined;
    const db = takeFromShelf(decodeShelved(line), this.host, this.disk, directory);
    if (db !== undefined) this.takenFromShelf++;
    return db;
  }

  open(name: string): SimDatabase {
    const known = this.databases.get(name);
    if (known !== undefined) return known;
    const directory = `${DATABASES}/${name}`;
    this.disk.mkdir(directory);
    const db =
      this.#takeFromShelf(name, directory) ?? openDatabase(name, this.host, this.disk, directory);
    // What the disk refused while it died is no outcome.
    if (this.disk.isDead) throw new PowerCut("the power went during the start");
    const opened = new SimDatabase(db, new LogReader(this.disk, directory));
    this.databases.set(name, opened);
    return opened;
  }

  /** An operator removes a database that cannot be mended. */
  wipe(name: string): void {
    this.databases.get(name)?.db.close();
    this.databases.delete(name);
    this.disk.removeDirectory(`${DATABASES}/${name}`);
    this.disk.syncAll();
  }

  /**
   * Changes a bit in a record of a log that has others behind it; undefined if there is none, or if
   * nobody can tell that the machine has stayed up since. Returns what changes it back.
   */
  rot(name: string, random: Random): (() => void) | undefined {
    const directory = `${DATABASES}/${name}/log`;
    const segment = this.disk
      .list(directory)
      .filter((file) => file.endsWith(".seg"))
      .sort()
      .at(-1);
    const mark = this.disk.size(`${directory}/boot`) ?? 0;
    if (segment === undefined || mark === 0) return undefined;
    const boot = Buffer.from(this.disk.content(`${directory}/boot`)).toString("latin1");
    if (boot !== this.disk.bootId()) return undefined;
    const bytes = this.disk.content(`${directory}/${segment}`);
    const records: { start: number; end: number }[] = [];
    for (let start = 0; ;) {
      const header = decodeRecordHeader(bytes, start);
      if (header === undefined) break;
      const end = start + RECORD_HEADER_SIZE + header.payloadLength;
      records.push({ start, end });
      start = end;
    }
    // Not the first: a segment without a head is another case.
    const chosen = records.slice(1, -1)[random.below(Math.max(1, records.length - 2))];
    if (chosen === undefined) return undefined;
    const at = chosen.start + random.below(chosen.end - chosen.start);
    const flip = (): void => {
      const file = this.disk.open(`${directory}/${segment}`);
      const byte = new Uint8Array(1);
      file?.readAt(byte, 0, 1, at);
      byte[0] = (byte[0] ?? 0) ^ 0x10;
      file?.writeAt(byte, 0, 1, at);
      file?.sync();
      file?.close();
    };
    flip();
    return flip;
  }

  /** Everything is closed in order, as at a stop on purpose. */
  stop(): void {
    for (const [name, { db }] of this.databases) {
      db.close();
      this.#shelf.delete(name);
      this.#putOnShelf(db);
    }
    for (const files of this.host.retiredFiles) files.closeAll();
    if (this.disk.isDead) throw new PowerCut("the power went during the stop");
    if (this.disk.openHandles > 0) {
      throw new Violation(`${this.name} stopped with ${this.disk.openHandles} files open`);
    }
    this.disk = this.disk.kill();
    this.isUp = false;
  }

  crash(kind: "power" | "kill", random: Random): void {
    this.disk = kind === "power" ? this.disk.powerCut(random) : this.disk.kill();
    // Only while the machine is up can it be told what was written since.
    if (kind === "power") this.#shelf.clear();
    this.isUp = false;
  }

  /** Runs a job of a database; `done` comes now or when what it waits for has come. */
  run<T>(at: SimDatabase, job: Job<T>, done: (result: T) => void): void {
    at.isBusy = true;
    const { life } = this;
    let failure: { error: unknown } | undefined;
    runJob(
      job,
      (result) => {
        at.isBusy = false;
        if (life === this.life && this.isUp && !this.disk.isDead) done(result);
      },
      (error) => {
        at.isBusy = false;
        failure = { error };
      },
    );
    if (failure !== undefined) throw failure.error;
  }

  /** Nobody has the database open: descriptors are given back. */
  releaseFiles(at: SimDatabase): void {
    if (at.locks.opens > 0 || at.isBusy) return;
    at.db.files.closeAll();
    at.db.log.release();
  }
}
