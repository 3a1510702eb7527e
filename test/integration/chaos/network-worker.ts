import * as net from "node:net";
import { parentPort, workerData } from "node:worker_threads";
import { Random } from "../../unit/database/support/fake-disk.ts";
import type { Flow } from "./flows.ts";
import { CLEAR } from "./flows.ts";

/*
 * The thread of a Network: one listener for each pair of machines of which the first calls the
 * second. On its own, because the program that makes the faults may be busy or wait in a mount.
 */

export interface NetworkData {
  /** Where the machines listen. */
  readonly ports: readonly number[];
  readonly seed: number;
}

export type NetworkCommand =
  | { readonly type: "flow"; readonly from: number; readonly to: number; readonly flow: Flow }
  /** Breaks all connections between two machines; what was held is lost. */
  | { readonly type: "break"; readonly a: number; readonly b: number };

export interface NetworkAnswer {
  readonly id: number;
  /** To the first message: by caller and called. */
  readonly ports?: readonly (readonly number[])[];
}

/** More than this on its way stops the sender, as a full window does. */
const WINDOW_BYTES = 4 * 1024 * 1024;
const RETRANSMISSION_MIN_MS = 200;
const RETRANSMISSION_SPREAD_MS = 600;

const { ports, seed } = workerData as NetworkData;
const random = new Random(seed);
const flows = new Map<string, Flow>();
const streams = new Set<Stream>();

function flowFrom(from: number, to: number): Flow {
  return flows.get(`${from}>${to}`) ?? CLEAR;
}

interface Piece {
  readonly dueMs: number;
  /** What the other side gets: bytes, the end of them, or a broken connection. */
  readonly bytes: Buffer | "end" | "break";
}

/** One direction of one connection: what was sent comes in order, when the flow lets it. */
class Stream {
  readonly from: number;
  readonly to: number;
  readonly #source: net.Socket;
  readonly #target: net.Socket;
  readonly #pieces: Piece[] = [];
  #heldBytes = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(from: number, to: number, source: net.Socket, target: net.Socket) {
    this.from = from;
    this.to = to;
    this.#source = source;
    this.#target = target;
    source.on("data", (bytes: Buffer) => this.#push(bytes));
    source.once("end", () => this.#push("end"));
    source.on("error", () => this.#push("break"));
    source.once("close", () => this.#push("break"));
    target.once("close", () => {
      clearTimeout(this.#timer);
      streams.delete(this);
    });
  }

  #push(bytes: Piece["bytes"]): void {
    const { latencyMs, lossRate } = flowFrom(this.from, this.to);
    let delayMs = latencyMs;
    if (random.chance(lossRate)) {
      delayMs += RETRANSMISSION_MIN_MS + random.below(RETRANSMISSION_SPREAD_MS);
    }
    // Nothing overtakes what was sent before.
    const dueMs = Math.max(performance.now() + delayMs, this.#pieces.at(-1)?.dueMs ?? 0);
    this.#pieces.push({ dueMs, bytes });
    if (typeof bytes !== "string") this.#heldBytes += bytes.length;
    if (this.#heldBytes > WINDOW_BYTES) this.#source.pause();
    this.flush();
  }

  flush(): void {
    clearTimeout(this.#timer);
    if (flowFrom(this.from, this.to).isHeld) return;
    for (;;) {
      const [piece] = this.#pieces;
      if (piece === undefined) break;
      const waitMs = piece.dueMs - performance.now();
      if (waitMs > 0) {
        this.#timer = setTimeout(() => this.flush(), Math.ceil(waitMs));
        return;
      }
      this.#pieces.shift();
      this.#deliver(piece.bytes);
    }
    if (!this.#source.destroyed) this.#source.resume();
  }

  #deliver(bytes: Piece["bytes"]): void {
    if (bytes === "break") this.#target.destroy();
    else if (this.#target.destroyed || this.#target.writableEnded) return;
    else if (bytes === "end") this.#target.end();
    else {
      this.#heldBytes -= bytes.length;
      this.#target.write(bytes);
    }
  }

  break(): void {
    this.#pieces.length = 0;
    this.#source.resetAndDestroy();
    this.#target.resetAndDestroy();
  }
}

function call(from: number, to: number, client: net.Socket): void {
  if (flowFrom(from, to).isRefused) {
    client.resetAndDestroy();
    return;
  }
  const target = net.connect({
    port: ports[to] ?? 0,
    host: "127.0.0.1",
    noDelay: true,
    allowHalfOpen: true,
  });
  streams.add(new Stream(from, to, client, target));
  streams.add(new Stream(to, from, target, client));
}

async function listen(from: number, to: number): Promise<number> {
  const server = net.createServer({ noDelay: true, allowHalfOpen: true }, (client) =>
    call(from, to, client),
  );
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  return typeof address === "object" && address !== null ? address.port : 0;
}

function obey(command: NetworkCommand): void {
  if (command.type === "flow") {
    const { from, to, flow } = command;
    flows.set(`${from}>${to}`, flow);
    for (const stream of streams) {
      if (stream.from === from && stream.to === to) stream.flush();
    }
    return;
  }
  const { a, b } = command;
  for (const stream of streams) {
    const isBetween =
      (stream.from === a && stream.to === b) || (stream.from === b && stream.to === a);
    if (isBetween) stream.break();
  }
}

const parent = parentPort;
if (parent === null) throw new Error("the network runs in a worker");
parent.on("message", ({ id, commands }: { id: number; commands: readonly NetworkCommand[] }) => {
  for (const command of commands) obey(command);
  parent.postMessage({ id } satisfies NetworkAnswer);
});
const listening = await Promise.all(
  ports.map((_, from) => Promise.all(ports.map((__, to) => listen(from, to)))),
);
parent.postMessage({ id: 0, ports: listening } satisfies NetworkAnswer);
