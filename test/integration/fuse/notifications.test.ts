import { open, readFile, stat, writeFile } from "node:fs/promises";
import { afterEach, expect, test } from "vitest";
import { FUSE_WRITE_CACHE } from "../../../src/fuse/constants.ts";
import {
  deleteEntry,
  invalidateAttributes,
  invalidateEntry,
  invalidateInode,
  retrieveData,
  storeData,
} from "../../../src/fuse/notify.ts";
import { TestMount, cleanUpAll, readLine } from "./harness.ts";
import { PIN_NODE_ID } from "./memory-filesystem.ts";

afterEach(cleanUpAll);

/** The first file that a test creates; the pin has node id 2. */
const NODE_ID = 3;

/** Maps the file; for every line on stdin prints the first 8 bytes, or writes the line. */
const MAPPER = `import mmap, sys
f = open(sys.argv[1] + "/a", "r+b")
m = mmap.mmap(f.fileno(), 4096)
print(m[:8].decode(), flush=True)
for line in sys.stdin:
  line = line.strip()
  if line: m[:len(line)] = line.encode()
  print(m[:8].decode(), flush=True)`;

test("STORE is visible in another process's memory map, RETRIEVE returns what it wrote", async () => {
  const fs = await TestMount.start();
  await writeFile(fs.path("a"), "before..".padEnd(4096, "."));
  const mapper = fs.startPython(MAPPER);
  expect(await readLine(mapper)).toBe("before..");

  const pieces = [Buffer.from("st"), Buffer.from("ored!!")];
  expect(await fs.notify(storeData(NODE_ID, 0, pieces))).toBe("ok");
  mapper.stdin?.write("\n");
  expect(await readLine(mapper)).toBe("stored!!");

  mapper.stdin?.write("mapped\n");
  expect(await readLine(mapper)).toBe("mapped!!");
  expect(await fs.notify(retrieveData(77, NODE_ID, 0, 8))).toBe("ok");
  const event = await fs.event("retrieved");
  expect(event).toMatchObject({ notifyUnique: 77, nodeId: NODE_ID, offset: 0, text: "mapped!!" });

  mapper.stdin?.end();
  const written = await fs.event("write", (e) => e["writeFlags"] === FUSE_WRITE_CACHE);
  expect(written["name"]).toBe("a");
});

test("INVAL_INODE makes the kernel read again; without it the cache answers", async () => {
  const fs = await TestMount.start();
  await writeFile(fs.path("a"), "from us");
  await fs.notify(storeData(NODE_ID, 0, [Buffer.from("pushed!")]));
  expect(await readFile(fs.path("a"), "utf8")).toBe("pushed!");
  expect(await fs.notify(invalidateInode(NODE_ID, 0, 0))).toBe("ok");
  expect(await readFile(fs.path("a"), "utf8")).toBe("from us");
});

test("STORE beyond the end can be read, until the file system is asked for the size", async () => {
  const fs = await TestMount.start();
  await writeFile(fs.path("a"), "1234");
  const file = await open(fs.path("a"));
  try {
    await fs.notify(storeData(NODE_ID, 0, [Buffer.from("12345678")]));
    const eight = Buffer.alloc(8);
    expect((await file.read(eight, 0, 8, 0)).bytesRead).toBe(8);
    expect(eight.toString()).toBe("12345678");
    // A store marks the cached size as doubtful, so stat asks; our file system still says 4.
    expect((await file.stat()).size).toBe(4);
    expect((await file.read(eight, 0, 8, 0)).bytesRead).toBe(4);
  } finally {
    await file.close();
  }
});

test("attributes are asked for again after they were invalidated", async () => {
  const fs = await TestMount.start();
  const asked = fs.events("getattr").length;
  await stat(fs.path("pin"));
  expect(fs.events("getattr").length).toBe(asked);
  expect(await fs.notify(invalidateAttributes(PIN_NODE_ID))).toBe("ok");
  await stat(fs.path("pin"));
  await fs.event("getattr", (e) => e["nodeId"] === PIN_NODE_ID);
});

test("entries, present or absent, are looked up again after INVAL_ENTRY", async () => {
  const fs = await TestMount.start();
  await expect(stat(fs.path("ä"))).rejects.toMatchObject({ code: "ENOENT" });
  expect(await fs.notify(invalidateEntry(1, "ä"))).toBe("ok");
  await writeFile(fs.path("a"), "1");
  expect(await fs.notify(deleteEntry(1, NODE_ID, "a"))).toBe("ok");
  expect((await stat(fs.path("a"))).size).toBe(1);
});

test("nodes that the kernel does not know are reported as such", async () => {
  const fs = await TestMount.start();
  expect(await fs.notify(invalidateInode(4711, 0, 0))).toBe("unknown-inode");
  expect(await fs.notify(storeData(4711, 0, [Buffer.from("x")]))).toBe("unknown-inode");
  expect(await fs.notify(invalidateEntry(1, "nowhere"))).toBe("unknown-inode");
  await expect(fs.notify(retrieveData(1, 1, 0, 0))).rejects.toMatchObject({ code: "EINVAL" });
});

test("a wake message wakes the sleeping session", async () => {
  const fs = await TestMount.start();
  await fs.wake("hello");
  expect(await fs.event("wake")).toEqual({ kind: "wake", command: "hello" });
});

test("stop() ends the session although nothing else happens", async () => {
  const fs = await TestMount.start();
  await fs.wake("stop");
  expect(await fs.event("end")).toEqual({ kind: "end", reason: "stopped" });
});
