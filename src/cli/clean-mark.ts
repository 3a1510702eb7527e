import * as fs from "node:fs";
import * as path from "node:path";

/** Stands in the data directory from an orderly stop to the next start. */
const NAME = "clean";

/** Whether the last run of the data directory ended in order; from now on it is not known. */
export function takeCleanMark(dataDirectory: string): boolean {
  const file = path.join(dataDirectory, NAME);
  const isClean = fs.existsSync(file);
  fs.rmSync(file, { force: true });
  return isClean;
}

export function leaveCleanMark(dataDirectory: string): void {
  fs.writeFileSync(path.join(dataDirectory, NAME), "");
}
