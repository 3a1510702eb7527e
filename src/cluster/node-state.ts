import type { NodePhase } from "../database/engine.ts";

export type { NodePhase } from "../database/engine.ts";

export type NodeEvent =
  /** This node holds the lease. */
  | "lease-acquired"
  /** It does not any more. */
  | "lease-lost"
  /** The stream of a primary is open. */
  | "stream-opened"
  /** The stream has ended, or no primary could be reached. */
  | "stream-lost"
  | "stop";

type Transitions = Readonly<Partial<Record<NodeEvent, NodePhase>>>;

/**
 * The whole role logic: what is not in this table cannot happen. A primary that loses its lease
 * is disconnected until it has found the next primary, never a replica of nobody.
 */
export const NODE_TRANSITIONS: Readonly<Record<NodePhase, Transitions>> = {
  starting: {
    "lease-acquired": "primary",
    "stream-opened": "replica",
    "stream-lost": "disconnected",
    stop: "stopping",
  },
  replica: {
    "lease-acquired": "primary",
    "stream-lost": "disconnected",
    stop: "stopping",
  },
  primary: {
    "lease-lost": "disconnected",
    stop: "stopping",
  },
  disconnected: {
    "lease-acquired": "primary",
    "stream-opened": "replica",
    "stream-lost": "disconnected",
    stop: "stopping",
  },
  /** Events still under way when the node stops change nothing. */
  stopping: {
    "lease-acquired": "stopping",
    "lease-lost": "stopping",
    "stream-opened": "stopping",
    "stream-lost": "stopping",
    stop: "stopping",
  },
};

/** The phase after the event; undefined when the event makes no sense in this phase. */
export function nextPhase(phase: NodePhase, event: NodeEvent): NodePhase | undefined {
  return NODE_TRANSITIONS[phase][event];
}
