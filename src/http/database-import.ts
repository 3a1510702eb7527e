import { fileURLToPath } from "node:url";
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { errorCode, errorText, LitefsError } from "../lib/errors.ts";

export interface DatabaseImporterOptions {
  /** Uploads are spooled in a folder of their own below it. */
  readonly dataDirectory: string;
  readonly mountPoint: string;
}

/** What the process that imports prints, as one line of JSON. */
export type ImportOutcome =
  | { readonly kind: "imported"; readonly pageCount: number }
  /** The file, or what it is to replace, cannot be taken: nothing has changed. */
  | { readonly kind: "refused"; readonly reason: string }
  /** Somebody held the database for too long: nothing has changed. */
  | { readonly kind: "busy"; readonly reason: string };

/**
 * Takes whole databases in from outside. The file is copied into the mount by SQLite's own online
 * backup, in a process of its own: it is an application like any other, so that locks, capture,
 * and what happens when it is killed are those of every transaction, and it becomes one of them.
 */
export class DatabaseImporter {
  readonly #spoolDirectory: string;
  readonly #mountPoint: string;

  constructor(options: DatabaseImporterOptions) {
    this.#spoolDirectory = path.join(options.dataDirectory, "import");
    this.#mountPoint = options.mountPoint;
  }

  /** Removes uploads that a predecessor did not finish: nobody was told that they succeeded. */
  removeLeftovers(): void {
    fs.rmSync(this.#spoolDirectory, { recursive: true, force: true });
  }

  /** Rejects only when the upload breaks or the disk fails. */
  async import(name: string, body: Readable, signal: AbortSignal): Promise<ImportOutcome> {
    const directory = path.join(this.#spoolDirectory, randomUUID());
    try {
      fs.mkdirSync(directory, { recursive: true });
      const source = path.join(directory, "database");
      await pipeline(body, fs.createWriteStream(source), { signal });
      return await runImport(source, path.join(this.#mountPoint, name), signal);
    } catch (error) {
      const full = errorCode(error) === "ENOSPC" || errorCode(error) === "EDQUOT";
      const remedy = full ? `, free space in ${this.#spoolDirectory}` : "";
      const what = `cannot import "${name}"; nothing has changed${remedy}`;
      throw new LitefsError("IMPORT_FAILED", what, { cause: error });
    } finally {
      fs.rmSync(directory, { recursive: true, force: true });
    }
  }
}

async function runImport(
  source: string,
  destination: string,
  signal: AbortSignal,
): Promise<ImportOutcome> {
  const extension = import.meta.url.endsWith(".ts") ? ".ts" : ".js";
  const program = fileURLToPath(new URL(`./import-process${extension}`, import.meta.url));
  // The module for SQLite that Node brings along is said to be experimental at each start.
  const args = ["--disable-warning=ExperimentalWarning", program, source, destination];
  const child = spawn(process.execPath, args, {
    stdio: ["ignore", "pipe", "pipe"],
    signal,
    killSignal: "SIGKILL",
  });
  let output = "";
  let errors = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (errors += text));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  if (code !== 0) throw new Error(`the import process failed: ${lastLine(errors)} (exit ${code})`);
  return parseOutcome(output);
}

function parseOutcome(output: string): ImportOutcome {
  try {
    // Written by our own process, a few lines further down in this folder.
    // oxlint-disable-next-line typescript/no-unsafe-type-assertion
    return JSON.parse(output) as ImportOutcome;
  } catch (error) {
    throw new Error(`the import process answered ${JSON.stringify(output)}: ${errorText(error)}`, {
      cause: error,
    });
  }
}

function lastLine(text: string): string {
  // Behind what it says of an exception Node.js puts its version.
  const lines = text.trim().split("\n");
  return lines.findLast((line) => /Error/.test(line)) ?? lines.at(-1) ?? "";
}
