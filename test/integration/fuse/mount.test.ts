import { mkdir, open, readFile, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { abortByForcedUnmount } from "../../../src/fuse/connection.ts";
import { mountFuse, unmountStale } from "../../../src/fuse/mount.ts";
import { findMount } from "../../../src/fuse/mountinfo.ts";
import { TestMount, cleanUpAll, readLine, temporaryDirectory } from "./harness.ts";

afterEach(cleanUpAll);

const mountOn = (directory: string) =>
  mountFuse({ directory, fsname: "litefs-test", allowOther: true });

test("unmount ends the session and leaves an ordinary directory", async () => {
  const fs = await TestMount.start();
  await fs.python("pass");
  const entry = await findMount(fs.mount.mountPoint);
  expect(entry).toMatchObject({ fileSystemType: "fuse", source: "litefs-test" });
  await fs.closePin();
  expect(await fs.mount.unmount()).toBe("unmounted");
  expect(await fs.event("end")).toEqual({ kind: "end", reason: "unmounted" });
  expect(await findMount(fs.mount.mountPoint)).toBeUndefined();
  expect(await fs.mount.unmount()).toBe("unmounted");
});

test("a mount that stays busy is detached, and ends with its last file", async () => {
  const fs = await TestMount.start();
  expect(await fs.mount.unmount()).toBe("detached");
  expect(await findMount(fs.mount.mountPoint)).toBeUndefined();
  expect(fs.events("end")).toEqual([]);
  await fs.closePin();
  expect(await fs.event("end")).toEqual({ kind: "end", reason: "unmounted" });
});

test("when the handler has failed everything is refused, and nobody waits until the abort", async () => {
  const fs = await TestMount.start();
  await writeFile(fs.path("a"), "there");
  await fs.wake("fail");
  expect((await fs.event("failed"))["text"]).toContain("a mistake of the handler's");
  await expect(readFile(fs.path("not-looked-up-yet"))).rejects.toMatchObject({ code: "EIO" });
  await expect(writeFile(fs.path("b"), "new")).rejects.toMatchObject({ code: "EIO" });
  await fs.mount.abort();
  expect(await fs.event("end")).toEqual({ kind: "end", reason: "aborted" });
});

test("abort frees a process that waits, and ends the session", async () => {
  const fs = await TestMount.start();
  const program = `import errno, fcntl, sys
f = open(sys.argv[1] + "/a", "w+b")
try: fcntl.lockf(f, fcntl.LOCK_EX, 1, 0); print("locked", flush=True); sys.stdin.readline()
except OSError as e: print(errno.errorcode[e.errno], flush=True)`;
  const holder = fs.startPython(program);
  await readLine(holder);
  const waiter = fs.startPython(program);
  await fs.event("lock-waits");
  await fs.mount.abort();
  expect(await readLine(waiter)).toBe("ECONNABORTED");
  expect(await fs.event("end")).toEqual({ kind: "end", reason: "unmounted" });
  await fs.mount.abort();
});

test("without control files, a forced unmount aborts as well", async () => {
  const fs = await TestMount.start();
  const other = fs.mount.connectionId + 1;
  await abortByForcedUnmount(other, fs.mount.mountPoint);
  expect(await readFile(fs.path("pin"), "utf8")).toBe("");
  await abortByForcedUnmount(fs.mount.connectionId, fs.mount.mountPoint);
  expect(await fs.event("end")).toEqual({ kind: "end", reason: "unmounted" });
});

test("a mount that nobody serves can be unmounted", async () => {
  const mount = await mountOn(await temporaryDirectory());
  expect(await mount.unmount()).toBe("unmounted");
  await mount.close();
});

test("a mount whose server has died is recognised and removed", async () => {
  const directory = await temporaryDirectory();
  expect(await unmountStale(directory)).toBe(false);
  expect(await unmountStale(join(directory, "none", "deeper"))).toBe(false);
  const dead = await mountOn(directory);
  await dead.close();
  await expect(open(join(directory, "x"))).rejects.toMatchObject({ code: "ENOTCONN" });
  await expect(mountOn(directory)).rejects.toMatchObject({ code: "FUSE_MOUNT_POINT_BUSY" });
  expect(await unmountStale(directory)).toBe(true);
  expect(await findMount(directory)).toBeUndefined();
});

test("a mount that is alive is not taken for a stale one", async () => {
  const fs = await TestMount.start();
  expect(await unmountStale(fs.mount.mountPoint)).toBe(false);
  expect(await readFile(fs.path("pin"), "utf8")).toBe("");
});

test("unusable mount points are refused with what to do", async () => {
  const directory = await temporaryDirectory();
  await expect(mountOn(join(directory, "none"))).rejects.toMatchObject({
    code: "FUSE_MOUNT_POINT_MISSING",
    message: expect.stringContaining("create it first"),
  });
  await writeFile(join(directory, "file"), "");
  await expect(mountOn(join(directory, "file"))).rejects.toMatchObject({
    code: "FUSE_MOUNT_POINT_NOT_DIRECTORY",
  });
  await expect(mountOn(directory)).rejects.toMatchObject({ code: "FUSE_MOUNT_POINT_NOT_EMPTY" });
  await expect(mountOn("/proc")).rejects.toMatchObject({
    code: "FUSE_MOUNT_POINT_BUSY",
    message: expect.stringContaining("(proc) is already mounted there"),
  });
});

test("names with blanks, and links in the path", async () => {
  const directory = await temporaryDirectory();
  await mkdir(join(directory, "real dir", "mount \\ point"), { recursive: true });
  await symlink(join(directory, "real dir", "mount \\ point"), join(directory, "link"));
  const mount = await mountOn(join(directory, "link"));
  try {
    expect(mount.mountPoint).toBe(join(directory, "real dir", "mount \\ point"));
    expect(mount.connectionId).toBeGreaterThan(0);
  } finally {
    await mount.abort();
    expect(await mount.unmount()).toBe("unmounted");
    await mount.close();
  }
});

test("without a mount program the error names the package", async () => {
  const directory = await temporaryDirectory();
  const path = process.env["PATH"];
  process.env["PATH"] = "/nowhere";
  try {
    await expect(mountOn(directory)).rejects.toMatchObject({
      code: "FUSE_MOUNT_PROGRAM_MISSING",
      message: expect.stringContaining("install the package `mount`"),
    });
  } finally {
    process.env["PATH"] = path;
  }
});
