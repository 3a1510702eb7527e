import { expect, test } from "vitest";
import * as constants from "../../../src/fuse/constants.ts";
import { REQUEST_COUNTS_BYTES, RequestCounts } from "../../../src/fuse/request-counts.ts";

test.each([
  ["LOOKUP", constants.FUSE_LOOKUP],
  ["RENAME", constants.FUSE_RENAME],
  ["MKNOD", constants.FUSE_MKNOD],
  ["WRITE", constants.FUSE_WRITE],
  ["FSYNC", constants.FUSE_FSYNC],
  ["FLUSH", constants.FUSE_FLUSH],
  ["SETLK", constants.FUSE_SETLK],
  ["NOTIFY_REPLY", constants.FUSE_NOTIFY_REPLY],
  ["READDIRPLUS", constants.FUSE_READDIRPLUS],
  ["COPY_FILE_RANGE", constants.FUSE_COPY_FILE_RANGE],
  ["SYNCFS", constants.FUSE_SYNCFS],
  ["STATX", constants.FUSE_STATX],
])("%s is counted under its own name", (name, opcode) => {
  const counts = new RequestCounts();
  counts.add(opcode);
  expect(counts.toObject()).toEqual({ [name]: 1 });
});

test("what one thread counts, another reads, and the words before stay alone", () => {
  const memory = new SharedArrayBuffer(32 + REQUEST_COUNTS_BYTES);
  const writer = new RequestCounts(memory, 32);
  const reader = new RequestCounts(memory, 32);
  writer.add(constants.FUSE_WRITE);
  writer.add(constants.FUSE_WRITE);
  writer.add(constants.FUSE_SETLK);
  expect(reader.toObject()).toEqual({ WRITE: 2, SETLK: 1 });
  expect(new Int32Array(memory, 0, 8).every((word) => word === 0)).toBe(true);
});

test("opcodes of the future are ignored", () => {
  const counts = new RequestCounts();
  counts.add(53);
  counts.add(4096);
  expect(counts.toObject()).toEqual({});
});
