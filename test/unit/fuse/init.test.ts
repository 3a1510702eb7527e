import { expect, test } from "vitest";
import {
  FUSE_ATOMIC_O_TRUNC,
  FUSE_AUTO_INVAL_DATA,
  FUSE_DO_READDIRPLUS,
  FUSE_EXPLICIT_INVAL_DATA,
  FUSE_MAX_PAGES,
  FUSE_POSIX_LOCKS,
  FUSE_WRITEBACK_CACHE,
} from "../../../src/fuse/constants.ts";
import { FuseProtocolError, negotiate } from "../../../src/fuse/init.ts";

const offer = { major: 7, minor: 45, maxReadaheadBytes: 131072, flags: 0x7fff_ffff };
const options = { maxWriteBytes: 1 << 20, posixLocks: true, readdirplus: false };

test("takes what we need and leaves what would break it", () => {
  const result = negotiate(offer, options);
  expect(result).toMatchObject({ major: 7, minor: 45, maxReadaheadBytes: 131072, maxPages: 256 });
  for (const flag of [FUSE_POSIX_LOCKS, FUSE_EXPLICIT_INVAL_DATA, FUSE_MAX_PAGES]) {
    expect(result.flags & flag).toBe(flag);
  }
  const refused =
    FUSE_WRITEBACK_CACHE | FUSE_AUTO_INVAL_DATA | FUSE_ATOMIC_O_TRUNC | FUSE_DO_READDIRPLUS;
  expect(result.flags & refused).toBe(0);
});

test("never claims what the kernel did not offer", () => {
  const flags = FUSE_POSIX_LOCKS | FUSE_MAX_PAGES | 0x20;
  expect(negotiate({ ...offer, flags }, options).flags).toBe(flags);
});

test("options choose locks and readdirplus", () => {
  const result = negotiate(offer, { ...options, posixLocks: false, readdirplus: true });
  expect(result.flags & FUSE_POSIX_LOCKS).toBe(0);
  expect(result.flags & FUSE_DO_READDIRPLUS).toBe(FUSE_DO_READDIRPLUS);
});

test("speaks no newer protocol than it knows", () => {
  expect(negotiate({ ...offer, minor: 99 }, options).minor).toBe(45);
  expect(negotiate({ ...offer, minor: 31 }, options).minor).toBe(31);
});

test.each([
  ["an old kernel", { ...offer, minor: 30 }, "FUSE_KERNEL_TOO_OLD"],
  ["another protocol", { ...offer, major: 8, minor: 0 }, "FUSE_KERNEL_TOO_OLD"],
  ["no remote locks", { ...offer, flags: FUSE_MAX_PAGES | 0x20 }, "FUSE_KERNEL_FEATURES"],
])("refuses %s", (_, bad, code) => {
  expect(() => negotiate(bad, options)).toThrow(FuseProtocolError);
  expect(() => negotiate(bad, options)).toThrow(expect.objectContaining({ code }));
});
