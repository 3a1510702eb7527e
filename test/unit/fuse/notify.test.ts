import { closeSync, openSync } from "node:fs";
import { expect, test } from "vitest";
import {
  deleteEntry,
  invalidateAttributes,
  invalidateEntry,
  invalidateInode,
  retrieveData,
  storeData,
  writeNotification,
  writeNotificationAsync,
} from "../../../src/fuse/notify.ts";
import { isWake, wakeMessage } from "../../../src/fuse/wake.ts";
import { struct } from "./encode-request.ts";

function expectMessage(message: Uint8Array, code: number, body: Buffer): void {
  const header = struct(["u32", 16 + body.length], ["u32", code], ["u64", 0]);
  expect(Buffer.from(message).toString("hex")).toBe(Buffer.concat([header, body]).toString("hex"));
}

const MINUS_ONE = (1n << 64n) - 1n;

test("INVAL_INODE", () => {
  const body = struct(["u64", 7], ["u64", 0x1_0000_2000], ["u64", 4096]);
  expectMessage(invalidateInode(7, 0x1_0000_2000, 4096), 2, body);
  expectMessage(invalidateAttributes(7), 2, struct(["u64", 7], ["u64", MINUS_ONE], ["u64", 0]));
});

test("INVAL_ENTRY and DELETE end their names with a zero that is not counted", () => {
  expectMessage(
    invalidateEntry(1, "é"),
    3,
    struct(["u64", 1], ["u32", 2], ["u32", 0], ["text", "é\0"]),
  );
  const body = struct(["u64", 1], ["u64", 9], ["u32", 3], ["u32", 0], ["text", "abc\0"]);
  expectMessage(deleteEntry(1, 9, "abc"), 6, body);
});

test("STORE puts its pieces one after the other", () => {
  const message = storeData(7, 32, [Buffer.from("abc"), Buffer.from(""), Buffer.from("de")]);
  const body = struct(["u64", 7], ["u64", 32], ["u32", 5], ["u32", 0], ["text", "abcde"]);
  expectMessage(message, 4, body);
});

test("RETRIEVE carries an id of 32 bits", () => {
  const body = struct(["u64", 0xffff_fff0], ["u64", 7], ["u64", 96], ["u32", 8], ["u32", 0]);
  expectMessage(retrieveData(0xffff_fff0, 7, 96, 8), 5, body);
  expect(() => retrieveData(2 ** 32, 7, 0, 8)).toThrow("32 bits");
});

test("a wake message asks for nothing and is recognised by its id", () => {
  const message = Buffer.from(wakeMessage(7));
  expect(message.readUInt32LE(40)).toBe(0);
  expect(isWake(message.readInt32LE(16), message.readInt32LE(20))).toBe(true);
  expect(isWake(message.readInt32LE(16), 0)).toBe(false);
});

test("failures of the device are thrown, now and later", async () => {
  const fd = openSync("/dev/full", "w");
  try {
    expect(() => writeNotification(fd, wakeMessage(7))).toThrow("ENOSPC");
    await expect(writeNotificationAsync(fd, wakeMessage(7))).rejects.toThrow("ENOSPC");
  } finally {
    closeSync(fd);
  }
});
