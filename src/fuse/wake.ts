import { retrieve } from "./notify.ts";

/*
 * The mount thread sleeps in a blocking read of /dev/fuse, which nothing but a request can end. A
 * RETRIEVE of no bytes makes the kernel send one: its NOTIFY_REPLY, with the id we chose. It takes
 * no page lock and needs only a *regular* file that the kernel knows; whoever wakes keeps one
 * open, so that its inode stays known.
 */
const WAKE_UNIQUE_LO = 0x57414b45;
const WAKE_UNIQUE_HI = 0x4c495445;

/** A notification that makes the session call FuseHandler.wake. The bytes may be reused. */
export function wakeMessage(nodeId: number): Uint8Array {
  return retrieve(WAKE_UNIQUE_LO, WAKE_UNIQUE_HI, nodeId, 0, 0);
}

/** Whether a NOTIFY_REPLY answers a wakeMessage. */
export function isWake(uniqueLo: number, uniqueHi: number): boolean {
  return uniqueLo === WAKE_UNIQUE_LO && uniqueHi === WAKE_UNIQUE_HI;
}
