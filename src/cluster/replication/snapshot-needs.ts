import type { DatabaseState } from "../../database/engine.ts";
import { positionsEqual, ZERO_POSITION } from "../../lib/position.ts";
import type { Position } from "../../lib/position.ts";
import type { PositionMapEntry } from "../../wire/position-map.ts";

/**
 * Which databases can only be helped by a snapshot. A position of zero in the position map makes
 * the primary send one.
 *
 * A first mismatch needs nothing special: the next position map tells the primary where this node
 * stands, and it decides. A second one at the same position means that its transactions cannot be
 * applied here at all, and asking for them for ever would never end.
 */
export class SnapshotNeeds {
  readonly #mismatchedAt = new Map<string, Position>();
  readonly #needed = new Set<string>();

  mismatch(database: string, localPosition: Position): void {
    const before = this.#mismatchedAt.get(database);
    if (before !== undefined && positionsEqual(before, localPosition)) this.#needed.add(database);
    this.#mismatchedAt.set(database, localPosition);
  }

  need(database: string): void {
    this.#needed.add(database);
  }

  applied(database: string): void {
    this.#mismatchedAt.delete(database);
    this.#needed.delete(database);
  }

  /** What the primary is told that this node has. A quarantined database has nothing of worth. */
  positionMap(
    databases: ReadonlyMap<string, DatabaseState>,
    filter: ReadonlySet<string> | undefined,
  ): PositionMapEntry[] {
    const entries: PositionMapEntry[] = [];
    for (const [name, state] of databases) {
      if (filter !== undefined && !filter.has(name)) continue;
      const isUsable = state.status !== "quarantined" && !this.#needed.has(name);
      entries.push({ name, position: isUsable ? state.position : ZERO_POSITION });
    }
    return entries;
  }
}
