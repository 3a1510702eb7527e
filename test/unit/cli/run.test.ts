import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { dispatch } from "../../../src/cli/dispatch.ts";
import { startFakeNode, type FakeNode } from "./fake-node.ts";
import { recordedContext } from "./recorded-context.ts";

let directory: string;
let node: FakeNode;
let info: string;
let promoteStatus: number;

beforeEach(async () => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-run-"));
  info = JSON.stringify({ isPrimary: false, candidate: true });
  promoteStatus = 200;
  node = await startFakeNode((request, response) => {
    if (request.url === "/info") response.end(info);
    else if (request.url === "/promote") response.writeHead(promoteStatus).end("the reason");
    else response.writeHead(404).end();
  });
});
afterEach(() => {
  node.close();
  fs.rmSync(directory, { recursive: true });
});

async function run(...args: string[]): Promise<{ code: number; stderr: string; ran: boolean }> {
  const context = recordedContext({ currentDirectory: directory });
  const all = args.includes("--") ? args : [...args, "--", "touch", path.join(directory, "ran")];
  const code = await dispatch(["run", "-url", node.url, ...all], context);
  const ran = fs.existsSync(path.join(directory, "ran"));
  return { code, stderr: context.output.stderr.replaceAll(node.url, "URL"), ran };
}

test.each([0, 1, 42])("the exit code of the command, %d, is ours", async (exitCode) => {
  const expected = { code: exitCode, stderr: "", ran: false };
  expect(await run("--", "sh", "-c", `exit ${exitCode}`)).toEqual(expected);
  expect(node.requests).toEqual([]);
});

test("a command that does not exist", async () => {
  const { code, stderr } = await run("--", "/no/such/command");
  expect(code).toBe(1);
  expect(stderr).toMatch(/^ERROR: cannot start "\/no\/such\/command": no such command.*\n$/);
});

test("-if-candidate runs the command on a candidate", async () => {
  expect(await run("-if-candidate")).toEqual({ code: 0, stderr: "", ran: true });
});

test("-if-candidate does nothing, successfully, on others", async () => {
  info = JSON.stringify({ isPrimary: false, candidate: false });
  const stderr = "node is not a candidate, skipping execution\n";
  expect(await run("-if-candidate", "-promote")).toEqual({ code: 0, stderr, ran: false });
  expect(node.requests).toEqual(["GET /info"]);
});

test("-promote promotes first", async () => {
  const { code, stderr, ran } = await run("-promote", "-v");
  expect({ code, ran }).toEqual({ code: 0, ran: true });
  expect(stderr).toContain("promoting node to primary\npromotion successful\nrunning touch");
  expect(node.requests).toEqual(["GET /info", "POST /promote"]);
});

test("-promote has nothing to do on the primary", async () => {
  info = JSON.stringify({ isPrimary: true, candidate: true });
  expect(await run("-promote")).toEqual({ code: 0, stderr: "", ran: true });
  expect(node.requests).toEqual(["GET /info"]);
});

test("nothing runs when the promotion fails", async () => {
  promoteStatus = 409;
  const stderr = "ERROR: URL refused: the reason (HTTP 409)\n";
  expect(await run("-promote")).toEqual({ code: 1, stderr, ran: false });
});

test.each(["not JSON", "[]", "null", "{}"])("/info answering %s is no node", async (text) => {
  info = text;
  const stderr = "ERROR: URL is not a litefs node: bad /info\n";
  expect(await run("-promote")).toEqual({ code: 1, stderr, ran: false });
});

test("-with-halt-lock-on needs a database in a mount", async () => {
  const database = path.join(directory, "app.db");
  const missing = `ERROR: database does not exist: ${database}\n`;
  expect(await run("-with-halt-lock-on", "app.db")).toEqual({
    code: 1,
    stderr: missing,
    ran: false,
  });
  fs.writeFileSync(database, "");
  const noLock = `ERROR: ${database} has no lock file; give the path of a database in a litefs mount\n`;
  expect(await run("-with-halt-lock-on", database)).toEqual({
    code: 1,
    stderr: noLock,
    ran: false,
  });
});

test("-with-halt-lock-on writes to no file of somebody's own", async () => {
  const database = path.join(directory, "app.db");
  for (const name of [database, `${database}-lock`, path.join(directory, ".role")]) {
    fs.writeFileSync(name, "", { mode: 0o444 });
  }
  const refused = await run("-with-halt-lock-on", database);
  expect(refused).toMatchObject({ code: 1, ran: false });
  expect(refused.stderr).toContain("give the path of a database in a litefs mount");
  expect(fs.statSync(`${database}-lock`).size).toBe(0);
});
