import { spawn } from "node:child_process";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { text } from "node:stream/consumers";
import { afterEach, beforeEach, expect, test } from "vitest";
import { tryShell } from "../support/shell.ts";

const CHILD = path.resolve(import.meta.dirname, "../support/snapshot-child.ts");
let directory: string;

beforeEach(() => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-snapshot-"));
});
afterEach(() => {
  tryShell("umount", ["-l", path.join(directory, "mnt")]);
  fs.rmSync(directory, { recursive: true, force: true });
});

// Otherwise the log seems to end before the snapshot, and the replica is sent another one.
test("whoever has a snapshot sees its transaction, however fast others follow", async () => {
  const child = spawn(process.execPath, [CHILD, directory], {
    stdio: ["ignore", "pipe", "inherit"],
    timeout: 60_000,
    killSignal: "SIGKILL",
  });
  const result = JSON.parse(await text(child.stdout)) as { ahead: number; written: number };
  expect(result.written).toBeGreaterThan(10);
  expect(result.ahead).toBe(0);
});
