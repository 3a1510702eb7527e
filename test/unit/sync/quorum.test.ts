import { expect, test } from "vitest";
import { electorateFor, syncPolicyOf } from "../../../src/cli/sync-policy.ts";
import { announce, announcedDatabases } from "../../../src/cluster/sync/announced-databases.ts";
import { electorateOf, replicasOf } from "../../../src/cluster/sync/quorum.ts";
import type { SyncConfig } from "../../../src/config/config.ts";
import { replicasNeeded } from "../../../src/database/sync-policy.ts";

const OFF: SyncConfig = {
  replicas: 0,
  databases: {},
  nodes: 0,
  timeoutMs: 1000,
  onTimeout: "refuse",
};

test.each([
  [1, 0],
  [2, 1],
  [3, 1],
  [4, 2],
  [5, 2],
  [7, 3],
])("in a cluster of %i nodes a majority is %i replicas and the primary", (nodes, replicas) => {
  expect(replicasOf("majority", nodes)).toBe(replicas);
  expect(replicas + 1).toBeGreaterThan(nodes / 2);
});

test("all are all but the primary, and a number is a number", () => {
  expect(replicasOf("all", 5)).toBe(4);
  expect(replicasOf("all", 1)).toBe(0);
  expect(replicasOf(3, 0)).toBe(3);
});

test("whoever hears from an electorate hears from one that has acknowledged", () => {
  for (let nodes = 2; nodes <= 7; nodes++) {
    for (let needed = 1; needed < nodes; needed++) {
      // The primary of before is not among those that answer.
      const others = nodes - 1;
      const electorate = electorateOf(needed, nodes);
      expect(electorate + needed).toBeGreaterThan(others);
      // One less would not do.
      expect(electorate - 1 + needed).toBeLessThanOrEqual(others);
    }
  }
});

test("without replicas to wait for there is no policy", () => {
  expect(syncPolicyOf({ sync: OFF })).toBeUndefined();
  expect(syncPolicyOf({ sync: { ...OFF, databases: { "a.db": 0 } } })).toBeUndefined();
  expect(electorateFor({ sync: OFF })).toBe(0);
});

test("the rule of a database goes before that of all", () => {
  const sync: SyncConfig = {
    ...OFF,
    replicas: "majority",
    nodes: 5,
    databases: { "all.db": "all", "none.db": 0, "one.db": 1 },
  };
  const policy = syncPolicyOf({ sync });
  expect(policy).toMatchObject({ needed: 2, isStrict: true });
  const needed = ["all.db", "none.db", "one.db", "other.db"].map((name) =>
    policy === undefined ? -1 : replicasNeeded(policy, name),
  );
  expect(needed).toEqual([4, 0, 1, 2]);
  // What one replica has acknowledged is missed by whoever hears from fewer than four.
  expect(electorateFor({ sync })).toBe(4);
  expect(electorateFor({ sync: { ...sync, onTimeout: "async" } })).toBe(0);
  expect(electorateFor({ sync: { ...sync, replicas: 2, databases: {}, nodes: 0 } })).toBe(0);
});

test("replicas are told of which databases somebody waits for them", () => {
  const databases = new Map([
    ["one,=.db", 1],
    ["none.db", 0],
  ]);
  const some = announcedDatabases(announce({ needed: 0, databases, isStrict: true }));
  expect(some?.has("one,=.db")).toBe(true);
  expect(some?.has("none.db")).toBe(false);
  expect(some?.has("other.db")).toBe(false);
  const most = announcedDatabases(announce({ needed: 2, databases, isStrict: false }));
  expect(most?.has("none.db")).toBe(false);
  expect(most?.has("other.db")).toBe(true);
  expect(announcedDatabases(undefined)).toBeUndefined();
  expect(announcedDatabases("%%%")?.has("%%%")).toBe(true);
});
