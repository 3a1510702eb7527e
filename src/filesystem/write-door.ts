import {
  PENDING_BYTE,
  RESERVED_BYTE,
  SHARED_LAST,
  WAL_READ0_LOCK,
  WAL_READ4_LOCK,
  WAL_WRITE_LOCK,
} from "../sqlite/locks.ts";
import type { DatabaseEntry, FileNode } from "./entry.ts";
import type { Lock } from "./lock-table.ts";
import type { Knock } from "./write-turn-kinds.ts";

/** An owner of locks, in SQLite's case a process, and the thread that asks for them. */
export interface LockOwner {
  readonly ownerLo: number;
  readonly ownerHi: number;
  readonly thread: number;
}

/** SQLite's busy handler sleeps for up to 100 ms, and the machine may be busy. */
const EXPECTED_MS = 250;
/** Who waits at the door for as long as that is possible has asked again after this time. */
const PLACE_MS = 2_000;
/** From being let in to the request for the write lock it is a few calls of SQLite. */
const ADMITTED_MS = 50;

/**
 * Who is expected to write, and who is about to. An application that was told SQLITE_BUSY comes back,
 * and the first thing it does is to take a read lock. If it waits there, at the door, until it is its
 * turn, it reads what is newest and nobody else writes before it does. Without that it finds that it
 * has read something old, goes away again, sleeps longer each time, and others are always faster.
 */
export class WriteDoor {
  readonly #expected = new Map<string, number>();
  /** Since when they wait for their turn, and until when they are expected to ask again. */
  readonly #places = new Map<string, { readonly sinceMs: number; readonly untilMs: number }>();
  #admitted:
    | { readonly owner: LockOwner; readonly untilMs: number; hasEntered: boolean }
    | undefined;

  get isAnyoneExpected(): boolean {
    return this.#expected.size > 0;
  }

  /** `sinceMs`: his place, if he has had one; otherwise he has it from now on. */
  expect(owner: LockOwner, sinceMs?: number): void {
    const nowMs = performance.now();
    for (const [key, untilMs] of this.#expected) if (untilMs < nowMs) this.#expected.delete(key);
    this.#expected.set(keyOf(owner), nowMs + EXPECTED_MS);
    this.placeOf(owner, sinceMs);
  }

  /**
   * Since when an owner waits for his turn. It counts from the first request, so that those who were
   * sent away meanwhile keep their places.
   */
  placeOf(owner: LockOwner, sinceMs: number = performance.now()): number {
    const nowMs = performance.now();
    for (const [key, { untilMs }] of this.#places) if (untilMs < nowMs) this.#places.delete(key);
    const known = this.#places.get(keyOf(owner))?.sinceMs ?? sinceMs;
    const place = { sinceMs: Math.min(known, sinceMs), untilMs: nowMs + PLACE_MS };
    this.#places.set(keyOf(owner), place);
    return place.sinceMs;
  }

  /** He has his turn; returns the place that he had. */
  endPlace(owner: LockOwner): number {
    const sinceMs = this.placeOf(owner);
    this.#places.delete(keyOf(owner));
    return sinceMs;
  }

  /** True once for each time that somebody is expected. */
  takeExpected(owner: LockOwner): boolean {
    const untilMs = this.#expected.get(keyOf(owner)) ?? -Infinity;
    return this.#expected.delete(keyOf(owner)) && untilMs >= performance.now();
  }

  /** Keeps the write lock for him. */
  admit(owner: LockOwner, hasEntered: boolean): void {
    this.#admitted = { owner, untilMs: performance.now() + ADMITTED_MS, hasEntered };
  }

  /** He has come for whom the write lock is kept; it is not kept longer for that. */
  enter(): void {
    if (this.#admitted !== undefined) this.#admitted.hasEntered = true;
  }

  get admitted(): LockOwner | undefined {
    const admitted = this.#admitted;
    return admitted !== undefined && admitted.untilMs >= performance.now()
      ? admitted.owner
      : undefined;
  }

  /** He who is inside, and has not only been promised that he may come. */
  get entered(): LockOwner | undefined {
    return this.#admitted?.hasEntered === true ? this.admitted : undefined;
  }

  isAdmitted(owner: LockOwner): boolean {
    const { admitted } = this;
    return admitted !== undefined && keyOf(admitted) === keyOf(owner);
  }

  /** Whether the write lock is kept for somebody else. */
  isKeptFrom(owner: LockOwner): boolean {
    return this.admitted !== undefined && !this.isAdmitted(owner);
  }

  endAdmission(): void {
    this.#admitted = undefined;
  }

  forgetAll(): void {
    this.#admitted = undefined;
    this.#expected.clear();
    this.#places.clear();
  }
}

/** Whether some application has SQLite's write lock, in either mode. */
export function isWriting({ nodes }: DatabaseEntry): boolean {
  if (nodes.get("shm")?.locks.isWriteLocked(WAL_WRITE_LOCK, WAL_WRITE_LOCK) === true) return true;
  const database = nodes.get("database");
  return database !== undefined && isBeingWritten(database);
}

/**
 * In a rollback mode, or all of the database: with `locking_mode=EXCLUSIVE`, and while it leaves WAL
 * mode, an application writes without RESERVED.
 */
export function isBeingWritten({ locks }: FileNode): boolean {
  return locks.isWriteLocked(RESERVED_BYTE, SHARED_LAST);
}

/** Whether an owner is in a read transaction. */
export function isReading({ nodes }: DatabaseEntry, { ownerLo, ownerHi }: LockOwner): boolean {
  const isIn = (kind: "shm" | "database", first: number, last: number): boolean =>
    nodes.get(kind)?.locks.ownerHoldsAny(ownerLo, ownerHi, first, last) === true;
  return nodes.has("shm")
    ? isIn("shm", WAL_READ0_LOCK, WAL_READ4_LOCK)
    : isIn("database", PENDING_BYTE, SHARED_LAST);
}

/** Takes the lock he has asked for, or returns the one that is in the way. */
export function takeReadLock(knock: Knock): Lock | undefined {
  const { node, fh, ownerLo, ownerHi, start, end, pid, type } = knock;
  const conflict = node.locks.conflict(ownerLo, ownerHi, false, start, end, type);
  if (conflict === undefined) node.locks.set(ownerLo, ownerHi, fh, pid, start, end, type);
  return conflict;
}

function keyOf({ ownerLo, ownerHi, thread }: LockOwner): string {
  return `${ownerLo} ${ownerHi} ${thread}`;
}
