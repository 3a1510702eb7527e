import { spawn } from "node:child_process";
import * as fs from "node:fs";
import * as path from "node:path";
import Database from "better-sqlite3";
import { describe, expect, test } from "vitest";
import { cleanUpAfterEach, Cluster, listDatabases, waitFor } from "../support/cluster.ts";
import { python, shell, tryShell } from "../support/shell.ts";
import type { TestNode } from "../support/test-node.ts";
import { PYTHON } from "../support/python-path.ts";

cleanUpAfterEach();

function createTable(file: string, rows: number, mode = "WAL"): void {
  const db = new Database(file);
  db.pragma(`journal_mode=${mode}`);
  db.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, x)");
  const insert = db.prepare("INSERT INTO t(x) VALUES (randomblob(500))");
  db.transaction(() => {
    for (let i = 0; i < rows; i++) insert.run();
  })();
  db.close();
}

function countRows(file: string): number {
  const db = new Database(file);
  try {
    return Number(db.prepare("SELECT count(*) FROM t").pluck().get());
  } finally {
    db.close();
  }
}

async function waitForRows(node: TestNode, name: string, rows: number): Promise<void> {
  await waitFor(`${rows} rows in ${name} on ${node.name}`, 20_000, () => {
    if (!fs.existsSync(node.file(name))) return "no such file";
    const count = countRows(node.file(name));
    return count === rows ? undefined : `${count} rows`;
  });
}

async function waitForNone(node: TestNode, name: string): Promise<void> {
  await waitFor(`${name} to go on ${node.name}`, 20_000, () =>
    fs.existsSync(node.file(name)) ? "it is there" : undefined,
  );
}

/** What a file system has to offer, each line checked by the program itself. */
const EXERCISE = `
import errno, mmap, os, stat, sys
os.chdir(sys.argv[1])
def fails(number, f, *args):
    try: f(*args)
    except OSError as e: assert e.errno == number, (e, number)
    else: assert False, (f, args)
def write(name, text):
    with open(name, "w") as f: f.write(text)
def read(name):
    with open(name) as f: return f.read()
write("notes.txt", "hello")
assert read("notes.txt") == "hello"
with open("notes.txt", "a") as f: f.write(" world")
assert read("notes.txt") == "hello world"
write("notes.txt", "short")
assert read("notes.txt") == "short"
fails(errno.EEXIST, os.open, "notes.txt", os.O_CREAT | os.O_EXCL | os.O_RDWR)
os.truncate("notes.txt", 3); assert read("notes.txt") == "sho"
os.truncate("notes.txt", 5000); assert os.stat("notes.txt").st_size == 5000
os.mkdir("up"); os.mkdir("up/loads")
write("up/loads/a.png", "png")
fails(errno.ENOTEMPTY, os.rmdir, "up")
fails(errno.ENOENT, os.stat, "up/nothing")
fails(errno.ENOTDIR, os.stat, "notes.txt/x")
fails(errno.ENAMETOOLONG, os.mkdir, "x" * 256)
os.rename("up/loads/a.png", "up/b.png"); assert read("up/b.png") == "png"
write("up/c.png", "other"); os.replace("up/c.png", "up/b.png"); assert read("up/b.png") == "other"
os.rename("up", "moved"); assert sorted(os.listdir("moved")) == ["b.png", "loads"]
assert read("moved/b.png") == "other"
os.symlink("moved/b.png", "link"); assert os.readlink("link") == "moved/b.png"
assert read("link") == "other"
os.chmod("notes.txt", 0o640); assert stat.S_IMODE(os.stat("notes.txt").st_mode) == 0o640
os.chown("notes.txt", 1234, 4321)
assert (os.stat("notes.txt").st_uid, os.stat("notes.txt").st_gid) == (1234, 4321)
os.utime("notes.txt", (1000000000, 1100000000))
assert (os.stat("notes.txt").st_atime, os.stat("notes.txt").st_mtime) == (1000000000, 1100000000)
fails(errno.ENOTSUP, os.getxattr, "notes.txt", "user.a")
fails(errno.EPERM, os.link, "notes.txt", "hard")
fd = os.open("gone", os.O_CREAT | os.O_RDWR); os.write(fd, b"still here"); os.unlink("gone")
assert os.pread(fd, 100, 0) == b"still here" and os.fstat(fd).st_size == 10
os.close(fd); assert not os.path.exists("gone")
with open("mapped", "w+b") as f:
    f.truncate(10000)
    m = mmap.mmap(f.fileno(), 10000); m[9000:9005] = b"12345"; m.flush(); m.close()
with open("mapped", "rb") as f: f.seek(9000); assert f.read(5) == b"12345"
d = os.open("moved", os.O_RDONLY); os.fsync(d); os.close(d)
with open("notes.txt", "r+") as f: f.write("kept"); f.flush(); os.fsync(f.fileno())
assert os.statvfs(".").f_blocks > 0
print("done")
`;

test("ordinary files and directories are those of this node, on every node", async () => {
  const cluster = await Cluster.start({ replicas: 1 });
  createTable(cluster.primary.file("app.db"), 3);
  for (const node of cluster.nodes) {
    expect(shell(PYTHON, ["-c", EXERCISE, node.mountPoint])).toBe("done");
  }
  await cluster.waitForReplicas("app.db");
  expect((await listDatabases(cluster.primary)).map(({ name }) => name)).toEqual(["app.db"]);
  await cluster.primary.restart();
  for (const node of cluster.nodes) {
    expect(fs.readFileSync(node.file("notes.txt"), "latin1").slice(0, 4)).toBe("kept");
    expect(fs.statSync(node.file("notes.txt")).mode & 0o777).toBe(0o640);
    const names = fs.readdirSync(node.mountPoint, { withFileTypes: true });
    expect(names.filter((entry) => entry.isDirectory()).map(({ name }) => name)).toEqual(["moved"]);
    expect(names.filter((entry) => entry.isSymbolicLink()).map(({ name }) => name)).toEqual([
      "link",
    ]);
    expect(fs.readFileSync(node.file("link"), "latin1")).toBe("other");
  }
  await cluster.verify();
});

test("a file is a database from the moment it begins like one", async () => {
  const cluster = await Cluster.start({ replicas: 1 });
  const { primary, replica } = cluster;
  const outside = path.join(cluster.directory, "outside.db");
  createTable(outside, 7, "DELETE");
  // Back to front, with the header last.
  const bytes = fs.readFileSync(outside);
  const fd = fs.openSync(primary.file("pieces.db"), "w");
  fs.writeSync(fd, bytes, 4096, bytes.length - 4096, 4096);
  expect((await listDatabases(primary)).map(({ name }) => name)).toEqual([]);
  fs.writeSync(fd, bytes, 0, 4096, 0);
  fs.closeSync(fd);
  await waitForRows(replica, "pieces.db", 7);
  // Emptied and filled with something else, it is an ordinary file again.
  fs.writeFileSync(primary.file("pieces.db"), "just text");
  await waitForNone(replica, "pieces.db");
  expect(fs.readFileSync(primary.file("pieces.db"), "latin1")).toBe("just text");
  // And back.
  shell("cp", [outside, primary.file("pieces.db")]);
  await waitForRows(replica, "pieces.db", 7);
  // Emptied only, it is the empty file in which SQLite may make a database.
  fs.writeFileSync(primary.file("pieces.db"), "");
  await waitForNone(replica, "pieces.db");
  expect(fs.statSync(primary.file("pieces.db")).size).toBe(0);
  createTable(primary.file("pieces.db"), 2);
  await waitForRows(replica, "pieces.db", 2);
  await cluster.verify();
});

describe("rename", () => {
  test("of a database is replicated, also over another and out of the root", async () => {
    const cluster = await Cluster.start({ replicas: 1 });
    const { primary, replica } = cluster;
    createTable(primary.file("a.db"), 5);
    fs.renameSync(primary.file("a.db"), primary.file("b.db"));
    await waitForRows(replica, "b.db", 5);
    await waitForNone(replica, "a.db");
    expect(fs.readdirSync(primary.mountPoint).filter((name) => name.startsWith("a.db"))).toEqual(
      [],
    );
    createTable(primary.file("new.db"), 9, "DELETE");
    await waitForRows(replica, "new.db", 9);
    const reader = cluster.connect(replica, "b.db");
    expect(reader.prepare("SELECT count(*) FROM t").pluck().get()).toBe(5);
    fs.renameSync(primary.file("new.db"), primary.file("b.db"));
    await waitForRows(replica, "b.db", 9);
    await waitFor("the open reader to see it", 20_000, () => {
      const count = Number(reader.prepare("SELECT count(*) FROM t").pluck().get());
      return count === 9 ? undefined : `${count} rows`;
    });
    fs.mkdirSync(primary.file("old"));
    fs.renameSync(primary.file("b.db"), primary.file("old/b.db"));
    await waitForNone(replica, "b.db");
    expect(countRows(primary.file("old/b.db"))).toBe(9);
    fs.renameSync(primary.file("old/b.db"), primary.file("c.db"));
    await waitForRows(replica, "c.db", 9);
    const db = new Database(primary.file("c.db"));
    db.exec("INSERT INTO t(x) VALUES (1)");
    db.close();
    await waitForRows(replica, "c.db", 10);
    await cluster.verify();
  });

  test("cp and mv over a database that is in use replaces it in one step", async () => {
    const cluster = await Cluster.start({ replicas: 1 });
    const { primary, replica } = cluster;
    createTable(primary.file("app.db"), 5);
    const db = cluster.connect(primary, "app.db");
    db.exec("INSERT INTO t(x) VALUES (1)");
    const outside = path.join(cluster.directory, "outside.db");
    createTable(outside, 20, "DELETE");
    shell("cp", [outside, primary.file("app.db.tmp")]);
    shell("mv", [primary.file("app.db.tmp"), primary.file("app.db")]);
    // Who has the old one open keeps it.
    expect(db.prepare("SELECT count(*) FROM t").pluck().get()).toBe(6);
    cluster.closeConnections();
    expect(countRows(primary.file("app.db"))).toBe(20);
    await waitForRows(replica, "app.db", 20);
    await waitForNone(replica, "app.db.tmp");
    await cluster.verify();
  });

  test("what may not be is refused", async () => {
    const cluster = await Cluster.start({ replicas: 1 });
    const { primary, replica } = cluster;
    createTable(primary.file("app.db"), 5);
    await cluster.waitForReplicas("app.db");
    const rename = (node: TestNode, from: string, to: string) => () =>
      fs.renameSync(node.file(from), node.file(to));
    expect(rename(replica, "app.db", "b.db")).toThrow(/EROFS/);
    expect(rename(primary, "app.db", ".lag")).toThrow(/EACCES/);
    expect(rename(primary, "nothing", "b.db")).toThrow(/ENOENT/);
    fs.mkdirSync(primary.file("dir"));
    expect(rename(primary, "app.db", "dir")).toThrow(/EISDIR/);
    expect(rename(primary, "dir", "app.db")).toThrow(/ENOTDIR/);
    // Nothing of a transaction that is under way changes its name.
    python(
      primary.file("app.db"),
      `
db.execute("PRAGMA journal_mode=DELETE")
db.execute("BEGIN IMMEDIATE"); db.execute("PRAGMA cache_size=1")
db.execute("UPDATE t SET x = randomblob(4000)"); db.execute("INSERT INTO t SELECT NULL, randomblob(4000) FROM t")
for to in ["b.db", "dir/b.db"]:
    try: os.rename(sys.argv[1], os.path.join(os.path.dirname(sys.argv[1]), to))
    except OSError as e: assert e.errno == 16, e
    else: assert False
db.execute("ROLLBACK")`,
    );
    const noReplace = `
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
r = libc.renameat2(-100, sys.argv[1].encode(), -100, sys.argv[2].encode(), 1)
print(r, ctypes.get_errno())`;
    fs.writeFileSync(primary.file("x"), "");
    const args = ["-c", noReplace, primary.file("x"), primary.file("app.db")];
    expect(shell(PYTHON, args)).toBe("-1 17");
    fs.renameSync(primary.file("app.db"), primary.file("b.db"));
    expect(countRows(primary.file("b.db"))).toBe(5);
    await waitForRows(replica, "b.db", 5);
    await cluster.verify();
  });
});

describe("a database copied with what SQLite left beside it", () => {
  /** Copies of a database in the middle of its work, as a crash would leave it. */
  function crashed(cluster: Cluster, mode: "WAL" | "DELETE"): string {
    const live = path.join(cluster.directory, "live.db");
    createTable(live, 5, mode);
    const db = new Database(live);
    db.pragma("cache_size=1");
    if (mode === "DELETE") db.exec("BEGIN");
    db.exec("INSERT INTO t(x) SELECT randomblob(4000) FROM t");
    db.exec("INSERT INTO t(x) SELECT randomblob(4000) FROM t");
    const copy = path.join(cluster.directory, "copy.db");
    const suffix = mode === "WAL" ? "-wal" : "-journal";
    for (const end of ["", suffix]) fs.copyFileSync(live + end, copy + end);
    if (mode === "DELETE") db.exec("ROLLBACK");
    db.close();
    return copy;
  }

  for (const [mode, suffix, rows] of [
    ["WAL", "-wal", 20],
    ["DELETE", "-journal", 5],
  ] as const) {
    for (const order of ["database first", "database last"]) {
      test(`${suffix}, ${order}, is what SQLite makes of it`, async () => {
        const cluster = await Cluster.start({ replicas: 1 });
        const { primary, replica } = cluster;
        const copy = crashed(cluster, mode);
        const ends = order === "database first" ? ["", suffix] : [suffix, ""];
        for (const end of ends) shell("cp", [copy + end, primary.file(`app.db${end}`)]);
        expect(countRows(primary.file("app.db"))).toBe(rows);
        await waitForRows(replica, "app.db", rows);
        const db = cluster.connect(primary, "app.db");
        expect(db.pragma("integrity_check", { simple: true })).toBe("ok");
        db.exec("INSERT INTO t(x) VALUES (1)");
        await waitForRows(replica, "app.db", rows + 1);
        await cluster.verify();
      });
    }
  }
});

test("VACUUM INTO and the backup of SQLite make databases, temporary files do not", async () => {
  const cluster = await Cluster.start({ replicas: 1 });
  const { primary, replica } = cluster;
  createTable(primary.file("app.db"), 50);
  const db = cluster.connect(primary, "app.db");
  db.exec(`VACUUM INTO '${primary.file("copy.db")}'`);
  await db.backup(primary.file("backup.db"));
  for (const name of ["copy.db", "backup.db"]) await waitForRows(replica, name, 50);
  const program = `
db.execute("PRAGMA temp_store=FILE"); db.execute("PRAGMA cache_size=1"); db.execute("PRAGMA temp.cache_size=1")
db.execute("CREATE TEMP TABLE big AS SELECT randomblob(4000) AS x FROM t a, t b")
print(db.execute("SELECT count(*), sum(length(x)) FROM big").fetchone())
db.execute("VACUUM")`;
  const { stdout } = tryShell("env", [
    `SQLITE_TMPDIR=${primary.mountPoint}`,
    PYTHON,
    "-c",
    `import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1], isolation_level=None)\n${program}`,
    primary.file("app.db"),
  ]);
  expect(stdout.trim()).toBe("(2500, 10000000)");
  const names = (await listDatabases(primary)).map(({ name }) => name).sort();
  expect(names).toEqual(["app.db", "backup.db", "copy.db"]);
  await cluster.verify();
});

test("everything that begins with the name of a database can be copied and removed", async () => {
  const cluster = await Cluster.start({ replicas: 1 });
  const { primary, replica } = cluster;
  createTable(primary.file("app.db"), 5);
  const db = cluster.connect(primary, "app.db");
  db.exec("INSERT INTO t(x) VALUES (1)");
  const copy = path.join(cluster.directory, "copy");
  fs.mkdirSync(copy);
  shell("sh", ["-c", `cp ${primary.file("app.db")}* ${copy}`]);
  expect(countRows(path.join(copy, "app.db"))).toBe(6);
  cluster.closeConnections();
  shell("sh", ["-c", `rm ${primary.file("app.db")}*`]);
  await waitForNone(replica, "app.db");
  const gone = tryShell("rm", [primary.file("app.db-pos")]);
  expect(gone.stderr).toMatch(/No such file/);
  await cluster.verify();
});

test("a database can be made again at once where one was removed with its journal", async () => {
  const cluster = await Cluster.start({ replicas: 0 });
  const { primary } = cluster;
  const out = python(
    primary.file("other.db"),
    `
name = os.path.join(os.path.dirname(sys.argv[1]), "app.db")
for i in range(150):
    for mode in ["PERSIST", "DELETE"]:
        db = sqlite3.connect(name, isolation_level=None)
        db.execute("PRAGMA synchronous=OFF"); db.execute("PRAGMA journal_mode=" + mode)
        db.execute("CREATE TABLE t(x)"); db.execute("INSERT INTO t VALUES (1)")
        db.close()
        os.unlink(name)
print("done")`,
  );
  expect(out).toBe("done");
  await cluster.verify();
});

test("chmod and chown of a database are kept, for all of its files", async () => {
  const cluster = await Cluster.start({ replicas: 1 });
  const { primary, replica } = cluster;
  createTable(primary.file("app.db"), 5);
  await cluster.waitForReplicas("app.db");
  const access = (node: TestNode, name: string) => {
    const { mode, uid, gid } = fs.statSync(node.file(name));
    return [mode & 0o7777, uid, gid];
  };
  expect(access(primary, "app.db")).toEqual([0o666, 0, 0]);
  fs.chmodSync(primary.file("app.db"), 0o640);
  fs.chownSync(primary.file("app.db"), 1234, 4321);
  expect(access(primary, "app.db")).toEqual([0o640, 1234, 4321]);
  await primary.restart();
  const db = cluster.connect(primary, "app.db");
  db.exec("INSERT INTO t(x) VALUES (1)");
  for (const name of ["app.db", "app.db-wal"]) {
    expect(access(primary, name), name).toEqual([0o640, 1234, 4321]);
  }
  expect(access(replica, "app.db")).toEqual([0o666, 0, 0]);
  await cluster.verify();
});

test("the size of a WAL covers all that SQLite has written, and behind it are zeros", async () => {
  const cluster = await Cluster.start({ replicas: 0 });
  const { primary } = cluster;
  createTable(primary.file("app.db"), 1);
  const db = cluster.connect(primary, "app.db");
  db.pragma("wal_autocheckpoint=0");
  for (let i = 0; i < 40; i++) db.exec("UPDATE t SET x = randomblob(500)");
  const end = 32 + 40 * (24 + 4096);
  const bytes = fs.readFileSync(primary.file("app.db-wal"));
  expect(bytes.length).toBe(fs.statSync(primary.file("app.db-wal")).size);
  expect(bytes.length).toBeGreaterThanOrEqual(end);
  expect(bytes.subarray(end - 4096, end).some((byte) => byte !== 0)).toBe(true);
  expect(bytes.subarray(end).every((byte) => byte === 0)).toBe(true);
  expect(db.pragma("integrity_check", { simple: true })).toBe("ok");
  db.pragma("wal_checkpoint(TRUNCATE)");
  expect(fs.statSync(primary.file("app.db-wal")).size).toBe(0);
  await cluster.verify();
});

test("a WAL stays as it was written while others ask for its size all the time", async () => {
  const cluster = await Cluster.start({ replicas: 0 });
  const { primary } = cluster;
  createTable(primary.file("app.db"), 1);
  const db = cluster.connect(primary, "app.db");
  db.pragma("synchronous=NORMAL");
  db.pragma("wal_autocheckpoint=0");
  const ask = "import os, sys\nwhile True: os.stat(sys.argv[1])";
  const asking = spawn(PYTHON, ["-c", ask, primary.file("app.db-wal")], { stdio: "ignore" });
  try {
    const insert = db.prepare("INSERT INTO t(x) VALUES (randomblob(300))");
    for (let i = 0; i < 6000; i++) insert.run();
  } finally {
    asking.kill("SIGKILL");
  }
  // The kernel's cache, from which SQLite recovers, and what the mount has kept.
  const cached = fs.readFileSync(primary.file("app.db-wal"));
  const kept = fs.readFileSync(primary.dataFile("app.db", "wal"));
  const differing: number[] = [];
  for (let at = 0; at < kept.length; at += 4096) {
    if (!cached.subarray(at, at + 4096).equals(kept.subarray(at, at + 4096))) differing.push(at);
  }
  expect(differing).toEqual([]);
  expect(cached.length).toBe(kept.length);
  await cluster.verify();
});

test("a database in a subdirectory works, for this node alone", async () => {
  const cluster = await Cluster.start({ replicas: 1 });
  const { primary, replica } = cluster;
  for (const node of cluster.nodes) {
    fs.mkdirSync(node.file("local"));
    const file = node.file("local/own.db");
    createTable(file, 4);
    const db = cluster.connect(node, "local/own.db");
    db.exec("BEGIN IMMEDIATE; INSERT INTO t(x) VALUES (1)");
    // Another process sees the locks, and the wal-index, which both have mapped.
    python(
      file,
      `
db.execute("PRAGMA busy_timeout=0")
assert db.execute("SELECT count(*) FROM t").fetchone()[0] == 4
try: db.execute("BEGIN IMMEDIATE")
except sqlite3.OperationalError as e: assert "locked" in str(e), e
else: assert False`,
    );
    db.exec("COMMIT");
    python(file, `assert db.execute("SELECT count(*) FROM t").fetchone()[0] == 5`);
    python(file, `db.execute("INSERT INTO t(x) VALUES (2)")`);
    expect(db.prepare("SELECT count(*) FROM t").pluck().get()).toBe(6);
  }
  expect(await listDatabases(primary)).toEqual([]);
  await primary.restart();
  expect(countRows(primary.file("local/own.db"))).toBe(6);
  expect(primary.log).toMatch(/not replicated.*own\.db/);
  expect(replica.log).toMatch(/not replicated.*own\.db/);
});

test("on a replica a database cannot be made, and one that comes hides an ordinary file", async () => {
  const cluster = await Cluster.start({ replicas: 1 });
  const { primary, replica } = cluster;
  expect(() => createTable(replica.file("mine.db"), 1)).toThrow(
    /readonly|disk I\/O|unable to open/,
  );
  const outside = path.join(cluster.directory, "outside.db");
  createTable(outside, 3, "DELETE");
  expect(tryShell("cp", [outside, replica.file("mine.db")]).stderr).toMatch(/Read-only/);
  fs.mkdirSync(replica.file("dir"));
  shell("cp", [outside, replica.file("dir/x.db")]);
  expect(() => fs.renameSync(replica.file("dir/x.db"), replica.file("x.db"))).toThrow(/EROFS/);
  fs.writeFileSync(replica.file("app.db"), "an ordinary file of this node");
  createTable(primary.file("app.db"), 8);
  await waitFor("the database to be seen", 20_000, () => {
    const head = fs.readFileSync(replica.file("app.db")).subarray(0, 15).toString();
    return head === "SQLite format 3" ? undefined : head;
  });
  expect(countRows(replica.file("app.db"))).toBe(8);
  expect(fs.readdirSync(replica.mountPoint).filter((name) => name === "app.db")).toHaveLength(1);
  fs.rmSync(primary.file("app.db"));
  await waitFor("the ordinary file to be seen again", 20_000, () => {
    if (!fs.existsSync(replica.file("app.db"))) return "nothing";
    const content = fs.readFileSync(replica.file("app.db"), "latin1");
    return content === "an ordinary file of this node" ? undefined : "something else";
  });
  await cluster.verify();
});
