import type { SyncEngine } from "../../database/sync-engine.ts";
import type { ForwardResult, WriteEngine, WriteEvent } from "../../database/write-engine.ts";
import type { Clock } from "../../lib/clock.ts";
import { errorText, LitefsError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import type { Position } from "../../lib/position.ts";

export interface LoanDeskOptions {
  readonly engine: WriteEngine & Pick<SyncEngine, "makeDurable">;
  readonly clock: Clock;
  readonly log: Logger;
  /** A loan that is not renewed ends after this time; LiteFS's nodes count on 30 s. */
  readonly loanMs: number;
  /** How long a node, or an application here, waits for its turn. */
  readonly timeoutMs: number;
  isPrimary(): boolean;
}

export interface LoanRequest {
  readonly database: string;
  /** Chosen by the borrower; in LiteFS's terms the ID of the halt lock. */
  readonly loan: string;
  /** Only for the log. */
  readonly nodeId: string;
  /** Somebody else waits for the right: the borrower should give it back soon. */
  readonly onWanted: () => void;
  /** The loan has ended without the borrower's doing. */
  readonly onEnded: () => void;
  /** The borrower does not want it any more. */
  readonly signal: AbortSignal;
}

export interface Loan {
  readonly position: Position;
  /** Wall clock. */
  readonly expiresAtMs: number;
}

interface OpenLoan {
  readonly request: LoanRequest;
  /** By the monotonic clock. */
  readonly sinceMs: number;
  timer: NodeJS.Timeout;
}

/** For longer than bytes stay in a connection that nobody reads. */
const ENDED_LOANS_MS = 15 * 60_000;

const NOT_PRIMARY = "this node is not the primary";

/**
 * The primary's side of forwarding: lends the right to write a database to one node at a time, and
 * takes the transactions that come with it. What it knows of loans only serves to end them in
 * time; whether one is good is decided on the mount thread, at the very commit.
 */
export class LoanDesk {
  readonly #options: LoanDeskOptions;
  /** By database: at most one. */
  readonly #loans = new Map<string, OpenLoan>();
  /** By database: how many nodes wait for it. */
  readonly #waiting = new Map<string, number>();
  /** Databases for which an application here waits. */
  readonly #localWaiting = new Set<string>();
  /** Loans that have ended, until when their IDs are remembered, by the monotonic clock. */
  readonly #ended = new Map<string, number>();
  /** How often everything was asked back. */
  #recalls = 0;

  constructor(options: LoanDeskOptions) {
    this.#options = options;
    options.engine.onWriteEvent((event) => this.#noticeWriter(event));
  }

  /** Databases that are on loan, and to which node. */
  get loans(): ReadonlyMap<string, string> {
    return new Map([...this.#loans].map(([name, { request }]) => [name, request.nodeId]));
  }

  /** Who has the right to write a database, and for how long now. */
  loanOf(database: string): { readonly nodeId: string; readonly heldForMs: number } | undefined {
    const open = this.#loans.get(database);
    if (open === undefined) return undefined;
    const heldForMs = this.#options.clock.monotonicMs() - open.sinceMs;
    return { nodeId: open.request.nodeId, heldForMs };
  }

  /** Waits for the right; the same ID again renews the loan. */
  async borrow(request: LoanRequest): Promise<Loan> {
    const { engine, timeoutMs } = this.#options;
    const { database, loan, signal } = request;
    this.#requirePrimary();
    signal.throwIfAborted();
    if (this.#hasEnded(loan)) {
      throw new LitefsError("LOAN_REFUSED", `cannot lend ${database}: this loan has ended`);
    }
    let isWithdrawn = false;
    const withdraw = (): void => {
      isWithdrawn = true;
      this.#endQuietly(database, loan);
    };
    const timer = setTimeout(withdraw, timeoutMs);
    signal.addEventListener("abort", withdraw, { once: true });
    this.#waiting.set(database, (this.#waiting.get(database) ?? 0) + 1);
    const recallsBefore = this.#recalls;
    if (this.#loans.get(database)?.request.loan !== loan) this.#want(database);
    try {
      const result = await engine.lend(database, loan);
      if (result.kind === "refused") {
        throw new LitefsError("LOAN_REFUSED", `cannot lend ${database}: ${result.reason}`);
      }
      // It may have been lent and taken back before we heard of it.
      if (isWithdrawn) {
        throw new LitefsError("LOAN_REFUSED", `cannot lend ${database}: nobody waits any more`);
      }
      this.#open(request);
      return { position: result.position, expiresAtMs: this.#expiresAtMs() };
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", withdraw);
      const left = (this.#waiting.get(database) ?? 1) - 1;
      if (left > 0) this.#waiting.set(database, left);
      else this.#waiting.delete(database);
      // What the mount thread lent before it held writers back may be heard of only after that.
      const isRecalled = this.#recalls !== recallsBefore;
      if (left > 0 || isRecalled || this.#localWaiting.has(database)) this.#want(database);
    }
  }

  #expiresAtMs(): number {
    return this.#options.clock.nowMs() + this.#options.loanMs;
  }

  #open(request: LoanRequest): void {
    const { database } = request;
    const former = this.#loans.get(database);
    if (former !== undefined) clearTimeout(former.timer);
    const isRenewal = former?.request.loan === request.loan;
    const holder = isRenewal ? former.request : request;
    const timer = setTimeout(() => this.#expire(holder), this.#options.loanMs);
    const sinceMs = isRenewal ? former.sinceMs : this.#options.clock.monotonicMs();
    this.#loans.set(database, { request: holder, sinceMs, timer });
  }

  #expire({ database, loan, nodeId, onEnded }: LoanRequest): void {
    this.#options.log.warn("halt lock expired", { db: database, node: nodeId });
    this.#endQuietly(database, loan);
    onEnded();
  }

  has(database: string, loan: string): boolean {
    return this.#loans.get(database)?.request.loan === loan;
  }

  /** Ends a loan; one that does not exist is no error. */
  async giveBack(database: string, loan: string): Promise<void> {
    this.#noteEnd(loan);
    this.#forget(database, loan);
    await this.#options.engine.endLoan(database, loan);
  }

  /** Commits a transaction under a loan. */
  async submit(
    database: string,
    loan: string,
    transaction: { readonly ltx: Uint8Array | undefined; readonly path: string | undefined },
    isDurable: boolean,
  ): Promise<ForwardResult> {
    if (!this.#options.isPrimary()) return { kind: "refused", reason: NOT_PRIMARY };
    if (this.#hasEnded(loan)) return { kind: "refused", reason: "its loan has ended" };
    return await this.#options.engine.applyForwarded({ database, loan, ...transaction, isDurable });
  }

  /**
   * What became of a transaction whose sender has not heard of it. The loan ends with the question,
   * so that the answer stays true.
   */
  async resolve(database: string, loan: string, position: Position): Promise<boolean> {
    this.#requirePrimary();
    await this.giveBack(database, loan);
    return await this.#options.engine.hasPosition(database, position);
  }

  /**
   * What was sent under a loan may be on its way when that ends, and a renewal before it would make a new
   * loan of it. Whoever was told "no" by `resolve` must not find his transaction committed after all.
   */
  #noteEnd(loan: string): void {
    const nowMs = this.#options.clock.monotonicMs();
    for (const [id, untilMs] of this.#ended) {
      if (untilMs > nowMs) break;
      this.#ended.delete(id);
    }
    this.#ended.delete(loan);
    this.#ended.set(loan, nowMs + ENDED_LOANS_MS);
  }

  #hasEnded(loan: string): boolean {
    return (this.#ended.get(loan) ?? -Infinity) > this.#options.clock.monotonicMs();
  }

  /** Syncs the log; false when it does not have this position. */
  async makeDurable(database: string, position: Position): Promise<boolean> {
    this.#requirePrimary();
    const { engine } = this.#options;
    if (!(await engine.hasPosition(database, position))) return false;
    return (await engine.makeDurable(database)) !== undefined;
  }

  /** This node is not the primary any more: the mount thread has ended the loans already. */
  endAll(): void {
    for (const { request, timer } of this.#loans.values()) {
      clearTimeout(timer);
      request.onEnded();
    }
    this.#loans.clear();
    this.#localWaiting.clear();
  }

  #requirePrimary(): void {
    if (!this.#options.isPrimary()) {
      throw new LitefsError("NOT_PRIMARY", NOT_PRIMARY);
    }
  }

  #forget(database: string, loan: string): void {
    const open = this.#loans.get(database);
    if (open?.request.loan !== loan) return;
    clearTimeout(open.timer);
    this.#loans.delete(database);
    this.#localWaiting.delete(database);
  }

  #endQuietly(database: string, loan: string): void {
    this.giveBack(database, loan).catch((error: unknown) => {
      this.#options.log.warn("cannot end a halt lock", { db: database, error: errorText(error) });
    });
  }

  /** Asks for everything back, so that the lease may change hands. */
  recallAll(): void {
    this.#recalls++;
    for (const database of this.#loans.keys()) this.#want(database);
  }

  #want(database: string): void {
    this.#loans.get(database)?.request.onWanted();
  }

  #noticeWriter(event: WriteEvent): void {
    const { engine, timeoutMs } = this.#options;
    const { database, type } = event;
    if (!this.#options.isPrimary()) return;
    if (type === "turn-reserved") {
      this.#later(event.forMs, () => engine.endReservation(database));
    } else if (type === "writer-waits") {
      this.#localWaiting.add(database);
      this.#want(database);
      this.#later(timeoutMs + 1, () => engine.denyWriters(database, timeoutMs));
    }
  }

  #later(delayMs: number, act: () => Promise<void>): void {
    setTimeout(() => {
      act().catch((error: unknown) => {
        this.#options.log.debug("the engine has stopped", { error: errorText(error) });
      });
    }, delayMs).unref();
  }
}
