import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { assertNever, InvariantError } from "../../../src/lib/assert.ts";
import { FormatError } from "../../../src/lib/errors.ts";
import { formatTxid } from "../../../src/lib/position.ts";
import { CHUNK_END, chunkedBytes, ChunkParser, encodeChunks } from "../../../src/wire/chunk.ts";
import type { StreamFrame } from "../../../src/wire/frames.ts";
import {
  encodeDropDatabase,
  encodeEnd,
  encodeHandoff,
  encodeHeartbeat,
  encodeHwm,
  encodeLtxBegin,
  encodeLtxFrame,
  encodeReady,
} from "../../../src/wire/stream-encoder.ts";
import { StreamParser } from "../../../src/wire/stream-parser.ts";

const CAPTURES = join(import.meta.dirname, "../../fixtures/litefs-0.5.14/stream");

/** Frames with LTX bodies put together, which do not depend on how the bytes were cut. */
type WholeFrame =
  | { type: "ltx"; name: string; ltx: Uint8Array }
  | Exclude<StreamFrame, { type: "ltx-begin" | "ltx-data" | "ltx-end" }>;

interface Parsed {
  readonly frames: WholeFrame[];
  /** An LTX body that had begun when the input ended. */
  readonly open: Uint8Array | undefined;
  readonly error: string | undefined;
}

function parse(bytes: Uint8Array, sizes: readonly number[] = [1 << 30]): Parsed {
  const frames: WholeFrame[] = [];
  let name = "";
  let body: Uint8Array[] | undefined;
  const parser = new StreamParser();
  const open = (): Uint8Array | undefined => body && new Uint8Array(Buffer.concat(body));
  try {
    for (let at = 0, i = 0; at < bytes.length; i++) {
      const end = Math.min(bytes.length, at + (sizes[i % sizes.length] ?? 1));
      for (const frame of parser.push(bytes.subarray(at, end))) {
        if (frame.type === "ltx-begin") {
          body = [];
          name = frame.name;
        } else if (frame.type === "ltx-data") {
          expect(frame.bytes.length).toBeGreaterThan(0);
          body?.push(frame.bytes);
        } else if (frame.type === "ltx-end") {
          frames.push({ type: "ltx", name, ltx: open() ?? new Uint8Array() });
          body = undefined;
        } else {
          frames.push(frame);
        }
      }
      at = end;
    }
    parser.end();
    return { frames, open: open(), error: undefined };
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    return { frames, open: open(), error: error.message };
  }
}

function encode(frame: WholeFrame): Uint8Array {
  switch (frame.type) {
    case "ltx":
      return encodeLtxFrame(frame.name, frame.ltx);
    case "ready":
      return encodeReady();
    case "end":
      return encodeEnd();
    case "drop-database":
      return encodeDropDatabase(frame.name);
    case "handoff":
      return encodeHandoff(frame.leaseId);
    case "hwm":
      return encodeHwm(frame.name, frame.txid);
    case "heartbeat":
      return encodeHeartbeat(frame.timestampMs);
    default:
      return assertNever(frame);
  }
}

interface RecordedFrame {
  readonly name: "LTX" | "Ready" | "End" | "DropDB" | "Handoff" | "HWM" | "Heartbeat";
  readonly db?: string;
  readonly ltxSha256?: string;
  readonly ltxSize?: number;
  readonly txid?: string;
  readonly timestamp?: number;
}

interface Capture {
  readonly frames?: readonly RecordedFrame[];
  readonly response: { readonly bodyFile?: string; readonly bodySize?: number };
}

function asRecorded(frame: WholeFrame): RecordedFrame {
  switch (frame.type) {
    case "ltx": {
      const ltxSha256 = createHash("sha256").update(frame.ltx).digest("hex");
      return { name: "LTX", db: frame.name, ltxSha256, ltxSize: frame.ltx.length };
    }
    case "ready":
      return { name: "Ready" };
    case "end":
      return { name: "End" };
    case "drop-database":
      return { name: "DropDB", db: frame.name };
    case "handoff":
      return { name: "Handoff" };
    case "hwm":
      return { name: "HWM", db: frame.name, txid: formatTxid(frame.txid) };
    case "heartbeat":
      return { name: "Heartbeat", timestamp: frame.timestampMs };
    default:
      return assertNever(frame);
  }
}

function withoutLayout(frame: RecordedFrame): RecordedFrame {
  const { name, db, ltxSha256, ltxSize, txid, timestamp } = frame;
  return JSON.parse(JSON.stringify({ name, db, ltxSha256, ltxSize, txid, timestamp }));
}

const captures = readdirSync(CAPTURES)
  .filter((file) => file.endsWith(".json"))
  .map((file): [string, Capture] => [file, JSON.parse(readFileSync(join(CAPTURES, file), "utf8"))])
  .filter(([, capture]) => capture.frames !== undefined);

describe("streams of LiteFS", () => {
  test.each(captures)("%s parses to the recorded frames, however it is cut", (_, capture) => {
    const bytes = new Uint8Array(readFileSync(join(CAPTURES, capture.response.bodyFile ?? "")));
    const expected = capture.frames?.map(withoutLayout);
    for (const sizes of [[1 << 30], [1], [3, 100, 7], [4096]]) {
      const { frames, error } = parse(bytes, sizes);
      expect(error).toBeUndefined();
      expect(frames.map(asRecorded)).toEqual(expected);
    }
  });

  test.each(["fresh", "filter"])("a real replica's %s stream, too", (name) => {
    const text = readFileSync(join(CAPTURES, "peer", `${name}-exchanges.json`), "utf8");
    const recorded: {
      exchanges: { response: Capture["response"] & { frames?: RecordedFrame[] } }[];
    } = JSON.parse(text);
    let count = 0;
    for (const { response } of recorded.exchanges) {
      if (response.frames === undefined || response.bodyFile === undefined) continue;
      const bytes = new Uint8Array(readFileSync(join(CAPTURES, "peer", response.bodyFile)));
      expect(parse(bytes).frames.map(asRecorded)).toEqual(response.frames.map(withoutLayout));
      count++;
    }
    expect(count).toBeGreaterThan(0);
  });

  test("frames other than snapshots encode to the same bytes", () => {
    let compared = 0;
    for (const [, capture] of captures) {
      const bytes = new Uint8Array(readFileSync(join(CAPTURES, capture.response.bodyFile ?? "")));
      const { frames } = parse(bytes);
      const ours = Buffer.concat(frames.map(encode));
      // Snapshots come in several chunks, whose borders carry no meaning.
      if (ours.length !== bytes.length) continue;
      expect(Buffer.compare(ours, bytes)).toBe(0);
      compared++;
    }
    expect(compared).toBeGreaterThan(3);
  });

  test("there are captures to compare with", () => {
    expect(captures.length).toBeGreaterThan(15);
  });
});

const names = fc
  .string({ unit: "grapheme", minLength: 1, maxLength: 40 })
  .filter((name) => !/[/\0]/.test(name) && name !== "." && name !== ".." && name.isWellFormed());

const frames: fc.Arbitrary<WholeFrame> = fc.oneof(
  fc.record({
    type: fc.constant("ltx" as const),
    name: names,
    ltx: fc
      .tuple(fc.uint8Array({ maxLength: 50 }), fc.constantFrom(1, 1, 3000))
      .map(([bytes, times]) => new Uint8Array(Buffer.concat(Array(times).fill(bytes)))),
  }),
  fc.constantFrom<WholeFrame>({ type: "ready" }, { type: "end" }),
  fc.record({ type: fc.constant("drop-database" as const), name: names }),
  fc.record({ type: fc.constant("handoff" as const), leaseId: names }),
  fc.record({ type: fc.constant("hwm" as const), name: names, txid: fc.maxSafeNat() }),
  fc.record({ type: fc.constant("heartbeat" as const), timestampMs: fc.maxSafeNat() }),
);

const streams = fc.array(frames, { maxLength: 6 });
const sizesOf = fc.array(fc.integer({ min: 1, max: 70_000 }), { minLength: 1, maxLength: 5 });

function encodeAll(stream: readonly WholeFrame[]): Uint8Array {
  return new Uint8Array(Buffer.concat(stream.map(encode)));
}

describe("StreamParser", () => {
  test("reverses the encoder, however the bytes are cut", () => {
    fc.assert(
      fc.property(streams, sizesOf, (stream, sizes) => {
        expect(parse(encodeAll(stream), sizes)).toEqual({
          frames: stream,
          open: undefined,
          error: undefined,
        });
      }),
    );
  });

  test("a truncation inside a frame is found; the frames before it are delivered", () => {
    fc.assert(
      fc.property(streams, frames, sizesOf, fc.nat(), (stream, last, sizes, at) => {
        const whole = encodeAll(stream);
        const partial = encode(last);
        const cut = partial.subarray(0, 1 + (at % (partial.length - 1)));
        const parsed = parse(new Uint8Array(Buffer.concat([whole, cut])), sizes);
        expect(parsed.frames).toEqual(stream);
        expect(parsed.error).toContain("broke off inside a frame");
      }),
    );
  });

  test("damaged streams give the same frames and the same error, however they are cut", () => {
    fc.assert(
      fc.property(streams, sizesOf, fc.nat(), fc.nat(255), (stream, sizes, at, byte) => {
        const bytes = encodeAll(stream);
        if (bytes.length > 0) bytes[at % bytes.length] = byte;
        expect(parse(bytes, sizes)).toEqual(parse(bytes));
      }),
      { numRuns: 500 },
    );
  });

  test.each([
    ["type 0", "00000000"],
    ["type 8", "00000008"],
    ["an error text", Buffer.from("db not found\n").toString("hex")],
    ["an empty name", "00000004 00000000"],
    ["a name of 256 bytes", `00000004 00000100 ${"61".repeat(256)}`],
    ["a name of 4 GiB", "00000004 ffffffff"],
    ["a name with a slash", "00000004 00000003 612f62"],
    ["a name with NUL", "00000004 00000003 610062"],
    ["the name '.'", "00000004 00000001 2e"],
    ["the name '..'", "00000001 0000000000000000 00000002 2e2e"],
    ["a name that is not UTF-8", "00000004 00000001 ff"],
    ["a TXID beyond 2^53", "00000006 0020000000000000 00000001 61"],
    ["a negative heartbeat", "00000007 ffffffffffffffff"],
    ["an empty lease id", "00000005 00000000"],
    ["a long lease id", `00000005 00000401 ${"61".repeat(1025)}`],
    ["a lease id that is not UTF-8", "00000005 00000001 c0"],
  ])("refuses %s", (_, hex) => {
    const bytes = new Uint8Array(Buffer.from(hex.replaceAll(" ", ""), "hex"));
    const { frames: found, error } = parse(bytes);
    expect(found).toEqual([]);
    expect(error).toBeDefined();
    expect(error).not.toContain("broke off");
    expect(parse(bytes, [1]).error).toBe(error);
  });

  test("accepts a name of 255 bytes and ignores the size field of LTX frames", () => {
    const name = "n".repeat(255);
    expect(parse(encodeDropDatabase(name)).frames).toEqual([{ type: "drop-database", name }]);
    const frame = encodeLtxFrame("db", Uint8Array.of(1, 2));
    frame.fill(0xff, 4, 12);
    expect(parse(frame).frames).toEqual([{ type: "ltx", name: "db", ltx: Uint8Array.of(1, 2) }]);
  });

  test("shows an error text that LiteFS wrote into the stream", () => {
    expect(parse(new Uint8Array(Buffer.from("db not found\n"))).error).toContain('"db n"');
  });

  test("is dead after an error, and after an iteration that was left early", () => {
    const failed = new StreamParser();
    expect(() => [...failed.push(new Uint8Array(4))]).toThrow(FormatError);
    expect(() => [...failed.push(new Uint8Array(4))]).toThrow(InvariantError);
    const left = new StreamParser();
    for (const frame of left.push(new Uint8Array([...encodeReady(), ...encodeEnd()]))) {
      expect(frame.type).toBe("ready");
      break;
    }
    expect(() => left.end()).toThrow(InvariantError);
  });
});

describe("stream encoder", () => {
  test("announces an LTX file as LiteFS does", () => {
    expect(Buffer.from(encodeLtxBegin("my-db")).toString("hex")).toBe(
      "000000010000000000000000000000056d792d6462",
    );
  });

  test("refuses names and lease ids that no parser would accept", () => {
    for (const name of ["", ".", "..", "a/b", "a\0", "\ud800", "n".repeat(256), "é".repeat(128)]) {
      expect(() => encodeLtxBegin(name)).toThrow(InvariantError);
      expect(() => encodeHwm(name, 1)).toThrow(InvariantError);
    }
    expect(() => encodeHandoff("")).toThrow(InvariantError);
    expect(() => encodeHandoff("x".repeat(1025))).toThrow(InvariantError);
    expect(() => encodeHwm("db", -1)).toThrow(InvariantError);
    expect(() => encodeHwm("db", 2 ** 53)).toThrow(InvariantError);
  });
});

describe("chunks", () => {
  test.each([0, 1, 65535, 65536, 200_000])("%i bytes round-trip", (length) => {
    const content = Uint8Array.from({ length }, (_, i) => i >>> 8);
    const chunks = encodeChunks(content);
    expect(chunks.length).toBe(chunkedBytes(length));
    const body = new Uint8Array(Buffer.concat([chunks, CHUNK_END, Uint8Array.of(9)]));
    const parser = new ChunkParser();
    const found: Uint8Array[] = [];
    for (let bytes = parser.take(body, 0); bytes !== undefined;) {
      found.push(bytes);
      bytes = parser.take(body, parser.offset);
    }
    expect(parser.done).toBe(true);
    expect(parser.offset).toBe(body.length - 1);
    expect(Buffer.compare(Buffer.concat(found), content)).toBe(0);
  });
});
