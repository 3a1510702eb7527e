import type { ServerHttp2Stream } from "node:http2";
import type { FrameSink } from "../cluster/replication/frame-sink.ts";

/** An HTTP/2 response body as the place where a stream server puts its frames. */
export function http2Sink(stream: ServerHttp2Stream): FrameSink {
  return {
    write: (bytes) => stream.write(bytes),
    drained: (signal) =>
      new Promise((resolve, reject) => {
        const settle = (error?: unknown): void => {
          stream.off("drain", onDrain);
          stream.off("close", onClose);
          signal.removeEventListener("abort", onAbort);
          if (error === undefined) resolve();
          else reject(error instanceof Error ? error : new Error("aborted", { cause: error }));
        };
        const onDrain = (): void => settle();
        const onClose = (): void => settle(new Error("the replica closed the stream"));
        const onAbort = (): void => settle(signal.reason ?? new Error("aborted"));
        if (signal.aborted) return onAbort();
        if (stream.destroyed) return onClose();
        if (!stream.writableNeedDrain) return onDrain();
        stream.once("drain", onDrain);
        stream.once("close", onClose);
        signal.addEventListener("abort", onAbort, { once: true });
      }),
  };
}
