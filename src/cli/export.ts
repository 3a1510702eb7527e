import * as fs from "node:fs";
import * as path from "node:path";
import { pipeline } from "node:stream/promises";
import { nodeFiles } from "../database/files.ts";
import { LitefsError } from "../lib/errors.ts";
import { parseArguments, UsageError } from "./arguments.ts";
import type { Command } from "./context.ts";
import { EXIT_OK } from "./exit-codes.ts";
import { COMMAND_USAGE, printUsage } from "./help.ts";
import { DEFAULT_URL, NodeClient } from "./node-client.ts";
import { Progress } from "./progress.ts";

/** Where the file is to be put: it takes the place of a file, and of nothing else. */
function regularTarget(file: string): string {
  if (!fs.existsSync(file)) return file;
  const target = fs.realpathSync(file);
  if (fs.statSync(target).isFile()) return target;
  throw new LitefsError("export", `${file} is not a regular file, give the path of one`);
}

/** Downloads a database into a file of its own, and puts it in place when it is whole. */
export const exportCommand: Command = async (args, context) => {
  const { flags, positionals, help } = parseArguments(args, { name: "", url: DEFAULT_URL });
  if (help) return printUsage(context, COMMAND_USAGE["export"] ?? "");
  const [file] = positionals;
  if (flags.name === "") throw new UsageError("flag -name is required");
  if (file === undefined || positionals.length > 1) throw new UsageError("one PATH is required");
  const client = new NodeClient(flags.url);

  const target = regularTarget(path.resolve(context.currentDirectory, file));
  const query = { name: flags.name };
  const body = await client.request({ method: "GET", path: "/export", query });
  const progress = new Progress({
    label: `exporting ${flags.name}`,
    isTerminal: context.isTerminal,
    write: (text) => context.printError(text),
  });
  const temporary = `${target}.tmp`;
  try {
    // Flushed to the disk before it closes, so that the rename never outruns the content.
    await pipeline(body, progress, fs.createWriteStream(temporary, { flush: true }));
    checkComplete(temporary);
    putInPlace(temporary, target);
  } catch (error) {
    progress.abandon();
    fs.rmSync(temporary, { force: true });
    if (error instanceof LitefsError) throw error;
    throw new LitefsError("export", `cannot export ${flags.name} to ${target}`, { cause: error });
  }
  progress.finish();
  return EXIT_OK;
};

/** A node has no other way to report a failure half way than to end the body early. */
export function checkComplete(file: string): void {
  const content = fs.openSync(file, "r");
  try {
    const { size } = fs.fstatSync(content);
    const header = Buffer.alloc(100);
    const length = fs.readSync(content, header, 0, header.length, 0);
    const expected = length === header.length ? databaseSizeBytes(header) : undefined;
    // A database that has no page yet is a file without a byte.
    if (size === expected || size === 0) return;
    const problem = `the node sent ${size} bytes, which is not a whole database; nothing was changed`;
    throw new LitefsError("export-incomplete", problem);
  } finally {
    fs.closeSync(content);
  }
}

/**
 * Of the database header: bytes 0–15 magic, 16–17 page size (1 means 65,536), 28–31 page count.
 * Undefined when it is none.
 */
function databaseSizeBytes(header: Buffer): number | undefined {
  if (header.toString("latin1", 0, 16) !== "SQLite format 3\0") return undefined;
  const pageSize = header.readUInt16BE(16);
  return (pageSize === 1 ? 65536 : pageSize) * header.readUInt32BE(28);
}

/** The journal, WAL and wal-index belong to the old file; SQLite would apply them to the new one. */
function putInPlace(temporary: string, target: string): void {
  for (const suffix of ["-journal", "-wal", "-shm"]) fs.rmSync(target + suffix, { force: true });
  fs.renameSync(temporary, target);
  nodeFiles.syncDirectory(path.dirname(target));
}
