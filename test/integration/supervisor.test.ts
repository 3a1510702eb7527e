import * as fs from "node:fs";
import * as path from "node:path";
import Database from "better-sqlite3";
import { expect, test } from "vitest";
import { cleanUpAfterEach, Cluster } from "../support/cluster.ts";
import type { NodeExit, TestNode } from "../support/test-node.ts";

cleanUpAfterEach();

async function single(config = ""): Promise<TestNode> {
  return (await Cluster.create({ replicas: 0, config })).primary;
}

/** Everything is given back: the mount, and what a next start needs. */
async function expectGone(node: TestNode): Promise<void> {
  expect(node.isMounted()).toBe(false);
  await node.start();
  expect((await node.stop()).code).toBe(0);
  expect(node.isMounted()).toBe(false);
}

test("the child writes through the mount, and its exit code is ours", async () => {
  const node = await single();
  const script = `
    const db = require("better-sqlite3")(process.argv[1]);
    db.exec("CREATE TABLE t(x); INSERT INTO t VALUES (1)");
    process.exit(42);`;
  const file = node.file("app.db");
  node.launch(["--", process.execPath, "-e", script, file]);
  expect(await node.ended()).toEqual({ code: 42, signal: null });
  expect(fs.existsSync(node.dataFile("app.db", "database"))).toBe(true);
  await expectGone(node);
});

test("arguments after -- arrive as they are", async () => {
  const node = await single();
  const odd = ["-config", "$HOME", "a b", "", "--", "*", "x'y\"z"];
  const script = "console.log('ARGV' + JSON.stringify(process.argv.slice(1)))";
  node.launch(["--", process.execPath, "-e", script, "--", ...odd]);
  expect((await node.ended()).code).toBe(0);
  expect(node.log).toContain(`ARGV${JSON.stringify(odd)}\n`);
});

test.each([
  ["SIGTERM", 0],
  ["SIGINT", 0],
] as const)(
  "%s goes to the child; a child that obeys ends the node with %i",
  async (signal, code) => {
    const node = await single();
    const script = `
    process.on("${signal}", () => { console.log("CHILD GOT ${signal}"); process.exit(5); });
    console.log("CHILD READY");
    setInterval(() => {}, 1000);`;
    node.launch(["--", process.execPath, "-e", script]);
    await node.waitForLog(/^CHILD READY$/m);
    node.signal(signal);
    expect(await node.ended()).toEqual({ code, signal: null });
    expect(node.log).toMatch(new RegExp(`^CHILD GOT ${signal}$`, "m"));
    await expectGone(node);
  },
);

test("the node stays until its child is done, and the mount works until then", async () => {
  const node = await single();
  const script = `
    const db = require("better-sqlite3")(process.argv[1]);
    db.exec("CREATE TABLE t(x)");
    console.log("CHILD READY");
    process.on("SIGTERM", () => {});
    process.once("SIGTERM", () => setTimeout(() => {
      db.exec("INSERT INTO t VALUES (7)");
      db.close();
      console.log("CHILD WROTE");
      process.exit(0);
    }, 500));
    setInterval(() => {}, 1000);`;
  node.launch(["--", process.execPath, "-e", script, node.file("app.db")]);
  await node.waitForLog(/^CHILD READY$/m);
  node.signal("SIGTERM");
  expect((await node.ended()).code).toBe(0);
  expect(node.log).toMatch(/^CHILD WROTE$/m);
  await node.start();
  const db = new Database(node.file("app.db"), { readonly: true });
  expect(db.prepare("SELECT x FROM t").pluck().all()).toEqual([7]);
  db.close();
});

test("exec: each command in order, the last one stays", async () => {
  const node = await single(`
exec:
  - cmd: "sh -c 'echo FIRST; ls -A $MOUNT'"
  - cmd: "sh -c 'echo SECOND; exit 0'"
  - cmd: "sh -c 'echo THIRD; exit 9'"`);
  node.launch([], { ...process.env, MOUNT: node.mountPoint });
  expect(await node.ended()).toEqual({ code: 9, signal: null });
  expect(node.log).toMatch(/FIRST\n\.lag\n[^]*SECOND[^]*THIRD/);
});

test("exec: a command that fails stops the rest", async () => {
  const node = await single(`
exec:
  - cmd: "sh -c 'exit 3'"
  - cmd: "sh -c 'echo NEVER'"`);
  node.launch();
  expect(await node.ended()).toEqual({ code: 3, signal: null });
  expect(node.log).not.toMatch(/^NEVER/m);
  await fs.promises.writeFile(path.join(node.options.directory, "x"), "");
});

test("exec: a signal waits for the command that runs, whichever it is, and nothing follows", async () => {
  const node = await single(`
exec:
  - cmd: "sh -c 'trap true TERM; echo READY; for n in 1 2 3 4 5 6 7 8 9 10; do sleep 0.1; done; touch $MOUNT/done; echo DONE'"
  - cmd: "sh -c 'echo NEVER'"`);
  node.launch([], { ...process.env, MOUNT: node.mountPoint });
  await node.waitForLog(/^READY$/m);
  node.signal("SIGTERM");
  expect(await node.ended()).toEqual({ code: 0, signal: null });
  expect(node.log).toMatch(/^DONE$/m);
  expect(node.log).not.toMatch(/^NEVER/m);
  await node.start();
  expect(fs.existsSync(node.file("done"))).toBe(true);
});

test("a command that does not exist is named", async () => {
  const node = await single();
  node.launch(["--", "/no/such/program"]);
  expect((await node.ended()).code).toBe(1);
  expect(node.log).toMatch(/cannot start .*\/no\/such\/program.*: no such command/);
  await expectGone(node);
});

test.each(["SIGTERM", "SIGKILL"] as const)(
  "%s while files are open: the mount goes all the same",
  async (signal) => {
    const node = await single();
    await node.start();
    const db = new Database(node.file("app.db"));
    db.exec("PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES (1)");
    node.signal(signal);
    const exit: NodeExit = await node.ended(8000);
    if (signal === "SIGTERM") expect(exit.code).toBe(0);
    // What its owner does with it now is of no use, and of no harm.
    db.close();
    // The next start clears what a killed one left mounted.
    await node.start();
    const again = new Database(node.file("app.db"));
    expect(again.prepare("SELECT x FROM t").pluck().all()).toEqual([1]);
    again.close();
  },
);
