import { errorText } from "../../../src/lib/errors.ts";
import { formatPosition } from "../../../src/lib/position.ts";
import { PowerCut, Random } from "../database/support/fake-disk.ts";
import { IoFailure } from "../database/support/mini-pager.ts";
import type { JournalMode, Synchronous } from "../database/support/mini-pager.ts";
import { randomStep } from "../database/support/workload.ts";
import { ApplicationDied, Cluster } from "./cluster.ts";
import type { DatabaseSetup, Setup } from "./cluster.ts";
import type { SimDatabase, SimNode } from "./sim-node.ts";

export const STEPS = 120;
const PAGE_SIZES = [512, 512, 1024, 4096] as const;
const MODES: readonly (readonly JournalMode[])[] = [
  ["wal"],
  ["wal"],
  ["delete"],
  ["truncate"],
  ["persist"],
  ["wal", "delete", "truncate", "persist"],
  ["wal", "delete", "truncate", "persist"],
  ["wal", "delete", "memory"],
];
const LEVELS: readonly Synchronous[] = ["full", "full", "normal", "off"];

export interface Outcome {
  readonly trace: readonly string[];
  readonly crashes: number;
  /** Databases that a start found as an orderly stop had left them. */
  readonly takenFromShelf: number;
  readonly failure?: unknown;
}

/** Disks that do not do what they are asked for: proof that the simulation notices. */
export const FAULTS = {
  none: (): boolean => false,
  "the log is not synced": (file: string): boolean => file.endsWith(".seg"),
  "the database is not synced": (file: string): boolean => file.endsWith("/database"),
  "the journal is not synced": (file: string): boolean => file.endsWith("/journal"),
  "no directory is synced": (file: string): boolean => /(dbs|\.db|log)$/.test(file),
} as const;
export type Fault = keyof typeof FAULTS;

export interface Options {
  /** Steps to leave out. */
  readonly skips?: ReadonlySet<number>;
  readonly fault?: Fault;
}

/** Everything a run does follows from its seed, and what a step does from its number alone. */
export function simulate(
  seed: number,
  { skips = new Set(), fault = "none" }: Options = {},
): Outcome {
  const setup = setupOf(new Random(seed * 7919));
  const run = new Run(setup);
  for (const node of run.cluster.nodes) node.disk.ignoresSync = FAULTS[fault];
  run.trace.push(
    `${setup.nodeCount} nodes; ` +
      setup.databases
        .map((d) => `${d.name}: ${d.pageSize} bytes, ${d.modes.join("/")}, ${d.synchronous}`)
        .join("; "),
  );
  try {
    for (let index = 0; index < STEPS; index++) {
      if (!skips.has(index)) run.step(index, new Random(seed * 100_003 + index));
    }
    run.cluster.converge(new Random(seed));
  } catch (error) {
    return { ...run.outcome, failure: error };
  }
  return run.outcome;
}

function pick<T>(random: Random, list: readonly T[]): T {
  const item = list[random.below(list.length)];
  if (item === undefined) throw new Error("nothing to pick from");
  return item;
}

function setupOf(random: Random): Setup {
  const databases: DatabaseSetup[] = ["a.db", "b.db"].map((name) => ({
    name,
    pageSize: pick(random, PAGE_SIZES),
    modes: pick(random, MODES),
    synchronous: pick(random, LEVELS),
  }));
  return {
    nodeCount: 1 + random.below(3),
    databases: databases.slice(0, 1 + random.below(2)),
  };
}

class Run {
  readonly cluster: Cluster;
  readonly trace: string[] = [];
  crashes = 0;

  constructor(setup: Setup) {
    this.cluster = new Cluster(setup);
  }

  get outcome(): Outcome {
    const { trace, crashes, cluster } = this;
    const takenFromShelf = cluster.nodes.reduce((sum, node) => sum + node.takenFromShelf, 0);
    return { trace, crashes, takenFromShelf };
  }

  step(index: number, random: Random): void {
    const { cluster } = this;
    const victim = random.chance(0.15) ? pick(random, cluster.nodes) : undefined;
    const kind = random.chance(0.7) ? "power" : "kill";
    const all = random.chance(0.1);
    if (victim !== undefined) victim.disk.cutAt(1 + random.below(random.chance(0.5) ? 12 : 60));
    let what = "";
    try {
      what = this.#act(random);
      cluster.checkAlive();
    } catch (error) {
      if (!(error instanceof PowerCut)) throw this.#withContext(error, index, what);
      what = `${this.#doing} (cut)`;
    }
    cluster.interruption = undefined;
    try {
      if (victim !== undefined && !victim.isUp && !victim.disk.isDead) {
        victim.disk.onOperation = () => undefined;
      } else if (victim !== undefined) {
        what += `; ${kind} ${all ? "of all" : victim.name}`;
        for (const node of cluster.nodes) {
          if (node === victim || (all && node.isUp)) this.#crash(node, kind, random);
        }
      }
      this.trace.push(`${index}: ${what}; ${this.#positions()}`);
    } catch (error) {
      throw this.#withContext(error, index, what);
    }
  }

  #withContext(error: unknown, index: number, what: string): unknown {
    this.trace.push(`${index}: ${what} ${this.#doing}: ${errorText(error)}`);
    return error;
  }

  #positions(): string {
    return this.cluster.nodes
      .map((node) => {
        if (!node.isUp) return "down";
        return [...node.databases.values()]
          .map(({ db }) => formatPosition(db.position).slice(12, 21))
          .join(",");
      })
      .join(" | ");
  }

  #crash(node: SimNode, kind: "power" | "kill", random: Random): void {
    this.crashes++;
    node.disk.onOperation = () => undefined;
    this.cluster.crash(node, kind, random);
  }

  #doing = "";

  #act(random: Random): string {
    const { cluster } = this;
    this.#doing = "";
    const down = cluster.nodes.filter((node) => !node.isUp);
    const sleeper = down.length > 0 ? pick(random, down) : undefined;
    const roll = random.next();
    if (sleeper !== undefined && roll < 0.35) {
      this.#doing = `start of ${sleeper.name}`;
      cluster.boot(sleeper);
      return this.#doing;
    }
    if (roll < 0.6) return this.#write(random);
    if (roll < 0.84) return this.#replicate(random);
    if (roll < 0.9) return this.#readers(random);
    if (roll < 0.93) return this.#retention(random);
    if (roll < 0.95) return this.#appDies(random);
    if (roll < 0.965) return this.#stop(random);
    if (roll < 0.975) {
      const node = pick(random, cluster.nodes);
      this.#doing = `damage on ${node.name}`;
      return `${this.#doing}: ${cluster.rot(node, random)}`;
    }
    return this.#failover(random);
  }

  #write(random: Random): string {
    const { cluster } = this;
    const database = pick(random, cluster.setup.databases);
    this.#doing = `an application of ${database.name}`;
    if (random.chance(0.3) && cluster.streams.length > 0) {
      const stream = pick(random, cluster.streams);
      const afterRequests = random.below(20);
      const act = (): void => {
        if (stream.name !== database.name) return;
        this.#doing += `; sent: ${cluster.send(stream, random)}`;
      };
      cluster.interruption = { afterRequests, act };
    }
    let done = "";
    try {
      const app = cluster.app(database, random);
      if (app === undefined) return "no primary to write to";
      const canVacuum = app.mode !== "wal" && app.mode !== "memory";
      if (app.committed.pageCount > 0 && canVacuum && random.chance(0.04)) {
        const pageSize = app.pageSize === 512 ? 1024 : app.pageSize >> 1;
        const pageCount = 2 + 2 * random.below(6);
        this.#doing += `; VACUUM to ${pageCount} pages of ${pageSize}`;
        app.vacuum(pageSize, pageCount);
      } else {
        done = randomStep(app, random, {
          modes: database.modes,
          dropChance: 0.02,
          changeModeChance: 0.08,
        });
      }
    } catch (error) {
      if (!(error instanceof IoFailure)) throw error;
      done = `failed: ${error.message}`;
      cluster.appDied(database.name, random.chance(0.5));
    }
    cluster.finished(database.name);
    return `${this.#doing}: ${done}`;
  }

  #replicate(random: Random): string {
    const { cluster } = this;
    const stream = pick(random, cluster.streams);
    if (stream.replica === cluster.primary) return this.#write(random);
    this.#doing = `${stream.name} to ${stream.replica.name}`;
    if (stream.pending === 0 || random.chance(0.3)) {
      this.#doing += ` sent: ${cluster.send(stream, random)}`;
    }
    if (random.chance(0.7)) this.#doing += ` applied: ${cluster.deliver(stream)}`;
    const at = stream.replica.databases.get(stream.name);
    if (stream.replica.isUp && at !== undefined && random.chance(0.15)) {
      this.#doing += "; checkpoint";
      cluster.checkpoint(stream.replica, at);
    }
    return this.#doing;
  }

  #readers(random: Random): string {
    const { cluster } = this;
    const node = pick(random, cluster.nodes);
    const [at] = [...node.databases.values()].filter(() => random.chance(0.7));
    if (!node.isUp || at === undefined || node === cluster.primary) return "nobody reads";
    if (at.db.store.pageCount === 0) return "nothing to read";
    this.#doing = `readers of ${node.name}`;
    const roll = random.next();
    const isWal = at.db.store.frames.count > 0 || isWalMode(at);
    if (roll < 0.3 && isWal) {
      at.locks.opens = 1;
      at.kernel.shm = undefined;
      at.local.forgetIndex();
      return `${this.#doing} open`;
    }
    if (roll < 0.5) {
      if (isWal) at.locks.opens = 1;
      const [kind, byte] = pick(random, BLOCKABLE);
      at.locks.block(kind, byte);
      at.kernel.isSlow = random.chance(0.3);
      return `${this.#doing} hold ${kind} ${byte}`;
    }
    if (roll < 0.8) {
      at.kernel.catchUp();
      at.locks.release();
      if (random.chance(0.5)) {
        at.locks.opens = 0;
        cluster.checkpoint(node, at);
      }
      return `${this.#doing} leave`;
    }
    cluster.checkpoint(node, at);
    return `${node.name} checkpoints`;
  }

  #retention(random: Random): string {
    const node = pick(random, this.cluster.nodes);
    if (!node.isUp) return "nothing is reaped";
    this.#doing = `retention of ${node.name}`;
    const removed = [...node.databases.values()].map(({ db }) => {
      if (db.status === "quarantined") return 0;
      db.log.rotateIfOlderThan(node.host.now + 1);
      return random.chance(0.6) ? db.log.enforceRetention(node.host.now - random.below(10)) : 0;
    });
    return `${this.#doing}: ${removed.join(",")}`;
  }

  #appDies(random: Random): string {
    const { cluster } = this;
    const afterRequests = random.below(25);
    const act = (): void => {
      throw new ApplicationDied("the application was killed");
    };
    const database = pick(random, cluster.setup.databases);
    try {
      const app = cluster.app(database, random);
      if (app === undefined) return "no application to kill";
      this.#doing = `${database.name}'s application dies`;
      cluster.interruption = { afterRequests, act };
      this.#doing += randomStep(app, random, { modes: database.modes, dropChance: 0.02 });
      cluster.finished(database.name);
    } catch (error) {
      if (!(error instanceof ApplicationDied) && !(error instanceof IoFailure)) throw error;
      cluster.appDied(database.name, random.chance(0.5));
    }
    return this.#doing;
  }

  #stop(random: Random): string {
    const node = pick(random, this.cluster.nodes);
    if (!node.isUp) return "nothing to stop";
    this.#doing = `stop of ${node.name}`;
    this.cluster.stop(node);
    if (!random.chance(0.3)) return this.#doing;
    node.disk = node.disk.powerCut(random);
    return `${this.#doing}, and the power goes`;
  }

  /** Planned or not, in the middle of a transaction or between two. */
  #failover(random: Random): string {
    const { cluster } = this;
    const candidates = cluster.replicas.filter((node) => node.isUp);
    if (candidates.length === 0) return "nobody else can be the primary";
    const next = pick(random, candidates);
    this.#doing = `${next.name} becomes the primary`;
    if (random.chance(0.5)) cluster.catchUp(next, random);
    // Before anybody has given up the role for it.
    if (next.disk.isDead) throw new PowerCut(`${next.name} cannot become the primary`);
    const database = pick(random, cluster.setup.databases);
    const app = random.chance(0.6) ? cluster.app(database, random) : undefined;
    if (app !== undefined) {
      const { host } = cluster.primary;
      const act = (): void => {
        host.primary = false;
      };
      cluster.interruption = { afterRequests: random.below(25), act };
      try {
        randomStep(app, random, { modes: database.modes });
        cluster.finished(database.name);
      } catch (error) {
        if (!(error instanceof IoFailure)) throw error;
        cluster.learnUnacknowledged(database.name);
      }
    }
    cluster.failover(next);
    return this.#doing;
  }
}

function isWalMode({ db: { store } }: SimDatabase): boolean {
  const page = new Uint8Array(store.pageSize);
  store.readPage(1, page, 0);
  return page[18] === 2;
}

const BLOCKABLE = [
  ["shm", 120],
  ["shm", 123],
  ["shm", 124],
  ["database", 0x40000000],
  ["database", 0x40000002],
] as const;
