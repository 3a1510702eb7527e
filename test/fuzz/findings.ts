import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import type { Finding } from "./probe.ts";

/** Inputs that once were handled wrongly, `<target>/<hash>.bin`; replayed by a test. */
export const FINDINGS_DIRECTORY: string = path.join(import.meta.dirname, "../fixtures/fuzz");

export function saveFinding(target: string, finding: Finding): string {
  const directory = path.join(FINDINGS_DIRECTORY, target);
  fs.mkdirSync(directory, { recursive: true });
  const hash = createHash("sha256").update(finding.input).digest("hex").slice(0, 16);
  const file = path.join(directory, `${hash}.bin`);
  fs.writeFileSync(file, finding.input);
  return file;
}

/** What was saved for a target, by file name. */
export function savedInputs(target: string): Map<string, Uint8Array> {
  const directory = path.join(FINDINGS_DIRECTORY, target);
  if (!fs.existsSync(directory)) return new Map();
  return new Map(
    fs
      .readdirSync(directory)
      .sort()
      .map((name) => [name, new Uint8Array(fs.readFileSync(path.join(directory, name)))]),
  );
}
