import * as fs from "node:fs";
import { parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import { assert } from "../lib/assert.ts";
import { createLogger } from "../lib/log.ts";
import { createLogSink } from "../lib/log-sink.ts";
import { IdlePolling } from "../fuse/idle-polling.ts";
import { RequestCounts } from "../fuse/request-counts.ts";
import { FuseSession } from "../fuse/session.ts";
import type { FuseSessionEnd } from "../fuse/session.ts";
import { allowsSpinning } from "../fuse/spare-processors.ts";
import { writeNotification } from "../fuse/notify.ts";
import { wakeMessage } from "../fuse/wake.ts";
import { DatabaseService } from "./database-service.ts";
import { LockLink } from "./lock-link.ts";
import { LAG_NODE_ID } from "./nodes.ts";
import { SHARED, SHARED_REQUEST_COUNTS_OFFSET_BYTES } from "./messages.ts";
import type { MountEvent, MountRequest, MountThreadData } from "./messages.ts";

/*
 * Entry of the mount thread. It opens every database, says so, and then serves the kernel in a
 * loop that blocks in read(2) for as long as the mount lives.
 */
assert(parentPort !== null, "the mount thread is a worker");
const port = parentPort;
const data = workerData as MountThreadData;
const words = new Int32Array(data.shared);
const log = { format: data.logFormat, timestamp: data.logTimestamp, debug: data.debug };
// Not process.stderr: a worker's stream needs the event loop, which this thread never enters.
const logger = createLogger(log, createLogSink(2, log));
const wake = wakeMessage(LAG_NODE_ID);
let deviceFd = -1;

const service = new DatabaseService({
  data,
  words,
  logger,
  lockLink: data.lockLink === undefined ? undefined : new LockLink(data.lockLink),
  post: (event: MountEvent, transfer: ArrayBuffer[]) => port.postMessage(event, transfer),
  sendNotifications: (batch) => {
    const buffers = batch.groups.flat().map((bytes) => bytes.buffer as ArrayBuffer);
    port.postMessage({ type: "notify", ...batch } satisfies MountEvent, buffers);
  },
  writeNotification: (message) => writeNotification(deviceFd, message) === "ok",
  wakeSelf: () => {
    if (Atomics.exchange(words, SHARED.wakePending, 1) === 0) writeNotification(deviceFd, wake);
  },
  statistics: () => {
    const s = fs.statfsSync(data.dataDirectory);
    return {
      blocks: s.blocks,
      bfree: s.bfree,
      bavail: s.bavail,
      files: s.files,
      ffree: s.ffree,
      bsize: s.bsize,
      namelen: 247,
      frsize: s.bsize,
    };
  },
  drain: (handle) => {
    for (;;) {
      const received = receiveMessageOnPort(port);
      if (received === undefined) return;
      handle(received.message);
    }
  },
});

service.openAll();

port.once("message", (request: MountRequest) => {
  assert(request.type === "serve", "the first message starts the session");
  deviceFd = request.fd;
  const session = new FuseSession({
    fd: request.fd,
    handler: service.fileSystem,
    posixLocks: data.lockLink === undefined,
    logger,
    spinMs: allowsSpinning() ? data.spinMs : 0,
    idlePolling:
      data.idlePollingFd === undefined
        ? undefined
        : new IdlePolling(data.idlePollingFd, words, SHARED.idlePolling),
    requestCounts: new RequestCounts(data.shared, SHARED_REQUEST_COUNTS_OFFSET_BYTES),
  });
  service.onStop = () => session.stop();
  let how: FuseSessionEnd;
  try {
    how = session.run();
  } catch (error) {
    port.postMessage({ type: "failed", error } satisfies MountEvent);
    session.refuseAll(() => Atomics.load(words, SHARED.stop) === 1);
    throw error;
  }
  const shelf = service.close();
  port.postMessage({ type: "ended", how, shelf } satisfies MountEvent);
  port.close();
});
