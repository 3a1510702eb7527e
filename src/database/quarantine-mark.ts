import { errorText } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { writeFileAtomically } from "./files.ts";
import type { Files } from "./files.ts";

/** Tells the next start what this one has found out by reading everything. */
export const QUARANTINE_MARK = "quarantined";
const MAX_BYTES = 4096;

/** Why the database may not be opened, if an earlier run has found out; see `condemn`. */
export function readQuarantineMark(files: Files, directory: string): string | undefined {
  const file = files.open(`${directory}/${QUARANTINE_MARK}`, { readOnly: true });
  if (file === undefined) return undefined;
  try {
    const bytes = new Uint8Array(MAX_BYTES);
    const count = file.readAt(bytes, 0, bytes.length, 0);
    const reason = Buffer.from(bytes.subarray(0, count)).toString("utf8").split("\n")[0]?.trim();
    return reason === undefined || reason === "" ? "an earlier run has found damage" : reason;
  } finally {
    file.close();
  }
}

/** A disk that is full or broken must not keep a database from being quarantined now. */
export function writeQuarantineMark(
  files: Files,
  directory: string,
  reason: string,
  logger: Logger,
): void {
  try {
    const text = Buffer.from(`${reason}\n`, "utf8").subarray(0, MAX_BYTES);
    writeFileAtomically(files, `${directory}/${QUARANTINE_MARK}`, text);
  } catch (error) {
    logger.warn("cannot note the quarantine for the next start", {
      directory,
      error: errorText(error),
    });
  }
}
