import { readFile, readdir, stat, statfs, writeFile } from "node:fs/promises";
import { afterEach, expect, test } from "vitest";
import { FATTR_SIZE, FUSE_POSIX_LOCKS } from "../../../src/fuse/constants.ts";
import { TestMount, cleanUpAll } from "./harness.ts";

afterEach(cleanUpAll);

test("the handshake gives 1 MiB writes and asks for locks", async () => {
  const fs = await TestMount.start();
  const { result } = await fs.event("init");
  expect(result).toMatchObject({ major: 7, maxWriteBytes: 1 << 20, maxPages: 256 });
  expect(result).toHaveProperty(
    "flags",
    expect.toSatisfy((flags: number) => (flags & FUSE_POSIX_LOCKS) !== 0),
  );
});

test("what one process writes another reads", async () => {
  const fs = await TestMount.start();
  await fs.python(`import sys
f = open(sys.argv[1] + "/a", "wb"); f.write(b"x" * 5000 + b"end"); f.close()`);
  const bytes = await readFile(fs.path("a"));
  expect(bytes.length).toBe(5003);
  expect(bytes.subarray(4999).toString()).toBe("xend");
  const status = await stat(fs.path("a"));
  expect(status.mtimeMs).toBeCloseTo(1_700_000_000_123.5, 1);
  expect(status.size).toBe(5003);
});

test("large files go in pieces of 1 MiB and come back equal", async () => {
  const fs = await TestMount.start();
  const data = Buffer.alloc(3 * (1 << 20) + 77, "0123456789abc");
  await writeFile(fs.path("big"), data);
  // node writes at most 512 KiB at once, so ask for one big write from Python as well
  await fs.python(`import os, sys
fd = os.open(sys.argv[1] + "/one", os.O_CREAT | os.O_WRONLY); os.write(fd, b"y" * (1 << 20))`);
  expect(fs.events("write").some((e) => e["name"] === "one" && e["size"] === 1 << 20)).toBe(true);
  await fs.python(`import ctypes, os, sys
fd = os.open(sys.argv[1] + "/big", os.O_RDONLY); os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)`);
  expect((await readFile(fs.path("big"))).equals(data)).toBe(true);
});

test("O_TRUNC arrives as SETATTR of size 0", async () => {
  const fs = await TestMount.start();
  await writeFile(fs.path("t"), "something");
  await writeFile(fs.path("t"), "new");
  const event = await fs.event("setattr", (e) => e["size"] === 0);
  expect(event["valid"]).toSatisfy((valid: number) => (valid & FATTR_SIZE) !== 0);
  expect(await readFile(fs.path("t"), "utf8")).toBe("new");
});

test("readdir lists everything, over many answers", async () => {
  const fs = await TestMount.start();
  const names = Array.from({ length: 700 }, (_, i) => `name-${i}-${"é".repeat(i % 40)}`);
  await fs.python(`import sys
for i in range(700): open(sys.argv[1] + "/name-%d-%s" % (i, "é" * (i % 40)), "w").close()`);
  expect((await readdir(fs.mount.mountPoint)).sort()).toEqual(["pin", ...names].sort());
});

test("rename, unlink, fsync and statfs", async () => {
  const fs = await TestMount.start();
  await fs.python(`import os, sys
d = sys.argv[1]
fd = os.open(d + "/a", os.O_CREAT | os.O_RDWR); os.write(fd, b"1"); os.fsync(fd); os.fdatasync(fd); os.close(fd)
os.rename(d + "/a", d + "/b"); os.unlink(d + "/b")`);
  expect(fs.events("fsync").map((e) => e["dataOnly"])).toEqual([false, true]);
  await expect(stat(fs.path("b"))).rejects.toMatchObject({ code: "ENOENT" });
  expect(await statfs(fs.mount.mountPoint)).toMatchObject({ blocks: 1000, bfree: 500, files: 30 });
});

test("what is not implemented is refused, and the session goes on", async () => {
  const fs = await TestMount.start();
  const output = await fs.python(`import errno, os, sys
d = sys.argv[1]
def attempt(call):
  try: call(); return "ok"
  except OSError as e: return errno.errorcode[e.errno]
print(attempt(lambda: os.mkdir(d + "/x")), attempt(lambda: os.getxattr(d + "/pin", "user.a")),
  attempt(lambda: os.symlink("a", d + "/l")), attempt(lambda: os.link(d + "/pin", d + "/q")))`);
  // Newer kernels turn the ENOSYS of LINK into EPERM.
  expect(output).toMatch(/^ENOSYS ENOTSUP ENOSYS (EPERM|ENOSYS)$/);
  expect(await readFile(fs.path("pin"), "utf8")).toBe("");
});

test("a system error of the handler reaches the caller, any other ends the session", async () => {
  const fs = await TestMount.start();
  await expect(stat(fs.path("throw-enospc"))).rejects.toMatchObject({ code: "ENOSPC" });
  expect(await readFile(fs.path("pin"), "utf8")).toBe("");
  expect(fs.events("failed")).toEqual([]);
  await expect(stat(fs.path("throw-bug"))).rejects.toMatchObject({ code: "EIO" });
  expect(await fs.event("failed")).toMatchObject({ text: "Error: a bug" });
});
