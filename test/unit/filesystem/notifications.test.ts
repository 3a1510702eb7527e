import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { storeData } from "../../../src/fuse/notify.ts";
import type { FileKind } from "../../../src/database/database-files.ts";
import { DatabaseEntry } from "../../../src/filesystem/entry.ts";
import { NodeTable } from "../../../src/filesystem/node-table.ts";
import { NotificationWriter } from "../../../src/filesystem/notification-writer.ts";
import { EntryCache, Outbox, Retrievals } from "../../../src/filesystem/notifier.ts";
import type { NotificationBatch } from "../../../src/filesystem/notifier.ts";
import { FakeDisk } from "../database/support/fake-disk.ts";
import { open } from "../database/support/harness.ts";

/** Of a database that the kernel knows all files of. */
function cache(): { sent: NotificationBatch[]; outbox: Outbox; kernel: EntryCache } {
  const sent: NotificationBatch[] = [];
  const outbox = new Outbox((batch) => sent.push(batch));
  const nodes = new NodeTable();
  const entry = new DatabaseEntry(open(new FakeDisk()), (owner, kind) => {
    const node = nodes.newFile(owner, kind);
    node.lookups = 1;
    return node;
  });
  for (const kind of ["database", "wal", "shm"] as const) entry.node(kind);
  const kernel = new EntryCache(entry, outbox, new Retrievals(() => true));
  return { sent, outbox, kernel };
}

describe("what may be written without the thread pool", () => {
  const page = new Uint8Array(4096);
  const prompt = (act: (kernel: EntryCache, outbox: Outbox) => void): boolean[] => {
    const { sent, outbox, kernel } = cache();
    act(kernel, outbox);
    outbox.flush();
    return sent.map(({ isPrompt }) => isPrompt);
  };

  test("frames and their index are", () => {
    const written = prompt((kernel) => {
      kernel.store("wal", 32, page);
      kernel.storeAhead("shm", 0, page.subarray(0, 96));
    });
    expect(written).toEqual([true]);
  });

  test("much of it is not", () => {
    const written = prompt((kernel) => {
      for (let i = 0; i < 20; i++) kernel.store("wal", i * 4096, page);
    });
    expect(written).toEqual([false]);
  });

  test("whatever may wait for an application, or a name, is not, nor what comes with it", () => {
    const acts: ((kernel: EntryCache) => void)[] = [
      (kernel) => kernel.store("database", 0, page),
      (kernel) => kernel.invalidate("database", 0, 0),
      (kernel) => kernel.invalidate("wal", 0, 0),
      (kernel) => kernel.invalidateName("journal"),
    ];
    for (const act of acts) {
      expect(prompt(act)).toEqual([false]);
      const withOthers = prompt((kernel) => {
        act(kernel);
        kernel.store("wal", 32, page);
      });
      expect(withOthers).toEqual([false]);
    }
  });

  test("nothing is while a commit waits for other nodes: a page of its WAL is locked", () => {
    let isHeld = true;
    const written = prompt((kernel, outbox) => {
      outbox.isWriteHeld = () => isHeld;
      kernel.store("wal", 32, page);
      outbox.flush();
      isHeld = false;
      kernel.store("wal", 4128, page);
    });
    expect(written).toEqual([false, true]);
  });
});

describe("the writer", () => {
  function writer(isServed = true): {
    readonly file: string;
    readonly settled: number[];
    readonly failed: unknown[];
    readonly to: NotificationWriter;
  } {
    const directory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-notify-"));
    const file = path.join(directory, "device");
    const fd = fs.openSync(file, "w");
    onTestFinished(() => {
      fs.closeSync(fd);
      fs.rmSync(directory, { recursive: true });
    });
    const settled: number[] = [];
    const failed: unknown[] = [];
    const to = new NotificationWriter(
      (batch) => settled.push(batch),
      (error) => failed.push(error),
      () => isServed,
    );
    to.serve(fd);
    return { file, settled, failed, to };
  }
  const message = (kind: FileKind, id: number): Uint8Array =>
    storeData(id, 0, [Buffer.from(`${kind} ${id}`)]);
  const batch = (number: number, isPrompt: boolean): NotificationBatch => ({
    groups: [[message("wal", number)], [message("shm", number)]],
    batch: number,
    isPrompt,
  });
  const order = (file: string): string[] =>
    fs.readFileSync(file, "latin1").match(/(?:wal|shm) \d/g) ?? [];

  test("has written what is prompt when `add` returns, in order", () => {
    const { file, settled, to } = writer();
    to.add(batch(1, true));
    to.add(batch(2, true));
    expect(settled).toEqual([1, 2]);
    expect(order(file)).toEqual(["wal 1", "shm 1", "wal 2", "shm 2"]);
  });

  test("never lets it overtake what came before", async () => {
    const { file, settled, to } = writer();
    to.add(batch(1, false));
    to.add(batch(2, true));
    expect(settled).toEqual([]);
    await expect.poll(() => settled).toEqual([1, 2]);
    to.add(batch(3, true));
    expect(settled).toEqual([1, 2, 3]);
    expect(order(file)).toEqual(["wal 1", "shm 1", "wal 2", "shm 2", "wal 3", "shm 3"]);
  });

  test("waits in the thread pool when nobody answers the kernel any more", async () => {
    const { settled, to } = writer(false);
    to.add(batch(1, true));
    expect(settled).toEqual([]);
    await expect.poll(() => settled).toEqual([1]);
  });

  test("tells of a kernel that takes nothing, and does not say that it is done", () => {
    const { settled, failed, to } = writer();
    to.serve(-1);
    to.add(batch(1, true));
    expect(settled).toEqual([]);
    expect(failed).toHaveLength(1);
  });
});
