import { describe, expect, test } from "vitest";
import {
  descriptorBudget,
  FilePool,
  lockDescriptorBudget,
} from "../../../src/database/file-pool.ts";
import type { OpenFile } from "../../../src/database/files.ts";
import { FakeDisk, Random, systemError } from "./support/fake-disk.ts";

function bytes(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text));
}

function write(file: OpenFile, text: string): void {
  file.writeAt(bytes(text), 0, text.length, 0);
}

function read(file: OpenFile): string {
  const out = new Uint8Array(file.size());
  return Buffer.from(out.subarray(0, file.readAt(out, 0, out.length, 0))).toString();
}

function pool(maxOpen: number): {
  disk: FakeDisk;
  files: FilePool;
  create: (name: string) => OpenFile;
} {
  const disk = new FakeDisk();
  disk.mkdir("/d");
  const files = new FilePool(disk, maxOpen);
  const create = (name: string): OpenFile => {
    const file = files.open(`/d/${name}`, { create: true });
    if (file === undefined) throw new Error("not created");
    return file;
  };
  return { disk, files, create };
}

describe("a pool of files", () => {
  test("keeps to its limit, whatever is held, and every file stays usable", () => {
    const { disk, files, create } = pool(4);
    const held = Array.from({ length: 50 }, (_, i) => create(`f${i}`));
    const random = new Random(7);
    const expected = held.map(() => "");
    for (let step = 0; step < 2000; step++) {
      const i = random.below(held.length);
      const file = held[i];
      if (file === undefined) continue;
      if (random.chance(0.5)) {
        expected[i] = `file ${i} step ${step}`;
        file.truncate(0);
        write(file, expected[i] ?? "");
      } else expect(read(file)).toBe(expected[i]);
      expect(disk.openHandles).toBeLessThanOrEqual(4);
    }
    for (const file of held) file.close();
    expect({ handles: disk.openHandles, open: files.openCount }).toEqual({ handles: 0, open: 0 });
  });

  test("a file that is used again and again keeps its descriptor", () => {
    const { disk, create } = pool(4);
    const hot = create("hot");
    const cold = Array.from({ length: 20 }, (_, i) => create(`cold${i}`));
    let opens = 0;
    disk.onOperation = (kind, file) => {
      if (kind === "open" && file === "/d/hot") opens++;
    };
    read(hot);
    opens = 0;
    for (let round = 0; round < 10; round++) {
      for (const file of cold) {
        read(file);
        read(hot);
      }
    }
    expect(opens).toBeLessThanOrEqual(2);
  });

  test("a file whose name is removed, or taken by another, stays what it was", () => {
    const { files, create } = pool(2);
    const removed = create("removed");
    const covered = create("covered");
    write(removed, "removed");
    write(covered, "covered");
    const others = Array.from({ length: 5 }, (_, i) => create(`f${i}`));
    files.remove("/d/removed");
    write(create("new"), "new");
    files.rename("/d/new", "/d/covered");
    for (const file of others) read(file);
    expect(read(removed)).toBe("removed");
    expect(read(covered)).toBe("covered");
    expect(files.open("/d/removed")).toBeUndefined();
  });

  test("a file that was renamed, or below a directory that was, is found under its new name", () => {
    const { disk, files, create } = pool(2);
    disk.mkdir("/d/sub");
    const moved = create("moved");
    const below = create("sub/below");
    write(moved, "moved");
    write(below, "below");
    files.rename("/d/moved", "/d/elsewhere");
    files.rename("/d/sub", "/d/other");
    for (let i = 0; i < 5; i++) read(create(`f${i}`));
    expect(read(moved)).toBe("moved");
    expect(read(below)).toBe("below");
    files.remove("/d/elsewhere");
    files.removeDirectory("/d/other");
    for (let i = 0; i < 5; i++) read(create(`g${i}`));
    expect(read(moved)).toBe("moved");
    expect(read(below)).toBe("below");
  });

  test("what was written is synced before its descriptor goes", () => {
    const { disk, create } = pool(2);
    write(create("written"), "durable");
    disk.syncDirectory("/d");
    for (let i = 0; i < 5; i++) read(create(`f${i}`));
    const after = disk.powerCut(new Random(1));
    expect(Buffer.from(after.content("/d/written")).toString()).toBe("durable");
  });

  test("a sync that fails on the way is told to whoever syncs next, once", () => {
    const { disk, create } = pool(2);
    const file = create("written");
    write(file, "lost");
    disk.onOperation = (kind, name) => {
      if (kind === "sync" && name === "/d/written") throw systemError("EIO", name);
    };
    for (let i = 0; i < 5; i++) read(create(`f${i}`));
    disk.onOperation = () => undefined;
    expect(() => file.sync()).toThrow(/EIO/);
    expect(() => file.sync()).not.toThrow();
  });

  test("makes room when the process has no descriptors left", () => {
    const { disk, create } = pool(100);
    const held = Array.from({ length: 20 }, (_, i) => create(`f${i}`));
    disk.onOperation = (kind, file) => {
      if (kind !== "open" || disk.openHandles < 15) return;
      throw Object.assign(new Error(`EMFILE: ${file}`), { code: "EMFILE", errno: -24 });
    };
    write(create("one more"), "x");
    for (const file of held) read(file);
    expect(disk.openHandles).toBeLessThanOrEqual(15);
  });

  test("a file that somebody else has removed is an error of the disk", () => {
    const { disk, create } = pool(1);
    const file = create("victim");
    read(create("other"));
    disk.remove("/d/victim");
    expect(() => read(file)).toThrow(/EIO: .*removed by somebody else/);
  });
});

test("the budget leaves descriptors to the rest of the process", () => {
  const limits = (max: string): string =>
    `Limit  Soft\nMax open files            ${max}      ${max}  files\n`;
  expect(descriptorBudget(limits("256"))).toBe(64);
  expect(descriptorBudget(limits("64"))).toBe(16);
  expect(descriptorBudget(limits("1048576"))).toBe(4096);
  expect(descriptorBudget(limits("unlimited"))).toBe(4096);
  expect(descriptorBudget()).toBeGreaterThanOrEqual(16);
  expect(lockDescriptorBudget(limits("256"))).toBe(64);
  expect(lockDescriptorBudget(limits("64"))).toBe(16);
  expect(lockDescriptorBudget(limits("1048576"))).toBe(1048576 - 4096 - 128);
  expect(lockDescriptorBudget(limits("unlimited"))).toBe(Infinity);
});
