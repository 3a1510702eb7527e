/*
 * The response of POST /stream is frames back to back: u32 type, payload. Big-endian throughout.
 *
 *   type       payload
 *   1 LTX      u64 size (always 0), u32 name length, name; then the LTX file as a chunked body
 *   2 Ready    none
 *   3 End      none
 *   4 DropDB   u32 name length, name
 *   5 Handoff  u32 length, lease id
 *   6 HWM      u64 TXID, u32 name length, name
 *   7 Heartbeat  i64 milliseconds since the Unix epoch
 */
export const FRAME_TYPE_LTX = 1;
export const FRAME_TYPE_READY = 2;
export const FRAME_TYPE_END = 3;
export const FRAME_TYPE_DROP_DATABASE = 4;
export const FRAME_TYPE_HANDOFF = 5;
export const FRAME_TYPE_HWM = 6;
export const FRAME_TYPE_HEARTBEAT = 7;

/** Lease ids are Consul session ids or etcd lease ids, well below this. */
export const MAX_LEASE_ID_BYTES = 1024;

/** An LTX frame is three kinds here, so that a file of any size passes in bounded memory. */
export type StreamFrame =
  | { readonly type: "ltx-begin"; readonly name: string }
  /** A view of the received bytes. */
  | { readonly type: "ltx-data"; readonly bytes: Uint8Array }
  | { readonly type: "ltx-end" }
  /** Everything that existed when the stream began has been sent. */
  | { readonly type: "ready" }
  /** The server ends the stream on purpose. */
  | { readonly type: "end" }
  /** The primary does not have this database. LiteFS logs and ignores it. */
  | { readonly type: "drop-database"; readonly name: string }
  /** The receiver shall become primary with this lease. */
  | { readonly type: "handoff"; readonly leaseId: string }
  /** Transactions up to here are in the backup and may leave the log. */
  | { readonly type: "hwm"; readonly txid: number; readonly name: string }
  | { readonly type: "heartbeat"; readonly timestampMs: number };
