import { expect, onTestFinished, test } from "vitest";
import { dispatch } from "../../../src/cli/dispatch.ts";
import { startFakeNode } from "./fake-node.ts";
import { recordedContext } from "./recorded-context.ts";

async function shown(status: object): Promise<string> {
  const node = await startFakeNode((_request, response) => {
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify(status));
  });
  onTestFinished(() => node.close());
  const context = recordedContext();
  expect(await dispatch(["status", "-url", node.url], context)).toBe(0);
  return context.output.stdout;
}

const REPLICAS = [
  { nodeID: "A", hostname: "one", candidate: true, unsentTransactions: 0, acknowledges: true },
  { nodeID: "B", hostname: "two", candidate: true, unsentTransactions: 3, acknowledges: false },
];

test("of commits that wait for replicas it tells how many there are, and what is wrong", async () => {
  const sync = { replicas: 1, fenced: ["a.db", "b.db"], degraded: [] };
  const text = await shown({ role: "primary", sync, replicas: REPLICAS });
  expect(text).toMatch(/^sync +1 replicas acknowledge; nobody may write: a\.db, b\.db$/m);
  expect(text).toMatch(/^one .* acknowledges$/m);
  expect(text).not.toMatch(/^two .*acknowledges/m);
  const other = { replicas: 2, fenced: [], degraded: ["a.db"] };
  expect(await shown({ role: "primary", sync: other })).toContain("commits do not wait: a.db");
});

test("without them it says nothing about them", async () => {
  expect(await shown({ role: "primary", replicas: [] })).not.toContain("sync");
});
