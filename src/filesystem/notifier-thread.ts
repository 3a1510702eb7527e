import { workerData } from "node:worker_threads";
import { writeNotification } from "../fuse/notify.ts";
import { wakeMessage } from "../fuse/wake.ts";
import { LAG_NODE_ID } from "./litefs-file-system.ts";
import { SHARED } from "./messages.ts";
import type { NotificationBatch, NotifierThreadData } from "./messages.ts";

/*
 * Writes STORE and INVAL notifications for the mount thread. They block while the kernel holds a
 * page that waits for the mount thread, which is why that thread cannot write them itself.
 */
const { shared, port } = workerData as NotifierThreadData;
const words = new Int32Array(shared);
const wake = wakeMessage(LAG_NODE_ID);

port.on("message", ({ fd, messages, batch }: NotificationBatch) => {
  for (const message of messages) writeNotification(fd, message);
  Atomics.store(words, SHARED.settledBatch, batch);
  if (Atomics.exchange(words, SHARED.wakePending, 1) === 0) writeNotification(fd, wake);
});
