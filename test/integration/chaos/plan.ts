import { Random } from "../../unit/database/support/fake-disk.ts";

/** A node by its number, or whichever is the primary when the fault begins. */
export type Target = number | "primary";

/** One fault; those that last end after `durationMs`. */
export type Fault =
  | { readonly kind: "slow"; readonly node: Target; readonly latencyMs: number }
  | { readonly kind: "loss"; readonly node: Target; readonly rate: number }
  /** Nothing arrives; callers hear nothing. */
  | { readonly kind: "cut"; readonly from: Target; readonly to: number; readonly ending: Ending }
  | {
      readonly kind: "one-way cut";
      readonly from: Target;
      readonly to: number;
      readonly ending: Ending;
    }
  /** Connections between the two break, and are refused. */
  | { readonly kind: "refuse"; readonly from: Target; readonly to: number }
  /** From all other nodes, and from the lease's backend as well or not. */
  | {
      readonly kind: "isolate";
      readonly node: Target;
      readonly withLease: boolean;
      readonly ending: Ending;
    }
  | { readonly kind: "lease cut"; readonly node: Target; readonly ending: Ending }
  | { readonly kind: "lease pause" }
  | { readonly kind: "pause"; readonly node: Target }
  | { readonly kind: "kill"; readonly node: Target; readonly withClients: boolean }
  | { readonly kind: "restart"; readonly node: Target }
  | { readonly kind: "kill clients"; readonly node: Target }
  | { readonly kind: "clock"; readonly node: Target; readonly offsetMs: number }
  | { readonly kind: "promote"; readonly node: number };

/** Whether what a cut has held arrives after it, or is lost with the connections. */
export type Ending = "deliver" | "break";

export interface Step {
  readonly atMs: number;
  readonly durationMs: number;
  readonly fault: Fault;
}

export interface PlanOptions {
  readonly seed: number;
  readonly nodes: number;
  readonly lengthMs: number;
  /** What a fault must last to cost a primary its lease. */
  readonly ttlMs: number;
  /** Only these kinds; for a closer look. */
  readonly kinds?: readonly string[];
}

/** Some kinds are what most failures are made of. */
const KINDS: readonly Fault["kind"][] = [
  "kill",
  "kill",
  "kill",
  "kill",
  "pause",
  "pause",
  "isolate",
  "isolate",
  "cut",
  "cut",
  "one-way cut",
  "one-way cut",
  "refuse",
  "lease cut",
  "lease pause",
  "restart",
  "kill clients",
  "kill clients",
  "slow",
  "loss",
  "clock",
  "promote",
];
/** Half of the faults meet the primary, where they hurt. */
const PRIMARY_SHARE = 0.5;
const GAP_MIN_MS = 200;
const GAP_SPREAD_MS = 1_500;
const CLOCK_JUMP_MAX_MS = 2 * 60 * 60 * 1000;

/** The schedule of faults: the same for the same options. Faults may overlap. */
export function planFaults(options: PlanOptions): Step[] {
  const random = new Random(options.seed);
  const steps: Step[] = [];
  const kinds = KINDS.filter((kind) => options.kinds?.includes(kind) ?? true);
  if (kinds.length === 0)
    throw new Error(`a kind of fault is one of ${[...new Set(KINDS)].join()}`);
  let atMs = GAP_MIN_MS + random.below(GAP_SPREAD_MS);
  while (atMs < options.lengthMs) {
    const fault = pickFault(random, options.nodes, kinds);
    const durationMs = Math.min(pickDurationMs(random, options.ttlMs), options.lengthMs - atMs);
    steps.push({ atMs, durationMs, fault });
    // Sometimes the next fault comes into this one, sometimes there is peace in between.
    const waitsForEnd = random.chance(0.6);
    atMs += GAP_MIN_MS + random.below(GAP_SPREAD_MS) + (waitsForEnd ? durationMs : 0);
  }
  return steps;
}

function pickFault(random: Random, nodes: number, kinds: readonly Fault["kind"][]): Fault {
  const kind = kinds[random.below(kinds.length)] ?? "kill";
  const number = random.below(nodes);
  const node = random.chance(PRIMARY_SHARE) ? "primary" : number;
  // Another one than `number`; if the primary is that one, the step is left out.
  const to = (number + 1 + random.below(nodes - 1)) % nodes;
  const ending = random.chance(0.5) ? "deliver" : "break";
  switch (kind) {
    case "slow":
      return { kind, node, latencyMs: 5 + random.below(200) };
    case "loss":
      return { kind, node, rate: 0.01 + random.next() / 10 };
    case "cut":
    case "one-way cut":
      return { kind, from: node, to, ending };
    case "refuse":
      return { kind, from: node, to };
    case "isolate":
      return { kind, node, withLease: random.chance(0.5), ending };
    case "lease cut":
      return { kind, node, ending };
    case "kill":
      return { kind, node, withClients: random.chance(0.3) };
    case "clock":
      return { kind, node, offsetMs: random.below(2 * CLOCK_JUMP_MAX_MS) - CLOCK_JUMP_MAX_MS };
    case "promote":
      return { kind, node: number };
    case "lease pause":
      return { kind };
    case "pause":
    case "restart":
    case "kill clients":
      return { kind, node };
  }
}

/** A hiccup, something that one notices, or something that costs a lease. */
function pickDurationMs(random: Random, ttlMs: number): number {
  const scale = random.next();
  switch (random.below(3)) {
    case 0:
      return Math.round(50 + scale * 500);
    case 1:
      return Math.round(500 + scale * ttlMs);
    default:
      return Math.round(ttlMs * (1 + 1.5 * scale));
  }
}

export function describeFault(fault: Fault): string {
  const { kind, ...details } = fault;
  const words = Object.entries(details).map(([name, value]) => `${name}=${String(value)}`);
  return [kind, ...words].join(" ");
}
