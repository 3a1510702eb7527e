import { randomBytes } from "node:crypto";
import type {
  CommitEvent,
  SyncEvent,
  WriteEngine,
  WriterLeftEvent,
} from "../../database/write-engine.ts";
import { TURN_SLICE_MS } from "../../database/write-engine.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorText } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { formatPosition } from "../../lib/position.ts";
import type { Position } from "../../lib/position.ts";
import type { BorrowedRight } from "./borrowed-right.ts";
import { LoanChannel } from "./loan-channel.ts";
import type { SubmitResult } from "./loan-channel.ts";
import type { PrimaryLink } from "./primary-link.ts";
import type { ForwardingStatistics, ForwardOutcome } from "./statistics.ts";

export interface BorrowingOptions {
  readonly engine: WriteEngine;
  readonly clock: Clock;
  readonly log: Logger;
  /** How long the right stays here after its last use, when nobody else wants it. */
  readonly lingerMs: number;
  /** How long an application waits for the right, and for the outcome of a commit. */
  readonly timeoutMs: number;
  /** The connection to the present primary; undefined when none is known. */
  link(): PrimaryLink | undefined;
  readonly statistics: ForwardingStatistics;
}

/** Loans end on the primary after 30 s unless they are renewed. */
const RENEW_EVERY_MS = 10_000;
/** A primary that cannot say that others wait is not kept from its own writers for long. */
const SILENT_LINGER_MS = 50;
const SILENT_LOAN_MS = 25_000;
/** Between two transactions of a busy application. */
const PAUSE_MS = 2;
/** An application that was told SQLITE_BUSY comes back within SQLite's longest pause. */
const RETURN_MAX_MS = 150;
/**
 * While others wait, nobody keeps the right for longer than this without a commit: who opens a
 * database again and again takes SQLite's write lock each time, to build the wal-index, and that alone
 * would put off the return for ever.
 */
const FRUITLESS_MAX_MS = 2 * RETURN_MAX_MS;
/** How long one that has been refused is refused at once. */
const IMPATIENCE_MS = 1_000;
const IMPATIENT_WAIT_MS = 20;

type State = "idle" | "asking" | "held";

/**
 * A replica's right to write one database: borrowed from the primary when an application wants to
 * write, kept while it is in use and a little longer, given back when others wait.
 */
export class Borrowing {
  readonly #options: BorrowingOptions;
  readonly #database: string;
  #state: State = "idle";
  #loan = "";
  #right: BorrowedRight | undefined;
  #link: PrimaryLink | undefined;
  #asking: AbortController | undefined;
  #borrowedAtMs = 0;
  /** The mount thread has yet to say that it knows of the right that is here. */
  #isGranting = false;
  #isUsed = false;
  #hasNext = false;
  /** In a row, holds of SQLite's lock without a commit: a snapshot was stale. */
  #fruitless = 0;
  #roundTripMs = 1;
  #impatientUntilMs = 0;
  /** An application waits although the right is on its way back. */
  #isWantedHere = false;
  #timer: NodeJS.Timeout | undefined;
  #renewal: NodeJS.Timeout | undefined;

  constructor(database: string, options: BorrowingOptions) {
    this.#database = database;
    this.#options = options;
  }

  get state(): State {
    return this.#state;
  }

  /** For how long the right has been here; undefined when it is not. */
  get heldForMs(): number | undefined {
    if (this.#state !== "held") return undefined;
    return this.#options.clock.monotonicMs() - this.#borrowedAtMs;
  }

  get #isIdle(): boolean {
    return this.#state === "idle";
  }

  // What applications do.

  writerWaits(): void {
    this.#limitWait();
    if (this.#state === "idle") void this.#ask();
    else if (this.#state !== "asking") this.#isWantedHere = true;
  }

  /** An application must not wait for ever; one that has waited in vain must not wait again. */
  #limitWait(): void {
    const { clock, timeoutMs } = this.#options;
    const isImpatient = clock.monotonicMs() < this.#impatientUntilMs;
    const waitMs = isImpatient ? Math.min(IMPATIENT_WAIT_MS, timeoutMs) : timeoutMs;
    setTimeout(() => {
      // With the right here those who wait take turns, unless the database does not come to where the
      // primary stands: then nobody can use it.
      if (this.#state === "held" && this.#isUsed) return;
      this.#impatientUntilMs = clock.monotonicMs() + IMPATIENCE_MS;
      this.#deny(waitMs);
    }, waitMs + 1).unref();
  }

  writerLeft({ hasCommitted, isReturned, hasNext }: WriterLeftEvent): void {
    // Before the mount thread knows of this right it speaks of the one before.
    if (this.#state !== "held" || this.#isGranting) return;
    this.#isUsed = true;
    this.#hasNext = hasNext;
    this.#fruitless = hasCommitted ? 0 : this.#fruitless + 1;
    if (isReturned) this.#drop();
    else this.#planReturn();
  }

  /** The mount thread has found that the database is not where the loan began. */
  rightLost(): void {
    if (this.#state !== "held") return;
    this.#options.log.warn("database moved on under a borrowed right to write", {
      db: this.#database,
    });
    this.#drop();
  }

  // The loan.

  async #ask(): Promise<void> {
    const { clock, engine, log, timeoutMs } = this.#options;
    const link = this.#options.link();
    if (link === undefined) {
      this.#options.statistics.denied++;
      this.#deny(0);
      return;
    }
    this.#state = "asking";
    this.#isWantedHere = false;
    this.#link = link;
    const loan = newLoanId();
    this.#loan = loan;
    const asking = new AbortController();
    this.#asking = asking;
    const signal = AbortSignal.any([asking.signal, AbortSignal.timeout(2 * timeoutMs)]);
    try {
      const askedAtMs = clock.monotonicMs();
      const right = await link.borrow(this.#database, this.#loan, signal);
      this.#right = right;
      this.#borrowedAtMs = clock.monotonicMs();
      const tookMs = this.#borrowedAtMs - askedAtMs;
      this.#noteRoundTrip(tookMs);
      this.#options.statistics.waitMs.add(tookMs);
      // Before the engine is told: from then on an application may commit at any time.
      this.#hold(right);
      // Ended in the meantime, which the mount thread has been told already.
      if (!this.#isHolding(loan)) return;
      this.#isGranting = true;
      const isGood = await engine.grantRight(this.#database, right.position).finally(() => {
        this.#isGranting = false;
      });
      if (!isGood) throw new Error(`the database is not in the history of the primary`);
    } catch (error) {
      if (signal.aborted && !asking.signal.aborted) link.close();
      if (!asking.signal.aborted) {
        log.warn("cannot borrow the right to write", {
          db: this.#database,
          error: errorText(error),
        });
      }
      this.#impatientUntilMs = clock.monotonicMs() + IMPATIENCE_MS;
      this.#options.statistics.denied++;
      // Also when the loan has ended already: whoever waited for it must not wait for ever.
      if (this.#loan === loan) {
        this.#deny(0);
        if (!this.#isIdle) this.#drop();
      }
    } finally {
      if (this.#asking === asking) this.#asking = undefined;
    }
  }

  #isHolding(loan: string): boolean {
    return this.#state === "held" && this.#loan === loan;
  }

  #hold(right: BorrowedRight): void {
    this.#state = "held";
    this.#isUsed = false;
    this.#hasNext = false;
    this.#fruitless = 0;
    this.#impatientUntilMs = 0;
    right.onWanted = () => this.#planReturn();
    right.onEnded = () => this.#ended();
    if (right.isEnded) {
      this.#ended();
      return;
    }
    this.#renewal = setInterval(() => this.#renew(), RENEW_EVERY_MS);
    this.#planReturn();
  }

  #renew(): void {
    const right = this.#right;
    const { clock, log, timeoutMs } = this.#options;
    if (right === undefined || this.#link === undefined) return;
    if (!right.isHeld) {
      // LiteFS renews nothing; past its time another node may write.
      if (clock.monotonicMs() - this.#borrowedAtMs > SILENT_LOAN_MS) this.#ended();
      return;
    }
    const timeout = AbortSignal.timeout(timeoutMs);
    this.#link.renew(this.#database, this.#loan, timeout).catch((error: unknown) => {
      log.warn("cannot renew the right to write", { db: this.#database, error: errorText(error) });
    });
  }

  /** The primary has taken the right back, or the connection to it is gone. */
  #ended(): void {
    if (this.#state !== "held") return;
    this.#tellLost();
    this.#drop();
  }

  #tellLost(): void {
    this.#options.engine.loseRight(this.#database).catch((error: unknown) => {
      this.#options.log.debug("the engine has stopped", { error: errorText(error) });
    });
  }

  #noteRoundTrip(tookMs: number): void {
    this.#roundTripMs = Math.min(1_000, this.#roundTripMs * 0.8 + tookMs * 0.2);
  }

  // Giving it back.

  #planReturn(): void {
    clearTimeout(this.#timer);
    if (this.#state !== "held") return;
    this.#timer = setTimeout(() => void this.#giveBack(), this.#keepMs());
  }

  /** How much longer the right stays here if no application uses it. */
  #keepMs(): number {
    const { clock, lingerMs } = this.#options;
    const right = this.#right;
    const heldMs = clock.monotonicMs() - this.#borrowedAtMs;
    if (!this.#isUsed) return Math.max(0, RETURN_MAX_MS - heldMs);
    const returnMs =
      this.#fruitless === 0 ? 0 : Math.min(RETURN_MAX_MS, 10 * 2 ** Math.min(4, this.#fruitless));
    if (right?.isWanted === true) {
      // A node that is far away has paid more for its turn.
      const sliceMs = Math.max(TURN_SLICE_MS, this.#roundTripMs);
      const leftMs = Math.max(0, sliceMs - heldMs);
      const fruitlessLeftMs = Math.max(0, FRUITLESS_MAX_MS - heldMs);
      const returnLeftMs = Math.min(returnMs, fruitlessLeftMs);
      return Math.max(returnLeftMs, this.#hasNext ? leftMs : Math.min(leftMs, PAUSE_MS));
    }
    return Math.max(returnMs, right?.isHeld === true ? lingerMs : SILENT_LINGER_MS);
  }

  async #giveBack(): Promise<void> {
    if (this.#state !== "held") return;
    const loan = this.#loan;
    try {
      const isReturned = await this.#options.engine.recallRight(this.#database);
      // Otherwise an application is writing, and `writerLeft` will tell. Or it has told already,
      // and the right that is here now is another one.
      if (isReturned && this.#isHolding(loan)) this.#drop();
    } catch (error) {
      this.#options.log.debug("cannot recall the right to write", { error: errorText(error) });
    }
  }

  #drop(): void {
    const { log, timeoutMs } = this.#options;
    clearTimeout(this.#timer);
    clearInterval(this.#renewal);
    const link = this.#link;
    const right = this.#right;
    this.#right = undefined;
    if (right !== undefined) right.onWanted = right.onEnded = () => undefined;
    const loan = this.#loan;
    const returned =
      link === undefined
        ? Promise.resolve()
        : link.giveBack(this.#database, loan, AbortSignal.timeout(timeoutMs));
    returned
      .catch((error: unknown) => {
        log.debug("cannot give the right to write back", { error: errorText(error) });
      })
      .finally(() => {
        right?.close();
      })
      .catch(() => undefined);
    this.#state = "idle";
    if (this.#isWantedHere) void this.#ask();
  }

  #deny(waitedMs: number): void {
    this.#options.engine.denyWriters(this.#database, waitedMs).catch((error: unknown) => {
      this.#options.log.debug("cannot deny writers", { error: errorText(error) });
    });
  }

  /** The primary has changed, or the node stops. */
  reset(): void {
    this.#asking?.abort();
    if (this.#state === "held") this.#ended();
    this.#deny(0);
  }

  // Commits.

  async commit(event: CommitEvent): Promise<void> {
    const { clock, engine, log } = this.#options;
    const startedAtMs = clock.monotonicMs();
    let outcome: ForwardOutcome;
    try {
      outcome = await this.#submit(event);
    } catch (error) {
      log.error("forwarding failed", { db: this.#database, error: errorText(error) });
      outcome = "unknown";
    }
    const tookMs = clock.monotonicMs() - startedAtMs;
    if (outcome === "committed") this.#noteRoundTrip(tookMs);
    this.#options.statistics.forwarded(tookMs, outcome);
    await engine.decideCommit(this.#database, event.commit, outcome === "committed");
  }

  async #submit(event: CommitEvent): Promise<ForwardOutcome> {
    const { log, timeoutMs } = this.#options;
    const link = this.#link;
    const loan = this.#loan;
    if (this.#state !== "held" || link === undefined) {
      log.warn("refused a commit: the right to write has ended", { db: this.#database });
      this.#tellLost();
      return "refused";
    }
    try {
      const result = await within(timeoutMs, (signal) => this.#send(link, loan, event, signal));
      if (result === "committed") return "committed";
      log.warn("the primary refused a transaction", { db: this.#database, reason: result.refused });
      this.#ended();
      return "refused";
    } catch (error) {
      log.warn("no answer to a forwarded transaction, asking what became of it", {
        db: this.#database,
        error: errorText(error),
      });
    }
    return await this.#resolve(loan, event.position);
  }

  #send(
    link: PrimaryLink,
    loan: string,
    event: CommitEvent,
    signal: AbortSignal,
  ): Promise<SubmitResult> {
    const channel = this.#right?.channel;
    const { ltx, isDurable } = event;
    if (channel !== undefined && ltx !== undefined && LoanChannel.carries(ltx)) {
      return channel.submit(ltx, isDurable, signal);
    }
    return link.submit(this.#database, loan, event, isDurable, signal);
  }

  /**
   * The primary may have the transaction or not. It, or the one after it, is asked for the position
   * until somebody knows. Whoever answers "no" will never take it any more.
   */
  async #resolve(loan: string, position: Position): Promise<ForwardOutcome> {
    const { log } = this.#options;
    const has = await this.#askUntilAnswered((link, signal) =>
      link.resolve(this.#database, loan, position, signal),
    );
    // Whoever answers has ended the loan, so that the answer stays true.
    this.#ended();
    if (has !== undefined) return has ? "committed" : "refused";
    log.error("the outcome of a transaction is unknown: it will appear here if it was committed", {
      db: this.#database,
      position: formatPosition(position),
    });
    return "unknown";
  }

  /** An application wants what the primary has committed for it on the primary's disk. */
  async sync({ sync, position }: SyncEvent): Promise<void> {
    const { engine, log } = this.#options;
    let isDurable: boolean | undefined;
    // LiteFS syncs what it is sent before it says that it has it.
    if (this.#right?.isHeld === false) isDurable = true;
    else {
      isDurable = await this.#askUntilAnswered((link, signal) => {
        const channel = this.#right?.channel;
        if (channel !== undefined) return channel.sync(position, signal);
        return link.makeDurable(this.#database, position, signal);
      });
    }
    if (isDurable !== true) {
      log.error("the primary cannot say that a transaction is on its disk", {
        db: this.#database,
        position: formatPosition(position),
      });
    }
    await engine.decideSync(this.#database, sync, isDurable === true);
  }

  /** Asks the primary, or the one after it, until one answers; undefined when none has in time. */
  async #askUntilAnswered(
    ask: (link: PrimaryLink, signal: AbortSignal) => Promise<boolean>,
  ): Promise<boolean | undefined> {
    const { clock, log, timeoutMs } = this.#options;
    const deadlineMs = clock.monotonicMs() + timeoutMs;
    while (clock.monotonicMs() < deadlineMs) {
      const link = this.#options.link();
      // A connection that has lost something on the way answers nothing: each try has its own.
      const leftMs = Math.max(1, deadlineMs - clock.monotonicMs());
      const tryMs = Math.ceil(Math.min(leftMs, RESOLVE_TRY_MS));
      let isOver = false;
      try {
        if (link !== undefined) {
          return await within(tryMs, (signal) => {
            signal.addEventListener("abort", () => (isOver = true), { once: true });
            return ask(link, signal);
          });
        }
      } catch (error) {
        if (isOver) link?.close();
        log.debug("the primary does not answer yet", { error: errorText(error) });
      }
      await clock.sleep(RESOLVE_EVERY_MS);
    }
    return undefined;
  }
}

/**
 * Aborts what has not ended in time. AbortSignal.timeout goes off even when all is over, and each time
 * makes an exception with its stack.
 */
async function within<Value>(
  timeoutMs: number,
  act: (signal: AbortSignal) => Promise<Value>,
): Promise<Value> {
  const timeout = new AbortController();
  const timer = setTimeout(() => timeout.abort(), timeoutMs);
  try {
    return await act(timeout.signal);
  } finally {
    clearTimeout(timer);
  }
}

const RESOLVE_EVERY_MS = 50;
const RESOLVE_TRY_MS = 1_000;

/** A positive number of 63 bits, as LiteFS draws them. */
function newLoanId(): string {
  const id = randomBytes(8).readBigUInt64BE(0) & 0x7fffffffffffffffn;
  return String(id === 0n ? 1n : id);
}
