import { expect, test } from "vitest";
import { FormatError } from "../../../src/lib/errors.ts";
import {
  AcknowledgementParser,
  encodeAcknowledgement,
  MAX_ACKNOWLEDGEMENT_BYTES,
} from "../../../src/wire/acknowledgement.ts";

const ENTRIES = [
  { name: "app.db", position: { txid: 7, checksum: 0x8000000000000001n } },
  { name: "other.db", position: { txid: 1, checksum: 0x8000000000000002n } },
];

test("comes apart as it was put together, in whatever portions", () => {
  const bytes = Buffer.concat([
    encodeAcknowledgement(ENTRIES),
    encodeAcknowledgement(ENTRIES.slice(1)),
  ]);
  for (const size of [1, 3, 7, 50, bytes.length]) {
    const parser = new AcknowledgementParser();
    const found = [];
    for (let at = 0; at < bytes.length; at += size) {
      // As the socket does it: the buffer is used again.
      const portion = Buffer.from(bytes.subarray(at, at + size));
      found.push(...parser.push(portion));
      portion.fill(255);
    }
    expect(found).toEqual([...ENTRIES, ENTRIES[1]]);
  }
});

test("nothing is expected in advance", () => {
  const parser = new AcknowledgementParser();
  const length = new Uint8Array([0, 0xff, 0xff, 0xff]);
  expect(() => parser.push(length)).toThrow(FormatError);
  expect(MAX_ACKNOWLEDGEMENT_BYTES).toBeLessThan(0xffffff);
});

test("a name that is none is refused", () => {
  const bytes = encodeAcknowledgement(ENTRIES);
  const at = Buffer.from(bytes).indexOf("app.db");
  bytes[at] = 0x2f;
  expect(() => new AcknowledgementParser().push(bytes)).toThrow(FormatError);
});
