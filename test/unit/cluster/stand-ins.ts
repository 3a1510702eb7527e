import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { onTestFinished } from "vitest";
import type { FrameSink } from "../../../src/cluster/replication/frame-sink.ts";
import { StreamServer } from "../../../src/cluster/replication/stream-server.ts";
import type { StreamServerOptions } from "../../../src/cluster/replication/stream-server.ts";
import type { Clock } from "../../../src/lib/clock.ts";
import { systemClock } from "../../../src/lib/clock.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { FakeEngine } from "../../support/fake-engine.ts";

export function temporaryDirectory(): string {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-test-"));
  onTestFinished(() => fs.rmSync(directory, { recursive: true, force: true }));
  return directory;
}

export function newEngine(pagesPerPortion = 2): FakeEngine {
  return new FakeEngine({ directory: temporaryDirectory(), pagesPerPortion });
}

export function newStreamServer(
  engine: FakeEngine,
  changes: Partial<StreamServerOptions> = {},
): StreamServer {
  return new StreamServer({
    engine,
    nodeId: 0xabcdn,
    clock: systemClock,
    log: silentLogger,
    compress: true,
    heartbeatIntervalMs: 1000,
    snapshotTimeoutMs: 0,
    ...changes,
  });
}

/** Keeps everything; may pretend to be full. */
export class MemorySink implements FrameSink {
  readonly chunks: Uint8Array[] = [];
  isFull = false;
  #waiting: (() => void)[] = [];

  get bytes(): Buffer {
    return Buffer.concat(this.chunks);
  }

  write(bytes: Uint8Array): boolean {
    this.chunks.push(Uint8Array.from(bytes));
    return !this.isFull;
  }

  drained(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.push(resolve);
      signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    });
  }

  drain(): void {
    this.isFull = false;
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}

/** Time that stands still until a test moves it. */
export class FakeClock implements Clock {
  #nowMs = 1_000_000;
  readonly #sleepers = new Set<{ readonly dueMs: number; readonly wake: () => void }>();

  nowMs(): number {
    return this.#nowMs;
  }

  monotonicMs(): number {
    return this.#nowMs;
  }

  get sleeping(): number {
    return this.#sleepers.size;
  }

  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(new Error("aborted"));
      const sleeper = {
        dueMs: this.#nowMs + delayMs,
        wake: () => {
          this.#sleepers.delete(sleeper);
          resolve();
        },
      };
      this.#sleepers.add(sleeper);
      signal?.addEventListener(
        "abort",
        () => {
          this.#sleepers.delete(sleeper);
          reject(new Error("aborted"));
        },
        { once: true },
      );
    });
  }

  advance(byMs: number): void {
    this.#nowMs += byMs;
    for (const sleeper of this.#sleepers) if (sleeper.dueMs <= this.#nowMs) sleeper.wake();
  }
}

/** Lets everything that is ready run; the fake engine answers within a few turns. */
export async function settle(turns = 50): Promise<void> {
  for (let i = 0; i < turns; i++) await new Promise((resolve) => setImmediate(resolve));
}

export async function eventually(isTrue: () => boolean): Promise<void> {
  for (let i = 0; i < 20_000; i++) {
    if (isTrue()) return;
    await new Promise((resolve) => (i < 200 ? setImmediate(resolve) : setTimeout(resolve, 1)));
  }
  throw new Error(`never came true: ${isTrue.toString()}`);
}
