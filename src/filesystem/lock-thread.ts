import { randomBytes } from "node:crypto";
import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import type { MessagePort } from "node:worker_threads";
import { kernelDevice, LockTrace } from "../fuse/lock-trace.ts";
import { writeNotification } from "../fuse/notify.ts";
import { SystemCalls } from "../fuse/system-calls.ts";
import { wakeMessage } from "../fuse/wake.ts";
import { lockDescriptorBudget } from "../database/file-pool.ts";
import { assert } from "../lib/assert.ts";
import { errorCode, errorText, LitefsError } from "../lib/errors.ts";
import { RESERVED_BYTE, WAL_WRITE_LOCK } from "../sqlite/locks.ts";
import { LOCK_WORDS } from "./lock-messages.ts";
import type { LockThreadCall, LockThreadData, LockThreadEvent } from "./lock-messages.ts";
import type { LockRequest, LockResult } from "./lock-messages.ts";
import { SHARED } from "./messages.ts";
import { OWN_DIRECTORY_NAME } from "./names.ts";
import { LAG_NODE_ID } from "./nodes.ts";

/*
 * Entry of the lock thread, which there is where the kernel keeps the locks. It does what blocks and
 * neither of the other threads may do: it opens files of our own mount, which waits for the mount
 * thread, and it waits for events of the kernel and for time to pass.
 */
assert(parentPort !== null, "the lock thread is a worker");
const parent = parentPort;
const data = workerData as LockThreadData;
const control = new Int32Array(data.control);
const words = new Int32Array(data.shared);
const wake = wakeMessage(LAG_NODE_ID);
/** Of open(2), missing in Node. */
const O_PATH = 0o10000000;
/** An event whose wake-up was lost is found by then. */
const SLOW_POLL_MS = 500;

const mountPort: MessagePort = data.port;
let deviceFd = -1;
let directoryFd = -1;
const opened = new Set<number>();
const openMax = lockDescriptorBudget();

run();

function run(): void {
  let calls: SystemCalls;
  let trace: LockTrace;
  try {
    requireKernel(os.release());
    calls = new SystemCalls();
    testLocks(calls);
    // Other namespaces of processes have the same numbers.
    trace = LockTrace.open(`${process.pid}-${randomBytes(4).toString("hex")}`);
  } catch (error) {
    tell({ type: "unavailable", reason: errorText(error) });
    parent.close();
    return;
  }
  const { readFd, writeFd } = calls.pipe();
  tell({ type: "ready", threadId: ownThreadId(), kickFd: writeFd });
  const kicks = Buffer.alloc(64);
  while (Atomics.load(control, LOCK_WORDS.stop) === 0) {
    handleAll(trace);
    const pollMs = Atomics.load(control, LOCK_WORDS.pollMs);
    const isReadable = calls.waitReadable([readFd, trace.fd], pollMs > 0 ? pollMs : SLOW_POLL_MS);
    const refused = trace.read();
    if (refused.length > 0) send({ type: "refused", refused });
    if (refused.length > 0 || (!isReadable && pollMs > 0)) wakeMount();
    if (isReadable) drainKicks(readFd, kicks);
  }
  closeAll();
  trace.close();
  parent.close();
  mountPort.close();
}

/**
 * Before Linux 5.16 every descriptor of the mount is flushed when it is closed, also those of this
 * process when it is killed: it would wait for an answer of its own.
 */
function requireKernel(release: string): void {
  const [major = 0, minor = 0] = release.split(".").map((part) => Number.parseInt(part, 10));
  if (major > 5 || (major === 5 && minor >= 16)) return;
  throw new LitefsError("KERNEL_TOO_OLD", `Linux ${release} is older than 5.16`);
}

function drainKicks(fd: number, kicks: Uint8Array): void {
  try {
    fs.readSync(fd, kicks);
  } catch (error) {
    // It was the other descriptor that could be read.
    if (errorCode(error) !== "EAGAIN") throw error;
  }
}

/** Two open file descriptions are as good as two processes. */
function testLocks(calls: SystemCalls): void {
  const file = path.join(data.dataDirectory, "locks.tmp");
  const flags = fs.constants.O_RDWR | fs.constants.O_CREAT;
  const first = fs.openSync(file, flags, 0o600);
  const second = fs.openSync(file, flags, 0o600);
  try {
    assert(calls.setLock(first, "write", WAL_WRITE_LOCK, WAL_WRITE_LOCK), "a lock is granted");
    assert(
      !calls.setLock(second, "read", WAL_WRITE_LOCK, WAL_WRITE_LOCK),
      "a lock keeps others out",
    );
    assert(calls.setLock(first, "read", WAL_WRITE_LOCK, WAL_WRITE_LOCK), "a lock can be weakened");
    assert(calls.setLock(second, "read", WAL_WRITE_LOCK, WAL_WRITE_LOCK), "a lock can be shared");
  } finally {
    fs.closeSync(first);
    fs.closeSync(second);
    fs.unlinkSync(file);
  }
}

function ownThreadId(): number {
  return Number(path.basename(fs.readlinkSync("/proc/thread-self")));
}

function handleAll(trace: LockTrace): void {
  for (;;) {
    const call = receiveMessageOnPort(parent);
    if (call === undefined) break;
    handleCall(call.message as LockThreadCall, trace);
  }
  for (;;) {
    const request = receiveMessageOnPort(mountPort);
    if (request === undefined) break;
    handleRequest(request.message as LockRequest);
  }
}

function handleCall(call: LockThreadCall, trace: LockTrace): void {
  deviceFd = call.deviceFd;
  // Through this descriptor no name in the root is looked up again: an application that creates a
  // file there, and whose answer waits for us, holds the root's lock.
  directoryFd = fs.openSync(path.join(call.mountPoint, OWN_DIRECTORY_NAME), O_PATH);
  const { dev } = fs.statSync(call.mountPoint);
  trace.start(kernelDevice(dev), [WAL_WRITE_LOCK, RESERVED_BYTE]);
  Atomics.store(control, LOCK_WORDS.isServing, 1);
  tell({ type: "serving" });
}

function handleRequest(request: LockRequest): void {
  switch (request.type) {
    case "open":
      send(open(request.nodeId, request.isNeeded));
      wakeMount();
      return;
    case "close":
      if (opened.delete(request.fd)) fs.closeSync(request.fd);
      return;
    case "finish":
      closeAll();
      send({ type: "finished" });
      wakeMount();
  }
}

function open(nodeId: number, isNeeded: boolean): LockResult {
  if (opened.size >= openMax && !isNeeded) {
    const reason = `${opened.size} files of the mount are open, which is what the limit allows`;
    return { type: "failed", nodeId, code: "full", reason };
  }
  try {
    const file = `/proc/self/fd/${directoryFd}/${nodeId}`;
    const fd = fs.openSync(file, fs.constants.O_RDWR);
    opened.add(fd);
    return { type: "opened", nodeId, fd };
  } catch (error) {
    const isFull = errorCode(error) === "EMFILE" || errorCode(error) === "ENFILE";
    return { type: "failed", nodeId, code: isFull ? "full" : "io", reason: errorText(error) };
  }
}

function closeAll(): void {
  Atomics.store(control, LOCK_WORDS.isServing, 0);
  for (const fd of opened) fs.closeSync(fd);
  opened.clear();
  if (directoryFd >= 0) fs.closeSync(directoryFd);
  directoryFd = -1;
}

function wakeMount(): void {
  if (deviceFd < 0 || Atomics.exchange(words, SHARED.wakePending, 1) === 1) return;
  try {
    writeNotification(deviceFd, wake);
  } catch {
    // The mount is gone, and whoever serves it sees that himself.
  }
}

function send(result: LockResult): void {
  mountPort.postMessage(result);
}

function tell(event: LockThreadEvent): void {
  parent.postMessage(event);
}
