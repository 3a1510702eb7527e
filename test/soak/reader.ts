import * as fs from "node:fs";
import * as path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import Database from "better-sqlite3";
import { inspect, isExpected, LASTING_DATABASES, tell } from "./workload.ts";

/*
 * node reader.ts MOUNT MILLISECONDS: looks at snapshots of every lasting database, over connections
 * that stay and over new ones, and checks that each is whole.
 */
const [mount = "", pause = "10"] = process.argv.slice(2);
const pauseMs = Number(pause);
const kept = new Map<string, Database.Database>();

function connect(name: string): Database.Database {
  return new Database(path.join(mount, name), { timeout: 20_000, readonly: true });
}

function look(name: string, round: number): void {
  const known = kept.get(name);
  const db = known ?? connect(name);
  if (known === undefined) kept.set(name, db);
  const problem = inspect(db);
  if (problem !== undefined) tell({ type: "problem", text: `${mount}/${name}: ${problem}` });
  if (round % 500 === 0) {
    const check = db.pragma("quick_check", { simple: true });
    if (check !== "ok") tell({ type: "problem", text: `${mount}/${name}: ${String(check)}` });
  }
  // No multiple of their number, so that it is each one's turn.
  if (round % 51 !== 0) return;
  kept.delete(name);
  db.close();
}

for (let round = 1; ; round++) {
  const name = LASTING_DATABASES[round % LASTING_DATABASES.length] ?? "";
  try {
    look(name, round);
  } catch (error) {
    const isMissing = String(error).includes("no such table");
    if (!isExpected(error) && !isMissing) {
      tell({ type: "problem", text: `reader of ${mount}/${name}: ${String(error)}` });
    }
    kept.get(name)?.close();
    kept.delete(name);
    if (!fs.existsSync(path.join(mount, ".lag"))) process.exit(1);
  }
  await sleep(pauseMs);
}
