import { spawnSync } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { PollingRead } from "../../../src/fuse/polling-read.ts";
import { RequestReader } from "../../../src/fuse/request-reader.ts";
import { silentLogger } from "../../../src/lib/log.ts";

/** A pipe stands in for /dev/fuse: one write is one request. */
let directory: string;
let fd: number;

beforeEach(() => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-reader-"));
  const fifo = path.join(directory, "fifo");
  expect(spawnSync("mkfifo", [fifo]).status).toBe(0);
  // For both ways: otherwise opening would wait for the other end.
  fd = fs.openSync(fifo, "r+");
});
afterEach(() => {
  fs.closeSync(fd);
  fs.rmSync(directory, { recursive: true });
});

function isNonBlocking(): boolean {
  const info = fs.readFileSync(`/proc/self/fdinfo/${fd}`, "latin1");
  const flags = Number.parseInt(/flags:\s+(\d+)/.exec(info)?.[1] ?? "", 8);
  return (flags & fs.constants.O_NONBLOCK) !== 0;
}

test("a polling read finds what is there, and says so when there is nothing", () => {
  const poll = PollingRead.open(fd, 4096, silentLogger);
  expect(poll?.tryRead()).toBe(0);
  fs.writeSync(fd, "request");
  expect(poll?.tryRead()).toBe(7);
  expect(Buffer.from(poll?.memory ?? new ArrayBuffer(0), 0, 7).toString()).toBe("request");
  expect(poll?.tryRead()).toBe(0);
});

test("a polling read reads no more than the capacity", () => {
  const poll = PollingRead.open(fd, 8, silentLogger);
  fs.writeSync(fd, "0123456789");
  expect(poll?.tryRead()).toBe(8);
  expect(poll?.tryRead()).toBe(2);
});

test("the descriptor waits except while somebody polls", () => {
  const poll = PollingRead.open(fd, 4096, silentLogger);
  expect(isNonBlocking()).toBe(false);
  poll?.tryRead();
  expect(isNonBlocking()).toBe(true);
  poll?.block();
  expect(isNonBlocking()).toBe(false);
});

test("where polling is impossible one line says so, and requests come all the same", () => {
  const lines: string[] = [];
  const logger = { ...silentLogger, warn: (message: string) => void lines.push(message) };
  const missing = vi.spyOn(process, "getBuiltinModule").mockReturnValue(undefined);
  try {
    const reader = new RequestReader({ fd, maxWriteBytes: 4096, logger, spinMs: 1 });
    fs.writeSync(fd, "request");
    expect(reader.receive()).toBe(7);
    expect(reader.request.bytes.toString("latin1", 0, 7)).toBe("request");
  } finally {
    missing.mockRestore();
  }
  expect(lines).toEqual(["fuse: this Node.js cannot poll the kernel, requests take longer"]);
});

test("when no processor is idle any more it sleeps, after a spin as well", () => {
  let isSpare = true;
  const options = { fd, maxWriteBytes: 4096, logger: silentLogger, spinMs: 1_000_000 };
  const reader = new RequestReader({ ...options, processors: { isSpare: () => isSpare } });
  const receive = (): void => {
    fs.writeSync(fd, "request");
    expect(reader.receive()).toBe(7);
  };
  receive();
  receive();
  expect(isNonBlocking()).toBe(true);
  isSpare = false;
  receive();
  expect(isNonBlocking()).toBe(false);
});

test.each([0, 1])("requests come in order, spinning for %d ms", (spinMs) => {
  const options = { fd, maxWriteBytes: 4096, logger: silentLogger, spinMs };
  const reader = new RequestReader(options);
  for (let i = 0; i < 100; i++) {
    fs.writeSync(fd, `request ${i}`);
    const length = reader.receive();
    expect(reader.request.bytes.toString("latin1", 0, length)).toBe(`request ${i}`);
  }
});
