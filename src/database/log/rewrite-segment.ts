import * as path from "node:path";
import { FormatError } from "../../lib/errors.ts";
import type { Files, OpenFile } from "../files.ts";
import { scanRecords } from "./recover-log.ts";
import type { LogPosition } from "./recover-log.ts";
import { COPY_SUFFIX } from "./record.ts";

const COPY_BYTES = 1024 * 1024;

/** Where the log is known to end. */
export interface ExpectedEnd extends LogPosition {
  readonly endOffset: number;
}

/**
 * Puts a copy in the place of a segment whose sync has failed: the disk may have lost any of its
 * pages, and the cache may or may not still have them. Every record is verified on the way, and the
 * last one must be the one that is expected. Throws, with the old file in place, when it is not, or
 * when the copy cannot be made durable either.
 */
export function rewriteSegment(
  files: Files,
  directory: string,
  name: string,
  expected: ExpectedEnd,
): void {
  const target = path.join(directory, name);
  const source = files.open(target, { readOnly: true });
  if (source === undefined) throw new FormatError("LOG_DAMAGED", `segment ${target} is gone`);
  try {
    verify(source, target, expected);
    copy(files, source, target + COPY_SUFFIX, expected.endOffset);
  } finally {
    source.close();
  }
  files.rename(target + COPY_SUFFIX, target);
  files.syncDirectory(directory);
}

function verify(source: OpenFile, name: string, expected: ExpectedEnd): void {
  const scan = scanRecords(source, expected.endOffset);
  const isWhole =
    scan.endOffset === expected.endOffset &&
    scan.txid === expected.txid &&
    scan.checksumHi === expected.checksumHi &&
    scan.checksumLo === expected.checksumLo;
  if (isWhole) return;
  throw new FormatError(
    "LOG_DAMAGED",
    `transaction log ${name} is damaged: the disk has lost what is behind offset ${scan.endOffset}`,
  );
}

function copy(files: Files, source: OpenFile, name: string, lengthBytes: number): void {
  files.remove(name);
  const target = files.open(name, { create: true });
  if (target === undefined) throw new Error(`cannot create ${name}`);
  try {
    const chunk = new Uint8Array(Math.min(COPY_BYTES, lengthBytes));
    for (let done = 0; done < lengthBytes;) {
      const count = source.readAt(chunk, 0, Math.min(chunk.length, lengthBytes - done), done);
      if (count === 0) throw new FormatError("LOG_DAMAGED", `${name} is shorter than it was`);
      target.writeAt(chunk, 0, count, done);
      done += count;
    }
    target.sync();
  } finally {
    target.close();
  }
}
