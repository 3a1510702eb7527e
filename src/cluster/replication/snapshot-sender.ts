import type { SnapshotReader } from "../../database/engine.ts";
import type { Clock } from "../../lib/clock.ts";
import { LitefsError } from "../../lib/errors.ts";
import { LtxEncoder } from "../../ltx/encoder.ts";
import { LTX_FLAG_COMPRESSED } from "../../ltx/header.ts";
import { CHUNK_END, encodeChunks } from "../../wire/chunk.ts";
import { encodeLtxBegin } from "../../wire/stream-encoder.ts";
import type { FrameSink } from "./frame-sink.ts";

/** What a deleted database's snapshot says when nobody remembers its page size. */
const DEFAULT_PAGE_SIZE = 4096;

export interface SnapshotSenderOptions {
  readonly nodeId: bigint;
  readonly clock: Clock;
  readonly compress: boolean;
  /** 0: no limit. */
  readonly snapshotTimeoutMs: number;
}

/** The pages of a database are not those that its position stands for. */
export class SnapshotDamagedError extends LitefsError {
  override readonly name: string = "SnapshotDamagedError";

  constructor(database: string) {
    super(
      "SNAPSHOT_CHECKSUM_MISMATCH",
      `the pages of ${database} do not have the checksum of its position: run 'litefs check' on this node`,
    );
  }
}

/**
 * Sends one whole database as an LTX frame, one portion of pages at a time: memory is bounded by a
 * portion and what the sink buffers. It never waits longer than the snapshot timeout, because a
 * snapshot that is being read keeps the source from reclaiming space.
 *
 * An error leaves a broken frame behind, so the stream must then be reset, never ended.
 */
export async function sendSnapshot(
  options: SnapshotSenderOptions,
  database: string,
  reader: SnapshotReader,
  sink: FrameSink,
  interrupted: AbortSignal,
): Promise<void> {
  const deadline = new AbortController();
  const finished = new AbortController();
  const timing = expire(options, database, deadline, finished.signal);
  const signal = AbortSignal.any([interrupted, deadline.signal]);
  try {
    await sendPages(options, database, reader, sink, signal);
  } finally {
    finished.abort();
    await timing;
  }
}

async function sendPages(
  options: SnapshotSenderOptions,
  database: string,
  reader: SnapshotReader,
  sink: FrameSink,
  signal: AbortSignal,
): Promise<void> {
  let parts: Uint8Array[] = [];
  // The encoder's bytes are valid only during the call.
  const encoder = new LtxEncoder((bytes) => parts.push(bytes.slice()));
  const pageSize = reader.pageSize === 0 ? DEFAULT_PAGE_SIZE : reader.pageSize;
  encoder.writeHeader({
    flags: options.compress ? LTX_FLAG_COMPRESSED : 0,
    pageSize,
    commit: reader.pageCount,
    minTxid: 1,
    maxTxid: reader.position.txid,
    timestampMs: options.clock.nowMs(),
    preApplyChecksum: 0n,
    walOffset: 0,
    walSize: 0,
    walSalt1: 0,
    walSalt2: 0,
    nodeId: options.nodeId,
  });
  sink.write(encodeLtxBegin(database));
  for (;;) {
    signal.throwIfAborted();
    const pages = await reader.next();
    if (pages === undefined) break;
    for (let i = 0; i < pages.pgnos.length; i++) {
      const page = pages.data.subarray(i * pageSize, (i + 1) * pageSize);
      encoder.writePage(pages.pgnos[i] ?? 0, page);
    }
    const portion = encodeChunks(Buffer.concat(parts));
    parts = [];
    if (!sink.write(portion)) await sink.drained(signal);
  }
  // The trailer is held back until it is known to tell the truth.
  const trailer = encoder.close(undefined);
  if (trailer.postApplyChecksum !== reader.position.checksum) {
    throw new SnapshotDamagedError(database);
  }
  signal.throwIfAborted();
  const end = Buffer.concat([encodeChunks(Buffer.concat(parts)), CHUNK_END]);
  if (!sink.write(end)) await sink.drained(signal);
}

/** Aborts `deadline` when the snapshot takes too long; resolves at once when it is finished. */
async function expire(
  options: SnapshotSenderOptions,
  database: string,
  deadline: AbortController,
  finished: AbortSignal,
): Promise<void> {
  if (options.snapshotTimeoutMs === 0) return;
  try {
    await options.clock.sleep(options.snapshotTimeoutMs, finished);
  } catch (error) {
    // Finished in time.
    if (finished.aborted) return;
    throw error;
  }
  deadline.abort(
    new LitefsError(
      "SNAPSHOT_TIMEOUT",
      `the snapshot of ${database} took longer than ${options.snapshotTimeoutMs} ms: raise http.snapshot-timeout if the replica's link is slow`,
    ),
  );
}
