import { IoFailure } from "./mini-pager.ts";
import type { JournalMode, MiniPager, TransactionOptions } from "./mini-pager.ts";
import type { Random } from "./fake-disk.ts";

const MAX_PAGES = 24;
const MODES: readonly JournalMode[] = ["delete", "truncate", "persist", "memory", "wal"];

/** A random transaction over a small database: growth, gaps, shrinking, spills and rollbacks. */
export function randomTransaction(pager: MiniPager, random: Random): TransactionOptions {
  const { pageCount } = pager.committed;
  const roll = random.next();
  let next = Math.max(1, pageCount);
  if (roll < 0.3) next = Math.min(MAX_PAGES, next + 1 + random.below(6));
  else if (roll < 0.4) next = Math.max(1, next - random.below(8));
  const pgnos = Array.from({ length: 1 + random.below(6) }, () => 1 + random.below(next));
  // Often, but not always, the last page is among them: SQLite also leaves gaps at the end.
  if (next > pageCount && random.chance(0.6)) pgnos.push(next);
  return {
    pgnos,
    pageCount: next,
    spillEvery: random.chance(0.3) ? 1 + random.below(3) : 0,
    rollBack: pageCount > 0 && random.chance(0.15),
  };
}

export interface WorkloadOptions {
  readonly modes?: readonly JournalMode[];
  readonly dropChance?: number;
  readonly changeModeChance?: number;
}

/** One random step of an application. Returns what it did, for messages. */
export function randomStep(
  pager: MiniPager,
  random: Random,
  { modes = MODES, dropChance = 0.01, changeModeChance = 0.06 }: WorkloadOptions = {},
): string {
  const roll = random.next();
  if (pager.committed.pageCount > 0 && roll < dropChance) {
    pager.drop();
    if (pager.mode === "wal") pager.mode = "delete";
    return "drop";
  }
  if (pager.committed.pageCount > 0 && roll < dropChance + changeModeChance) {
    const mode = modes[random.below(modes.length)] ?? "delete";
    pager.changeMode(mode);
    return `mode ${mode}`;
  }
  if (pager.mode === "wal" && roll > 0.75) {
    if (roll < 0.8) pager.checkpoint(random.below(30));
    else if (roll < 0.88) pager.checkpoint();
    else if (roll < 0.94) {
      pager.checkpoint();
      pager.restartWal();
    } else if (roll < 0.97) pager.truncateWal();
    else pager.closeWal();
    return "checkpoint";
  }
  const options = randomTransaction(pager, random);
  const done = pager.transaction(options);
  return `${pager.mode} ${done ? "commit" : "rollback"} ${JSON.stringify(options)}`;
}

/** The same, where the application is told of errors and goes on as SQLite does. */
export function stepDespiteErrors(
  pager: MiniPager,
  random: Random,
  options?: WorkloadOptions,
): string {
  try {
    return randomStep(pager, random, options);
  } catch (error) {
    if (!(error instanceof IoFailure)) throw error;
    return `failed: ${error.message}`;
  }
}
