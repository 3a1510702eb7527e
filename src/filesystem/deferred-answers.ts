import * as fs from "node:fs";
import type { Database } from "../database/database.ts";
import type { FinalOutcome, Outcome } from "../database/outcome.ts";
import type { FuseRequest } from "../fuse/request.ts";

interface Deferred {
  readonly pid: number;
  readonly db: Database;
  readonly answer: (outcome: FinalOutcome) => void;
}

/** Calls that complete a commit, whose answer waits for other nodes. */
export class DeferredAnswers {
  readonly #waiting = new Map<string, Deferred>();

  get isEmpty(): boolean {
    return this.#waiting.size === 0;
  }

  /** Calls back with the outcome of an operation: at once, or when other nodes have decided. */
  whenFinal(
    { uniqueLo, uniqueHi, pid }: Pick<FuseRequest, "uniqueLo" | "uniqueHi" | "pid">,
    db: Database,
    outcome: Outcome,
    then: (final: FinalOutcome) => void,
    whenDecided: (answer: (final: FinalOutcome) => void) => void = (answer) =>
      db.whenDecided(answer),
  ): void {
    if (outcome !== "later" && !db.owesKernel) {
      then(outcome);
      return;
    }
    const key = keyOf(uniqueLo, uniqueHi);
    const answer = (final: FinalOutcome): void => {
      if (this.#waiting.delete(key)) then(final);
    };
    this.#waiting.set(key, { pid, db, answer });
    if (outcome === "later") whenDecided((final) => whenKernelKnows(db, () => answer(final)));
    else whenKernelKnows(db, () => answer(outcome));
  }

  /**
   * Any signal interrupts a call, and an application that only has a timer should not lose its
   * commit by it. Who is being killed cannot go before he has an answer, and does not care which: the
   * commit is in the log, and is finished as after any other death. One that the primary decides
   * about is not: it must be carried out or taken back before the writer's locks go. The kernel tells
   * of the first signal only; who is killed after another one waits as long as the commit does.
   */
  interrupt(uniqueLo: number, uniqueHi: number): void {
    const deferred = this.#waiting.get(keyOf(uniqueLo, uniqueHi));
    if (deferred === undefined || deferred.db.isUndecided) return;
    if (!isBeingKilled(deferred.pid)) return;
    deferred.answer("io");
    // The call may have been the removal of a journal, which has taken place.
    deferred.db.kernel.invalidateName("journal");
  }
}

function whenKernelKnows(db: Database, then: () => void): void {
  if (!db.owesKernel) {
    then();
    return;
  }
  db.owesKernel = false;
  db.kernel.settled(then);
}

function keyOf(uniqueLo: number, uniqueHi: number): string {
  return `${uniqueHi}:${uniqueLo}`;
}

const SIGKILL_BIT = 1n << 8n;

/** Whether a thread has SIGKILL to come, which is how the kernel ends it whatever the cause. */
function isBeingKilled(threadId: number): boolean {
  try {
    const status = fs.readFileSync(`/proc/${threadId}/status`, "latin1");
    const masks = status.matchAll(/^(?:SigPnd|ShdPnd):\s*([0-9a-f]+)$/gm);
    return [...masks].some(([, mask]) => (BigInt(`0x${mask}`) & SIGKILL_BIT) !== 0n);
  } catch {
    // It is in another namespace, where it cannot be seen. The wait has an end of its own.
    return false;
  }
}
