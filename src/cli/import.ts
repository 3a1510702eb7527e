import * as fs from "node:fs";
import * as path from "node:path";
import { errorCode, LitefsError } from "../lib/errors.ts";
import { parseArguments, UsageError } from "./arguments.ts";
import type { Command } from "./context.ts";
import { EXIT_OK } from "./exit-codes.ts";
import { COMMAND_USAGE, printUsage } from "./help.ts";
import { DEFAULT_URL, NodeClient } from "./node-client.ts";
import { Progress } from "./progress.ts";

/** Sends an SQLite file to the primary, where it becomes one transaction. */
export const importCommand: Command = async (args, context) => {
  const { flags, positionals, help } = parseArguments(args, { name: "", url: DEFAULT_URL });
  if (help) return printUsage(context, COMMAND_USAGE["import"] ?? "");
  const [file] = positionals;
  if (flags.name === "") throw new UsageError("flag -name is required");
  if (file === undefined || positionals.length > 1) throw new UsageError("one PATH is required");
  const client = new NodeClient(flags.url);

  const source = path.resolve(context.currentDirectory, file);
  const totalBytes = checkDatabaseFile(source);
  const progress = new Progress({
    label: `importing ${flags.name}`,
    totalBytes,
    isTerminal: context.isTerminal,
    write: (text) => context.printError(text),
  });
  const body = fs.createReadStream(source, { highWaterMark: 1 << 18 });
  try {
    body.once("error", (error) => progress.destroy(error));
    const query = { name: flags.name };
    const request = { method: "POST", path: "/import", query, body: body.pipe(progress) } as const;
    (await client.request(request)).resume();
  } catch (error) {
    progress.abandon();
    throw error;
  } finally {
    body.destroy();
  }
  progress.finish();
  return EXIT_OK;
};

/** What would be lost or refused is found before anything is sent. Returns the size in bytes. */
function checkDatabaseFile(file: string): number {
  const problem = (text: string, options?: ErrorOptions): LitefsError =>
    new LitefsError("import-file", `cannot import ${file}: ${text}`, options);
  const head = Buffer.alloc(16);
  let size: number;
  try {
    const fd = fs.openSync(file, "r");
    try {
      size = fs.fstatSync(fd).size;
      fs.readSync(fd, head, 0, head.length, 0);
    } finally {
      fs.closeSync(fd);
    }
  } catch (error) {
    if (errorCode(error) === "ENOENT") throw problem("no such file");
    throw problem("it cannot be read", { cause: error });
  }
  if (head.toString("latin1") !== "SQLite format 3\0") throw problem("not an SQLite database");
  for (const suffix of ["-wal", "-journal"]) {
    const sizeBytes = fs.statSync(file + suffix, { throwIfNoEntry: false })?.size ?? 0;
    if (sizeBytes === 0) continue;
    const remedy = `sqlite3 ${file} "PRAGMA wal_checkpoint(TRUNCATE)"`;
    throw problem(`transactions are still in ${file}${suffix}; close its users and run ${remedy}`);
  }
  return size;
}
