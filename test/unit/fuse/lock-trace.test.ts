import { expect, test } from "vitest";
import { kernelDevice, parseRefusedLocks } from "../../../src/fuse/lock-trace.ts";

const line = (inode: string, pid: number, start: number): string =>
  `          python3-${pid}   [001] .....  4711.123456: posix_lock_inode: fl=00000000a5a5 ` +
  `dev=0x0:0x2f ino=0x${inode} fl_blocker=0000000000000000 fl_owner=00000000b6b6 fl_pid=${pid} ` +
  `fl_flags=FL_POSIX fl_type=F_WRLCK fl_start=${start} fl_end=${start} ret=-11\n`;

test("each line of the trace is an attempt", () => {
  expect(parseRefusedLocks(line("1f", 42, 120) + line("20", 43, 1073741825))).toEqual([
    { inode: 31, pid: 42, byte: 120 },
    { inode: 32, pid: 43, byte: 1073741825 },
  ]);
});

test("what the kernel says besides is no attempt", () => {
  const lost = "CPU:1 [LOST 17 EVENTS]\n";
  expect(parseRefusedLocks(`${lost}${line("1f", 42, 120)}`)).toHaveLength(1);
  expect(parseRefusedLocks("")).toEqual([]);
  expect(parseRefusedLocks("posix_lock_inode: ino=nonsense fl_pid=x\n")).toEqual([]);
});

test("the kernel numbers devices in its own way", () => {
  expect(kernelDevice(0x2f)).toBe(0x2f);
  // Beyond 8 bits stat(2) shows the upper part of the minor number above the major one.
  expect(kernelDevice(0x10_0034)).toBe(0x134);
  expect(kernelDevice(0xfe00)).toBe(0xfe * 2 ** 20);
});
