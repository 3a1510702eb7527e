import { TURN_SLICE_MS } from "../database/write-engine.ts";
import { isBorrower, isRequest } from "./write-turn-kinds.ts";
import type { Turn, TurnRequest } from "./write-turn-kinds.ts";

interface Arrival {
  /** Since when he waits for his turn, by the monotonic clock, over all that he has asked for. */
  readonly placeMs: number;
  /** Where the database stood when he asked: what he has read is no newer. */
  readonly txid: number;
}

/** Those who wait for their turn to write one database, in the order in which they came. */
export class TurnQueue {
  #turns: Turn[] = [];
  readonly #arrivals = new WeakMap<Turn, Arrival>();
  /** On the primary, since when its applications have had their turns one after the other. */
  #sliceStartMs = -Infinity;

  get length(): number {
    return this.#turns.length;
  }
  /** Whose turn it is on the primary. */
  get next(): Turn | undefined {
    const isSlice = performance.now() - this.#sliceStartMs < TURN_SLICE_MS;
    const here = isSlice ? this.#turns.find((turn) => !isBorrower(turn)) : undefined;
    return here ?? this.#turns[0];
  }

  /** An application of the primary has its turn. */
  noteTurnHere(): void {
    if (this.#sliceStartMs < 0) this.#sliceStartMs = performance.now();
  }

  some(matches: (turn: Turn) => boolean): boolean {
    return this.#turns.some(matches);
  }

  /** Behind those who have waited for longer. */
  add(turn: Turn, arrival: Arrival): void {
    this.#arrivals.set(turn, arrival);
    const at = this.#turns.findIndex((other) => (this.placeOf(other) ?? 0) > arrival.placeMs);
    this.#turns.splice(at < 0 ? this.#turns.length : at, 0, turn);
  }

  /** Undefined for one who never was here. */
  placeOf(turn: Turn): number | undefined {
    return this.#arrivals.get(turn)?.placeMs;
  }

  /** In WAL mode: the database has moved beyond what he can have read. */
  isOlder(turn: TurnRequest, txid: number): boolean {
    return turn.node.kind === "shm" && (this.#arrivals.get(turn)?.txid ?? txid) < txid;
  }

  remove(turn: Turn): void {
    if (isBorrower(turn)) this.#sliceStartMs = -Infinity;
    this.#turns = this.#turns.filter((other) => other !== turn);
  }

  /** Those do not wait any more. */
  takeOut<Kind extends Turn>(matches: (turn: Turn) => turn is Kind): Kind[] {
    const taken = this.#turns.filter(matches);
    if (taken.length > 0) this.#turns = this.#turns.filter((turn) => !matches(turn));
    return taken;
  }

  takeAll(): Turn[] {
    const all = this.#turns;
    this.#turns = [];
    return all;
  }

  /** They keep their places. */
  putBack(turn: Turn): void {
    this.#turns.push(turn);
  }

  /** Requests for SQLite's write lock by whom it would be refused: he has read something old. */
  takeOlder(txid: number): TurnRequest[] {
    return this.takeOut((turn): turn is TurnRequest => isRequest(turn) && this.isOlder(turn, txid));
  }
}
