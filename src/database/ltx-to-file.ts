import { LtxDecoder } from "../ltx/decoder.ts";
import type { LtxSummary } from "../ltx/decoder.ts";
import type { OpenFile } from "./files.ts";

const CHUNK_BYTES = 1024 * 1024;

/** Writes the pages of a verified LTX file into a database file. Does not cut it. */
export function applyLtxToFile(
  source: OpenFile,
  offset: number,
  lengthBytes: number,
  database: OpenFile,
): LtxSummary {
  return readLtxFile(source, offset, lengthBytes, (pgno, data) => {
    database.writeAt(data, 0, data.length, (pgno - 1) * data.length);
  });
}

/** Reads an LTX file in bounded memory. Throws a FormatError when it is not valid. */
export function readLtxFile(
  source: OpenFile,
  offset: number,
  lengthBytes: number,
  onPage: (pgno: number, data: Uint8Array, hi: number, lo: number) => void,
): LtxSummary {
  const decoder = new LtxDecoder({ onPage });
  const chunk = new Uint8Array(Math.min(CHUNK_BYTES, Math.max(1, lengthBytes)));
  for (let done = 0; done < lengthBytes;) {
    const count = source.readAt(
      chunk,
      0,
      Math.min(chunk.length, lengthBytes - done),
      offset + done,
    );
    if (count === 0) break;
    decoder.push(chunk.subarray(0, count));
    done += count;
  }
  return decoder.end();
}
