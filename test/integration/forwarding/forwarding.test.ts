import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Cluster } from "../../support/cluster.ts";

let cluster: Cluster;
beforeAll(async () => {
  cluster = await Cluster.start();
});
afterAll(() => cluster.dispose());

describe.each(["WAL", "DELETE"])("%s", (mode) => {
  const name = `${mode.toLowerCase()}.db`;

  test("an insert on a replica is there when it returns, and then everywhere", async () => {
    const primary = cluster.connect(cluster.primary, name);
    primary.pragma(`journal_mode=${mode}`);
    primary.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, x)");
    await cluster.waitForReplicas(name);
    const replica = cluster.connect(cluster.replica, name);
    const count = replica.prepare("SELECT count(*) FROM t").pluck();
    const countOnPrimary = primary.prepare("SELECT count(*) FROM t").pluck();
    for (let i = 1; i <= 20; i++) {
      replica.prepare("INSERT INTO t(x) VALUES (?)").run(`row ${i}`);
      expect([countOnPrimary.get(), count.get()]).toEqual([i, i]);
    }
    await cluster.waitForReplicas(name);
    const other = cluster.connect(cluster.node(2), name);
    expect(other.prepare("SELECT count(*) FROM t").pluck().get()).toBe(20);
    primary.prepare("INSERT INTO t(x) VALUES ('on the primary')").run();
    other.prepare("INSERT INTO t(x) VALUES ('on another replica')").run();
    await cluster.verify();
  });
});
