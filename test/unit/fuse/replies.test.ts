import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { FileAttributes } from "../../../src/fuse/attributes.ts";
import { S_IFDIR, S_IFREG } from "../../../src/fuse/constants.ts";
import { FuseReplies } from "../../../src/fuse/replies.ts";
import { struct } from "./encode-request.ts";

let directory: string;
let fd: number;
let replies: FuseReplies;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "fuse-replies-"));
  fd = openSync(join(directory, "out"), "w");
  replies = new FuseReplies(fd, 4096);
  // An answer must not depend on what the last one left behind.
  replies.replyBuffer.fill(0xaa);
});

afterEach(() => {
  closeSync(fd);
  rmSync(directory, { recursive: true });
});

const UNIQUE = 0x8000_0001_8000_0002n;
const LO = 0x8000_0002 | 0;
const HI = 0x8000_0001 | 0;

function expectReply(body: Buffer, errno = 0): void {
  const header = struct(["u32", 16 + body.length], ["u32", -errno >>> 0], ["u64", UNIQUE]);
  const bytes = readFileSync(join(directory, "out"));
  expect(bytes.toString("hex")).toBe(Buffer.concat([header, body]).toString("hex"));
}

const attr: FileAttributes = {
  ino: 0x1_0000_0007,
  size: 0x2_0000_1000,
  blocks: 16,
  atimeMs: -500,
  mtimeMs: 1_700_000_000_123.5,
  ctimeMs: 3000,
  mode: S_IFREG | 0o644,
  nlink: 1,
  uid: 0xffff_fffe,
  gid: 4,
  rdev: 0,
  blksize: 4096,
};

const attrBytes = struct(
  ["u64", 0x1_0000_0007],
  ["u64", 0x2_0000_1000],
  ["u64", 16],
  ["u64", (1n << 64n) - 1n],
  ["u64", 1_700_000_000],
  ["u64", 3],
  ["u32", 500_000_000],
  ["u32", 123_500_000],
  ["u32", 0],
  ["u32", S_IFREG | 0o644],
  ["u32", 1],
  ["u32", 0xffff_fffe],
  ["u32", 4],
  ["u32", 0],
  ["u32", 4096],
  ["u32", 0],
);
const entry = { nodeId: 9, generation: 1, attr, entryTimeoutMs: 1500, attrTimeoutMs: 2000 };
const entryBytes = Buffer.concat([
  struct(["u64", 9], ["u64", 1], ["u64", 1], ["u64", 2], ["u32", 500_000_000], ["u32", 0]),
  attrBytes,
]);

test("error", () => {
  replies.replyError(LO, HI, 11);
  expectReply(Buffer.alloc(0), 11);
  expect(() => replies.replyError(LO, HI, 0)).toThrow("positive errno");
});

test("empty", () => {
  replies.replyEmpty(LO, HI);
  expectReply(Buffer.alloc(0));
});

test("entry", () => {
  replies.replyEntry(LO, HI, entry);
  expectReply(entryBytes);
});

test("negative entry", () => {
  replies.replyNegativeEntry(LO, HI, 1250);
  const times = struct(["u64", 1], ["u64", 0], ["u32", 250_000_000], ["u32", 0]);
  expectReply(Buffer.concat([Buffer.alloc(16), times, Buffer.alloc(88)]));
});

test("attr", () => {
  replies.replyAttr(LO, HI, attr, 100);
  expectReply(Buffer.concat([struct(["u64", 0], ["u32", 100_000_000], ["u32", 0]), attrBytes]));
});

test("open", () => {
  replies.replyOpen(LO, HI, 77, 2);
  expectReply(struct(["u64", 77], ["u32", 2], ["u32", 0]));
});

test("create", () => {
  replies.replyCreate(LO, HI, entry, 77, 2);
  expectReply(Buffer.concat([entryBytes, struct(["u64", 77], ["u32", 2], ["u32", 0])]));
});

test("write", () => {
  replies.replyWrite(LO, HI, 4096);
  expectReply(struct(["u32", 4096], ["u32", 0]));
});

test("read in place and by copy", () => {
  replies.replyBuffer.write("data", 16);
  replies.replyReadFromReplyBuffer(LO, HI, 4);
  expectReply(Buffer.from("data"));
});

test("bytes", () => {
  replies.replyBytes(LO, HI, Buffer.from("other"));
  expectReply(Buffer.from("other"));
});

test("statfs", () => {
  const statistics = {
    blocks: 1,
    bfree: 2,
    bavail: 3,
    files: 4,
    ffree: 5,
    bsize: 6,
    namelen: 7,
    frsize: 8,
  };
  replies.replyStatfs(LO, HI, statistics);
  const numbers = struct(
    ["u64", 1],
    ["u64", 2],
    ["u64", 3],
    ["u64", 4],
    ["u64", 5],
    ["u32", 6],
    ["u32", 7],
    ["u32", 8],
  );
  expectReply(Buffer.concat([numbers, Buffer.alloc(28)]));
});

test("lock of a range", () => {
  replies.replyLock(LO, HI, 1, 120, 127, 4242);
  expectReply(struct(["u64", 120], ["u64", 127], ["u32", 1], ["u32", 4242]));
});

test("lock to the end of the file", () => {
  replies.replyLock(LO, HI, 1, 5, Number.MAX_SAFE_INTEGER, 4242);
  expectReply(struct(["u64", 5], ["u64", (1n << 63n) - 1n], ["u32", 1], ["u32", 4242]));
});

test("lseek", () => {
  replies.replyLseek(LO, HI, 0x3_0000_0001);
  expectReply(struct(["u64", 0x3_0000_0001]));
});

test("init", () => {
  replies.replyInit(LO, HI, {
    major: 7,
    minor: 45,
    maxReadaheadBytes: 131072,
    flags: 0x4040_0000,
    maxWriteBytes: 1 << 20,
    maxPages: 256,
  });
  const head = struct(
    ["u32", 7],
    ["u32", 45],
    ["u32", 131072],
    ["u32", 0x4040_0000],
    ["u32", 0],
    ["u32", 1 << 20],
    ["u32", 1],
    ["u32", 256],
  );
  expectReply(Buffer.concat([head, Buffer.alloc(32)]));
});

test("directory entries are padded and stop before the size that was asked for", () => {
  const writer = replies.startDirectory(80);
  expect(writer.add("é", 5, S_IFREG, 1)).toBe(true);
  expect(writer.add("12345678", 6, S_IFDIR, 2)).toBe(true);
  // 32 + 32 of 80 bytes are taken, and the next would need 32.
  expect(writer.add("x", 7, S_IFDIR, 3)).toBe(false);
  replies.replyDirectory(LO, HI);
  expectReply(
    Buffer.concat([
      struct(["u64", 5], ["u64", 1], ["u32", 2], ["u32", 8], ["text", "é\0\0\0\0\0\0"]),
      struct(["u64", 6], ["u64", 2], ["u32", 8], ["u32", 4], ["text", "12345678"]),
    ]),
  );
});

test("directory entries with attributes", () => {
  const writer = replies.startDirectory(4096);
  expect(writer.addPlus("abc", entry, 3)).toBe(true);
  replies.replyDirectory(LO, HI);
  const dirent = struct(
    ["u64", attr.ino],
    ["u64", 3],
    ["u32", 3],
    ["u32", 8],
    ["text", "abc\0\0\0\0\0"],
  );
  expectReply(Buffer.concat([entryBytes, dirent]));
});

test("an empty directory answer is the end", () => {
  replies.startDirectory(4096);
  replies.replyDirectory(LO, HI);
  expectReply(Buffer.alloc(0));
});

test("failures other than a vanished request are thrown", () => {
  const full = openSync("/dev/full", "w");
  try {
    expect(() => new FuseReplies(full, 4096).replyEmpty(1, 1)).toThrow("ENOSPC");
  } finally {
    closeSync(full);
  }
});
