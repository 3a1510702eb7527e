import { expect, test } from "vitest";
import { checkHistory } from "../../integration/chaos/check-history.ts";
import type { Rules, Verdict } from "../../integration/chaos/check-history.ts";
import type {
  DivergedHistory,
  Evidence,
  FinalRow,
  Operation,
  Term,
} from "../../integration/chaos/history.ts";
import { rowKey } from "../../integration/chaos/history.ts";

const RULES: Rules = { accounts: 2, balance: 100, synchronous: new Set() };

/** A write that takes one unit of time at its number. */
function write(client: number, number: number, over: Partial<Operation> = {}): Operation {
  return {
    client,
    number,
    node: `n${client}`,
    database: "app.db",
    kind: "insert",
    rows: 1,
    invokedUs: number * 10,
    endedUs: number * 10 + 5,
    outcome: "ok",
    snapshot: undefined,
    error: undefined,
    ...over,
  };
}

function read(
  client: number,
  number: number,
  progress: Record<number, readonly [number: number, rows: number]>,
  over: Partial<Operation> = {},
): Operation {
  const seen = Object.entries(progress).map(
    ([of, [last, rows]]) => [Number(of), { number: last, rows }] as const,
  );
  const rows = seen.reduce((sum, [, one]) => sum + one.rows, 0);
  const snapshot = { accounts: 2, balance: 200, rows, progress: new Map(seen) };
  return write(client, number, { kind: "read", rows: 0, snapshot, ...over });
}

function row(client: number, number: number, part = 0): FinalRow {
  return { client, number, part };
}

function aside(node: string, keys: readonly string[], forkTxid?: number): DivergedHistory {
  return { node, database: "app.db", name: "h", forkTxid, rows: new Set(keys) };
}

interface Case {
  readonly operations: readonly Operation[];
  readonly rows: readonly FinalRow[];
  readonly histories?: readonly DivergedHistory[];
  readonly txids?: Readonly<Record<string, number>>;
  readonly accounts?: readonly (readonly [number, number])[];
  readonly moved?: readonly (readonly [number, number])[];
  readonly elections?: number;
  readonly terms?: readonly Term[];
  readonly rules?: Partial<Rules>;
}

function check(given: Case): Verdict {
  const evidence: Evidence = {
    operations: given.operations,
    finals: [
      {
        database: "app.db",
        rows: given.rows,
        accounts: new Map(
          given.accounts ?? [
            [1, 100],
            [2, 100],
          ],
        ),
        moved: new Map(given.moved ?? []),
      },
    ],
    histories: given.histories ?? [],
    txids: new Map([["app.db", new Map(Object.entries(given.txids ?? {}))]]),
    elections: given.elections ?? 2,
    terms: given.terms ?? [],
  };
  return checkHistory(evidence, { ...RULES, ...given.rules });
}

function kinds(given: Case): string[] {
  return check(given).violations.map(({ kind }) => kind);
}

test("a history in which everything is as it should be", () => {
  const verdict = check({
    operations: [
      write(1, 1),
      write(2, 2, { kind: "transfer", rows: 2 }),
      write(1, 3, { outcome: "refused" }),
      write(2, 4, { outcome: "unknown", endedUs: undefined }),
      write(1, 5, { outcome: "unknown" }),
      read(1, 6, { 1: [1, 1], 2: [2, 2] }),
      read(2, 7, { 1: [5, 2], 2: [2, 2] }),
    ],
    rows: [row(1, 1), row(2, 2, 0), row(2, 2, 1), row(1, 5)],
    accounts: [
      [1, 70],
      [2, 130],
    ],
    moved: [
      [1, -30],
      [2, 30],
    ],
    elections: 1,
  });
  expect(verdict).toEqual({
    violations: [],
    acknowledged: 2,
    refused: 1,
    unknown: 2,
    reads: 2,
    setAside: 0,
  });
});

test("an acknowledged write that no node has is lost", () => {
  const verdict = check({ operations: [write(1, 1), write(1, 2)], rows: [row(1, 1)] });
  expect(verdict.violations.map(({ text }) => text)).toEqual([
    "lost: insert 1.2 of app.db on n1 (ok, 0.000 to 0.000 s): was acknowledged, and no node has it",
  ]);
});

test("an acknowledged write in a diverged history is set aside, with all its rows", () => {
  const op = write(1, 2, { rows: 2 });
  const whole = aside("n2", [rowKey(1, 2, 0), rowKey(1, 2, 1)]);
  const half = aside("n2", [rowKey(1, 2, 0)]);
  expect(check({ operations: [op], rows: [], histories: [whole] })).toMatchObject({
    violations: [],
    setAside: 1,
  });
  expect(kinds({ operations: [op], rows: [], histories: [half] })).toEqual(["lost"]);
});

test("without a change of the primary nothing may be set aside", () => {
  const histories = [aside("n2", [rowKey(1, 2, 0)])];
  expect(kinds({ operations: [write(1, 2)], rows: [], histories, elections: 1 })).toEqual(["lost"]);
});

test("a synchronous write may not even be set aside", () => {
  const histories = [aside("n2", [rowKey(1, 2, 0)])];
  const rules = { synchronous: new Set(["app.db"]) };
  expect(kinds({ operations: [write(1, 2)], rows: [], histories, rules })).toEqual(["lost"]);
});

test("a doubled row", () => {
  expect(kinds({ operations: [write(1, 1)], rows: [row(1, 1), row(1, 1)] })).toEqual(["doubled"]);
});

test("rows that nobody asked for, or that were refused or rolled back", () => {
  const refused = write(1, 1, { outcome: "refused" });
  const rolledBack = write(1, 1, { kind: "rollback", outcome: "unknown" });
  expect(kinds({ operations: [], rows: [row(1, 1)] })).toEqual(["invented"]);
  expect(kinds({ operations: [write(1, 1)], rows: [row(1, 1), row(1, 1, 1)] })).toEqual([
    "invented",
  ]);
  expect(kinds({ operations: [refused], rows: [row(1, 1)] })).toEqual(["invented"]);
  expect(kinds({ operations: [rolledBack], rows: [row(1, 1)] })).toEqual(["invented"]);
  const histories = [aside("n2", [rowKey(1, 1, 0)])];
  expect(kinds({ operations: [refused], rows: [], histories })).toEqual(["invented"]);
});

test("a transaction of which a part is there", () => {
  const operations = [write(1, 1, { rows: 3, outcome: "unknown" })];
  expect(kinds({ operations, rows: [row(1, 1, 0), row(1, 1, 2)] })).toEqual(["torn"]);
});

test("balances that are not what the rows say, or accounts that are missing", () => {
  const accounts = [
    [1, 90],
    [2, 110],
  ] as const;
  expect(kinds({ operations: [], rows: [], accounts })).toEqual(["balance", "balance"]);
  expect(kinds({ operations: [], rows: [], accounts: [[1, 100]] })).toEqual(["balance"]);
});

test("a read of half a transaction", () => {
  const good = read(1, 2, { 1: [1, 1] });
  const snapshot = good.snapshot;
  if (snapshot === undefined) throw new Error("a read has a snapshot");
  const seen = (over: object): Case => ({
    operations: [write(1, 1), { ...good, snapshot: { ...snapshot, ...over } }],
    rows: [row(1, 1)],
  });
  expect(kinds(seen({}))).toEqual([]);
  expect(kinds(seen({ balance: 199 }))).toEqual(["snapshot"]);
  expect(kinds(seen({ accounts: 1 }))).toEqual(["snapshot"]);
  expect(kinds(seen({ rows: 2 }))).toEqual(["snapshot"]);
});

test("a read of what was never written, or not yet", () => {
  const operations = [write(1, 9, { outcome: "refused" }), read(2, 10, { 1: [9, 1] })];
  expect(kinds({ operations, rows: [] })).toEqual(["invented"]);
  expect(kinds({ operations: [read(2, 10, { 1: [9, 1] })], rows: [] })).toEqual(["invented"]);
  const early = [write(1, 9), read(2, 3, { 1: [9, 1] })];
  expect(kinds({ operations: early, rows: [row(1, 9)] })).toEqual(["invented"]);
});

test("a write of unknown outcome that was read and is gone", () => {
  const operations = [write(1, 1, { outcome: "unknown" }), read(2, 2, { 1: [1, 1] })];
  expect(kinds({ operations, rows: [] })).toEqual(["lost"]);
  const histories = [aside("n1", [rowKey(1, 1, 0)])];
  expect(kinds({ operations, rows: [], histories })).toEqual([]);
});

test("reads of one node go backwards only where the node has kept aside what it had", () => {
  const operations = [
    write(1, 1),
    write(1, 2),
    read(2, 3, { 1: [2, 2] }),
    read(2, 4, { 1: [1, 1] }),
  ];
  const rows = [row(1, 1)];
  const kept = [rowKey(1, 2, 0)];
  expect(kinds({ operations, rows, histories: [aside("n2", kept)] })).toEqual([]);
  // Another node's history explains the loss, but not what this node has shown.
  expect(kinds({ operations, rows, histories: [aside("n1", kept)] })).toEqual(["backwards"]);
  const all = [row(1, 1), row(1, 2)];
  expect(kinds({ operations, rows: all })).toEqual(["backwards"]);
  const onOtherNode = operations.with(3, read(3, 4, { 1: [1, 1] }));
  expect(kinds({ operations: onOtherNode, rows: all })).toEqual([]);
});

test("reads may go back below what a client has written since, but only once for what was kept", () => {
  const rows = [row(1, 1), row(1, 4)];
  const histories = [aside("n1", [rowKey(1, 2, 0), rowKey(1, 3, 0)])];
  const operations = [
    write(1, 1),
    write(1, 2),
    write(1, 3),
    write(1, 4),
    read(1, 5, { 1: [4, 2] }),
    read(1, 6, { 1: [4, 2] }),
  ];
  expect(kinds({ operations, rows, histories })).toEqual([]);
  const tooFew = operations.with(4, read(1, 5, { 1: [4, 1] }));
  expect(kinds({ operations: tooFew, rows, histories })).toEqual(["backwards"]);
  const twice = operations.with(5, read(1, 6, { 1: [4, 1] }));
  expect(kinds({ operations: twice, rows, histories })).toEqual(["backwards"]);
});

test("a client sees what it has written itself", () => {
  const operations = [write(1, 1), write(1, 2), read(1, 3, { 1: [1, 1] })];
  expect(kinds({ operations, rows: [row(1, 1), row(1, 2)] })).toEqual(["backwards"]);
});

test("a deposed primary that acknowledges while the next one does", () => {
  const [old, next] = [write(1, 5), write(2, 4)];
  const given = (forkTxid: number | undefined, at: number, term: Partial<Term> = {}): Case => ({
    operations: [{ ...old, invokedUs: at, endedUs: at + 5 }, next],
    rows: [row(2, 4)],
    histories: [aside("n1", [rowKey(1, 5, 0)], forkTxid)],
    txids: { [rowKey(2, 4, 0)]: 8 },
    terms: [{ holder: "n2", fromUs: 40, toUs: 60, ...term }],
  });
  expect(kinds(given(7, 50))).toEqual(["two primaries"]);
  // Begun before the term, or ended after it: another term, perhaps.
  expect(kinds(given(7, 39))).toEqual([]);
  expect(kinds(given(7, 56))).toEqual([]);
  expect(kinds(given(7, 50, { fromUs: 41 }))).toEqual([]);
  // What came before the fork is of a time when there was one history.
  expect(kinds(given(8, 50))).toEqual([]);
  expect(kinds(given(undefined, 50))).toEqual([]);
});
