import type { ForwardedCommit } from "../database/forwarded-commit.ts";
import { lockOutReaders, unlockReaders } from "../database/apply.ts";
import type { LoanResult, WriteEvent } from "../database/write-engine.ts";
import { F_WRLCK } from "../fuse/constants.ts";
import { errorText } from "../lib/errors.ts";
import type { Position } from "../lib/position.ts";
import { positionsEqual } from "../lib/position.ts";
import { RESERVED_BYTE, WAL_WRITE_LOCK } from "../sqlite/locks.ts";
import type { DatabaseEntry, FileNode } from "./entry.ts";
import { DAEMON_FH } from "./lock-table.ts";
import type { LockWaiter } from "./lock-waiters.ts";
import type { Turns } from "./turns.ts";

/** How an application's request for SQLite's write lock is answered. */
export type TurnAnswer = "granted" | "busy";

/** A request for SQLite's write lock whose answer waits. */
export interface TurnRequest extends LockWaiter {
  readonly node: FileNode;
}

export interface WriteTurnsHost {
  isPrimary(): boolean;
  /** Nobody may begin to write now: the lease is about to change hands. */
  isHeldBack(): boolean;
  /** Answers a deferred request. */
  answer(request: TurnRequest, answer: TurnAnswer): void;
  tell(event: WriteEvent): void;
}

/** The place of an application that had to go away and will be back. */
interface Reservation {
  readonly isReservation: true;
}

interface Borrower {
  readonly loan: string;
  readonly lent: (result: LoanResult) => void;
}

/**
 * Whose turn it is to write one database, among the applications here and the nodes of the cluster.
 *
 * The right to write belongs to the primary. There, applications take SQLite's write lock as ever,
 * until another node asks for the right; then both queue up, in the order they came. On a replica
 * an application's request waits until this node has borrowed the right and stands where the
 * primary stands. Applications among themselves do what SQLite always does: one of them writes, the
 * others are told SQLITE_BUSY.
 */
export class WriteTurns implements Turns {
  readonly #entry: DatabaseEntry;
  readonly #host: WriteTurnsHost;
  /** In the order in which they came: requests of applications, and on the primary of nodes. */
  #queue: Turn[] = [];
  /** The reservation whose turn it is. */
  #reserved: Reservation | undefined;
  /** On the primary: the node that has the right. */
  #loan: string | undefined;
  #isSettling = false;
  /** On a replica. */
  #right: "none" | "asked" | "held" = "none";
  #isRecalled = false;
  /** Where the primary stood when it lent the right, and since then this node itself. */
  #position: Position | undefined;
  #isCaughtUp = false;
  /** An application holds SQLite's write lock under the right. */
  #isWriting = false;
  #hasCommitted = false;
  #nextCommit = 1;
  readonly #commits = new Map<number, (isCommitted: boolean) => void>();

  constructor(entry: DatabaseEntry, host: WriteTurnsHost) {
    this.#entry = entry;
    this.#host = host;
  }

  /** On the primary: an application must queue up. */
  get isContended(): boolean {
    return this.#loan !== undefined || this.#queue.length > 0;
  }
  get hasRight(): boolean {
    return this.#right === "held" && !this.#isRecalled;
  }
  get loan(): string | undefined {
    return this.#loan;
  }
  /** Applications ask, so nobody need be kept out. */
  get isGuarded(): boolean {
    return false;
  }
  /** Every release of a lock is a request. */
  get isWaiting(): boolean {
    return false;
  }

  /** An application asks for SQLite's write lock. Undefined: it is answered later. */
  request(request: TurnRequest): TurnAnswer | undefined {
    if (request.node.kind === "database" && request.node.locks.isDaemonLocked) {
      // The daemon is about to lock out readers, of which this is one.
      this.#wait(request);
      this.makeWay();
      return undefined;
    }
    if (this.#host.isPrimary()) {
      if (request.node.kind === "database" && this.#isAppWriting) {
        // He holds a read lock, for whose end the commit of the one who writes has to wait.
        this.#keepPlace();
        return "busy";
      }
      if (this.#reserved !== undefined && !this.#host.isHeldBack()) {
        const answer = this.#tryGrant(request);
        if (answer === "granted") this.endReservation();
        if (answer !== undefined) return answer;
      }
      this.#wait(request);
      return undefined;
    }
    if (this.hasRight && this.#queue.length === 0) {
      const answer = this.#tryGrant(request);
      if (answer !== undefined) return answer;
    }
    if (this.#right === "held" && !this.#isRecalled) this.#queue.push(request);
    else this.#wait(request);
    return undefined;
  }

  #wait(request: TurnRequest): void {
    this.#queue.push(request);
    if (this.#right === "none" && !this.#host.isPrimary()) this.#right = "asked";
    this.#host.tell({ type: "writer-waits", database: this.#entry.db.name });
  }

  /** Nobody waits for the answer to this request any more. */
  cancel(request: TurnRequest): void {
    this.#queue = this.#queue.filter((turn) => turn !== request);
  }

  /** Undefined: not now, but soon. */
  #tryGrant(request: TurnRequest): TurnAnswer | undefined {
    if (!this.#host.isPrimary() && !this.#checkPosition()) {
      // In a rollback mode it holds a read lock, so nothing can be applied before it gives up.
      return request.node.kind === "database" ? "busy" : undefined;
    }
    const { node, fh, ownerLo, ownerHi, start, end, pid } = request;
    const { locks } = node;
    const conflict = locks.conflict(ownerLo, ownerHi, false, start, end, F_WRLCK);
    // What the daemon does takes microseconds; who knows how long an application writes.
    if (conflict !== undefined) {
      return conflict.fh === DAEMON_FH && node.kind === "shm" ? undefined : "busy";
    }
    locks.set(ownerLo, ownerHi, fh, pid, start, end, F_WRLCK);
    this.#entry.local.forgetIndex();
    if (!this.#host.isPrimary()) {
      this.#isWriting = true;
      this.#hasCommitted = false;
    }
    return "granted";
  }

  /** False while the database here is behind the primary, or when it has left it. */
  #checkPosition(): boolean {
    const { db } = this.#entry;
    const expected = this.#position;
    if (expected === undefined) return false;
    if (positionsEqual(db.position, expected)) {
      // Its readers must see what it has before they write after it.
      this.#isCaughtUp ||= positionsEqual(this.#entry.visiblePosition, expected);
      return this.#isCaughtUp;
    }
    if (this.#isCaughtUp || db.position.txid >= expected.txid) this.#lost();
    return false;
  }

  #lost(): void {
    this.#endRight();
    this.#host.tell({ type: "right-lost", database: this.#entry.db.name });
  }

  /** Some lock was released: perhaps that of the application that was writing. */
  noticeLeaving(): void {
    if (this.#isWriting && !this.#isAppWriting) this.#writerLeft();
  }

  /** Some lock was released, or the database has moved: whose turn is it now? */
  serve(): void {
    if (this.#queue.length === 0) return;
    if (this.#host.isPrimary()) this.#serveAsPrimary();
    else if (this.hasRight) this.#serveAsReplica();
  }

  get #isAppWriting(): boolean {
    const { nodes } = this.#entry;
    return (
      nodes.get("shm")?.locks.isWriteLocked(WAL_WRITE_LOCK, WAL_WRITE_LOCK) === true ||
      nodes.get("database")?.locks.isWriteLocked(RESERVED_BYTE, RESERVED_BYTE) === true
    );
  }

  #writerLeft(): void {
    const { db } = this.#entry;
    this.#isWriting = false;
    if (db.hasOpenChanges && !this.#host.isPrimary()) this.#takeBack();
    const isReturned = this.#isRecalled;
    if (isReturned) this.#endRight();
    else if (this.#right !== "held") db.arbiter = undefined;
    const hasCommitted = this.#hasCommitted;
    this.#host.tell({ type: "writer-left", database: db.name, hasCommitted, isReturned });
    if (this.#queue.length > 0 && this.#right === "none") this.#askAgain();
  }

  /** The writer died. On a replica nobody else may play the journal back. */
  #takeBack(): void {
    const { db } = this.#entry;
    const entry = this.#entry;
    // At once, before anything that waits for the lock continues what it wrote.
    db.takeBackOpenChanges();
    entry.enqueue(
      function* () {
        try {
          yield* lockOutReaders(entry);
          yield (resume) => db.kernel.settled(resume);
        } finally {
          unlockReaders(entry);
        }
      },
      () => undefined,
      (error) => db.quarantine(`cannot take back what a writer left: ${errorText(error)}`),
    );
  }

  #serveAsReplica(): void {
    const waiting = this.#queue;
    this.#queue = [];
    for (const turn of waiting) {
      if (!isRequest(turn)) continue;
      const answer = this.hasRight ? this.#tryGrant(turn) : undefined;
      if (answer === undefined) this.#queue.push(turn);
      else this.#host.answer(turn, answer);
    }
    if (this.#queue.length > 0 && this.#right === "none") this.#askAgain();
  }

  #askAgain(): void {
    this.#right = "asked";
    this.#host.tell({ type: "writer-waits", database: this.#entry.db.name });
  }

  #serveAsPrimary(): void {
    if (this.#host.isHeldBack()) return;
    for (let turn = this.#queue[0]; turn !== undefined; turn = this.#queue[0]) {
      if (this.#loan !== undefined) return;
      if (isReservation(turn)) {
        if (this.#reserved === turn) return;
        this.#reserved = turn;
        this.#host.tell({ type: "turn-reserved", database: this.#entry.db.name });
        return;
      }
      if (isRequest(turn)) {
        const answer = this.#tryGrant(turn);
        if (answer === undefined) return;
        this.#queue.shift();
        this.#host.answer(turn, answer);
        // The others hold read locks, for whose end his commit would wait.
        if (answer === "granted") this.makeWay();
      } else if (!this.#tryLend(turn)) return;
      else this.#queue.shift();
    }
  }

  /**
   * The daemon waits for the readers of the database file. In the rollback modes whoever waits for
   * his turn to write is one of them: he is told to try again, and keeps his place.
   */
  makeWay(): void {
    const waiting = this.#queue;
    const isPrimary = this.#host.isPrimary();
    const isInTheWay = (turn: Turn): turn is TurnRequest =>
      isRequest(turn) && turn.node.kind === "database";
    if (!waiting.some(isInTheWay)) return;
    this.#queue = [];
    for (const turn of waiting) {
      if (!isInTheWay(turn)) this.#queue.push(turn);
      else if (isPrimary) this.#keepPlace();
    }
    for (const turn of waiting) if (isInTheWay(turn)) this.#host.answer(turn, "busy");
  }

  /** One place is enough: whoever comes back first takes it, and the others ask again. */
  #keepPlace(): void {
    if (!this.#queue.some(isReservation)) this.#queue.push({ isReservation: true });
  }

  /** Whoever the turn was kept for has it now, or has not come back. */
  endReservation(): void {
    const reserved = this.#reserved;
    this.#reserved = undefined;
    this.#queue = this.#queue.filter((turn) => turn !== reserved);
    this.serve();
  }

  // The primary lends the right.

  lend(loan: string, lent: (result: LoanResult) => void): void {
    if (this.#loan === loan) {
      lent({ kind: "lent", position: this.#entry.db.position });
      return;
    }
    this.#queue.push({ loan, lent });
    this.serve();
  }

  #tryLend({ loan, lent }: Borrower): boolean {
    const { db } = this.#entry;
    if (this.#isAppWriting || this.#isSettling) return false;
    if (db.status === "quarantined") {
      lent({ kind: "refused", reason: `database is quarantined: ${db.reason}` });
      return true;
    }
    if (db.hasOpenChanges) {
      this.#settle();
      return false;
    }
    this.#loan = loan;
    db.isLent = true;
    lent({ kind: "lent", position: db.position });
    return true;
  }

  /** A writer died here in the middle of a transaction, and nobody has opened the database since. */
  #settle(): void {
    const entry = this.#entry;
    const { db } = entry;
    this.#isSettling = true;
    entry.enqueue(
      function* () {
        try {
          yield* lockOutReaders(entry);
          if (db.isJournalHot) db.takeBackOpenChanges();
          yield (resume) => db.kernel.settled(resume);
        } finally {
          unlockReaders(entry);
        }
      },
      () => {
        this.#isSettling = false;
        // Who writes without a journal, `cp` for example, is done when he closes the file.
        if (!db.hasOpenChanges) this.serve();
      },
      (error) => {
        this.#isSettling = false;
        db.quarantine(`cannot roll back what a writer left: ${errorText(error)}`);
        this.serve();
      },
    );
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

  // A replica borrows it.

  /** False when the database here is not a past of the primary's. */
  grant(position: Position): boolean {
    if (this.#host.isPrimary()) return false;
    this.#right = "held";
    this.#isRecalled = false;
    this.#position = position;
    this.#isCaughtUp = false;
    this.#entry.db.arbiter = this;
    this.#checkPosition();
    if (!this.hasRight) return false;
    this.#serveAsReplica();
    return true;
  }

  /** True when the right is given back; otherwise an application is writing, who will leave. */
  recall(): boolean {
    this.#isRecalled = true;
    if (this.#isWriting) return false;
    this.#endRight();
    if (this.#queue.length > 0) this.#askAgain();
    return true;
  }

  lose(): void {
    this.recall();
  }

  /** Applications that have waited for so long are told SQLITE_BUSY. */
  deny(waitedMs: number): void {
    const limit = performance.now() - waitedMs;
    const denied = this.#queue.filter((turn) => isRequest(turn) && turn.sinceMs <= limit);
    this.#queue = this.#queue.filter((turn) => !denied.includes(turn));
    if (this.#right === "asked" && this.#queue.length === 0) this.#right = "none";
    for (const turn of denied) if (isRequest(turn)) this.#host.answer(turn, "busy");
  }

  #endRight(): void {
    if (this.#right === "held") this.#right = "none";
    this.#position = undefined;
    this.#isRecalled = false;
    if (!this.#isWriting) this.#entry.db.arbiter = undefined;
  }

  /** This node has become the primary, or has stopped being it. */
  roleChanged(): void {
    this.#loan = undefined;
    this.#entry.db.isLent = false;
    this.#right = "none";
    this.#isRecalled = false;
    this.#isWriting = false;
    this.#position = undefined;
    if (!this.#entry.db.isUndecided) this.#entry.db.arbiter = undefined;
    const waiting = this.#queue;
    this.#queue = [];
    this.#reserved = undefined;
    for (const turn of waiting) {
      if (isBorrower(turn)) {
        turn.lent({ kind: "refused", reason: "this node is not the primary any more" });
      }
      if (!isRequest(turn)) continue;
      // It waits on, for what the new role gives it.
      const answer = this.request(turn);
      if (answer !== undefined) this.#host.answer(turn, answer);
    }
    this.serve();
  }

  // Commits of applications on a replica.

  submit(commit: ForwardedCommit, decided: (isCommitted: boolean) => void): void {
    const { position, ltx, path, isDurable } = commit;
    const number = this.#nextCommit++;
    this.#commits.set(number, decided);
    this.#host.tell({
      type: "commit",
      database: this.#entry.db.name,
      commit: number,
      position,
      ltx,
      path,
      isDurable,
    });
  }

  decide(commit: number, isCommitted: boolean): void {
    const decided = this.#commits.get(commit);
    this.#commits.delete(commit);
    if (decided === undefined) return;
    decided(isCommitted);
    const { db } = this.#entry;
    if (isCommitted && this.#position !== undefined) {
      this.#hasCommitted = true;
      this.#position = db.position;
    }
    if (this.#right !== "held" && !this.#isWriting) db.arbiter = undefined;
  }
}

type Turn = TurnRequest | Borrower | Reservation;

function isRequest(turn: Turn): turn is TurnRequest {
  return "uniqueLo" in turn;
}
function isBorrower(turn: Turn): turn is Borrower {
  return "loan" in turn;
}
function isReservation(turn: Turn): turn is Reservation {
  return "isReservation" in turn;
}
