import { randomBytes } from "node:crypto";
import { ClusterIdStore } from "../cluster/cluster-id.ts";
import { ClusterNode } from "../cluster/cluster-node.ts";
import { EventHub } from "../cluster/events.ts";
import { Forwarder } from "../cluster/forwarding/forwarder.ts";
import { LoanDesk } from "../cluster/forwarding/loan-desk.ts";
import { openHttp2Stream } from "../cluster/replication/http2-transport.ts";
import type { LeaseProvider } from "../cluster/lease.ts";
import { LagTracker } from "../cluster/replication/lag.ts";
import { StreamClient } from "../cluster/replication/stream-client.ts";
import { StreamServer } from "../cluster/replication/stream-server.ts";
import { SyncDesk } from "../cluster/sync/sync-desk.ts";
import { TermStore } from "../cluster/term-store.ts";
import type { Config } from "../config/config.ts";
import { Scrubber } from "../filesystem/scrubber.ts";
import { leaveCleanMark, restoreCleanMark, takeCleanMark } from "./clean-mark.ts";
import { MountClient } from "../filesystem/mount-client.ts";
import { mountFuse, unmountStale } from "../fuse/mount.ts";
import type { FuseMount } from "../fuse/mount.ts";
import { DatabaseImporter } from "../http/database-import.ts";
import { httpPeerClient } from "../http/peer-client.ts";
import { HttpServer } from "../http/server.ts";
import { systemClock, TIMER_MAX_MS } from "../lib/clock.ts";
import { errorText } from "../lib/errors.ts";
import { createLogger } from "../lib/log.ts";
import { createLogSink } from "../lib/log-sink.ts";
import type { Logger } from "../lib/log.ts";
import { createMetrics } from "../metrics/registry.ts";
import type { MetricsRegistry } from "../metrics/registry.ts";
import { claimDataDirectory } from "./data-directory.ts";
import type { DataDirectoryClaim } from "./data-directory.ts";
import { planExec } from "./exec-plan.ts";
import { EXIT_FAILURE, EXIT_FATAL, EXIT_OK } from "./exit-codes.ts";
import { createLeaseProvider } from "./lease-provider.ts";
import { makeMountPoint } from "./mount-point.ts";
import { parseListenAddress } from "./listen-address.ts";
import type { RunNode, RunNodeOptions } from "./run-node-type.ts";
import { FORWARDED_SIGNALS, Supervisor } from "./supervisor.ts";
import { electorateFor, syncPolicyOf } from "./sync-policy.ts";

const STDERR = 2;
const HEARTBEAT_INTERVAL_MS = 1_000;
const STREAM_READ_TIMEOUT_MS = 5_000;
/** LiteFS's nodes count on this time, and do not renew. */
const LOAN_MS = 30_000;
const MAX_BUFFERED_BYTES = 8 * 1024 * 1024;
/** How often `.lag` is brought up to date. */
const LAG_REFRESH_MS = 100;
const QUARANTINE_RETRY_MS = 5_000;

/** Runs a node until it is told to stop or its child ends; resolves to the exit code. */
export const runNode: RunNode = async (config, options) => {
  const logger = createLogger(config.log, createLogSink(STDERR, config.log));
  const node = new Node(config, options, logger);
  return await node.run();
};

/** Everything a node consists of, in the order in which it starts; it stops the other way round. */
class Node {
  readonly #config: Config;
  readonly #options: RunNodeOptions;
  readonly #logger: Logger;
  readonly #nodeId = randomBytes(8).readBigUInt64BE(0);
  readonly #supervisor: Supervisor;
  readonly #fatal = Promise.withResolvers<number>();
  readonly #stopRequested = Promise.withResolvers<void>();
  readonly #timers: NodeJS.Timeout[] = [];
  readonly #verification = new AbortController();
  #claim: DataDirectoryClaim | undefined;
  /** The run before this one ended in order. */
  #wasClean = false;
  #engine: MountClient | undefined;
  #mount: FuseMount | undefined;
  #http: HttpServer | undefined;
  #cluster: ClusterNode | undefined;
  #forwarder: Forwarder | undefined;
  #sync: SyncDesk | undefined;
  #onSignal: ((name: NodeJS.Signals) => void) | undefined;

  constructor(config: Config, options: RunNodeOptions, logger: Logger) {
    this.#config = config;
    this.#options = options;
    this.#logger = logger;
    this.#supervisor = new Supervisor({ logger, env: options.env });
  }

  async run(): Promise<number> {
    this.#listenToSignals();
    const onExit = (): void => this.#engine?.requestStop();
    process.on("exit", onExit);
    // A bug ends the node, but in order: the lease given up, the mount gone.
    const onBug = (error: unknown): void => {
      this.#logger.error("internal error, litefs shuts down", { error: stackOf(error) });
      this.#fatal.resolve(EXIT_FATAL);
    };
    process.on("uncaughtException", onBug);
    process.on("unhandledRejection", onBug);
    try {
      const code = await this.#startAndServe();
      await this.#stop();
      this.#logger.info("litefs shut down complete");
      return code;
    } catch (error) {
      this.#logger.error(errorText(error));
      await this.#stop();
      return EXIT_FAILURE;
    } finally {
      process.off("exit", onExit);
      process.off("uncaughtException", onBug);
      process.off("unhandledRejection", onBug);
      for (const name of FORWARDED_SIGNALS) {
        if (this.#onSignal !== undefined) process.off(name, this.#onSignal);
      }
    }
  }

  async #startAndServe(): Promise<number> {
    const started = this.#start().then(() => undefined);
    const ended = Promise.race([
      this.#fatal.promise,
      this.#stopRequested.promise.then(() => EXIT_OK),
    ]);
    try {
      const early = await Promise.race([started, ended]);
      if (early !== undefined) return early;
    } catch (error) {
      if (this.#config.exitOnError) throw error;
      this.#logger.error("cannot start, staying alive for inspection (exit-on-error is false)", {
        error: errorText(error),
      });
      return await ended;
    }
    return await Promise.race([ended, this.#supervise()]);
  }

  async #start(): Promise<void> {
    const config = this.#config;
    const logger = this.#logger;
    this.#claim = await claimDataDirectory(config.data.dir);
    this.#wasClean = takeCleanMark(config.data.dir);
    const clusterId = ClusterIdStore.open(config.data.dir);
    const terms = TermStore.open(config.data.dir);
    if (!this.#options.skipUnmount && (await unmountStale(config.fuse.dir))) {
      logger.info("unmounted what a predecessor left", { dir: config.fuse.dir });
    }
    const engine = new MountClient({
      dataDirectory: config.data.dir,
      wasClean: this.#wasClean,
      nodeId: this.#nodeId,
      role: { isPrimary: false, primaryHostname: undefined, phase: "starting" },
      spinMs: config.fuse.spinMs,
      idlePolling: config.fuse.idlePolling,
      locks: config.fuse.locks,
      logger,
      log: config.log,
      keepAside: {
        maxCount: config.data.keptCopies,
        maxBytes: config.data.keptCopiesMaxSizeMegabytes * 1024 * 1024,
      },
      sync: syncPolicyOf(config),
      onFatal: (error) => {
        logger.error("the mount thread failed", { error: errorText(error) });
        this.#fatal.resolve(EXIT_FATAL);
      },
    });
    this.#engine = engine;
    await engine.open();
    if (config.lease.type === "consul") {
      const { consul, hostname, advertiseUrl } = config.lease;
      // The line of LiteFS. The URL may hold a token.
      const url = consul.url.replace(/\/\/[^@/]*@/, "//");
      logger.info(
        `initializing consul: key=${consul.key} url=${url} hostname=${hostname} advertise-url=${advertiseUrl}`,
      );
    }
    const lease = await createLeaseProvider(config.lease, this.#options.env, systemClock);
    const parts = this.#compose(engine, { clusterId, terms }, lease);
    this.#http = await HttpServer.start(parts.http);
    logger.info("http server listening on", { addr: config.http.addr });
    makeMountPoint(config.fuse.dir);
    this.#mount = await mountFuse({
      directory: config.fuse.dir,
      fsname: "litefs",
      allowOther: config.fuse.allowOther,
      logger,
    });
    await engine.serve(this.#mount.fd, this.#mount.mountPoint);
    logger.info(`LiteFS mounted to: ${this.#mount.mountPoint}`);
    void engine.ended.then(() => this.#unexpectedEnd());
    this.#startTimers(engine, parts.lag);
    parts.cluster.start().catch((error: unknown) => {
      logger.error("the node cannot go on", { error: errorText(error) });
      this.#fatal.resolve(EXIT_FAILURE);
    });
    this.#cluster = parts.cluster;
    this.#verifyInBackground(engine);
    if (config.skipSync) return;
    logger.info("waiting to connect to cluster");
    await parts.cluster.ready;
    logger.info("connected to cluster, ready");
    await this.#promoteAtStart(parts.cluster);
  }

  /** `lease.promote`. A node that cannot be the primary now serves as a replica all the same. */
  async #promoteAtStart(cluster: ClusterNode): Promise<void> {
    const { promote, candidate, type } = this.#config.lease;
    if (!promote || cluster.role.isPrimary || type === "static") return;
    if (!candidate) {
      this.#logger.info("node is not a candidate, skipping automatic promotion");
      return;
    }
    this.#logger.info("node is a candidate, promoting itself to primary");
    try {
      await cluster.promote();
    } catch (error) {
      this.#logger.warn("cannot promote this node", { error: errorText(error) });
    }
  }

  /** Somebody unmounted the directory behind our back, or the session broke. */
  #unexpectedEnd(): void {
    if (this.#mount === undefined) return;
    this.#logger.error("the mount has ended; litefs shuts down");
    this.#fatal.resolve(EXIT_FAILURE);
  }

  #compose(
    engine: MountClient,
    { clusterId, terms }: { readonly clusterId: ClusterIdStore; readonly terms: TermStore },
    lease: LeaseProvider,
  ): { cluster: ClusterNode; lag: LagTracker; http: Parameters<typeof HttpServer.start>[0] } {
    const config = this.#config;
    const log = this.#logger;
    const nodeId = this.#nodeId.toString(16).toUpperCase().padStart(16, "0");
    const clock = systemClock;
    const isCandidate = config.lease.candidate;
    const lag = new LagTracker({ clock, heartbeatIntervalMs: HEARTBEAT_INTERVAL_MS });
    const streams = new StreamServer({
      engine,
      nodeId: this.#nodeId,
      clock,
      log,
      compress: config.data.compress,
      heartbeatIntervalMs: HEARTBEAT_INTERVAL_MS,
      snapshotTimeoutMs: config.http.snapshotTimeoutMs || config.data.retentionMs,
    });
    const client = new StreamClient({
      engine,
      nodeId,
      self: { hostname: lease.hostname, advertiseUrl: lease.advertiseUrl, isCandidate },
      clusterId,
      terms,
      clock,
      log,
      lag,
      openStream: openHttp2Stream,
      filter: config.lease.databases.length > 0 ? new Set(config.lease.databases) : undefined,
      readTimeoutMs: STREAM_READ_TIMEOUT_MS,
      maxBufferedBytes: MAX_BUFFERED_BYTES,
      makeDurable: (database) => engine.makeDurable(database),
    });
    const loans: LoanDesk = new LoanDesk({
      engine,
      clock,
      log,
      loanMs: LOAN_MS,
      timeoutMs: config.forward.timeoutMs,
      isPrimary: () => cluster.role.isPrimary,
    });
    const forwarder: Forwarder = new Forwarder({
      engine,
      nodeId,
      clock,
      log,
      isEnabled: config.forward.enabled,
      lingerMs: config.forward.lingerMs,
      timeoutMs: config.forward.timeoutMs,
      isPrimary: () => cluster.role.isPrimary,
    });
    this.#forwarder = forwarder;
    const policy = syncPolicyOf(config);
    const sync =
      policy &&
      new SyncDesk({
        engine,
        policy,
        timeoutMs: config.sync.timeoutMs,
        countsOnlyCandidates: config.lease.type !== "static",
        clock,
        log,
        isPrimary: () => cluster.role.isPrimary,
        onWaited: (tookMs, outcome) => metrics.syncWaited(tookMs, outcome),
      });
    this.#sync = sync;
    const events: EventHub = new EventHub(engine, () => cluster.role, log);
    const cluster: ClusterNode = new ClusterNode({
      engine,
      lease,
      clusterId,
      terms,
      nodeId,
      isCandidate,
      electorate: electorateFor(config),
      streams,
      client: {
        follow: (url, observer, signal, leave) => {
          forwarder.setPrimary(url);
          return client.follow(url, observer, signal, leave);
        },
        catchUp: (url, databases, signal) => client.catchUp(url, databases, signal),
      },
      lag,
      clock,
      log,
      random: Math.random,
      reconnectDelayMs: config.lease.reconnectDelayMs,
      demoteDelayMs: config.lease.demoteDelayMs,
      peers: httpPeerClient,
      recallLoans: () => loans.recallAll(),
      onRoleChange: ({ isPrimary }) => {
        if (isPrimary) forwarder.setPrimary(undefined);
        else {
          loans.endAll();
          sync?.endAll();
        }
        events.roleChanged();
      },
    });
    const metrics: MetricsRegistry = createMetrics({
      databases: engine.databases,
      isPrimary: () => cluster.role.isPrimary,
      lagMs: () => lag.lagMs(),
      streamCount: () => streams.sessionCount,
      subscriberCount: () => streams.sessionCount + events.subscriberCount,
      sentFrames: () => streams.sentFrames,
      roleCounters: () => cluster.counters,
      forwarding: forwarder.statistics,
      borrowerOf: (database) => loans.loanOf(database)?.nodeId,
      hasBorrowed: (database) => forwarder.heldForMs(database) !== undefined,
      leaseRemainingMs: () => {
        const remainingMs = cluster.leaseState?.remainingMs;
        return remainingMs === Infinity ? undefined : remainingMs;
      },
      applyLatencyMs: () => cluster.applyLatencyMs,
      syncStatus: () => sync?.status,
    });
    const importer = new DatabaseImporter({
      dataDirectory: config.data.dir,
      mountPoint: config.fuse.dir,
    });
    importer.removeLeftovers();
    const node = {
      nodeId,
      hostname: lease.hostname,
      leaseKind: lease.kind,
      isCandidate,
      dataDirectory: config.data.dir,
      engine,
      streams,
      events,
      loans,
      sync,
      heldForMs: (database: string) => forwarder.heldForMs(database),
      metrics,
      log,
      importer,
      clusterId: () => clusterId.current,
      term: () => terms.current,
      control: cluster,
      role: () => cluster.role,
      primary: () => cluster.primary,
      leaseState: () => cluster.leaseState,
      isReady: () => cluster.isReady,
      lagMs: () => lag.lagMs(),
      fuseRequestCounts: () => engine.requestCounts(),
    };
    return { cluster, lag, http: { address: parseListenAddress(config.http.addr), node } };
  }

  #startTimers(engine: MountClient, lag: LagTracker): void {
    const { retentionMs, retentionMonitorIntervalMs } = this.#config.data;
    this.#timers.push(
      setInterval(() => {
        engine.lagMs = lag.lagMs();
        engine.restIfIdle(LAG_REFRESH_MS);
      }, LAG_REFRESH_MS),
      setInterval(() => this.#retryQuarantined(engine), QUARANTINE_RETRY_MS),
    );
    if (retentionMs <= 0 || retentionMonitorIntervalMs <= 0) return;
    this.#timers.push(
      setInterval(
        () => {
          engine.enforceRetention(Date.now() - retentionMs).catch((error: unknown) => {
            this.#logger.warn("retention failed", { error: errorText(error) });
          });
        },
        Math.min(retentionMonitorIntervalMs, TIMER_MAX_MS),
      ),
    );
  }

  #verifyInBackground(engine: MountClient): void {
    const { verify, verifyIntervalMs, verifyRateMegabytes } = this.#config.data;
    const logger = this.#logger;
    const { signal } = this.#verification;
    const bytesPerSecond = Math.max(1, verifyRateMegabytes) * 1024 * 1024;
    const scrubber = new Scrubber({ engine, clock: systemClock, log: logger, bytesPerSecond });
    const isDue = verify === "start" || (verify === "unclean" && !this.#wasClean);
    const run = async (): Promise<void> => {
      if (isDue && engine.databases.size > 0) await scrubber.run(signal);
      if (verifyIntervalMs <= 0) return;
      while (!signal.aborted) {
        await systemClock.sleep(verifyIntervalMs, signal);
        await scrubber.run(signal);
      }
    };
    run().catch((error: unknown) => {
      if (signal.aborted) return;
      logger.error("cannot verify databases", { error: errorText(error) });
    });
  }

  /** A disk that was full may have space again; nobody should have to restart the node for that. */
  #retryQuarantined(engine: MountClient): void {
    const isAny = [...engine.databases.values()].some(({ status }) => status === "quarantined");
    if (!isAny) return;
    engine.retryQuarantined().catch((error: unknown) => {
      this.#logger.warn("cannot open quarantined databases again", { error: errorText(error) });
    });
  }

  /** Runs the application; resolves when it has ended. Without one the node just stays. */
  async #supervise(): Promise<number> {
    const plan = planExec({
      exec: this.#config.exec,
      command: this.#options.command,
      isCandidate: this.#config.lease.candidate,
      logger: this.#logger,
    });
    const failed = await this.#supervisor.run(plan);
    if (failed !== undefined) {
      this.#logger.error("a command of exec failed, litefs shuts down", { exitCode: failed });
      return failed;
    }
    // A signal came while a command ran that was not the last one.
    if (this.#supervisor.isStopping && !this.#supervisor.hasBackground) return EXIT_OK;
    if (plan.background === undefined) return await this.#fatal.promise;
    const code = await this.#supervisor.exited;
    return this.#supervisor.isStopping ? EXIT_OK : code;
  }

  #listenToSignals(): void {
    const onSignal = (name: NodeJS.Signals): void => {
      const ends = name === "SIGINT" || name === "SIGTERM";
      if (ends) this.#logger.info("signal received, litefs shutting down", { signal: name });
      this.#supervisor.signal(name);
      // A running child decides when it is over; without one there is nothing to wait for.
      if (ends && !this.#supervisor.isRunning) this.#stopRequested.resolve();
    };
    this.#onSignal = onSignal;
    for (const name of FORWARDED_SIGNALS) process.on(name, onSignal);
  }

  /** The lease goes first, so that another node can take over while the rest is tidied up. */
  async #stop(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer);
    this.#verification.abort();
    const mount = this.#mount;
    this.#mount = undefined;
    if (this.#engine?.isDead === true)
      await this.#attempt("abort", async () => await mount?.abort());
    // Whoever waits for the primary in a write would keep the mount from being unmounted.
    this.#forwarder?.close();
    this.#sync?.close();
    await this.#attempt("release the lease", async () => await this.#cluster?.stop());
    await this.#attempt("stop the http server", async () => await this.#http?.close());
    const engine = this.#engine;
    if (engine !== undefined) {
      if (mount !== undefined) {
        await this.#attempt("unmount", async () => {
          await engine.unpin();
          const how = await mount.unmount();
          // Whoever still has files open there keeps the session alive; it ends with us.
          if (how === "detached") {
            engine.requestStop();
            await mount.abort();
          }
          await engine.ended;
          await mount.close();
        });
      }
      const isInOrder = !engine.isDead;
      await this.#attempt("stop the mount thread", async () => await engine.close());
      if (isInOrder) {
        await this.#attempt("note the orderly stop", () => {
          const { dir } = this.#config.data;
          if (engine.end !== undefined) leaveCleanMark(dir, engine.end.shelf);
          else if (this.#wasClean) restoreCleanMark(dir);
          return Promise.resolve();
        });
      }
    }
    await this.#attempt("release the data directory", async () => await this.#claim?.release());
  }

  async #attempt(what: string, action: () => Promise<unknown>): Promise<void> {
    try {
      await action();
    } catch (error) {
      this.#logger.error(`cannot ${what}`, { error: errorText(error) });
    }
  }
}

function stackOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
