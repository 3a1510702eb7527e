import type { Database } from "../../../../src/database/database.ts";
import { LocalWal } from "../../../../src/database/local-wal.ts";
import { FakeDisk, Random } from "./fake-disk.ts";
import { FakeKernel, FakeLocks } from "./fake-mount.ts";
import { FakeHost, open } from "./harness.ts";
import { MiniPager } from "./mini-pager.ts";
import type { Content, JournalMode } from "./mini-pager.ts";

/** What a database of so many pages holds; another seed, other bytes. */
export function content(
  seed: number,
  pageCount: number,
  mode: "wal" | "delete" = "delete",
  pageSize = 512,
): Content {
  const db = open(new FakeDisk());
  const pager = new MiniPager(db, new Random(seed), { pageSize });
  const pgnos = Array.from({ length: pageCount }, (_, i) => i + 1);
  pager.transaction({ pgnos, pageCount });
  pager.changeMode(mode);
  return pager.committed;
}

export interface MountedNode {
  readonly disk: FakeDisk;
  readonly host: FakeHost;
  readonly db: Database;
  readonly locks: FakeLocks;
  readonly local: LocalWal;
  readonly pager: MiniPager;
}

/** A primary with a database of its own, of five pages, that so many applications have open. */
export function mountedNode(mode: JournalMode, opens: number): MountedNode {
  const disk = FakeDisk.prepared();
  const host = new FakeHost();
  const db = open(disk, host);
  const locks = new FakeLocks();
  locks.opens = opens;
  db.kernel = new FakeKernel();
  const local = new LocalWal(db, locks);
  const pager = new MiniPager(db, new Random(9), { pageSize: 512 });
  pager.transaction({ pgnos: [1, 2, 3, 4, 5], pageCount: 5 });
  pager.changeMode(mode);
  pager.transaction({ pgnos: [3], pageCount: 5 });
  return { disk, host, db, locks, local, pager };
}
