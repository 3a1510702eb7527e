import { expect, test } from "vitest";
import { FormatError } from "../../../src/lib/errors.ts";
import {
  encodeLoanCommit,
  encodeLoanSync,
  LoanFrameParser,
  MAX_LOAN_PAYLOAD_BYTES,
} from "../../../src/wire/loan-frames.ts";
import type { LoanFrame } from "../../../src/wire/loan-frames.ts";

/** Sockets give Buffers, whose `slice` is no copy. */
const COPIES = [
  (bytes: Uint8Array): Uint8Array => Uint8Array.from(bytes),
  (bytes: Uint8Array): Uint8Array => Buffer.from(bytes),
];
const POSITION = { txid: 2 ** 40 + 7, checksum: 0xffff_0000_1234_5678n };
const LTX = Uint8Array.from({ length: 700 }, (_, i) => i & 0xff);

test("come apart as they were put together, in whatever portions", () => {
  const bytes = Buffer.concat([
    encodeLoanCommit(1, true, LTX),
    encodeLoanSync(0xffff_ffff, POSITION),
    encodeLoanCommit(2, false, new Uint8Array(0)),
    encodeLoanCommit(3, false, LTX.subarray(1)),
  ]);
  for (const [size, copy] of [1, 3, 10, 11, 711, bytes.length].flatMap((n) =>
    COPIES.map((c) => [n, c] as const),
  )) {
    const parser = new LoanFrameParser();
    const found: LoanFrame[] = [];
    for (let at = 0; at < bytes.length; at += size) {
      // As the socket does it: the buffer is used again.
      const portion = copy(bytes.subarray(at, at + size));
      found.push(...parser.push(portion));
      portion.fill(255);
    }
    expect(found).toEqual([
      { kind: "commit", number: 1, isDurable: true, ltx: LTX },
      { kind: "sync", number: 0xffff_ffff, position: POSITION },
      { kind: "commit", number: 2, isDurable: false, ltx: new Uint8Array(0) },
      { kind: "commit", number: 3, isDurable: false, ltx: LTX.slice(1) },
    ]);
  }
});

test.each([
  ["an unknown kind", [0, 0, 0, 0, 0, 1, 0, 0, 0, 16], /kind 0/],
  ["unknown flags", [1, 2, 0, 0, 0, 1, 0, 0, 0, 16], /flags 2/],
  ["more than is taken", [1, 0, 0, 0, 0, 1, 0, 0x10, 0, 1], /1048577 bytes/],
  ["a position of another length", [2, 0, 0, 0, 0, 1, 0, 0, 0, 15], /15 bytes/],
])("%s is refused before anything more of it is read", (_what, bytes, message) => {
  expect(MAX_LOAN_PAYLOAD_BYTES).toBe(0x10_0000);
  const push = (): unknown => new LoanFrameParser().push(Uint8Array.from(bytes));
  expect(push).toThrow(FormatError);
  expect(push).toThrow(message);
});
