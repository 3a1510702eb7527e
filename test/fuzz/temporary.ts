import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";

let directory: string | undefined;

/** One directory for all targets that need real files; gone with the process. */
export function temporaryDirectory(): string {
  if (directory === undefined) {
    directory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-fuzz-"));
    process.on("exit", removeTemporaryDirectory);
  }
  return directory;
}

/** For processes that are ended from outside, such as the workers of vitest. */
export function removeTemporaryDirectory(): void {
  if (directory !== undefined) fs.rmSync(directory, { recursive: true, force: true });
  directory = undefined;
}
