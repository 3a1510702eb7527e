import { describe, expect, test } from "vitest";
import * as c from "../../../src/fuse/constants.ts";
import { dispatchRequest } from "../../../src/fuse/dispatch.ts";
import type { FuseHandler } from "../../../src/fuse/handler.ts";
import { encodeRequest, struct } from "./encode-request.ts";

type Call = readonly unknown[];

/** Notes every call; the request itself, buffers and reused objects become plain values. */
function recorder(missing: readonly string[] = []): { handler: FuseHandler; calls: Call[] } {
  const calls: Call[] = [];
  const handler: FuseHandler = new Proxy(Object.create(null), {
    get: (_, method) =>
      missing.includes(String(method))
        ? undefined
        : (...args: unknown[]) => calls.push([method, ...args.map(plain)]),
  });
  return { handler, calls };
}

function plain(value: unknown): unknown {
  if (Buffer.isBuffer(value)) return "buffer";
  if (typeof value === "object" && value !== null && "opcode" in value) return "request";
  return typeof value === "object" ? { ...value } : value;
}

const OWNER = 0x1122_3344_ffff_fffen;
const MAX = Number.MAX_SAFE_INTEGER;
const R = "request";

const lock = struct(
  ["u64", 9],
  ["u64", OWNER],
  ["u64", 120],
  ["u64", (1n << 63n) - 1n],
  ["u32", 1],
  ["u32", 77],
  ["u32", 0],
  ["u32", 0],
);
const read = struct(
  ["u64", 9],
  ["u64", 0x1_0000_1000],
  ["u32", 4096],
  ["u32", 2],
  ["u64", OWNER],
  ["u32", 0],
  ["u32", 0],
);

const cases: readonly (readonly [string, number, Buffer, Call])[] = [
  ["LOOKUP", c.FUSE_LOOKUP, struct(["text", "é.db\0"]), ["lookup", R, "é.db"]],
  ["FORGET", c.FUSE_FORGET, struct(["u64", 3]), ["forget", 5, 3]],
  ["GETATTR", c.FUSE_GETATTR, struct(["u32", 0], ["u32", 0], ["u64", 9]), ["getattr", R, -1]],
  [
    "GETATTR of a file",
    c.FUSE_GETATTR,
    struct(["u32", 1], ["u32", 0], ["u64", 9]),
    ["getattr", R, 9],
  ],
  ["SETLK", c.FUSE_SETLK, lock, ["setlk", R, 9, -2, 0x11223344, 120, MAX, 1, 77, 0, false]],
  ["SETLKW", c.FUSE_SETLKW, lock, ["setlk", R, 9, -2, 0x11223344, 120, MAX, 1, 77, 0, true]],
  ["GETLK", c.FUSE_GETLK, lock, ["getlk", R, 9, -2, 0x11223344, 120, MAX, 1, 77]],
  ["READ", c.FUSE_READ, read, ["read", R, 9, 0x1_0000_1000, 4096, 2, -2, 0x11223344]],
  [
    "WRITE",
    c.FUSE_WRITE,
    struct(
      ["u64", 9],
      ["u64", 32],
      ["u32", 3],
      ["u32", 1],
      ["u64", OWNER],
      ["u64", 0],
      ["text", "abc"],
    ),
    ["write", R, 9, 32, "buffer", 80, 3, 1, -2, 0x11223344],
  ],
  ["FSYNC", c.FUSE_FSYNC, struct(["u64", 9], ["u32", 0], ["u32", 0]), ["fsync", R, 9, false]],
  ["FDATASYNC", c.FUSE_FSYNC, struct(["u64", 9], ["u32", 1], ["u32", 0]), ["fsync", R, 9, true]],
  [
    "FLUSH",
    c.FUSE_FLUSH,
    struct(["u64", 9], ["u64", 0], ["u64", OWNER]),
    ["flush", R, 9, -2, 0x11223344],
  ],
  ["OPEN", c.FUSE_OPEN, struct(["u32", 2], ["u32", 0]), ["open", R, 2]],
  [
    "RELEASE",
    c.FUSE_RELEASE,
    struct(["u64", 9], ["u32", 2], ["u32", 1], ["u64", OWNER]),
    ["release", R, 9, 2, 1, -2, 0x11223344],
  ],
  ["ACCESS", c.FUSE_ACCESS, struct(["u32", 4], ["u32", 0]), ["access", R, 4]],
  ["STATFS", c.FUSE_STATFS, struct(), ["statfs", R]],
  ["INTERRUPT", c.FUSE_INTERRUPT, struct(["u64", OWNER]), ["interrupt", -2, 0x11223344]],
  [
    "CREATE",
    c.FUSE_CREATE,
    struct(["u32", 0o102], ["u32", 0o100644], ["u32", 0o22], ["u32", 0], ["text", "a\0"]),
    ["create", R, "a", 0o102, 0o100644],
  ],
  ["UNLINK", c.FUSE_UNLINK, struct(["text", "a\0"]), ["unlink", R, "a"]],
  ["RMDIR", c.FUSE_RMDIR, struct(["text", "a\0"]), ["rmdir", R, "a"]],
  [
    "MKDIR",
    c.FUSE_MKDIR,
    struct(["u32", 0o755], ["u32", 0o22], ["text", "a\0"]),
    ["mkdir", R, "a", 0o755],
  ],
  [
    "MKNOD",
    c.FUSE_MKNOD,
    struct(["u32", 0o20666], ["u32", 259], ["u64", 0], ["text", "a\0"]),
    ["mknod", R, "a", 0o20666, 259],
  ],
  [
    "RENAME",
    c.FUSE_RENAME,
    struct(["u64", 4], ["text", "a\0bb\0"]),
    ["rename", R, "a", 4, "bb", 0],
  ],
  [
    "RENAME2",
    c.FUSE_RENAME2,
    struct(["u64", 4], ["u32", 1], ["u32", 0], ["text", "a\0bb\0"]),
    ["rename", R, "a", 4, "bb", 1],
  ],
  ["LINK", c.FUSE_LINK, struct(["u64", 4], ["text", "a\0"]), ["link", R, 4, "a"]],
  ["SYMLINK", c.FUSE_SYMLINK, struct(["text", "a\0to/b\0"]), ["symlink", R, "a", "to/b"]],
  ["READLINK", c.FUSE_READLINK, struct(), ["readlink", R]],
  ["OPENDIR", c.FUSE_OPENDIR, struct(["u32", 1], ["u32", 0]), ["opendir", R, 1]],
  ["READDIR", c.FUSE_READDIR, read, ["readdir", R, 9, 0x1_0000_1000, 4096]],
  ["READDIRPLUS", c.FUSE_READDIRPLUS, read, ["readdirplus", R, 9, 0x1_0000_1000, 4096]],
  [
    "RELEASEDIR",
    c.FUSE_RELEASEDIR,
    struct(["u64", 9], ["u64", 1], ["u64", 0]),
    ["releasedir", R, 9, 1],
  ],
  ["FSYNCDIR", c.FUSE_FSYNCDIR, struct(["u64", 9], ["u64", 1]), ["fsyncdir", R, 9, true]],
  [
    "FALLOCATE",
    c.FUSE_FALLOCATE,
    struct(["u64", 9], ["u64", 1], ["u64", 2], ["u64", 3]),
    ["fallocate", R, 9, 1, 2, 3],
  ],
  ["LSEEK", c.FUSE_LSEEK, struct(["u64", 9], ["u64", 1], ["u64", 3]), ["lseek", R, 9, 1, 3]],
  [
    "COPY_FILE_RANGE",
    c.FUSE_COPY_FILE_RANGE,
    struct(["u64", 9], ["u64", 1], ["u64", 2], ["u64", 3], ["u64", 4], ["u64", 5], ["u64", 0]),
    ["copyFileRange", R, 9, 1, 2, 3, 4, 5],
  ],
  [
    "GETXATTR",
    c.FUSE_GETXATTR,
    struct(["u64", 64], ["text", "user.a\0"]),
    ["getxattr", R, "user.a", 64],
  ],
  ["LISTXATTR", c.FUSE_LISTXATTR, struct(["u64", 64]), ["listxattr", R, 64]],
  [
    "SETXATTR",
    c.FUSE_SETXATTR,
    struct(["u32", 3], ["u32", 1], ["text", "n\0val"]),
    ["setxattr", R, "n", "buffer", 50, 3, 1],
  ],
  ["REMOVEXATTR", c.FUSE_REMOVEXATTR, struct(["text", "n\0"]), ["removexattr", R, "n"]],
];

test.each(cases)("%s", (_, opcode, body, expected) => {
  const { handler, calls } = recorder();
  expect(dispatchRequest(encodeRequest({ opcode, nodeId: 5, body }), handler)).toBe(true);
  expect(calls).toEqual([expected]);
});

test("SETATTR hands over all fields", () => {
  const { handler, calls } = recorder();
  const body = struct(
    ["u32", c.FATTR_SIZE | c.FATTR_FH],
    ["u32", 0],
    ["u64", 9],
    ["u64", 8192],
    ["u64", OWNER],
    ["u64", 1],
    ["u64", 2],
    ["u64", 3],
    ["u32", 1_000_000],
    ["u32", 2_000_000],
    ["u32", 3_000_000],
    ["u32", 0o100600],
    ["u32", 0],
    ["u32", 11],
    ["u32", 12],
    ["u32", 0],
  );
  dispatchRequest(encodeRequest({ opcode: c.FUSE_SETATTR, body }), handler);
  const fields = {
    fh: 9,
    size: 8192,
    ownerLo: -2,
    ownerHi: 0x11223344,
    mode: 0o100600,
    uid: 11,
    gid: 12,
    atimeMs: 1001,
    mtimeMs: 2002,
    ctimeMs: 3003,
  };
  expect(calls).toEqual([["setattr", R, c.FATTR_SIZE | c.FATTR_FH, fields]]);
});

test("BATCH_FORGET becomes single calls", () => {
  const { handler, calls } = recorder();
  const body = struct(["u32", 2], ["u32", 0], ["u64", 7], ["u64", 1], ["u64", 8], ["u64", 40]);
  dispatchRequest(encodeRequest({ opcode: c.FUSE_BATCH_FORGET, body }), handler);
  expect(calls).toEqual([
    ["forget", 7, 1],
    ["forget", 8, 40],
  ]);
});

test("NOTIFY_REPLY is data or a wake-up, by its id", () => {
  const { handler, calls } = recorder();
  const opcode = c.FUSE_NOTIFY_REPLY;
  const body = struct(["u64", 0], ["u64", 16], ["u64", 2], ["u64", 0], ["u64", 0], ["text", "ab"]);
  dispatchRequest(encodeRequest({ opcode, unique: 0xf000_0001n, body }), handler);
  dispatchRequest(encodeRequest({ opcode, unique: 0x4c495445_57414b45n, body }), handler);
  expect(calls).toEqual([["notifyReply", R, 0xf000_0001, 16, "buffer", 80, 2], ["wake"]]);
});

describe("what the handler does not implement", () => {
  test.each([
    ["lseek", c.FUSE_LSEEK],
    ["copyFileRange", c.FUSE_COPY_FILE_RANGE],
    ["getxattr", c.FUSE_GETXATTR],
    ["rename", c.FUSE_RENAME2],
    ["fsyncdir", c.FUSE_FSYNCDIR],
    ["fallocate", c.FUSE_FALLOCATE],
  ])("%s is declined", (method, opcode) => {
    const { handler, calls } = recorder([method]);
    expect(dispatchRequest(encodeRequest({ opcode, body: Buffer.alloc(64) }), handler)).toBe(false);
    expect(calls).toEqual([]);
  });

  test.each([
    c.FUSE_IOCTL,
    c.FUSE_POLL,
    c.FUSE_BMAP,
    c.FUSE_TMPFILE,
    c.FUSE_STATX,
    c.FUSE_SYNCFS,
    4096,
  ])("opcode %i is declined", (opcode) => {
    const { handler, calls } = recorder();
    expect(dispatchRequest(encodeRequest({ opcode, body: Buffer.alloc(64) }), handler)).toBe(false);
    expect(calls).toEqual([]);
  });
});

test("a WRITE that announces more than it brings is refused", () => {
  const { handler } = recorder();
  const body = struct(
    ["u64", 9],
    ["u64", 0],
    ["u32", 4],
    ["u32", 0],
    ["u64", 0],
    ["u64", 0],
    ["text", "abc"],
  );
  expect(() => dispatchRequest(encodeRequest({ opcode: c.FUSE_WRITE, body }), handler)).toThrow(
    "shorter than its body",
  );
});
