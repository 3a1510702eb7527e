import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { IdlePolling, openIdlePolling } from "../../../src/fuse/idle-polling.ts";
import { silentLogger } from "../../../src/lib/log.ts";

const OFF = 2_000_000_000;

/** What was written to the device, each in microseconds. */
function open(): { polling: IdlePolling; wishes: () => number[] } {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-test-"));
  const device = path.join(directory, "device");
  fs.writeFileSync(device, "");
  const polling = IdlePolling.open(new Int32Array(2), 1, device);
  onTestFinished(() => {
    polling.close();
    fs.rmSync(directory, { recursive: true });
  });
  const wishes = (): number[] => {
    const bytes = fs.readFileSync(device);
    return Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readInt32LE(4 * i));
  };
  return { polling, wishes };
}

function come(polling: IdlePolling, count: number, everyMs: number, fromMs = 0): void {
  for (let i = 0; i < count; i++) polling.requestCame(fromMs + i * everyMs);
}

test("asks for nothing before requests follow each other", () => {
  const { polling, wishes } = open();
  come(polling, 1_000, 1.1);
  expect(wishes()).toEqual([OFF]);
  expect(polling.isOn).toBe(false);
});

test("asks once while a thousand requests come a second, and no more when they have ended", () => {
  const { polling, wishes } = open();
  come(polling, 1_000, 0.5);
  expect(wishes()).toEqual([OFF, 0]);
  polling.rest(1_000, 100);
  expect(wishes()).toEqual([OFF, 0]);
  // Fewer than it takes to begin, but not so few that it would come and go.
  polling.rest(1_060, 100);
  expect(polling.isOn).toBe(true);
  polling.rest(1_100, 100);
  expect(wishes()).toEqual([OFF, 0, OFF]);
  polling.rest(1_100, 100);
  expect(wishes()).toEqual([OFF, 0, OFF]);
  come(polling, 300, 0.5, 10_000);
  expect(wishes()).toEqual([OFF, 0, OFF, 0]);
});

test("a single burst of a few requests is not worth it", () => {
  const { polling, wishes } = open();
  for (let at = 0; at < 10_000; at += 1_000) come(polling, 100, 0.01, at);
  expect(wishes()).toEqual([OFF]);
});

test("may be turned off", () => {
  expect(openIdlePolling("off", new Int32Array(1), 0, silentLogger)).toBeUndefined();
});
