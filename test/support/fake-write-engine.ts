import type {
  ForwardedTransaction,
  ForwardResult,
  LoanResult,
  WriteEngine,
  WriteEvent,
} from "../../src/database/write-engine.ts";
import type { Position } from "../../src/lib/position.ts";
import { formatPosition, ZERO_POSITION } from "../../src/lib/position.ts";

interface Waiting {
  readonly loan: string;
  readonly resolve: (result: LoanResult) => void;
}

/** The right to write in memory: loans in the order they were asked for, and what was called. */
export class FakeWriteEngine implements WriteEngine {
  readonly calls: string[] = [];
  readonly positions: Map<string, Position> = new Map<string, Position>();
  readonly known: Set<string> = new Set<string>();
  readonly forwarded: ForwardedTransaction[] = [];
  /** What a forwarded transaction comes to. */
  forwardResult: ForwardResult = { kind: "committed", position: ZERO_POSITION };
  isRightInUse = false;
  /** What `makeDurable` answers. */
  durable: Position | undefined;
  accepts = true;
  onDeny: (waitedMs: number) => void = () => undefined;
  readonly #loans = new Map<string, string>();
  readonly #waiting = new Map<string, Waiting[]>();
  readonly #listeners: ((event: WriteEvent) => void)[] = [];

  tell(event: WriteEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  lend(database: string, loan: string): Promise<LoanResult> {
    const holder = this.#loans.get(database);
    if (holder === undefined || holder === loan) {
      this.#loans.set(database, loan);
      return Promise.resolve(this.#lent(database));
    }
    return new Promise((resolve) => {
      const waiting = this.#waiting.get(database) ?? [];
      waiting.push({ loan, resolve });
      this.#waiting.set(database, waiting);
    });
  }

  #lent(database: string): LoanResult {
    return { kind: "lent", position: this.positions.get(database) ?? ZERO_POSITION };
  }

  endLoan(database: string, loan: string): Promise<void> {
    this.calls.push(`end-loan ${database} ${loan}`);
    const waiting = this.#waiting.get(database) ?? [];
    const index = waiting.findIndex((other) => other.loan === loan);
    const [withdrawn] = index < 0 ? [] : waiting.splice(index, 1);
    withdrawn?.resolve({ kind: "refused", reason: "withdrawn" });
    if (this.#loans.get(database) === loan) {
      this.#loans.delete(database);
      const next = waiting.shift();
      if (next !== undefined) {
        this.#loans.set(database, next.loan);
        next.resolve(this.#lent(database));
      }
    }
    return Promise.resolve();
  }

  applyForwarded(forwarded: ForwardedTransaction): Promise<ForwardResult> {
    this.forwarded.push(forwarded);
    return Promise.resolve(this.forwardResult);
  }

  grantRight(database: string, position: Position): Promise<boolean> {
    this.calls.push(`grant ${database} ${formatPosition(position)}`);
    return Promise.resolve(this.accepts);
  }
  recallRight(database: string): Promise<boolean> {
    this.calls.push(`recall ${database}`);
    return Promise.resolve(!this.isRightInUse);
  }
  loseRight(database: string): Promise<void> {
    this.calls.push(`lose ${database}`);
    return Promise.resolve();
  }
  denyWriters(database: string, waitedMs: number): Promise<void> {
    this.onDeny(waitedMs);
    this.calls.push(`deny ${database}`);
    return Promise.resolve();
  }
  endReservation(database: string): Promise<void> {
    this.calls.push(`end-reservation ${database}`);
    return Promise.resolve();
  }
  decideCommit(database: string, commit: number, isCommitted: boolean): Promise<void> {
    this.calls.push(`decide ${database} ${commit} ${isCommitted}`);
    return Promise.resolve();
  }
  decideSync(database: string, sync: number, isDurable: boolean): Promise<void> {
    this.calls.push(`decide-sync ${database} ${sync} ${isDurable}`);
    return Promise.resolve();
  }
  makeDurable(database: string): Promise<Position | undefined> {
    this.calls.push(`make-durable ${database}`);
    return Promise.resolve(this.durable);
  }
  hasPosition(database: string, position: Position): Promise<boolean> {
    return Promise.resolve(this.known.has(`${database} ${formatPosition(position)}`));
  }
  onWriteEvent(listener: (event: WriteEvent) => void): void {
    this.#listeners.push(listener);
  }
}
