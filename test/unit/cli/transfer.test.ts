import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { dispatch } from "../../../src/cli/dispatch.ts";
import { startFakeNode, type Answer, type FakeNode } from "./fake-node.ts";
import { recordedContext } from "./recorded-context.ts";

let directory: string;
let node: FakeNode | undefined;

beforeEach(() => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-transfer-"));
});
afterEach(() => {
  node?.close();
  node = undefined;
  fs.rmSync(directory, { recursive: true });
});

/** Enough of an SQLite file for the checks: magic, page size 512, page count. */
function databaseFile(pageCount: number): Buffer {
  const bytes = Buffer.alloc(512 * pageCount, "x");
  bytes.write("SQLite format 3\0", 0, "latin1");
  bytes.writeUInt16BE(512, 16);
  bytes.writeUInt32BE(pageCount, 28);
  return bytes;
}

function inDirectory(name: string): string {
  return path.join(directory, name);
}

async function run(
  answer: Answer,
  args: readonly string[],
  isTerminal = false,
): Promise<{ code: number; stderr: string }> {
  node = await startFakeNode(answer);
  const context = recordedContext({ currentDirectory: directory, isTerminal });
  const [command = "", ...rest] = args;
  const code = await dispatch([command, "-url", node.url, ...rest], context);
  expect(context.output.stdout).toBe("");
  return { code, stderr: context.output.stderr.replaceAll(node.url, "URL") };
}

const refuse =
  (status: number, text: string): Answer =>
  (request, response) => {
    request.resume();
    response.writeHead(status, { "content-type": "text/plain" }).end(`${text}\n`);
  };

describe("export", () => {
  const content = databaseFile(40);
  const args = ["export", "-name", "a b.db", "out.db"];
  const send: Answer = (_, response) => void response.end(content);

  test("replaces the old file and what belonged to it", async () => {
    for (const suffix of ["", "-wal", "-shm", "-journal"]) {
      fs.writeFileSync(inDirectory(`out.db${suffix}`), "old");
    }
    const stderr = "exporting a b.db: done, 20.0 KiB\n";
    expect(await run(send, args)).toEqual({ code: 0, stderr });
    expect(fs.readdirSync(directory)).toEqual(["out.db"]);
    expect(fs.readFileSync(inDirectory("out.db")).equals(content)).toBe(true);
    expect(node?.requests).toEqual(["GET /export?name=a+b.db"]);
  });

  test("shows a bar on a terminal", async () => {
    const { stderr } = await run(send, args, true);
    expect(stderr).toBe("\rexporting a b.db: 20.0 KiB\nexporting a b.db: done, 20.0 KiB\n");
  });

  test("a database without a page is an empty file", async () => {
    expect(await run((_, response) => void response.end(), args)).toMatchObject({ code: 0 });
    expect(fs.readFileSync(inDirectory("out.db"))).toHaveLength(0);
  });

  const sendPart =
    (bytes: Buffer): Answer =>
    (_, response) =>
      void response.end(bytes);
  test.each<[string, Answer, string]>([
    ["refused", refuse(404, "database not found"), "URL refused: database not found (HTTP 404)"],
    ["refused without a word", refuse(500, ""), "URL refused: Internal Server Error (HTTP 500)"],
    [
      "redirected",
      (_, response) => void response.writeHead(302, { location: "http://127.0.0.1:1" }).end("x"),
      "URL refused: x (HTTP 302)",
    ],
    [
      "cut off",
      (_, response) => {
        response.write(content.subarray(0, 512), () => response.destroy());
      },
      `cannot export a b.db to DIR/out.db: aborted`,
    ],
    [
      "ended early",
      sendPart(content.subarray(0, 1024)),
      "the node sent 1024 bytes, which is not a whole database; nothing was changed",
    ],
    [
      "with an error text in the stream",
      sendPart(Buffer.concat([content, Buffer.from("oops")])),
      "the node sent 20484 bytes, which is not a whole database; nothing was changed",
    ],
    [
      "something else",
      sendPart(Buffer.alloc(512)),
      "the node sent 512 bytes, which is not a whole database; nothing was changed",
    ],
  ])("%s: the old file stays, nothing is left behind", async (_, answer, problem) => {
    fs.writeFileSync(inDirectory("out.db"), "old");
    fs.writeFileSync(inDirectory("out.db-wal"), "old WAL");
    const { code, stderr } = await run(answer, args);
    expect(code).toBe(1);
    expect(stderr.replaceAll(directory, "DIR")).toBe(`ERROR: ${problem}\n`);
    expect(fs.readdirSync(directory)).toEqual(["out.db", "out.db-wal"]);
    expect(fs.readFileSync(inDirectory("out.db"), "utf8")).toBe("old");
  });

  test("a directory that is not there", async () => {
    const { code, stderr } = await run(send, ["export", "-name", "a", "no/out.db"]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^ERROR: cannot export a to .*no\/out\.db: ENOENT.*\n$/);
  });
});

describe("import", () => {
  const args = ["import", "-name", "app.db", "in.db"];

  test("sends the whole file", async () => {
    const content = databaseFile(3000);
    fs.writeFileSync(inDirectory("in.db"), content);
    const received: Buffer[] = [];
    const answer: Answer = (request, response) => {
      request.on("data", (data: Buffer) => received.push(data));
      request.on("end", () => response.end());
    };
    const stderr = "importing app.db: done, 1.5 MiB\n";
    expect(await run(answer, args)).toEqual({ code: 0, stderr });
    expect(Buffer.concat(received).equals(content)).toBe(true);
    expect(node?.requests).toEqual(["POST /import?name=app.db"]);
  });

  test("shows a bar on a terminal", async () => {
    fs.writeFileSync(inDirectory("in.db"), databaseFile(8192));
    const answer: Answer = (request, response) => {
      request.resume().on("end", () => response.end());
    };
    const { stderr } = await run(answer, args, true);
    expect(stderr).toContain("\rimporting app.db: [########");
    expect(stderr).toMatch(/\[#{30}\] 4\.0 MiB\nimporting app\.db: done, 4\.0 MiB\n$/);
  });

  test("a node that is not the primary says so", async () => {
    fs.writeFileSync(inDirectory("in.db"), databaseFile(10));
    const problem = "ERROR: URL refused: lease expired (HTTP 503)\n";
    expect(await run(refuse(503, "lease expired"), args)).toEqual({ code: 1, stderr: problem });
  });

  test("a node that hangs up", async () => {
    fs.writeFileSync(inDirectory("in.db"), databaseFile(10));
    const { code, stderr } = await run((request) => request.socket.destroy(), args);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^ERROR: cannot talk to the node at URL: .+\n$/);
  });

  test.each<[string, Record<string, Buffer>, string]>([
    ["is empty", { "in.db": Buffer.alloc(0) }, "not an SQLite database"],
    ["is another file", { "in.db": Buffer.from("hello") }, "not an SQLite database"],
    [
      "has a WAL",
      { "in.db": databaseFile(1), "in.db-wal": Buffer.from("frames") },
      'transactions are still in DIR/in.db-wal; close its users and run sqlite3 DIR/in.db "PRAGMA wal_checkpoint(TRUNCATE)"',
    ],
  ])("nothing is sent when the file %s", async (_, files, problem) => {
    for (const [name, content] of Object.entries(files)) {
      fs.writeFileSync(inDirectory(name), content);
    }
    const { code, stderr } = await run(refuse(500, "not asked"), args);
    const line = `ERROR: cannot import DIR/in.db: ${problem}\n`;
    expect({ code, stderr: stderr.replaceAll(directory, "DIR") }).toEqual({
      code: 1,
      stderr: line,
    });
    expect(node?.requests).toEqual([]);
  });

  test("a directory is not a file", async () => {
    fs.mkdirSync(inDirectory("in.db"));
    const { code, stderr } = await run(refuse(500, "not asked"), args);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^ERROR: cannot import .*: it cannot be read: EISDIR.*\n$/);
  });
});

test("nobody listens", async () => {
  node = await startFakeNode(() => undefined);
  const { url } = node;
  node.close();
  const context = recordedContext({ currentDirectory: directory });
  expect(await dispatch(["export", "-url", url, "-name", "a", "out.db"], context)).toBe(1);
  expect(context.output.stderr).toBe(
    `ERROR: no node listens at ${url}; start it with litefs mount, or name another with -url\n`,
  );
});
