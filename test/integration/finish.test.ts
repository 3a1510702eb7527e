import { expect, test } from "vitest";
import { Cluster, cleanUpAfterEach } from "../support/cluster.ts";
import { startPython } from "../support/shell.ts";

cleanUpAfterEach();

/**
 * Does what SQLite does for a commit up to, and without, the update of the wal-index: takes the
 * write lock, appends one valid frame with a commit size, and dies.
 */
const DIE_BEFORE_THE_WAL_INDEX = `
import fcntl, os, struct, sys
name = PATH
shm = os.open(name + "-shm", os.O_RDWR)
wal = os.open(name + "-wal", os.O_RDWR)
fcntl.lockf(shm, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 120)
index = os.pread(shm, 48, 0)
frames, = struct.unpack_from("<I", index, 16)
header = os.pread(wal, 32, 0)
page_size, = struct.unpack_from(">I", header, 8)
frame_size = 24 + page_size
last = os.pread(wal, frame_size, 32 + (frames - 1) * frame_size)
s0, s1 = struct.unpack_from(">II", last, 16)
pgno, pages = struct.unpack_from(">II", last, 0)
page = last[24:].replace(b"before", b"after!")
assert page != last[24:]
head = struct.pack(">II", pgno, pages)
for data in (head, page):
    for i in range(0, len(data), 8):
        x0, x1 = struct.unpack_from("<II", data, i)
        s0 = (s0 + x0 + s1) & 0xffffffff
        s1 = (s1 + x1 + s0) & 0xffffffff
at = 32 + frames * frame_size
os.pwrite(wal, head + header[16:24] + struct.pack(">II", s0, s1), at)
os.pwrite(wal, page, at + 24)
os.kill(os.getpid(), 9)
`;

test("a commit whose writer dies before the wal-index shows it is finished for him", async () => {
  const cluster = await Cluster.start({ replicas: 1 });
  const { primary } = cluster;
  const db = cluster.connect(primary, "app.db");
  db.pragma("journal_mode = WAL");
  db.exec("CREATE TABLE t(x); INSERT INTO t VALUES ('before')");
  // This connection stays: nobody will recover the WAL, the wal-index is what counts.
  expect(db.prepare("SELECT x FROM t").pluck().get()).toBe("before");

  const script = DIE_BEFORE_THE_WAL_INDEX.replace("PATH", JSON.stringify(primary.file("app.db")));
  const { code } = await startPython(primary.file("app.db"), script);
  expect(code).not.toBe(0);

  // The death is known before the kernel has shown the new wal-index to everybody.
  await expect.poll(() => db.prepare("SELECT x FROM t").pluck().get()).toBe("after!");
  db.exec("INSERT INTO t VALUES ('next')");
  await cluster.waitForReplicas("app.db");
  const [replica] = cluster.replicas;
  const rows = cluster
    .connect(replica ?? primary, "app.db")
    .prepare("SELECT x FROM t")
    .pluck();
  expect(rows.all()).toEqual(["after!", "next"]);
  await cluster.verify();
});
