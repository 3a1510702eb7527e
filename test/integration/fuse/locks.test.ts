import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { afterEach, expect, test } from "vitest";
import { TestMount, cleanUpAll, readLine } from "./harness.ts";

afterEach(cleanUpAll);

const HOLDER = `import fcntl, sys
f = open(sys.argv[1] + "/a", "r+b")
fcntl.lockf(f, fcntl.LOCK_EX, 1, 120)
print("locked", flush=True)
sys.stdin.readline()`;

test("a lock of one process keeps another out until it is closed", async () => {
  const fs = await TestMount.start();
  await writeFile(fs.path("a"), "1");
  const holder = fs.startPython(HOLDER);
  expect(await readLine(holder)).toBe("locked");
  const attempt = `import errno, fcntl, struct, sys
f = open(sys.argv[1] + "/a", "r+b")
try:
  fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 120); got = "got it"
except OSError as e: got = errno.errorcode[e.errno]
query = struct.pack("hhqqi", fcntl.F_WRLCK, 0, 0, 0, 0)
kind, _, start, length, pid = struct.unpack("hhqqi", fcntl.fcntl(f, fcntl.F_GETLK, query)[:28])
print(got, kind, start, length, pid)
fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 121)`;
  // F_WRLCK is 1, F_UNLCK is 2
  expect(await fs.python(attempt)).toBe(`EAGAIN 1 120 1 ${holder.pid}`);
  holder.kill("SIGKILL");
  await fs.event("flush", (e) => e["name"] === "a" && fs.events("flush").length >= 3);
  expect(await fs.python(attempt)).toMatch(/^got it 2 /);
});

test("a lock to the end of the file is reported as such", async () => {
  const fs = await TestMount.start();
  await writeFile(fs.path("a"), "1");
  const holder = fs.startPython(HOLDER.replace("LOCK_EX, 1, 120", "LOCK_SH, 0, 5"));
  expect(await readLine(holder)).toBe("locked");
  const output = await fs.python(`import fcntl, struct, sys
f = open(sys.argv[1] + "/a", "r+b")
query = struct.pack("hhqqi", fcntl.F_WRLCK, 0, 0, 0, 0)
print(*struct.unpack("hhqqi", fcntl.fcntl(f, fcntl.F_GETLK, query)[:28])[:4])`);
  expect(output).toBe("0 0 5 0");
});

test("a waiting lock is granted when the other is released", async () => {
  const fs = await TestMount.start();
  await writeFile(fs.path("a"), "1");
  const holder = fs.startPython(HOLDER);
  await readLine(holder);
  const waiter = fs.startPython(HOLDER);
  await fs.event("lock-waits");
  holder.stdin?.end("\n");
  expect(await readLine(waiter)).toBe("locked");
});

test("a waiting lock request is interrupted by a signal", async () => {
  const fs = await TestMount.start();
  await writeFile(fs.path("a"), "1");
  const holder = fs.startPython(HOLDER);
  await readLine(holder);
  const waiter = fs.startPython(HOLDER);
  await fs.event("lock-waits");
  waiter.kill("SIGINT");
  await once(waiter, "close");
  expect(fs.events("interrupt")).toEqual([{ kind: "interrupt", found: true }]);
  holder.stdin?.end("\n");
});

test("without posixLocks the kernel keeps the locks", async () => {
  const fs = await TestMount.start({ posixLocks: false });
  await writeFile(fs.path("a"), "1");
  const holder = fs.startPython(HOLDER);
  await readLine(holder);
  const waiter = fs.startPython(HOLDER);
  holder.stdin?.end("\n");
  expect(await readLine(waiter)).toBe("locked");
  expect(fs.events("lock-waits")).toEqual([]);
});
