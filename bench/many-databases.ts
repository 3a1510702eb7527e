import * as fs from "node:fs";
import * as path from "node:path";
import Database from "better-sqlite3";
import { NodeProcess } from "./node-process.ts";

export interface ManyDatabases {
  readonly count: number;
  readonly readyMs: number;
  /** The same when no orderly stop has left a list of them. */
  readonly firstReadyMs: number;
  /** The same when the last one was killed. */
  readonly killedReadyMs: number;
  /** `ls` of the mount. */
  readonly listMs: number;
  /** After the start and the listing. */
  readonly residentMiB: number;
}

/** Databases at rest, as an orderly stop leaves them: the start of a node opens them all. */
export async function measureManyDatabases(root: string, count: number): Promise<ManyDatabases> {
  const directory = path.join(root, "many");
  const first = await NodeProcess.start(directory);
  const db = new Database(path.join(first.mountPoint, "0.db"));
  db.pragma("journal_mode = WAL");
  db.exec("CREATE TABLE t (id INTEGER PRIMARY KEY, body TEXT); INSERT INTO t (body) VALUES ('a')");
  db.close();
  await first.stop();
  const databases = path.join(directory, "data/dbs");
  for (let i = 1; i < count; i++) {
    fs.cpSync(path.join(databases, "0.db"), path.join(databases, `${i}.db`), { recursive: true });
  }
  // Copies are no databases that an orderly stop has left: this start looks at each of them.
  const second = await NodeProcess.start(directory);
  const firstReadyMs = second.readyAfterMs;
  await second.stop();
  const node = await NodeProcess.start(directory);
  const startedAtMs = performance.now();
  const names = await fs.promises.readdir(node.mountPoint);
  const listMs = performance.now() - startedAtMs;
  if (names.filter((name) => name.endsWith(".db")).length !== count) {
    throw new Error(`the mount lists ${names.length} names`);
  }
  const residentMiB = node.residentBytes() / 2 ** 20;
  const { readyAfterMs: readyMs } = node;
  await node.stop("SIGKILL");
  const last = await NodeProcess.start(directory);
  const { readyAfterMs: killedReadyMs } = last;
  await last.stop();
  return { count, readyMs, firstReadyMs, killedReadyMs, listMs, residentMiB };
}
