/** What happens to the bytes that one machine sends to another, on all their connections. */
export interface Flow {
  /** They arrive when this ends, or never. */
  readonly isHeld: boolean;
  readonly latencyMs: number;
  /** Share of the pieces that arrive late, as after a lost packet, and all behind them too. */
  readonly lossRate: number;
  /** The machine is there and nobody listens: connections break, and new ones are refused. */
  readonly isRefused: boolean;
}

export const CLEAR: Flow = { isHeld: false, latencyMs: 0, lossRate: 0, isRefused: false };

/** A change of one flow, for as long as a fault lasts. */
export interface FlowFault {
  readonly from: number;
  readonly to: number;
  readonly change: Partial<Flow>;
}

/** What all faults of this moment make of the flow from one machine to another. */
export function flowOf(faults: Iterable<FlowFault>, from: number, to: number): Flow {
  let { isHeld, latencyMs, lossRate, isRefused } = CLEAR;
  for (const fault of faults) {
    if (fault.from !== from || fault.to !== to) continue;
    isHeld ||= fault.change.isHeld === true;
    isRefused ||= fault.change.isRefused === true;
    latencyMs += fault.change.latencyMs ?? 0;
    lossRate = Math.max(lossRate, fault.change.lossRate ?? 0);
  }
  return { isHeld, latencyMs, lossRate, isRefused };
}

/** The same in both directions of each pair. */
export function both(
  pairs: readonly (readonly [number, number])[],
  change: Partial<Flow>,
): FlowFault[] {
  return pairs.flatMap(([a, b]) => [
    { from: a, to: b, change },
    { from: b, to: a, change },
  ]);
}
