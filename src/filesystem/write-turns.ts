import type { LoanResult } from "../database/write-engine.ts";
import { F_WRLCK } from "../fuse/constants.ts";
import { settleAbandoned, takeBackAtOnce } from "./abandoned-changes.ts";
import type { Position } from "../lib/position.ts";
import { positionsEqual } from "../lib/position.ts";
import type { DatabaseEntry } from "./entry.ts";
import { DAEMON_FH } from "./lock-table.ts";
import {
  isBorrower,
  isHalt,
  isKnock,
  isRequest,
  isWatched,
  warnOfLostHalt,
} from "./write-turn-kinds.ts";
import type {
  Borrower,
  HaltTurn,
  Knock,
  Turn,
  TurnAnswer,
  TurnRequest,
  WriteTurnsHost,
} from "./write-turn-kinds.ts";
import { isReading, isWriting, takeReadLock, WriteDoor } from "./write-door.ts";
import type { LockOwner } from "./write-door.ts";
import { TurnQueue } from "./turn-queue.ts";
import { SubmittedCommits } from "./submitted-commits.ts";
import { longestWaitMs } from "./sibling-threads.ts";
import type { Turns } from "./turns.ts";

/** For so long a reader who is expected to write waits for his turn, and then just reads. */
const DOOR_MAX_MS = 1_000;
/** How often those are looked after for whom a turn is kept. */
const WATCH_MS = 60;

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
  readonly #queue = new TurnQueue();
  /** Who has been told SQLITE_BUSY and comes back. */
  readonly door: WriteDoor = new WriteDoor();
  /** The main thread will call `endReservation`. */
  #isTimed = false;
  /** Who holds, or has held last, SQLite's write lock under the right. */
  #writer: (LockOwner & { readonly placeMs: number }) | undefined;
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
  /** A process has the halt lock: the right stays here until he gives it up. */
  #isHalted = false;
  /** The right was recalled in the meantime, and goes back after that. */
  #isReturnDue = false;
  readonly submitted: SubmittedCommits;

  constructor(entry: DatabaseEntry, host: WriteTurnsHost) {
    this.#entry = entry;
    this.#host = host;
    this.submitted = new SubmittedCommits(entry.db.name, (event) => host.tell(event));
  }

  /** On the primary: an application must queue up. */
  get isContended(): boolean {
    return this.#loan !== undefined || this.#queue.length > 0 || this.door.admitted !== undefined;
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
    if (this.door.isKeptFrom(request) || (this.#isAppWriting && this.#right === "held")) {
      return this.#sendAway(request);
    }
    if (this.#host.isPrimary()) {
      if (this.#entry.db.isFenced) return "busy";
      // In a rollback mode he holds a read lock, for whose end the one who writes would wait; in WAL
      // mode he has read what will be old.
      if (this.#isAppWriting) return this.#sendAway(request);
      if (this.door.isAdmitted(request) && !this.#host.isHeldBack()) {
        const answer = this.#grantNow(request);
        if (answer !== undefined) return answer;
      }
      this.#wait(request);
      // What was in the way when he asked may have ended before he came here.
      this.serve();
      return undefined;
    }
    const isNext = this.hasRight && this.#queue.length === 0;
    if (isNext || (this.#right === "held" && this.door.isAdmitted(request))) {
      const answer = this.#grantNow(request);
      if (answer !== undefined) return answer;
    }
    if (this.hasRight) this.#enqueue(request);
    else this.#wait(request);
    return undefined;
  }

  /** A process asks for the halt lock. It is answered at once or later. */
  halt(turn: HaltTurn): void {
    if (this.#tryHalt(turn)) return;
    // With the right here it waits for the database to stand where the primary stands.
    if (this.hasRight) this.#enqueue(turn);
    else this.#wait(turn);
  }

  #tryHalt(turn: HaltTurn): boolean {
    const isHere = this.#host.isPrimary() || (this.hasRight && this.#checkPosition());
    if (!isHere) return false;
    this.#isHalted = true;
    turn.answer(true);
    return true;
  }

  endHalt(): void {
    this.#isHalted = false;
    if (this.#right !== "held") return;
    this.#isRecalled ||= this.#isReturnDue;
    this.#isReturnDue = false;
    // He who is still writing goes back with the right when he leaves.
    if (!this.#isWriting) this.#leave(true);
  }

  #grantNow(request: TurnRequest): TurnAnswer | undefined {
    const answer = this.#tryGrant(request);
    // Others who wait hold read locks, for whose end his commit would wait.
    if (answer === "granted") this.makeWay();
    return answer;
  }

  /** He is expected back, and waits for his turn at the door then. */
  #sendAway(request: TurnRequest): "busy" {
    this.door.expect(request, this.#queue.placeOf(request));
    return "busy";
  }

  /**
   * An application asks for a read lock. True: it may have it now; otherwise it is answered later,
   * because it is expected to write and others have their turn.
   */
  knock(knock: Knock): boolean {
    const isExpected = this.door.takeExpected(knock);
    if (this.door.isAdmitted(knock)) this.door.enter();
    if (!isExpected || this.door.isAdmitted(knock)) return true;
    if (this.#queue.length === 0 && this.#mayEnter()) {
      this.#admit(knock, true);
      return true;
    }
    if (this.hasRight) this.#enqueue(knock);
    else this.#wait(knock);
    this.serve();
    return false;
  }

  /** Whether whoever reads now may write next. */
  #mayEnter(): boolean {
    if (this.door.admitted !== undefined || this.#isAppWriting || this.#isSettling) return false;
    if (this.#entry.isBusy) return false;
    return this.#host.isPrimary()
      ? this.#loan === undefined && !this.#host.isHeldBack()
      : this.hasRight && this.#checkPosition();
  }

  #admit(owner: LockOwner, hasEntered: boolean): void {
    this.door.admit(owner, hasEntered);
    this.#watch();
  }

  /** Somebody may not come, and nobody must wait at the door for long. */
  #watch(): void {
    if (this.#isTimed) return;
    this.#isTimed = true;
    this.#host.tell({ type: "turn-reserved", database: this.#entry.db.name, forMs: WATCH_MS });
  }

  /** False while it must wait. */
  #tryEnter(knock: Knock): boolean {
    if (!this.#mayEnter()) return false;
    if (this.#queue.isOlder(knock, this.#entry.db.position.txid)) {
      // SQLite has read the head of the wal-index before it asked, and begins anew, at once.
      this.#admit(knock, false);
      this.#host.answer(knock, this.#sendAway(knock));
      return true;
    }
    const conflict = takeReadLock(knock);
    if (conflict?.fh === DAEMON_FH) return false;
    if (conflict === undefined) this.#admit(knock, true);
    this.#host.answer(knock, conflict === undefined ? "granted" : this.#sendAway(knock));
    return true;
  }

  /** He reads, whoever writes. */
  #open(knock: Knock): void {
    this.#host.answer(knock, takeReadLock(knock) === undefined ? "granted" : "busy");
  }

  #enqueue(turn: Turn): void {
    const placeMs = "uniqueLo" in turn ? this.door.placeOf(turn) : turn.sinceMs;
    this.#queue.add(turn, { placeMs, txid: this.#entry.db.position.txid });
    if (isWatched(turn)) this.#watch();
  }

  #wait(request: TurnRequest | HaltTurn | Knock): void {
    this.#enqueue(request);
    if (this.#right === "none" && !this.#host.isPrimary()) this.#right = "asked";
    this.#host.tell({ type: "writer-waits", database: this.#entry.db.name });
  }

  /** Nobody waits for the answer to this request any more. */
  cancel(request: TurnRequest | HaltTurn): void {
    this.#queue.remove(request);
  }

  /** Undefined: not now, but soon. */
  #tryGrant(request: TurnRequest): TurnAnswer | undefined {
    if (!this.#host.isPrimary() && !this.#checkPosition()) {
      // In a rollback mode it holds a read lock, so nothing can be applied before it gives up.
      return request.node.kind === "database" ? "busy" : undefined;
    }
    const { node, fh, ownerLo, ownerHi, start, end, pid, thread } = request;
    const { locks } = node;
    const conflict = locks.conflict(ownerLo, ownerHi, false, start, end, F_WRLCK);
    // What the daemon does takes microseconds; who knows how long an application writes.
    if (conflict !== undefined) {
      if (conflict.fh === DAEMON_FH && node.kind === "shm") return undefined;
      return this.#sendAway(request);
    }
    if (this.#queue.isOlder(request, this.#entry.db.position.txid)) {
      // SQLite would find that it has read something old. It is his turn when he has read again.
      this.#admit(request, false);
      return this.#sendAway(request);
    }
    locks.set(ownerLo, ownerHi, fh, pid, start, end, F_WRLCK);
    this.door.endAdmission();
    this.#writer = { ownerLo, ownerHi, thread, placeMs: this.door.endPlace(request) };
    this.#entry.local.forgetIndex();
    this.#queue.noteTurnHere();
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
    const { entered } = this.door;
    if (entered !== undefined && !isReading(this.#entry, entered)) this.#admissionEnds();
    if (this.#isWriting && !this.#isAppWriting) this.#writerLeft();
  }

  /** He for whom the write lock was kept has not taken it. */
  #admissionEnds(): void {
    this.door.endAdmission();
    if (!this.#isWriting && this.#isRecalled && this.#right === "held") this.#leave(false);
  }

  /** Some lock was released, or the database has moved: whose turn is it now? */
  serve(): void {
    if (this.#queue.length === 0) return;
    if (this.#host.isPrimary()) this.#serveAsPrimary();
    else if (this.hasRight) this.#serveAsReplica();
    this.#sendStaleAway();
  }

  /**
   * Whoever waits for SQLite's write lock with an old snapshot must read again before it is his turn,
   * rather than sleep and read while all others wait for him.
   */
  #sendStaleAway(): void {
    this.#sendAllAway(this.#queue.takeOlder(this.#entry.visiblePosition.txid));
  }

  #sendAllAway(turns: readonly TurnRequest[]): void {
    for (const turn of turns) this.#host.answer(turn, this.#sendAway(turn));
  }

  get #isAppWriting(): boolean {
    return isWriting(this.#entry);
  }

  #writerLeft(): void {
    const { db } = this.#entry;
    this.#isWriting = false;
    if (db.hasOpenChanges && !this.#host.isPrimary()) takeBackAtOnce(this.#entry);
    // What he had read was old: he reads again, and it is still his turn.
    if (!this.#hasCommitted && this.#writer !== undefined) {
      this.door.expect(this.#writer, this.#writer.placeMs);
    }
    this.#leave(this.#hasCommitted);
  }

  /** Nobody uses the right now; if it was recalled it goes back. */
  #leave(hasCommitted: boolean): void {
    const { db } = this.#entry;
    const isReturned = this.#isRecalled;
    if (isReturned) this.#endRight();
    else if (this.#right !== "held") db.arbiter = undefined;
    const hasNext = !isReturned && (this.#queue.length > 0 || this.door.admitted !== undefined);
    this.#host.tell({ type: "writer-left", database: db.name, hasCommitted, isReturned, hasNext });
    this.#askAgainIfWanted();
  }

  #askAgainIfWanted(): void {
    const isWanted = this.#queue.length > 0 || this.#isHalted;
    if (!isWanted || this.#right !== "none") return;
    this.#right = "asked";
    this.#host.tell({ type: "writer-waits", database: this.#entry.db.name });
  }

  #serveAsReplica(): void {
    for (const turn of this.#queue.takeAll()) {
      if (isHalt(turn)) {
        if (!this.#tryHalt(turn)) this.#queue.putBack(turn);
        continue;
      }
      if (isKnock(turn)) {
        if (!this.#tryEnter(turn)) this.#queue.putBack(turn);
        continue;
      }
      if (!isRequest(turn)) continue;
      const answer = this.hasRight ? this.#grantInTurn(turn) : undefined;
      if (answer === undefined) this.#queue.putBack(turn);
      else this.#host.answer(turn, answer);
    }
    this.#askAgainIfWanted();
  }

  #grantInTurn(turn: TurnRequest): TurnAnswer | undefined {
    if (!this.door.isKeptFrom(turn)) return this.#tryGrant(turn);
    // In a rollback mode he holds a read lock, for whose end the commit of the other would wait.
    return turn.node.kind === "database" ? this.#sendAway(turn) : undefined;
  }

  #serveAsPrimary(): void {
    if (this.#host.isHeldBack()) return;
    for (let turn = this.#queue.next; turn !== undefined; turn = this.#queue.next) {
      if (this.#loan !== undefined) return;
      if (isKnock(turn)) {
        if (!this.#tryEnter(turn)) return;
        this.#queue.remove(turn);
        this.makeWay();
        continue;
      }
      if (isRequest(turn)) {
        if (this.door.isKeptFrom(turn)) return;
        const answer = this.#tryGrant(turn);
        if (answer === undefined) return;
        this.#queue.remove(turn);
        this.#host.answer(turn, answer);
        // The others hold read locks, for whose end his commit would wait.
        if (answer === "granted") this.makeWay();
      } else if (isHalt(turn)) {
        this.#queue.remove(turn);
        this.#tryHalt(turn);
      } else if (!this.#tryLend(turn)) return;
      else this.#queue.remove(turn);
    }
  }

  /**
   * The daemon waits for the readers of the database file. In the rollback modes whoever waits for
   * his turn to write is one of them: he is told to try again, and keeps his place.
   */
  makeWay(): void {
    const isInTheWay = (turn: Turn): turn is TurnRequest =>
      isRequest(turn) && turn.node.kind === "database";
    this.#sendAllAway(this.#queue.takeOut(isInTheWay));
  }

  /** Some time has passed: whoever the turn was kept for has come, or is not waited for any more. */
  endReservation(): void {
    this.#isTimed = false;
    if (this.door.admitted === undefined) this.#admissionEnds();
    this.#openDoor(DOOR_MAX_MS);
    this.#sendSiblingsAway();
    this.serve();
    if (this.door.admitted !== undefined || this.#queue.some(isWatched)) this.#watch();
  }

  #sendSiblingsAway(): void {
    const nowMs = performance.now();
    const isDue = (turn: Turn): turn is TurnRequest =>
      isRequest(turn) && nowMs >= turn.sinceMs + longestWaitMs(turn, this.#queue.placeOf(turn));
    this.#sendAllAway(this.#queue.takeOut(isDue));
  }

  /** Lets those read who have waited for so long. */
  #openDoor(waitedMs: number): void {
    const nowMs = performance.now();
    const isDue = (turn: Turn): turn is Knock =>
      isKnock(turn) && nowMs >= turn.sinceMs + Math.min(waitedMs, longestWaitMs(turn, -Infinity));
    for (const knock of this.#queue.takeOut(isDue)) this.#open(knock);
  }

  // The primary lends the right.

  lend(loan: string, lent: (result: LoanResult) => void): void {
    if (this.#loan === loan) {
      lent({ kind: "lent", position: this.#entry.db.position });
      return;
    }
    this.#enqueue({ loan, lent, sinceMs: performance.now() });
    this.serve();
  }

  #tryLend({ loan, lent }: Borrower): boolean {
    const { db } = this.#entry;
    if (this.#isAppWriting || this.#isSettling) return false;
    if (this.door.admitted !== undefined) return false;
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

  #settle(): void {
    this.#isSettling = true;
    settleAbandoned(this.#entry, (mayServe) => {
      this.#isSettling = false;
      if (mayServe) this.serve();
    });
  }

  endLoan(loan: string): void {
    const isWithdrawn = (turn: Turn): turn is Borrower => isBorrower(turn) && turn.loan === loan;
    for (const turn of this.#queue.takeOut(isWithdrawn)) {
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
    this.#entry.db.arbiter = this.submitted;
    this.#checkPosition();
    if (!this.hasRight) return false;
    this.#serveAsReplica();
    return true;
  }

  /** True when the right is given back; otherwise an application is writing, who will leave. */
  recall(): boolean {
    if (this.#isHalted && this.#right === "held") {
      this.#isReturnDue = true;
      return false;
    }
    return this.#takeAway();
  }

  /** Also from a holder of the halt lock, who cannot be told; the right is borrowed anew for him. */
  lose(): void {
    if (this.#isHalted && this.#right === "held") warnOfLostHalt(this.#entry);
    this.#takeAway();
  }

  #takeAway(): boolean {
    this.#isRecalled = true;
    this.#isReturnDue = false;
    if (this.#isWriting || this.door.admitted !== undefined) return false;
    this.#endRight();
    this.#askAgainIfWanted();
    return true;
  }

  /** Applications that have waited for so long are told SQLITE_BUSY. */
  deny(waitedMs: number): void {
    const limit = performance.now() - waitedMs;
    const isDenied = (turn: Turn): turn is TurnRequest | HaltTurn =>
      (isRequest(turn) || isHalt(turn)) && turn.sinceMs <= limit;
    const denied = this.#queue.takeOut(isDenied);
    this.#openDoor(waitedMs);
    if (this.#right === "asked" && this.#queue.length === 0) this.#right = "none";
    for (const turn of denied) {
      if (isHalt(turn)) turn.answer(false);
      else this.#host.answer(turn, "busy");
    }
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
    this.#isReturnDue = false;
    this.#position = undefined;
    if (!this.#entry.db.isUndecided) this.#entry.db.arbiter = undefined;
    this.door.forgetAll();
    for (const turn of this.#queue.takeAll()) {
      if (isKnock(turn)) this.#open(turn);
      if (isBorrower(turn)) {
        turn.lent({ kind: "refused", reason: "this node is not the primary any more" });
      }
      if (isHalt(turn)) this.halt(turn);
      if (!isRequest(turn)) continue;
      // It waits on, for what the new role gives it.
      const answer = this.request(turn);
      if (answer !== undefined) this.#host.answer(turn, answer);
    }
    this.serve();
    if (!this.#host.isPrimary()) this.#askAgainIfWanted();
  }

  // Commits of applications on a replica.

  decide(commit: number, isCommitted: boolean): void {
    const submitted = this.submitted.take(commit);
    if (submitted === undefined) return;
    submitted.decided(isCommitted);
    const { db } = this.#entry;
    if (isCommitted && this.#position !== undefined) {
      this.#hasCommitted = true;
      this.#position = db.position;
    }
    if (this.#right !== "held" && !this.#isWriting) db.arbiter = undefined;
  }
}
