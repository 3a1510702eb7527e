import * as fs from "node:fs";
import { errorCode } from "./errors.ts";
import { formatLine } from "./log.ts";
import type { LogOptions } from "./log.ts";

/** How long one line may wait for a reader that is behind. The mount answers nobody meanwhile. */
const PATIENCE_MS = 50;
const PAUSE_MS = 5;
const sleeper = new Int32Array(new SharedArrayBuffer(4));

export interface LogSinkParts {
  write(fd: number, bytes: Uint8Array): number;
  pause(ms: number): void;
}

const system: LogSinkParts = {
  write: (fd, bytes) => fs.writeSync(fd, bytes),
  pause: (ms) => void Atomics.wait(sleeper, 0, 0, ms),
};

/**
 * Writes lines of a log to a descriptor, in any thread, and never throws: who reads them may have gone
 * (EPIPE), or be behind where another process has made the pipe non-blocking for all who share it
 * (EAGAIN). A line that cannot be written is lost, and the next one that can says how many were.
 */
export function createLogSink(
  fd: number,
  options: LogOptions,
  parts: LogSinkParts = system,
): (line: string) => void {
  let lost = 0;
  const write = (line: string): boolean => {
    let bytes = Buffer.from(line);
    for (let waitedMs = 0; bytes.length > 0;) {
      try {
        bytes = bytes.subarray(parts.write(fd, bytes));
      } catch (error) {
        if (errorCode(error) !== "EAGAIN" || waitedMs >= PATIENCE_MS) return false;
        parts.pause(PAUSE_MS);
        waitedMs += PAUSE_MS;
      }
    }
    return true;
  };
  const lossLine = (): string =>
    formatLine(options, "warn", "lines of the log were lost", { count: lost });
  return (line) => {
    if (lost > 0 && write(lossLine())) lost = 0;
    if (lost > 0 || !write(line)) lost++;
  };
}
