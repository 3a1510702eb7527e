import * as path from "node:path";
import type { Files } from "../files.ts";

const MAX_BYTES = 64;

function markPath(directory: string): string {
  return path.join(directory, "boot");
}

/** Which boot of the machine a log was last appended in; unknown before its first append. */
export type Boot = "this" | "another" | "unknown";

/**
 * If the machine has stayed up since the log was last appended to, every byte that was written is
 * there, and what is unreadable is damage, but not all of it may be durable. If not, the end of the
 * log may lack any part of what was never synced, and what is there is durable.
 */
export function lastBoot(files: Files, directory: string): Boot {
  const file = files.open(markPath(directory), { readOnly: true });
  if (file === undefined) return "unknown";
  try {
    const bytes = new Uint8Array(MAX_BYTES);
    const count = file.readAt(bytes, 0, bytes.length, 0);
    const mark = Buffer.from(bytes.subarray(0, count)).toString("latin1");
    return mark === files.bootId() ? "this" : "another";
  } finally {
    file.close();
  }
}

/**
 * Notes in which boot the log is appended to. Never synced: if a power cut destroys the mark, it
 * differs from the next boot all the same.
 */
export function markBoot(files: Files, directory: string): void {
  if (lastBoot(files, directory) === "this") return;
  const id = Buffer.from(files.bootId(), "latin1");
  const file = files.open(markPath(directory), { create: true });
  if (file === undefined) throw new Error(`cannot create ${markPath(directory)}`);
  try {
    file.writeAt(id, 0, id.length, 0);
    file.truncate(id.length);
  } finally {
    file.close();
  }
}
