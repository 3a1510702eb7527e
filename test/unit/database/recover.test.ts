import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openDatabase } from "../../../src/database/recover.ts";
import { formatPosition } from "../../../src/lib/position.ts";
import { FakeDisk, Random } from "./support/fake-disk.ts";
import { checkConsistent, checkContent, DIRECTORY, FakeHost, open } from "./support/harness.ts";
import { MiniPager } from "./support/mini-pager.ts";

const DATA_DIR = path.join(import.meta.dirname, "../../fixtures/litefs-0.5.14/data-dir");

interface Recovery {
  readonly result: string;
  readonly databases?: Record<string, { pos: string; export: { status: number; sha256?: string } }>;
  readonly filesAfterStart?: Record<string, unknown>;
  readonly unchangedFromBase?: readonly string[];
}
interface Operation {
  readonly op: string;
  readonly path: string;
  readonly offset?: number;
  readonly hex?: string;
  readonly size?: number;
  readonly from?: string;
}
interface Expected {
  readonly tars: Record<string, { recovery: Recovery }>;
  readonly mutations: readonly {
    name: string;
    base: string;
    what: string;
    ops: readonly Operation[];
    recovery: Recovery;
  }[];
}

const expected = JSON.parse(
  fs.readFileSync(path.join(DATA_DIR, "expected.json"), "utf8"),
) as Expected;

let scratch = "";
beforeAll(() => {
  scratch = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-recover-"));
  for (const tar of Object.keys(expected.tars)) {
    const directory = path.join(scratch, tar);
    fs.mkdirSync(directory);
    execFileSync("tar", ["-xf", path.join(DATA_DIR, tar), "-C", directory], { timeout: 20_000 });
  }
});
afterAll(() => fs.rmSync(scratch, { recursive: true, force: true }));

/** The databases of a LiteFS data directory, on a disk of their own. */
function load(tar: string): FakeDisk {
  const disk = new FakeDisk();
  const root = path.join(scratch, tar, "litefs");
  for (const name of fs.readdirSync(root, { recursive: true, encoding: "utf8" })) {
    const file = path.join(root, name);
    if (fs.statSync(file).isDirectory()) disk.mkdir(`/data/${name}`);
    else disk.put(`/data/${name}`, fs.readFileSync(file));
  }
  return disk;
}

function contentOfAll(disk: FakeDisk, directory: string): Map<string, string> {
  const result = new Map<string, string>();
  const visit = (at: string): void => {
    for (const name of disk.list(at)) {
      const file = `${at}/${name}`;
      if (disk.isDirectory(file)) visit(file);
      else result.set(file, createHash("sha256").update(disk.content(file)).digest("hex"));
    }
  };
  visit(directory);
  return result;
}

function checkRecovery(start: FakeDisk, databases: NonNullable<Recovery["databases"]>): void {
  let disk = start;
  for (const [name, { pos, export: exported }] of Object.entries(databases)) {
    const directory = `/data/dbs/${name}`;
    if (disk.list(directory).length === 0) continue;
    const db = openDatabase(name, new FakeHost(), disk, directory);
    expect(db.reason, name).toBe("");
    expect(formatPosition(db.position), name).toBe(pos);
    checkConsistent(db);
    if (exported.status === 200 && db.store.pageCount > 0) {
      const hash = createHash("sha256").update(disk.content(`${directory}/database`));
      expect(hash.digest("hex"), name).toBe(exported.sha256);
    }
    // LiteFS's own files are still there, and a second start finds the same.
    disk = disk.kill();
    const again = openDatabase(name, new FakeHost(), disk, directory);
    expect(again.position).toEqual(db.position);
  }
}

describe("data directories that LiteFS left", () => {
  for (const [tar, { recovery }] of Object.entries(expected.tars)) {
    it(tar, () => {
      expect(recovery.result).toBe("starts");
      checkRecovery(load(tar), recovery.databases ?? {});
    });
  }
});

function mutate(disk: FakeDisk, operation: Operation): boolean {
  const file = `/data/${operation.path}`;
  switch (operation.op) {
    case "delete":
      if (disk.isDirectory(file)) disk.removeDirectory(file);
      else disk.remove(file);
      return true;
    case "write": {
      const bytes = Buffer.from(operation.hex ?? "", "hex");
      const offset = operation.offset ?? 0;
      const old = disk.size(file) === undefined ? new Uint8Array(0) : disk.content(file);
      const next = new Uint8Array(Math.max(old.length, offset + bytes.length));
      next.set(old);
      next.set(bytes, offset);
      disk.put(file, next);
      return true;
    }
    case "truncate": {
      const next = new Uint8Array(operation.size ?? 0);
      next.set(disk.content(file).subarray(0, next.length));
      disk.put(file, next);
      return true;
    }
    case "mkdir":
      disk.mkdir(file);
      return true;
    case "rename":
    case "copy": {
      if (operation.from === undefined) return false;
      disk.put(file, disk.content(`/data/${operation.from}`));
      if (operation.op === "rename") disk.remove(`/data/${operation.from}`);
      return true;
    }
    default:
      return false;
  }
}

/** Where the original starts, but with an empty position in front of a database that has pages. */
const BETTER: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  "no-ltx-at-all": {
    "app.db": "0000000000000001/c32d717fce1f66d5",
  },
  // Page 1 is in the newest transaction, and with it the checksum is right.
  "database-header-bad": { "roll.db": "000000000000000e/f60289e363cc1da9" },
  // Pages are gone that nobody else has: quarantined.
  "database-50-bytes": { "roll.db": "quarantined" },
};

describe("data directories that were damaged", () => {
  for (const { name, base, ops, recovery } of expected.mutations) {
    it(`${name}: ${recovery.result}`, () => {
      const disk = load(base);
      for (const operation of ops) expect(mutate(disk, operation), operation.op).toBe(true);
      disk.syncAll();
      if (recovery.result === "starts") {
        const all = expected.tars[base]?.recovery.databases ?? {};
        const same = Object.fromEntries(
          Object.entries(all).filter(([db]) => recovery.unchangedFromBase?.includes(db)),
        );
        const better = BETTER[name] ?? {};
        const rest = Object.entries({ ...same, ...recovery.databases });
        checkRecovery(disk, Object.fromEntries(rest.filter(([db]) => better[db] === undefined)));
        for (const [db, position] of Object.entries(better)) checkBetter(disk, db, position);
        return;
      }
      // Where the original refuses to start at all, each database stands for itself, and whatever
      // cannot be served says why, keeps every transaction file and stays like that.
      for (const database of disk.list("/data/dbs")) {
        const directory = `/data/dbs/${database}`;
        const before = contentOfAll(disk, `${directory}/ltx`);
        const db = openDatabase(database, new FakeHost(), disk, directory);
        expect(contentOfAll(disk, `${directory}/ltx`)).toEqual(before);
        if (db.status === "quarantined") expect(db.reason.length).toBeGreaterThan(10);
        else checkConsistent(db);
      }
    });
  }
});

function checkBetter(disk: FakeDisk, name: string, position: string): void {
  const db = openDatabase(name, new FakeHost(), disk.kill(), `/data/dbs/${name}`);
  if (position === "quarantined") expect(db.status).toBe("quarantined");
  else {
    expect(formatPosition(db.position)).toBe(position);
    checkConsistent(db);
  }
}

describe("a database whose files do not fit its log", () => {
  function written() {
    const disk = new FakeDisk();
    const db = open(disk);
    const pager = new MiniPager(db, new Random(5), { pageSize: 512 });
    pager.transaction({ pgnos: [1, 2, 3], pageCount: 3 });
    pager.changeMode("wal");
    for (let i = 0; i < 5; i++) pager.transaction({ pgnos: [2, 3], pageCount: 3 + i });
    pager.closeWal();
    pager.transaction({ pgnos: [2], pageCount: 7 });
    return { disk: disk.kill(), pager, position: db.position };
  }

  it("is built anew from a log that begins with it", () => {
    const { disk, pager, position } = written();
    disk.remove(`${DIRECTORY}/database`);
    const db = open(disk);
    expect(db.position).toEqual(position);
    checkContent(db, pager.committed, 512);
  });

  it("is quarantined when the log does not go back to its beginning", () => {
    const { disk, position } = written();
    const db = open(disk);
    db.log.appendBase(
      { txid: 100, hi: db.log.checksumHi, lo: db.log.checksumLo },
      { ...db.log.state, durableTxid: 100 },
    );
    db.close();
    const first = disk.list(`${DIRECTORY}/log`).find((name) => name.startsWith("00"));
    disk.remove(`${DIRECTORY}/log/${first ?? ""}`);
    disk.remove(`${DIRECTORY}/database`);
    const again = open(disk.kill());
    expect(position.txid).toBeLessThan(100);
    expect(again.status).toBe("quarantined");
    expect(again.reason).toContain("is gone or empty");
  });

  it("keeps the size it had when a WAL beside it made it longer", () => {
    const { disk, pager } = written();
    disk.removeDirectory(`${DIRECTORY}/log`);
    const db = open(disk);
    expect(db.position.txid).toBe(1);
    checkContent(db, pager.committed, 512);
  });
});
