/**
 * Where a stream server puts its bytes: an HTTP/2 stream, or a list in a test. Bytes are taken at
 * once and in order; what is not yet on the wire is bounded by the caller, who waits for `drained`
 * whenever `write` says false.
 */
export interface FrameSink {
  write(bytes: Uint8Array): boolean;
  /** Rejects when the signal is aborted first, or when the reader is gone. */
  drained(signal: AbortSignal): Promise<void>;
}
