import { expect, it } from "vitest";
import { createLogSink } from "../../../src/lib/log-sink.ts";

const TEXT = { format: "text", timestamp: false, debug: false } as const;

/** A descriptor whose writes go as told: an error code, or how many bytes are taken. */
function descriptor(...outcomes: (string | number)[]) {
  const written: string[] = [];
  let pausedMs = 0;
  const parts = {
    write: (_: number, bytes: Uint8Array): number => {
      const outcome = outcomes.shift() ?? bytes.length;
      if (typeof outcome === "string") throw Object.assign(new Error(outcome), { code: outcome });
      written.push(Buffer.from(bytes.subarray(0, outcome)).toString());
      return outcome;
    },
    pause: (ms: number): void => {
      pausedMs += ms;
    },
  };
  return { written, parts, pausedMs: () => pausedMs };
}

it("writes what a pipe takes in pieces", () => {
  const { written, parts } = descriptor(3);
  createLogSink(2, TEXT, parts)("one line\n");
  expect(written.join("")).toBe("one line\n");
});

it("waits a moment for a reader that is behind", () => {
  const { written, parts, pausedMs } = descriptor("EAGAIN", "EAGAIN");
  createLogSink(2, TEXT, parts)("late\n");
  expect(written).toEqual(["late\n"]);
  expect(pausedMs()).toBeLessThan(50);
});

it("gives a line up, and says so as soon as it can", () => {
  const { written, parts, pausedMs } = descriptor(...Array.from({ length: 100 }, () => "EAGAIN"));
  const write = createLogSink(2, { ...TEXT, format: "json" }, parts);
  write("lost\n");
  expect(written).toEqual([]);
  expect(pausedMs()).toBeLessThanOrEqual(50);
  for (let i = 0; i < 20 && written.length === 0; i++) write("more\n");
  const [first, second] = written;
  expect(JSON.parse(first ?? "")).toMatchObject({ msg: "lines of the log were lost" });
  expect(second).toBe("more\n");
});

it("does not mind that nobody reads any more", () => {
  const { written, parts } = descriptor("EPIPE", "EPIPE");
  const write = createLogSink(2, TEXT, parts);
  write("a\n");
  write("b\n");
  write("c\n");
  expect(written).toEqual([`level=WARN msg="lines of the log were lost" count=2\n`, "c\n"]);
});
