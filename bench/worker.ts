import * as path from "node:path";
import Database from "better-sqlite3";
import { assertNever } from "../src/lib/assert.ts";
import { OPERATIONS } from "./operations.ts";
import type { Prepared } from "./operations.ts";

/*
 * A process of its own that works on a directory the way an application would. The bench tells it
 * over IPC what to do; every request is answered once. Instants are microseconds of
 * CLOCK_MONOTONIC, which all processes of a machine share.
 */
export type WorkerRequest =
  | { readonly type: "prepare"; readonly operation: string; readonly directory: string }
  | { readonly type: "run"; readonly durationMs: number }
  | { readonly type: "single" }
  | { readonly type: "close" }
  | {
      readonly type: "write";
      readonly file: string;
      readonly count: number;
      /** Pause after each commit; 0: as fast as possible. */
      readonly pauseUs: number;
    }
  | {
      readonly type: "watch";
      readonly file: string;
      readonly count: number;
      readonly pauseUs: number;
    }
  | { readonly type: "first-query"; readonly file: string };

export interface RunResult {
  readonly operations: number;
  readonly elapsedUs: number;
}
/** When each row, by id - 1, was committed or first seen. */
export interface InstantsResult {
  readonly startUs: number;
  readonly atUs: readonly number[];
  /** How long each insert took; empty for a reader. */
  readonly tookUs: readonly number[];
}
/** What the answer to each kind of request is. */
export interface WorkerResults {
  readonly prepare: null;
  readonly run: RunResult;
  readonly single: null;
  readonly close: null;
  readonly write: InstantsResult;
  /** Answered twice: once it is watching, and when it has seen everything. */
  readonly watch: InstantsResult;
  /** Microseconds. */
  readonly "first-query": number;
}
export type WorkerAnswer<Type extends keyof WorkerResults = keyof WorkerResults> =
  | { readonly ok: true; readonly result: WorkerResults[Type] }
  | { readonly ok: false; readonly error: string };

const WATCH_TIMEOUT_US = 60_000_000;
const sleepWord = new Int32Array(new SharedArrayBuffer(4));
let prepared: Prepared | undefined;

function nowUs(): number {
  return Number(process.hrtime.bigint()) / 1_000;
}

function pause(us: number): void {
  if (us > 0) Atomics.wait(sleepWord, 0, 0, us / 1_000);
}

function run(durationMs: number): RunResult {
  if (prepared === undefined) throw new Error("nothing is prepared");
  const startUs = nowUs();
  const endUs = startUs + durationMs * 1_000;
  let operations = 0;
  let now = startUs;
  do {
    operations += prepared.batch();
    now = nowUs();
  } while (now < endUs);
  return { operations, elapsedUs: now - startUs };
}

function write(file: string, count: number, pauseUs: number): InstantsResult {
  const db = new Database(file);
  db.pragma("synchronous = NORMAL");
  const insert = db.prepare("INSERT INTO t (id, body) VALUES (?, ?)");
  const body = "x".repeat(100);
  const atUs: number[] = [];
  const tookUs: number[] = [];
  const startUs = nowUs();
  for (let id = 1; id <= count; id++) {
    const beganUs = nowUs();
    insert.run(id, body);
    atUs.push(nowUs());
    tookUs.push(nowUs() - beganUs);
    pause(pauseUs);
  }
  db.close();
  return { startUs, atUs, tookUs };
}

function watch(file: string, count: number, pauseUs: number): InstantsResult {
  const db = new Database(file, { readonly: true });
  const newest = db.prepare("SELECT max(id) FROM t").pluck();
  const atUs: number[] = [];
  const startUs = nowUs();
  // The bench starts the writer when it hears this.
  process.send?.({ ok: true, result: { startUs, atUs, tookUs: [] } } satisfies WorkerAnswer);
  while (atUs.length < count) {
    const id = Number(newest.get() ?? 0);
    const now = nowUs();
    while (atUs.length < id) atUs.push(now);
    if (now - startUs > WATCH_TIMEOUT_US) {
      throw new Error(`only ${id} of ${count} rows have arrived in ${path.basename(file)}`);
    }
    pause(pauseUs);
  }
  db.close();
  return { startUs, atUs, tookUs: [] };
}

function firstQuery(file: string): number {
  const startUs = nowUs();
  const db = new Database(file);
  db.prepare("SELECT count(*) FROM t").get();
  db.close();
  return nowUs() - startUs;
}

function handle(request: WorkerRequest): WorkerResults[keyof WorkerResults] {
  switch (request.type) {
    case "prepare": {
      const operation = OPERATIONS.find(({ name }) => name === request.operation);
      if (operation === undefined) throw new Error(`unknown operation ${request.operation}`);
      prepared = operation.prepare(request.directory);
      // Statements, caches and the just-in-time compiler get warm.
      for (let i = 0; i < 20; i++) prepared.single();
      return null;
    }
    case "run":
      return run(request.durationMs);
    case "single":
      prepared?.single();
      return null;
    case "close":
      prepared?.close();
      return null;
    case "write":
      return write(request.file, request.count, request.pauseUs);
    case "watch":
      return watch(request.file, request.count, request.pauseUs);
    case "first-query":
      return firstQuery(request.file);
    default:
      return assertNever(request);
  }
}

process.on("message", (request: WorkerRequest) => {
  let answer: WorkerAnswer;
  try {
    answer = { ok: true, result: handle(request) };
  } catch (error) {
    answer = { ok: false, error: error instanceof Error ? error.message : String(error) };
  }
  process.send?.(answer);
});
