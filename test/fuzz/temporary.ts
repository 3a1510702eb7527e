import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";

let directory: string | undefined;

/** One directory for all targets that need real files; gone with the process. */
export function temporaryDirectory(): string {
  if (directory === undefined) {
    const made = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-fuzz-"));
    process.on("exit", () => fs.rmSync(made, { recursive: true, force: true }));
    directory = made;
  }
  return directory;
}
