import type { LoanResult } from "../database/write-engine.ts";
import type { Position } from "../lib/position.ts";
import { positionsEqual } from "../lib/position.ts";
import type { DatabaseEntry } from "./entry.ts";
import type { Guard } from "./kernel-entry-locks.ts";
import { SubmittedCommits } from "./submitted-commits.ts";
import type { Turns } from "./turns.ts";
import { settleAbandoned, takeBackAtOnce } from "./abandoned-changes.ts";
import { warnOfLostHalt } from "./write-turn-kinds.ts";
import type { Borrower, HaltTurn, WriteTurnsHost } from "./write-turn-kinds.ts";

/** An application tries again for as long as it has patience: one message in this time is enough. */
const TELL_EVERY_MS = 20;
/**
 * For so long the primary keeps a turn for an application that has tried in vain. SQLite pauses for up
 * to 100 ms between two tries: with less time whoever waited longest would miss each turn of his.
 */
export const RESERVED_MS = 150;
/** Timers of another thread may be early by the clock of this one. */
const EARLY_MS = 5;

/** The place of an application, which will be back. */
interface Reservation {
  readonly isReservation: true;
}

/**
 * Whose turn it is to write one database where the kernel keeps the locks. Nobody asks here before he
 * writes. Instead, applications are kept from writing by a guard (see KernelEntryLocks), their failed
 * attempts become known, and they try again, as SQLite does for the time of their `busy_timeout`.
 *
 * On a replica the guard stands until this node has borrowed the right and is where the primary is,
 * and again before it gives the right back. On the primary it stands while another node has the right,
 * and while too few replicas acknowledge what is committed.
 */
export class KernelTurns implements Turns {
  readonly #entry: DatabaseEntry;
  readonly #host: WriteTurnsHost;
  readonly #guard: Guard;
  #toldAtMs = -Infinity;
  // On the primary.
  #queue: (Borrower | Reservation)[] = [];
  /** It is the turn of an application, from this transaction of the database on. */
  #reserved: { readonly txid: number; readonly sinceMs: number } | undefined;
  #loan: string | undefined;
  #isSettling = false;
  /**
   * Nobody may write, because too few replicas would have it. As `serve` has found it: their number
   * changes in another thread, and a guard must not seem to stand that nobody has taken.
   */
  #isFenced = false;
  // On a replica.
  #right: "none" | "asked" | "held" = "none";
  #isRecalled = false;
  /** Where the primary stood when it lent the right, and since then this node itself. */
  #position: Position | undefined;
  #isCaughtUp = false;
  /** Applications may write under the right, and perhaps one does. */
  #isOpen = false;
  #isUsed = false;
  #hasCommitted = false;
  /** A process has the halt lock: the right stays here until he gives it up. */
  #isHalted = false;
  /** The right was recalled in the meantime, and goes back after that. */
  #isReturnDue = false;
  /** Processes that wait for the halt lock. */
  #halts: HaltTurn[] = [];
  readonly submitted: SubmittedCommits;

  constructor(entry: DatabaseEntry, host: WriteTurnsHost, guard: Guard) {
    this.#entry = entry;
    this.#host = host;
    this.#guard = guard;
    this.submitted = new SubmittedCommits(entry.db.name, (event) => host.tell(event));
  }

  get hasRight(): boolean {
    return this.#right === "held" && !this.#isRecalled;
  }
  get loan(): string | undefined {
    return this.#loan;
  }

  get isGuarded(): boolean {
    if (!this.#host.isPrimary()) return !this.#isOpen || this.#isRecalled;
    if (this.#host.isHeldBack() || this.#isFenced || this.#loan !== undefined) return true;
    return this.#queue.length > 0 && this.#reserved === undefined;
  }

  get isWaiting(): boolean {
    return this.isGuarded && !this.#guard.take();
  }

  /** An application has tried to take SQLite's write lock, in vain. */
  attempted(): void {
    const isPrimary = this.#host.isPrimary();
    // Applications among themselves, or nobody on any node may write now.
    if (!this.isGuarded || (isPrimary && (this.#host.isHeldBack() || this.#isFenced))) return;
    if (!isPrimary && this.hasRight) return;
    if (isPrimary) this.#keepPlace();
    const nowMs = performance.now();
    if (nowMs - this.#toldAtMs < TELL_EVERY_MS) return;
    this.#toldAtMs = nowMs;
    if (!isPrimary && this.#right === "none") this.#right = "asked";
    this.#host.tell({ type: "writer-waits", database: this.#entry.db.name });
  }

  /** An application writes. */
  noticeWrite(): void {
    if (this.#isOpen && !this.#isUsed && this.hasRight) {
      // It has come back in time for the right that was borrowed for it.
      this.#isUsed = true;
      this.#tellUse(true);
    }

    if (this.#reserved !== undefined && this.#entry.db.log.txid > this.#reserved.txid) {
      this.#serveNext();
    }
  }

  /** Nobody here waits for an answer. */
  makeWay(): void {
    return;
  }

  noticeLeaving(): void {
    if (!this.#isOpen || !this.#isRecalled || !this.#tryClose()) return;
    const hasCommitted = this.#hasCommitted;
    this.#endRight();
    this.#tellLeft(hasCommitted, true);
    this.#askForHalts();
  }

  serve(): void {
    this.#isFenced = this.#entry.db.isFenced;
    if (this.#host.isPrimary()) this.#serveAsPrimary();
    else this.#serveAsReplica();
    this.#serveHalts();
    this.noticeLeaving();
    this.#keepGuard();
  }

  #keepGuard(): void {
    if (!this.isGuarded) this.#guard.drop();
    else if (!this.#guard.take()) this.#guard.watch();
  }

  // A replica borrows the right.

  #serveAsReplica(): void {
    if (!this.hasRight) return;
    if (!this.#isOpen) {
      if (this.#checkPosition()) this.#open();
      return;
    }
    const { db } = this.#entry;
    if (db.isUndecided || this.#position === undefined) return;
    // What came by the stream is not ours.
    if (!positionsEqual(db.position, this.#position)) this.#lost();
  }

  grant(position: Position): boolean {
    if (this.#host.isPrimary()) return false;
    // An application that began under a right which has ended since goes on with this one, if it can.
    if (this.#isOpen && !positionsEqual(this.#entry.db.position, position)) return false;
    this.#right = "held";
    this.#isRecalled = false;
    this.#position = position;
    this.#isCaughtUp = false;
    this.#entry.db.arbiter = this.submitted;
    if (!this.#isOpen && this.#checkPosition()) this.#open();
    this.#serveHalts();
    this.#keepGuard();
    return this.hasRight;
  }

  /** False while the database here is behind the primary, or when it has left it. */
  #checkPosition(): boolean {
    const { db, visiblePosition } = this.#entry;
    const expected = this.#position;
    if (expected === undefined) return false;
    if (positionsEqual(db.position, expected)) {
      // Its readers must see what it has before they write after it.
      this.#isCaughtUp ||= positionsEqual(visiblePosition, expected);
      return this.#isCaughtUp;
    }
    if (this.#isCaughtUp || db.position.txid >= expected.txid) this.#lost();
    return false;
  }

  #open(): void {
    this.#isOpen = true;
    this.#isUsed = false;
    this.#hasCommitted = false;
    this.#entry.forgetIndex();
    this.#guard.drop();
  }

  #lost(): void {
    if (this.#isHalted) warnOfLostHalt(this.#entry);
    if (this.#isOpen) this.#isRecalled = true;
    else this.#endRight();
    this.#host.tell({ type: "right-lost", database: this.#entry.db.name });
  }

  recall(): boolean {
    if (this.#isHalted && this.#right === "held") {
      this.#isReturnDue = true;
      return false;
    }
    return this.#takeAway();
  }

  #takeAway(): boolean {
    this.#isRecalled = true;
    this.#isReturnDue = false;
    if (this.#isOpen && !this.#tryClose()) {
      this.#guard.watch();
      return false;
    }
    this.#endRight();
    this.#askForHalts();
    return true;
  }

  /** Also from a holder of the halt lock, who cannot be told; the right is borrowed anew for him. */
  lose(): void {
    if (this.#isHalted && this.#right === "held") warnOfLostHalt(this.#entry);
    this.#takeAway();
  }

  halt(turn: HaltTurn): void {
    this.#halts.push(turn);
    this.serve();
    this.#askForHalts();
  }

  #serveHalts(): void {
    const isHere = this.#host.isPrimary() || (this.hasRight && this.#isOpen);
    if (!isHere || this.#halts.length === 0) return;
    this.#isHalted = true;
    for (const turn of this.#halts.splice(0)) turn.answer(true);
  }

  #askForHalts(): void {
    const isWanted = this.#halts.length > 0 || this.#isHalted;
    if (!isWanted || this.#right !== "none" || this.#host.isPrimary()) return;
    this.#right = "asked";
    this.#host.tell({ type: "writer-waits", database: this.#entry.db.name });
  }

  cancel(turn: HaltTurn): void {
    this.#halts = this.#halts.filter((other) => other !== turn);
  }

  endHalt(): void {
    this.#isHalted = false;
    if (this.#right !== "held") return;
    if (!this.#isReturnDue) {
      this.#tellUse(true);
      return;
    }
    if (this.#takeAway()) this.#tellLeft(true, true);
  }

  /** False while an application writes. */
  #tryClose(): boolean {
    const { db } = this.#entry;
    if (db.isUndecided || !this.#guard.take()) return false;
    this.#isOpen = false;
    if (db.hasOpenChanges && !this.#host.isPrimary()) takeBackAtOnce(this.#entry);
    return true;
  }

  #endRight(): void {
    if (this.#right === "held") this.#right = "none";
    this.#position = undefined;
    this.#isRecalled = false;
    if (!this.#isOpen && !this.#entry.db.isUndecided) this.#entry.db.arbiter = undefined;
  }

  /** SQLite itself says SQLITE_BUSY when the patience of an application is over. */
  deny(waitedMs: number): void {
    const limit = performance.now() - waitedMs;
    const denied = this.#halts.filter(({ sinceMs }) => sinceMs <= limit);
    this.#halts = this.#halts.filter(({ sinceMs }) => sinceMs > limit);
    if (this.#right === "asked" && this.#halts.length === 0) this.#right = "none";
    for (const turn of denied) turn.answer(false);
  }

  // The primary lends it.

  lend(loan: string, lent: (result: LoanResult) => void): void {
    if (this.#loan === loan) {
      lent({ kind: "lent", position: this.#entry.db.position });
      return;
    }
    this.#queue.push({ loan, lent, sinceMs: performance.now() });
    this.serve();
  }

  #serveAsPrimary(): void {
    if (this.#host.isHeldBack() || this.#isFenced) return;
    for (let turn = this.#queue[0]; turn !== undefined; turn = this.#queue[0]) {
      if (this.#loan !== undefined || this.#reserved !== undefined) return;
      if (!isBorrower(turn)) {
        const { name, log } = this.#entry.db;
        this.#reserved = { txid: log.txid, sinceMs: performance.now() };
        this.#queue.shift();
        this.#host.tell({ type: "turn-reserved", database: name, forMs: RESERVED_MS });
        return;
      }
      if (!this.#tryLend(turn)) return;
      this.#queue.shift();
    }
  }

  #tryLend({ loan, lent }: Borrower): boolean {
    const { db } = this.#entry;
    if (this.#isSettling) return false;
    if (db.status === "quarantined") {
      lent({ kind: "refused", reason: `database is quarantined: ${db.reason}` });
      return true;
    }
    if (db.hasOpenChanges) {
      if (this.#guard.isAnyoneWriting()) this.#guard.watch();
      else this.#settle();
      return false;
    }
    if (!this.#guard.take()) return false;
    this.#loan = loan;
    db.isLent = true;
    lent({ kind: "lent", position: db.position });
    return true;
  }

  #settle(): void {
    this.#isSettling = true;
    settleAbandoned(this.#entry, (mayServe) => {
      this.#isSettling = false;
      if (mayServe) this.serve();
    });
  }

  /** One place is enough: whoever comes first takes it, and the others try again. */
  #keepPlace(): void {
    const isKept = !this.#queue.every((turn) => isBorrower(turn));
    if (!isKept) this.#queue.push({ isReservation: true });
  }

  endReservation(): void {
    // The time may be that of a turn before, which was used.
    const sinceMs = this.#reserved?.sinceMs ?? -Infinity;
    if (performance.now() - sinceMs >= RESERVED_MS - EARLY_MS) this.#serveNext();
  }

  #serveNext(): void {
    this.#reserved = undefined;
    this.serve();
  }

  endLoan(loan: string): void {
    for (const turn of this.#queue) {
      if (!isBorrower(turn) || turn.loan !== loan) continue;
      this.#queue = this.#queue.filter((other) => other !== turn);
      turn.lent({ kind: "refused", reason: "the request was withdrawn" });
    }
    if (this.#loan === loan) {
      this.#loan = undefined;
      this.#entry.db.isLent = false;
    }
    this.serve();
  }

  roleChanged(): void {
    const { db } = this.#entry;
    this.#loan = undefined;
    db.isLent = false;
    this.#right = "none";
    this.#isRecalled = false;
    this.#isOpen = false;
    this.#position = undefined;
    if (!db.isUndecided) db.arbiter = undefined;
    const waiting = this.#queue;
    this.#queue = [];
    this.#reserved = undefined;
    for (const turn of waiting) {
      if (!isBorrower(turn)) continue;
      turn.lent({ kind: "refused", reason: "this node is not the primary any more" });
    }
    this.#isReturnDue = false;
    this.serve();
    this.#askForHalts();
  }

  // Commits of applications on a replica.

  decide(commit: number, isCommitted: boolean): void {
    const submitted = this.submitted.take(commit);
    if (submitted === undefined) return;
    const { db } = this.#entry;
    if (isCommitted && this.#position !== undefined) {
      this.#hasCommitted = true;
      // Before the database is there: what is done then looks at both.
      this.#position = submitted.position;
    }
    submitted.decided(isCommitted);
    if (this.#position !== undefined) this.#position = db.position;
    if (this.#right !== "held" && !this.#isOpen) db.arbiter = undefined;
    // It holds SQLite's lock for some moments more; `recall` will see.
    else if (this.hasRight) this.#tellUse(isCommitted);
  }

  #tellUse(hasCommitted: boolean): void {
    this.#tellLeft(hasCommitted, false);
  }

  #tellLeft(hasCommitted: boolean, isReturned: boolean): void {
    const database = this.#entry.db.name;
    const left = { type: "writer-left", database, hasCommitted, isReturned } as const;
    this.#host.tell({ ...left, hasNext: this.#halts.length > 0 });
  }
}

function isBorrower(turn: Borrower | Reservation): turn is Borrower {
  return "loan" in turn;
}
