import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { InvariantError } from "../../../src/lib/assert.ts";
import { FormatError } from "../../../src/lib/errors.ts";
import { formatPosition } from "../../../src/lib/position.ts";
import {
  decodePositionMap,
  encodePositionMap,
  type PositionMapEntry,
} from "../../../src/wire/position-map.ts";

const CAPTURES = join(import.meta.dirname, "../../fixtures/litefs-0.5.14/stream");

interface Capture {
  readonly request?: {
    readonly bodyHex?: string;
    readonly positionMap?: Readonly<Record<string, string>>;
  };
}

const captures = readdirSync(CAPTURES)
  .filter((file) => file.endsWith(".json"))
  .map((file): [string, Capture] => [file, JSON.parse(readFileSync(join(CAPTURES, file), "utf8"))])
  .flatMap(([file, { request }]): [string, string, Readonly<Record<string, string>>][] =>
    request?.bodyHex === undefined || request.positionMap === undefined
      ? []
      : [[file, request.bodyHex, request.positionMap]],
  );

const maps: fc.Arbitrary<PositionMapEntry[]> = fc.uniqueArray(
  fc.record({
    name: fc.string({ minLength: 1, maxLength: 30 }).filter((name) => /^[^/\0.]+$/.test(name)),
    position: fc.record({
      txid: fc.maxSafeNat(),
      checksum: fc.bigInt({ min: 0n, max: 0xffffffffffffffffn }),
    }),
  }),
  { selector: (entry) => entry.name, maxLength: 8 },
);

function hex(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text.replaceAll(" ", ""), "hex"));
}

describe("position maps of LiteFS", () => {
  test.each(captures)("%s decodes as recorded and encodes to the same bytes", (_, body, map) => {
    const entries = decodePositionMap(hex(body));
    const texts = entries.map(({ name, position }) => [name, formatPosition(position)]);
    expect(Object.fromEntries(texts)).toEqual(map);
    expect(Buffer.from(encodePositionMap(entries)).toString("hex")).toBe(body);
    expect(encodePositionMap(entries.toReversed())).toEqual(encodePositionMap(entries));
  });

  test("there are maps to compare with", () => {
    expect(captures.length).toBeGreaterThan(10);
  });

  test("bytes after the map are ignored", () => {
    const bytes = new Uint8Array(readFileSync(join(CAPTURES, "trailing-garbage.request.bin")));
    expect(decodePositionMap(bytes).map((entry) => entry.name)).toEqual([
      "app.db",
      "deleted.db",
      "second.db",
    ]);
  });

  test.each(["err-empty-body", "err-truncated-map"])("%s is refused", (name) => {
    const bytes = new Uint8Array(readFileSync(join(CAPTURES, `${name}.request.bin`)));
    expect(() => decodePositionMap(bytes)).toThrow(FormatError);
  });
});

describe("position map", () => {
  test("decoding reverses encoding, sorted by name", () => {
    fc.assert(
      fc.property(maps, (entries) => {
        const decoded = decodePositionMap(encodePositionMap(entries));
        const byName = entries.toSorted((a, b) =>
          Buffer.compare(Buffer.from(a.name), Buffer.from(b.name)),
        );
        expect(decoded).toEqual(byName);
      }),
    );
  });

  test("every truncation is found", () => {
    fc.assert(
      fc.property(maps, fc.nat(), (entries, at) => {
        const bytes = encodePositionMap(entries);
        expect(() => decodePositionMap(bytes.subarray(0, at % bytes.length))).toThrow(FormatError);
      }),
    );
  });

  test("damaged bytes give a FormatError or a map", () => {
    fc.assert(
      fc.property(maps, fc.nat(), fc.nat(255), (entries, at, byte) => {
        const bytes = encodePositionMap(entries);
        bytes[at % bytes.length] = byte;
        try {
          expect(encodePositionMap(decodePositionMap(bytes)).length).toBeLessThanOrEqual(
            bytes.length,
          );
        } catch (error) {
          expect(error).toBeInstanceOf(FormatError);
        }
      }),
      { numRuns: 500 },
    );
  });

  const tail = "0000000000000001 8000000000000000";
  test.each([
    ["an empty name", `00000001 00000000 ${tail}00`],
    ["a long name", `00000001 00000100 ${"61".repeat(256)} ${tail}`],
    ["a traversal", `00000001 00000004 2e2e2f61 ${tail}`],
    ["a name twice", `00000002 00000001 61 ${tail} 00000001 61 ${tail}`],
    ["a TXID beyond 2^53", "00000001 00000001 61 8000000000000000 8000000000000000"],
    ["more entries than bytes", `ffffffff 00000001 61 ${tail}`],
  ])("refuses %s", (_, text) => {
    expect(() => decodePositionMap(hex(text))).toThrow(FormatError);
  });

  test("refuses to send an invalid name or TXID", () => {
    const position = { txid: 1, checksum: 0n };
    expect(() => encodePositionMap([{ name: "a/b", position }])).toThrow(InvariantError);
    expect(() => encodePositionMap([{ name: "a", position: { txid: -1, checksum: 0n } }])).toThrow(
      InvariantError,
    );
  });
});
