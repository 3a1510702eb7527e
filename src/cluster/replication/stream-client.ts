import type { Engine } from "../../database/engine.ts";
import type { Clock } from "../../lib/clock.ts";
import { LitefsError } from "../../lib/errors.ts";
import type { Logger } from "../../lib/log.ts";
import { ZERO_POSITION } from "../../lib/position.ts";
import type { Position } from "../../lib/position.ts";
import { encodePositionMap } from "../../wire/position-map.ts";
import type { PositionMapEntry } from "../../wire/position-map.ts";
import type { ClusterIdStore } from "../cluster-id.ts";
import type { TermStore } from "../term-store.ts";
import { LagTracker } from "./lag.ts";
import { AckSender } from "../sync/ack-sender.ts";
import { announcedDatabases } from "../sync/announced-databases.ts";
import { HealingDelays } from "./quarantine-healer.ts";
import { SnapshotNeeds } from "./snapshot-needs.ts";
import { StreamReception } from "./stream-reception.ts";
import type { StreamEnd } from "./stream-reception.ts";
import type {
  OpenedStream,
  OpenStream,
  OpenStreamRequest,
  ReplicaDescription,
} from "./stream-transport.ts";

export interface StreamClientOptions {
  readonly engine: Engine;
  /** 16 upper-case hex digits. */
  readonly nodeId: string;
  /** What the primary shows of this node to operators. */
  readonly self: ReplicaDescription;
  readonly clusterId: ClusterIdStore;
  readonly terms: Pick<TermStore, "advanceTo" | "current">;
  readonly clock: Clock;
  readonly log: Logger;
  readonly lag: LagTracker;
  readonly openStream: OpenStream;
  /** `lease.databases`; everything when undefined. */
  readonly filter: ReadonlySet<string> | undefined;
  /** A connection that brings no byte for this long is dead, whatever TCP says. */
  readonly readTimeoutMs: number;
  /** Received and not yet applied bytes beyond which reading pauses. */
  readonly maxBufferedBytes: number;
  /** Brings what a database has onto the disk. Without it this node acknowledges nothing. */
  readonly makeDurable?: (database: string) => Promise<Position | undefined>;
}

/** What becomes of one connection. */
export interface StreamObserver {
  onConnected(): void;
  /** The initial set is applied. */
  onReady(): void;
  /** Between the transaction at its origin and its visibility here, by both nodes' wall clocks. */
  onApplied(database: string, latencyMs: number): void;
}

interface StreamOpening extends Pick<OpenStreamRequest, "primaryUrl" | "filter" | "isCatchUp"> {
  readonly positions: readonly PositionMapEntry[];
}

/** How much of a refusal's text goes into the log. */
const MAX_REFUSAL_BYTES = 512;

/** The replica's side of replication: one connection at a time to the primary. */
export class StreamClient {
  readonly #options: StreamClientOptions;
  readonly #needs = new SnapshotNeeds();
  readonly #healingDelays = new HealingDelays();

  constructor(options: StreamClientOptions) {
    this.#options = options;
  }

  /**
   * Follows the primary until the stream ends; rejects with the reason when it breaks. `leave` ends
   * it in order: what has arrived by then is applied.
   */
  async follow(
    primaryUrl: string,
    observer: StreamObserver,
    signal: AbortSignal,
    leave: AbortSignal,
  ): Promise<StreamEnd> {
    const { engine, filter } = this.#options;
    const positions = this.#needs.positionMap(engine.databases, filter);
    const request = { primaryUrl, positions, filter, isCatchUp: false };
    return await this.#receive(request, signal, leave, (connection) => {
      observer.onConnected();
      return new StreamReception(this.#options, {
        connection,
        observer: this.#joining(observer, connection),
        needs: this.#needs,
        healingDelays: this.#healingDelays,
        acks: this.#acksOf(connection),
        signal,
        leave,
      });
    });
  }

  /**
   * Brings databases to where they are at another node, which need not be a primary. Rejects when that
   * cannot be, and then some may be further than before.
   */
  async catchUp(
    peerUrl: string,
    databases: ReadonlySet<string>,
    signal: AbortSignal,
  ): Promise<void> {
    const { clock, engine, readTimeoutMs, terms } = this.#options;
    const needs = new SnapshotNeeds();
    // The map is the question, too: it names those that are not here at all.
    const here = needs.positionMap(engine.databases, databases);
    const absent = [...databases].filter((name) => !engine.databases.has(name));
    const request = {
      primaryUrl: peerUrl,
      positions: [...here, ...absent.map((name) => ({ name, position: ZERO_POSITION }))],
      filter: databases,
      isCatchUp: true,
    };
    // What this node lags behind is a primary, and there is none.
    const lag = new LagTracker({ clock, heartbeatIntervalMs: readTimeoutMs });
    const nothing = (): void => undefined;
    await this.#receive(request, signal, signal, (connection) => {
      if ((connection.term ?? 0) > terms.current) {
        throw new LitefsError("STREAM_REFUSED", `the node at ${peerUrl} is in a later term by now`);
      }
      return new StreamReception(
        { ...this.#options, lag },
        {
          connection,
          observer: { onConnected: nothing, onReady: nothing, onApplied: nothing },
          needs,
          healingDelays: new HealingDelays(),
          acks: undefined,
          signal,
          leave: signal,
        },
      );
    });
  }

  async #receive(
    request: StreamOpening,
    signal: AbortSignal,
    leave: AbortSignal,
    begin: (connection: OpenedStream) => StreamReception,
  ): Promise<StreamEnd> {
    const connection = await this.#open(request, AbortSignal.any([signal, leave]));
    const onAbort = (): void => connection.destroy();
    signal.addEventListener("abort", onAbort, { once: true });
    leave.addEventListener("abort", onAbort, { once: true });
    try {
      signal.throwIfAborted();
      await this.#checkAnswer(request.primaryUrl, connection);
      return await begin(connection).run();
    } finally {
      signal.removeEventListener("abort", onAbort);
      leave.removeEventListener("abort", onAbort);
      connection.destroy();
    }
  }

  /** Undefined when the primary does not wait for this node. */
  #acksOf({ openAcks, sync }: OpenedStream): AckSender | undefined {
    const { engine, log, makeDurable } = this.#options;
    const announced = announcedDatabases(sync);
    if (announced === undefined || openAcks === undefined || makeDurable === undefined) {
      return undefined;
    }
    const databases = (): string[] => [...engine.databases.keys()];
    return new AckSender({ announced, log, databases, makeDurable, openChannel: openAcks });
  }

  /**
   * A node belongs to the cluster, and may be its primary, once it has had all its data. Both are on
   * the disk before it acknowledges anything: an election must find it.
   */
  #joining(observer: StreamObserver, { clusterId, term }: OpenedStream): StreamObserver {
    return {
      onConnected: () => observer.onConnected(),
      onReady: () => {
        if (clusterId !== undefined) this.#options.clusterId.adopt(clusterId);
        this.#options.terms.advanceTo(term ?? 0);
        observer.onReady();
      },
      onApplied: (database, latencyMs) => observer.onApplied(database, latencyMs),
    };
  }

  async #open(
    { primaryUrl, positions, filter, isCatchUp }: StreamOpening,
    signal: AbortSignal,
  ): Promise<OpenedStream> {
    const { nodeId, self, clock, readTimeoutMs } = this.#options;
    const body = encodePositionMap(positions);
    const timeout = new AbortController();
    const answered = new AbortController();
    const waiting = clock.sleep(readTimeoutMs, answered.signal).then(
      () => timeout.abort(noAnswer(primaryUrl, readTimeoutMs)),
      () => undefined,
    );
    try {
      const request = { primaryUrl, nodeId, filter, body, self, isCatchUp };
      return await this.#options.openStream(request, AbortSignal.any([signal, timeout.signal]));
    } finally {
      answered.abort();
      await waiting;
    }
  }

  async #checkAnswer(primaryUrl: string, connection: OpenedStream): Promise<void> {
    if (connection.status !== 200) {
      const text = await refusalText(connection);
      throw new LitefsError(
        "STREAM_REFUSED",
        `the node at ${primaryUrl} refused to stream: status ${connection.status} ${text}`,
      );
    }
    // An old primary without an id gives none; there is nothing to compare then.
    if (connection.clusterId !== undefined) this.#options.clusterId.check(connection.clusterId);
  }
}

async function refusalText(connection: OpenedStream): Promise<string> {
  let text = "";
  for await (const chunk of connection.body) {
    text += Buffer.from(chunk).toString("utf8");
    if (text.length >= MAX_REFUSAL_BYTES) break;
  }
  return text.slice(0, MAX_REFUSAL_BYTES).trim().replaceAll("\n", " ");
}

function noAnswer(primaryUrl: string, timeoutMs: number): LitefsError {
  return new LitefsError(
    "PRIMARY_SILENT",
    `the primary at ${primaryUrl} did not answer within ${timeoutMs} ms`,
  );
}
