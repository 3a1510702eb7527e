import * as fs from "node:fs";
import * as path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import Database from "better-sqlite3";
import type { NodeProcess } from "./node-process.ts";

const DROP_CACHES = "/proc/sys/vm/drop_caches";
const ROWS_PER_MIB = 256;

export interface ColdScan {
  readonly sizeMiB: number;
  readonly nativeSeconds: readonly number[];
  readonly mountSeconds: readonly number[];
}

/**
 * Reads all of a database of which nothing is in memory. Undefined for who may not empty the page cache
 * of the machine.
 */
export async function measureColdScan(
  native: string,
  primary: NodeProcess,
  sizeMiB: number,
  rounds: number,
): Promise<ColdScan | undefined> {
  const files = [native, primary.mountPoint].map((directory) => path.join(directory, "scan.db"));
  const [nativeFile, mountFile] = files as [string, string];
  if (!dropCaches()) return undefined;
  create(nativeFile, sizeMiB);
  fs.copyFileSync(nativeFile, mountFile);
  const nativeSeconds: number[] = [];
  const mountSeconds: number[] = [];
  for (let i = 0; i < rounds; i++) {
    nativeSeconds.push(scan(nativeFile));
    mountSeconds.push(scan(mountFile));
  }
  for (const file of files) fs.rmSync(file);
  // This thread was busy for long: it must hear of connections that were closed meanwhile.
  await sleep(100);
  return { sizeMiB, nativeSeconds, mountSeconds };
}

function create(file: string, sizeMiB: number): void {
  const db = new Database(file);
  db.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)");
  const insert = db.prepare("INSERT INTO t (body) VALUES (randomblob(4000))");
  const insertMany = db.transaction((count: number) => {
    for (let i = 0; i < count; i++) insert.run();
  });
  for (let done = 0; done < sizeMiB; done += 64) {
    insertMany(Math.min(64, sizeMiB - done) * ROWS_PER_MIB);
  }
  db.close();
}

function scan(file: string): number {
  dropCaches();
  const db = new Database(file, { readonly: true });
  const startedAtMs = performance.now();
  db.prepare("SELECT sum(length(hex(substr(body, 4000)))) FROM t").get();
  const seconds = (performance.now() - startedAtMs) / 1_000;
  db.close();
  return seconds;
}

function dropCaches(): boolean {
  try {
    fs.writeFileSync(DROP_CACHES, "1\n");
    return true;
  } catch {
    return false;
  }
}
