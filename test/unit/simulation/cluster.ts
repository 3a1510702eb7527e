import { checkpointLocalWal } from "../../../src/database/checkpoint.ts";
import type { Database } from "../../../src/database/database.ts";
import { rollBackAbandoned, settleAfterDemotion } from "../../../src/database/demote.ts";
import type { Position } from "../../../src/lib/position.ts";
import { formatPosition, positionsEqual, ZERO_POSITION } from "../../../src/lib/position.ts";
import type { Random } from "../database/support/fake-disk.ts";
import { PowerCut } from "../database/support/fake-disk.ts";
import { MiniPager } from "../database/support/mini-pager.ts";
import type { Attempt, JournalMode, Synchronous } from "../database/support/mini-pager.ts";
import { contentOf } from "../database/support/node.ts";
import { Oracle, Violation } from "./oracle.ts";
import type { SimDatabase } from "./sim-node.ts";
import { SimNode } from "./sim-node.ts";
import { SimStream } from "./stream.ts";

/** How one run is set up; drawn from its seed. */
export interface Setup {
  readonly nodeCount: number;
  readonly databases: readonly DatabaseSetup[];
}

export interface DatabaseSetup {
  readonly name: string;
  readonly pageSize: number;
  readonly modes: readonly JournalMode[];
  readonly synchronous: Synchronous;
}

/** The application's process was killed: its connection ends between two requests. */
export class ApplicationDied extends Error {
  override readonly name = "ApplicationDied";
}

/** A commit that was under way when its node went down. */
interface Interrupted {
  readonly attempt: Attempt;
  readonly after: Position;
}

/** What else the run wants to happen in the middle of what an application does. */
export interface Interruption {
  /** Requests of the application before it. */
  afterRequests: number;
  readonly act: () => void;
}

/** Several nodes of which one is the primary, their applications, and the oracle that knows all. */
export class Cluster {
  readonly setup: Setup;
  readonly nodes: readonly SimNode[];
  readonly oracles: Map<string, Oracle> = new Map<string, Oracle>();
  readonly streams: SimStream[] = [];
  primary: SimNode;
  interruption: Interruption | undefined;
  readonly #apps = new Map<string, MiniPager>();
  /** The application at work has committed, and is not done yet. */
  #hasCommitted = false;

  constructor(setup: Setup) {
    this.setup = setup;
    this.nodes = Array.from({ length: setup.nodeCount }, (_, i) => new SimNode(`node${i}`));
    const [first] = this.nodes;
    if (first === undefined) throw new Error("a cluster has nodes");
    this.primary = first;
    for (const { name } of setup.databases) {
      this.oracles.set(name, new Oracle());
      for (const node of this.nodes) this.streams.push(new SimStream(name, node));
    }
    for (const node of this.nodes) node.boot(node === first);
  }

  get replicas(): SimNode[] {
    return this.nodes.filter((node) => node !== this.primary);
  }

  oracle(name: string): Oracle {
    const oracle = this.oracles.get(name);
    if (oracle === undefined) throw new Error(`no database ${name}`);
    return oracle;
  }

  // Applications of the primary.

  app(database: DatabaseSetup, random: Random): MiniPager | undefined {
    const { name } = database;
    if (!this.primary.isUp) return undefined;
    this.#hasCommitted = false;
    const known = this.#apps.get(name);
    if (known !== undefined) {
      known.random = random;
      return known;
    }
    const at = this.primary.open(name);
    if (at.db.status === "quarantined" || at.isBusy) return undefined;
    const mode = database.modes[random.below(database.modes.length)] ?? "delete";
    const app = new MiniPager(at.db, random, {
      pageSize: database.pageSize,
      mode: mode === "wal" ? "delete" : mode,
      synchronous: database.synchronous,
      bigEndian: random.chance(0.3),
    });
    app.onCommit = () => {
      this.#committed(name, app);
    };
    app.beforeIo = () => {
      this.#beforeRequest();
    };
    const state = this.oracle(name).get(at.db.position);
    this.#apps.set(name, app);
    app.reopen(state.content, state.pageSize === 0 ? database.pageSize : state.pageSize);
    return app;
  }

  #beforeRequest(): void {
    const { interruption } = this;
    if (interruption === undefined || interruption.afterRequests-- > 0) return;
    this.interruption = undefined;
    interruption.act();
  }

  #committed(name: string, app: MiniPager): void {
    const oracle = this.oracle(name);
    const { position } = app.db;
    oracle.learn(position, app.committed.copy(), app.pageSize, oracle.acknowledged);
    oracle.acknowledged = position;
    this.#hasCommitted = true;
  }

  /** The application has been told that what it did is done. */
  finished(name: string): void {
    const app = this.#apps.get(name);
    if (app === undefined || this.primary.disk.isDead) return;
    const oracle = this.oracle(name);
    // A rollback syncs nothing, and what was committed by one who died is not synced by itself.
    if (app.synchronous === "full" && this.#hasCommitted) oracle.durable = oracle.acknowledged;
    this.#hasCommitted = false;
    oracle.check(app.db, this.primary.name);
  }

  /** A connection is gone; the next one finds what it has left. */
  appDied(name: string, isLast: boolean): void {
    const app = this.#apps.get(name);
    this.#apps.delete(name);
    if (app === undefined || this.primary.disk.isDead) return;
    const oracle = this.oracle(name);
    // The kernel reports that its descriptors are closed.
    if (app.attempt?.isLoose === true) app.db.endLooseWrites();
    oracle.settle(app.db, app.attempt);
    // Pages of an open rollback transaction are in the file until its journal is played back.
    if (!app.db.hasOpenChanges) {
      oracle.check(app.db, `${this.primary.name} after its application died`);
    }
    oracle.acknowledged = app.db.position;
    const at = this.primary.databases.get(name);
    if (at === undefined || at.isBusy || !isLast) return;
    this.primary.run(at, rollBackAbandoned(app.db, at.locks), () => undefined);
    if (!app.db.hasOpenChanges) oracle.check(app.db, `${this.primary.name} after rolling back`);
  }

  // Replication.

  /** A commit may be on its way before its writer has been told of it. */
  learnUnacknowledged(name: string): void {
    const app = this.#apps.get(name);
    if (app === undefined) return;
    this.oracle(name).settle(app.db, app.attempt);
  }

  send(stream: SimStream, random: Random): string {
    if (!this.primary.isUp || this.primary.disk.isDead || stream.replica === this.primary) {
      return "no primary";
    }
    const source = this.primary.databases.get(stream.name);
    if (source === undefined) return "no database";
    this.learnUnacknowledged(stream.name);
    return stream.send(source, random);
  }

  deliver(stream: SimStream): string {
    if (!stream.replica.isUp || stream.replica === this.primary) return "not a replica";
    return stream.deliver((at, result) => {
      if (result.kind === "applied") {
        const oracle = this.oracle(stream.name);
        oracle.passed(at.db);
        oracle.check(at.db, `${stream.replica.name} after applying`);
      }
    });
  }

  checkpoint(node: SimNode, at: SimDatabase): void {
    if (at.isBusy || node === this.primary || at.db.status === "quarantined") return;
    node.run(at, checkpointLocalWal(at.db, at.local, at.locks), () => node.releaseFiles(at));
  }

  // Crashes and starts.

  /** What must be there when the node is up again. */
  crash(node: SimNode, kind: "power" | "kill", random: Random): void {
    if (node === this.primary) {
      const interrupted = this.#interrupted.get(node) ?? new Map<string, Interrupted>();
      for (const [name, app] of this.#apps) {
        if (app.attempt === undefined) continue;
        interrupted.set(name, { attempt: app.attempt, after: this.oracle(name).acknowledged });
      }
      this.#interrupted.set(node, interrupted);
      this.#apps.clear();
    }
    for (const stream of this.streams) {
      if (stream.replica === node) stream.disconnect(false);
      else if (node === this.primary) stream.disconnect(random.chance(0.6));
      if (node === this.primary) stream.forgetSource();
    }
    node.crash(kind, random);
    if (kind === "power") this.#lostPower.add(node);
  }

  readonly #interrupted = new Map<SimNode, Map<string, Interrupted>>();
  readonly #lostPower = new Set<SimNode>();

  stop(node: SimNode): void {
    if (node === this.primary) this.#apps.clear();
    for (const at of node.databases.values()) at.unblock();
    for (const stream of this.streams) {
      if (stream.replica === node || node === this.primary) stream.disconnect(false);
      if (node === this.primary) stream.closeSnapshot();
    }
    node.stop();
    if (node !== this.primary) return;
    for (const oracle of this.oracles.values()) oracle.durable = oracle.acknowledged;
  }

  boot(node: SimNode): void {
    const isPrimary = node === this.primary;
    node.boot(isPrimary);
    for (const { name } of this.setup.databases) {
      let at = node.databases.get(name);
      const oracle = this.oracle(name);
      if (at !== undefined && at.db.status === "quarantined") {
        const isExpected =
          (this.#mayBeTorn(node, name) && at.db.reason.includes("synchronous=OFF")) ||
          (this.#interrupted.get(node)?.get(name)?.attempt.isLoose === true &&
            at.db.reason.includes("was being overwritten"));
        if (!isExpected) {
          throw new Violation(`${node.name} cannot open ${name}: ${at.db.reason}`);
        }
        node.wipe(name);
        at = undefined;
        if (isPrimary) oracle.durable = oracle.acknowledged = ZERO_POSITION;
      }
      const interrupted = this.#interrupted.get(node)?.get(name);
      if (at !== undefined && interrupted !== undefined) {
        oracle.settle(at.db, interrupted.attempt, interrupted.after);
      } else if (at !== undefined && !oracle.has(at.db.position)) {
        this.#learnLoose(name, at.db, isPrimary ? oracle.acknowledged : ZERO_POSITION);
      }
      if (isPrimary) {
        this.#checkNothingLost(node, oracle, at?.db.position ?? ZERO_POSITION);
      }
      if (at !== undefined) oracle.check(at.db, `${node.name} after its start`);
    }
    this.#interrupted.delete(node);
    this.#lostPower.delete(node);
  }

  /** With synchronous=OFF and a rollback journal, a power cut may leave what no one can mend. */
  #mayBeTorn(node: SimNode, name: string): boolean {
    const database = this.setup.databases.find((other) => other.name === name);
    return this.#lostPower.has(node) && database?.synchronous === "off";
  }

  #checkNothingLost(
    node: SimNode,
    oracle: Oracle,
    position: { txid: number; checksum: bigint },
  ): void {
    const lostPower = this.#lostPower.has(node);
    const least = lostPower ? oracle.durable : oracle.acknowledged;
    if (!oracle.leadsTo(least, position)) {
      throw new Violation(
        `${node.name} came back at ${formatPosition(position)}, ` +
          `its application was told of ${formatPosition(least)}`,
      );
    }
    oracle.acknowledged = position;
    // What was read after the power came back is on the disk.
    if (lostPower) oracle.durable = position;
  }

  /**
   * A bit of a node's log changes while the machine stays up. Nothing may be cut off then: the
   * database is not served, and is as it was once the bit is mended.
   */
  rot(node: SimNode, random: Random): string {
    if (!node.isUp || node.disk.isDead) return "down already";
    for (const at of node.databases.values()) at.unblock();
    this.crash(node, "kill", random);
    const { name } = this.setup.databases[random.below(this.setup.databases.length)] ?? {};
    const mend = name === undefined ? undefined : node.rot(name, random);
    if (name === undefined || mend === undefined) return "nothing to damage";
    node.boot(node === this.primary);
    const db = node.databases.get(name)?.db;
    if (db?.status !== "quarantined" || !db.reason.includes("damaged")) {
      throw new Violation(`${node.name} serves ${name} although a bit of its log has changed`);
    }
    node.crash("kill", random);
    mend();
    return `a bit of ${name} has changed`;
  }

  // Roles.

  /** Another node becomes the primary, whatever it has; the old one follows if it is there. */
  failover(next: SimNode): void {
    // Its disk may have died while its error was swallowed on the way.
    if (next.disk.isDead) throw new PowerCut(`${next.name} cannot become the primary`);
    const old = this.primary;
    for (const at of next.databases.values()) at.unblock();
    if (old.isUp) for (const name of this.oracles.keys()) this.learnUnacknowledged(name);
    this.primary = next;
    this.#apps.clear();
    for (const stream of this.streams) {
      stream.disconnect(false);
      if (!old.isUp) stream.forgetSource();
    }
    next.host.primary = true;
    next.host.epoch++;
    for (const at of next.databases.values()) at.local.forgetIndex();
    for (const [name, oracle] of this.oracles) {
      oracle.acknowledged = next.databases.get(name)?.db.position ?? ZERO_POSITION;
      // A replica syncs its log when it must, not at each transaction.
      oracle.durable = ZERO_POSITION;
    }
    if (old.isUp) this.#demote(old);
  }

  /** What was written without a journal, and was not finished, has become a history of its own. */
  #learnLoose(name: string, db: Database, after: Position): boolean {
    const { modes } = this.setup.databases.find((other) => other.name === name) ?? {};
    if (modes?.includes("memory") !== true) return false;
    this.oracle(name).learn(db.position, contentOf(db), db.store.pageSize, after);
    return true;
  }

  #demote(old: SimNode): void {
    old.host.primary = false;
    for (const stream of this.streams) stream.closeSnapshot();
    for (const [name, at] of old.databases) {
      at.local.forgetIndex();
      if (!at.db.hasOpenChanges) continue;
      old.run(at, settleAfterDemotion(at.db, at.locks), () => {
        const { position, store } = at.db;
        if (this.oracle(name).has(position) || this.#learnLoose(name, at.db, ZERO_POSITION)) return;
        throw new Violation(`${formatPosition(position)} of ${store.pageCount} pages at demotion`);
      });
    }
  }

  // The end.

  /** Everything is up and quiet; every node must come to hold the same. */
  converge(random: Random): void {
    for (const node of this.nodes) if (!node.isUp) this.boot(node);
    for (const node of this.nodes) for (const at of node.databases.values()) at.unblock();
    for (const database of this.setup.databases) this.app(database, random);
    for (const stream of this.streams) {
      if (stream.replica !== this.primary) this.#catchUp(stream, random);
    }
    this.#checkSame();
  }

  /** One replica comes to hold what the primary holds now, as before a handoff. */
  catchUp(node: SimNode, random: Random): void {
    if (!this.primary.isUp || !node.isUp || node === this.primary) return;
    for (const database of this.setup.databases) this.app(database, random);
    for (const at of node.databases.values()) at.unblock();
    for (const stream of this.streams) if (stream.replica === node) this.#catchUp(stream, random);
  }

  #catchUp(stream: SimStream, random: Random): void {
    stream.disconnect(false);
    for (let round = 0; ; round++) {
      const sent = this.send(stream, random);
      while (stream.pending > 0) {
        this.deliver(stream);
        stream.replica.databases.get(stream.name)?.unblock();
      }
      if (sent === "up to date" || sent === "no database" || sent === "nothing to send") return;
      if (round > 200) throw new Violation(`${stream.replica.name} never catches up: ${sent}`);
    }
  }

  #checkSame(): void {
    for (const [name, oracle] of this.oracles) {
      const source = this.primary.databases.get(name);
      if (source === undefined) continue;
      oracle.check(source.db, this.primary.name);
      if (source.db.position.txid === 0) continue;
      for (const node of this.replicas) {
        const at = node.databases.get(name);
        if (at === undefined) throw new Violation(`${node.name} does not have ${name}`);
        oracle.check(at.db, node.name);
        if (!positionsEqual(at.db.position, source.db.position)) {
          throw new Violation(`${node.name} is not where the primary is with ${name}`);
        }
      }
    }
  }

  /** Throws a PowerCut when a disk died while its error was swallowed on the way. */
  checkAlive(): void {
    for (const node of this.nodes) {
      if (node.isUp && node.disk.isDead) throw new PowerCut(`${node.name} lost its power`);
    }
  }
}
