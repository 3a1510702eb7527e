import * as fs from "node:fs";
import { describe, expect, test } from "vitest";
import { Cluster, cleanUpAfterEach, waitFor } from "../support/cluster.ts";
import { python, startPython } from "../support/shell.ts";
import type { ShellResult } from "../support/shell.ts";

cleanUpAfterEach();

/**
 * Does what SQLite does for a commit up to, and without, the update of the wal-index: takes the
 * locks, and, when it is told to, appends a valid transaction of FRAMES frames, the last of which
 * carries the commit size. Then it stays as it is until it is killed.
 */
const COMMIT_WITHOUT_THE_WAL_INDEX = `
import fcntl, struct
name = sys.argv[1]
signal = name.replace("/mnt/", "/")
db.close()
main = os.open(name, os.O_RDWR)
wal = os.open(name + "-wal", os.O_RDWR)
shm = os.open(name + "-shm", os.O_RDWR)
fcntl.lockf(main, fcntl.LOCK_SH | fcntl.LOCK_NB, 510, 0x40000002)
open(signal + ".locked", "w").close()
while not os.path.exists(signal + ".go"): time.sleep(0.005)
if EXCLUSIVE: fcntl.lockf(main, fcntl.LOCK_EX | fcntl.LOCK_NB, 510, 0x40000002)
fcntl.lockf(shm, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 120)
header = os.pread(wal, 32, 0)
page_size, = struct.unpack_from(">I", header, 8)
frame_size = 24 + page_size
frames = 0
newest = {}
while True:
  frame = os.pread(wal, frame_size, 32 + frames * frame_size)
  if len(frame) < frame_size or frame[8:16] != header[16:24]: break
  newest[struct.unpack_from(">I", frame)[0]] = frame
  last = frame
  frames += 1
pages, s0, s1 = struct.unpack(">I8xII", last[4:24])
row = next(pgno for pgno, frame in newest.items() if b"before" in frame[24:])
order = [pgno for pgno in newest if pgno != row] + [row]
for pgno in order[-FRAMES:]:
  page = newest[pgno][24:].replace(b"before", b"after!")
  head = struct.pack(">II", pgno, pages if pgno == row else 0)
  for data in (head, page):
    for i in range(0, len(data), 8):
      x0, x1 = struct.unpack_from("<II", data, i)
      s0 = (s0 + x0 + s1) & 0xffffffff
      s1 = (s1 + x1 + s0) & 0xffffffff
  at = 32 + frames * frame_size
  os.pwrite(wal, head + header[16:24] + struct.pack(">II", s0, s1), at)
  os.pwrite(wal, page, at + 24)
  frames += 1
open(signal + ".committed", "w").close()
while True: time.sleep(1)
`;

interface Options {
  readonly frames?: number;
  /** Somebody else has the database open: nobody will recover the WAL, its index is what counts. */
  readonly isWatched: boolean;
  readonly isExclusive?: boolean;
}

/** A cluster with a commit on its primary of which the wal-index does not tell. */
class Unfinished {
  readonly cluster: Cluster;
  readonly #stop = new AbortController();
  readonly #writer: Promise<ShellResult>;

  private constructor(cluster: Cluster, program: string) {
    this.cluster = cluster;
    this.#writer = startPython(cluster.primary.file("app.db"), program, this.#stop.signal);
  }

  static async create({
    frames = 1,
    isWatched,
    isExclusive = false,
  }: Options): Promise<Unfinished> {
    const cluster = await Cluster.start({ replicas: 1 });
    const db = cluster.connect(cluster.primary, "app.db");
    db.pragma("journal_mode = WAL");
    db.exec("CREATE TABLE t(x); INSERT INTO t VALUES ('before'); CREATE TABLE other(y)");
    expect(db.prepare("SELECT x FROM t").pluck().get()).toBe("before");
    const program = COMMIT_WITHOUT_THE_WAL_INDEX.replace("FRAMES", String(frames));
    const exclusive = isExclusive ? "True" : "False";
    const unfinished = new Unfinished(cluster, program.replace("EXCLUSIVE", exclusive));
    await unfinished.#told("locked");
    if (!isWatched) cluster.closeConnections();
    fs.writeFileSync(unfinished.#signal("go"), "");
    await unfinished.#told("committed");
    return unfinished;
  }

  #signal(name: string): string {
    return `${this.cluster.primary.options.directory}/app.db.${name}`;
  }

  async #told(name: string): Promise<void> {
    const file = this.#signal(name);
    await waitFor(`the writer to have ${name}`, 30_000, () =>
      fs.existsSync(file) ? undefined : "it has not",
    );
  }

  /** kill -9 of the writer. */
  async killWriter(): Promise<void> {
    this.#stop.abort();
    expect((await this.#writer).stderr).toBe("");
  }

  /** Others see the commit and go on, and all nodes have the same. */
  async expectFinished(): Promise<void> {
    const { cluster } = this;
    const db = cluster.connect(cluster.primary, "app.db");
    const rows = db.prepare("SELECT x FROM t").pluck();
    // The death is known before the kernel has shown the new wal-index to everybody.
    await expect.poll(() => rows.all()).toEqual(["after!"]);
    db.exec("INSERT INTO t VALUES ('next')");
    python(cluster.primary.file("app.db"), `db.execute("INSERT INTO t VALUES ('and again')")`);
    await cluster.waitForReplicas("app.db");
    const replica = cluster.connect(cluster.replica, "app.db");
    const expected = ["after!", "next", "and again"];
    expect(replica.prepare("SELECT x FROM t").pluck().all()).toEqual(expected);
    expect(rows.all()).toEqual(expected);
    await cluster.verify();
  }
}

describe("a commit that the wal-index does not show yet", () => {
  for (const frames of [1, 3]) {
    for (const isWatched of [true, false]) {
      const others = isWatched ? "others watch" : "nobody else has it open";
      test(`its writer dies after ${frames} frames, and ${others}`, async () => {
        const unfinished = await Unfinished.create({ frames, isWatched });
        await unfinished.killWriter();
        await unfinished.expectFinished();
      });
    }
  }

  test("its writer, with locking_mode=EXCLUSIVE, dies", async () => {
    const unfinished = await Unfinished.create({ isWatched: false, isExclusive: true });
    await unfinished.killWriter();
    await unfinished.expectFinished();
  });

  test("litefs is killed, and its writer dies after that", async () => {
    const unfinished = await Unfinished.create({ frames: 2, isWatched: false });
    const { primary } = unfinished.cluster;
    await primary.kill();
    await unfinished.killWriter();
    await primary.start();
    await unfinished.expectFinished();
  });

  test("litefs is killed and comes back while its writer lives", async () => {
    const unfinished = await Unfinished.create({ frames: 2, isWatched: false });
    const { primary } = unfinished.cluster;
    await primary.kill();
    await primary.start();
    await unfinished.expectFinished();
    await unfinished.killWriter();
    await unfinished.cluster.verify();
  });

  test("litefs and its writer are killed at once, and the replica with them", async () => {
    const unfinished = await Unfinished.create({ frames: 2, isWatched: false });
    const { primary, replica } = unfinished.cluster;
    await Promise.all([primary.kill(), unfinished.killWriter(), replica.kill()]);
    await primary.start();
    await replica.start();
    await unfinished.expectFinished();
  });
});
