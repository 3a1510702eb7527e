import type {
  DivergedHistory,
  Evidence,
  FinalState,
  Operation,
  Progress,
  Snapshot,
  Term,
} from "./history.ts";
import { rowKey } from "./history.ts";

export interface Rules {
  readonly accounts: number;
  /** Of each account at the beginning. */
  readonly balance: number;
  /** Databases whose acknowledged writes may not be lost by any failover. */
  readonly synchronous: ReadonlySet<string>;
}

export interface Violation {
  readonly kind:
    | "invented"
    | "doubled"
    | "torn"
    | "lost"
    | "balance"
    | "snapshot"
    | "backwards"
    | "two primaries";
  readonly text: string;
}

export interface Verdict {
  readonly violations: readonly Violation[];
  readonly acknowledged: number;
  readonly refused: number;
  readonly unknown: number;
  readonly reads: number;
  /** Acknowledged writes that only a diverged history has, as asynchronous replication allows. */
  readonly setAside: number;
}

/** What a database must look like after what its clients were told, and what it does look like. */
export function checkHistory(evidence: Evidence, rules: Rules): Verdict {
  const violations: Violation[] = [];
  let setAside = 0;
  for (const final of evidence.finals) {
    const check = new DatabaseCheck(final, evidence, rules);
    setAside += check.run();
    violations.push(...check.violations);
  }
  const writes = evidence.operations.filter(({ kind }) => kind !== "read");
  const count = (outcome: string): number => writes.filter((op) => op.outcome === outcome).length;
  return {
    violations,
    acknowledged: count("ok"),
    refused: count("refused"),
    unknown: count("unknown"),
    reads: evidence.operations.filter((op) => op.snapshot !== undefined).length,
    setAside,
  };
}

class DatabaseCheck {
  readonly violations: Violation[] = [];
  readonly #final: FinalState;
  readonly #rules: Rules;
  readonly #evidence: Evidence;
  readonly #operations: readonly Operation[];
  readonly #byName = new Map<string, Operation>();
  readonly #histories: readonly DivergedHistory[];
  readonly #txids: ReadonlyMap<string, number>;
  /** Parts of each operation that are there at the end. */
  readonly #present = new Map<string, number>();

  constructor(final: FinalState, evidence: Evidence, rules: Rules) {
    const isHere = ({ database }: { database: string }): boolean => database === final.database;
    this.#final = final;
    this.#rules = rules;
    this.#evidence = evidence;
    this.#operations = evidence.operations.filter(isHere);
    this.#histories = evidence.histories.filter(isHere);
    this.#txids = evidence.txids.get(final.database) ?? new Map<string, number>();
    for (const op of this.#operations) this.#byName.set(name(op), op);
  }

  /** Returns how many acknowledged writes only a diverged history has. */
  run(): number {
    this.#checkRows();
    this.#checkAccounts();
    this.#checkHistories();
    for (const op of this.#operations) {
      if (op.snapshot !== undefined) this.#checkSnapshot(op, op.snapshot);
    }
    for (const ops of groupBy(this.#operations, ({ node }) => node).values()) this.#checkOrder(ops);
    const missing = this.#missing();
    this.#checkMissing(missing);
    for (const history of this.#histories) this.#checkPrimaries(history, missing);
    return missing.length;
  }

  /** Every row at the end was asked for, is there once, and with the others of its transaction. */
  #checkRows(): void {
    const seen = new Set<string>();
    for (const { client, number, part } of this.#final.rows) {
      const key = rowKey(client, number, part);
      const op = this.#byName.get(`${client}.${number}`);
      if (seen.has(key)) this.#found("doubled", `${key} is there more than once`, op);
      else if (op === undefined || part >= op.rows) {
        this.#found("invented", `nobody has asked for ${key}`, op);
      } else if (isRefused(op)) {
        this.#found("invented", `${key} is there, but was refused`, op);
      }
      if (op !== undefined && !seen.has(key)) {
        this.#present.set(name(op), (this.#present.get(name(op)) ?? 0) + 1);
      }
      seen.add(key);
    }
    for (const [key, count] of this.#present) {
      const op = this.#byName.get(key);
      if (op !== undefined && count < op.rows) {
        this.#found("torn", `${count} of its ${op.rows} rows are there`, op);
      }
    }
  }

  /** The balances are what the rows say, so no update was lost or made twice. */
  #checkAccounts(): void {
    const { accounts, moved } = this.#final;
    if (accounts.size !== this.#rules.accounts) {
      this.#found("balance", `${accounts.size} accounts instead of ${this.#rules.accounts}`);
    }
    for (const [id, balance] of accounts) {
      const expected = this.#rules.balance + (moved.get(id) ?? 0);
      if (balance !== expected) {
        this.#found("balance", `account ${id} has ${balance}, its rows say ${expected}`);
      }
    }
  }

  #checkHistories(): void {
    for (const op of this.#operations) {
      if (op.kind === "read" || !isRefused(op)) continue;
      const history = this.#historyOf(op);
      if (history !== undefined) {
        this.#found("invented", `was refused, but is in ${place(history)}`, op);
      }
    }
  }

  #checkSnapshot(op: Operation, { accounts, balance, rows, progress }: Snapshot): void {
    const expected = this.#rules.accounts * this.#rules.balance;
    if (accounts !== this.#rules.accounts || balance !== expected) {
      this.#found("snapshot", `saw ${accounts} accounts with ${balance}, not ${expected}`, op);
    }
    let counted = 0;
    for (const [client, { number, rows: count }] of progress) {
      counted += count;
      const seen = this.#byName.get(`${client}.${number}`);
      if (seen === undefined || isRefused(seen)) {
        this.#found("invented", `saw ${client}.${number}, which was never written`, op);
      } else if (seen.invokedUs > (op.endedUs ?? Infinity)) {
        this.#found("invented", `saw ${client}.${number} before it was asked for`, op);
      } else if (!this.#isPresent(seen) && this.#historyOf(seen) === undefined) {
        this.#found("lost", `saw ${client}.${number}, which is gone without a trace`, op);
      }
    }
    if (counted !== rows) this.#found("snapshot", `saw ${rows} rows, ${counted} counted`, op);
  }

  /**
   * On one node nothing disappears that a client there has seen or written, unless the node has kept
   * it aside. Of each database a node has one client at a time.
   */
  #checkOrder(operations: readonly Operation[]): void {
    const explained = new Set<Operation>();
    let known = new Map<number, { number: number; rows: number }>();
    for (const op of [...operations].sort((a, b) => a.invokedUs - b.invokedUs)) {
      if (op.snapshot !== undefined) {
        for (const [client, before] of known) {
          const now = op.snapshot.progress.get(client) ?? { number: -1, rows: 0 };
          const isBack = now.number < before.number || now.rows < before.rows;
          if (!isBack || this.#isKept(client, before, now, op.node, explained)) continue;
          this.#found(
            "backwards",
            `saw client ${client} at ${now.number} with ${now.rows} rows, after ${before.number} with ${before.rows}`,
            op,
          );
        }
        known = new Map(op.snapshot.progress);
      } else if (op.kind !== "read" && op.outcome === "ok") {
        const rows = (known.get(op.client)?.rows ?? 0) + op.rows;
        known.set(op.client, { number: op.number, rows });
      }
    }
  }

  /** Whether a node has kept aside all rows that have disappeared there; each explains one step. */
  #isKept(
    client: number,
    before: Progress,
    now: Progress,
    node: string,
    explained: Set<Operation>,
  ): boolean {
    const kept = this.#operations.filter(
      (op) =>
        op.client === client &&
        op.number <= before.number &&
        // What is there again at the end has come back with the history of another node.
        (op.number > now.number || !this.#isPresent(op)) &&
        !explained.has(op) &&
        this.#historyOf(op, node) !== undefined,
    );
    for (const op of kept) explained.add(op);
    const rows = kept.reduce((sum, op) => sum + op.rows, 0);
    return kept.length > 0 && rows >= before.rows - now.rows;
  }

  #missing(): Operation[] {
    return this.#operations.filter(
      (op) => op.kind !== "read" && op.outcome === "ok" && !this.#isPresent(op),
    );
  }

  /** A write that was acknowledged may be missing only where the primary has changed since. */
  #checkMissing(missing: readonly Operation[]): void {
    for (const op of missing) {
      if (this.#rules.synchronous.has(op.database)) {
        this.#found("lost", "was acknowledged by replicas, and is missing", op);
      } else if (this.#historyOf(op) === undefined) {
        this.#found("lost", "was acknowledged, and no node has it", op);
      } else if (this.#evidence.elections < 2) {
        this.#found("lost", "is missing, and the primary has never changed", op);
      }
    }
  }

  /**
   * While one node has the lease, only one history grows: behind the fork of two of them, nothing
   * of both may have been asked for and acknowledged within the same term. A deposed primary that
   * goes on would be seen so. One after the other is how failovers go, also back and forth.
   */
  #checkPrimaries(history: DivergedHistory, missing: readonly Operation[]): void {
    const { forkTxid } = history;
    if (forkTxid === undefined) return;
    const won = this.#operations.filter((op) => {
      const txid = this.#txids.get(rowKey(op.client, op.number, 0));
      return op.outcome === "ok" && txid !== undefined && txid > forkTxid;
    });
    const kept = missing.filter((op) => isIn(op, history));
    for (const term of this.#evidence.terms) {
      const first = won.find((op) => isWithin(op, term));
      if (first === undefined) continue;
      for (const op of kept) {
        if (!isWithin(op, term)) continue;
        this.#found(
          "two primaries",
          `was acknowledged in ${place(history)} in the same term as ${describe(first)} in the history that won`,
          op,
        );
      }
    }
  }

  #isPresent(op: Operation): boolean {
    return (this.#present.get(name(op)) ?? 0) > 0;
  }

  #historyOf(op: Operation, node?: string): DivergedHistory | undefined {
    return this.#histories.find(
      (history) => (node === undefined || history.node === node) && isIn(op, history),
    );
  }

  #found(kind: Violation["kind"], text: string, op?: Operation): void {
    const who = op === undefined ? this.#final.database : describe(op);
    this.violations.push({ kind, text: `${kind}: ${who}: ${text}` });
  }
}

function isIn(op: Operation, history: DivergedHistory): boolean {
  for (let part = 0; part < op.rows; part++) {
    if (!history.rows.has(rowKey(op.client, op.number, part))) return false;
  }
  return op.rows > 0;
}

function isWithin({ invokedUs, endedUs }: Operation, { fromUs, toUs }: Term): boolean {
  return invokedUs >= fromUs && endedUs !== undefined && endedUs <= toUs;
}

/** What was rolled back on purpose is nowhere, whatever became of the ROLLBACK. */
function isRefused({ kind, outcome }: Operation): boolean {
  return kind === "rollback" || outcome === "refused";
}

function name({ client, number }: Operation): string {
  return `${client}.${number}`;
}

function place({ node, name: history }: DivergedHistory): string {
  return `diverged/${history} of ${node}`;
}

function describe(op: Operation): string {
  const end = op.endedUs === undefined ? "never" : (op.endedUs / 1e6).toFixed(3);
  const time = `${(op.invokedUs / 1e6).toFixed(3)} to ${end} s`;
  return `${op.kind} ${name(op)} of ${op.database} on ${op.node} (${op.outcome}, ${time})`;
}

function groupBy<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const group = groups.get(keyOf(item));
    if (group === undefined) groups.set(keyOf(item), [item]);
    else group.push(item);
  }
  return groups;
}
