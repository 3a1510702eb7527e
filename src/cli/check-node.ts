import * as fs from "node:fs";
import * as os from "node:os";
import * as path from "node:path";
import { text } from "node:stream/consumers";
import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { errorText, LitefsError } from "../lib/errors.ts";
import { formatPosition, parsePosition, ZERO_POSITION } from "../lib/position.ts";
import type { Position } from "../lib/position.ts";
import { checkIntegrity } from "./check-integrity.ts";
import { checkLog } from "./check-log.ts";
import type { DatabaseCheck } from "./check-result.ts";
import { NodeClient } from "./node-client.ts";

/** A database that is being replaced while it is looked at is looked at again. */
const MAX_ATTEMPTS = 5;
const RETRY_DELAY_MS = 200;

export interface CheckNodeOptions {
  readonly url: string;
  /** Only this database. */
  readonly name?: string | undefined;
  /** The node's data directory as seen from here; by default what the node itself says. */
  readonly dataDirectory?: string | undefined;
}

/** One database as the node lists it. */
interface Listed {
  readonly name: string;
  readonly status: string;
  readonly reason: string;
  readonly pageCount: number;
}

/** Checks the databases of a running node while it serves. */
export async function checkNode(options: CheckNodeOptions): Promise<DatabaseCheck[]> {
  const client = new NodeClient(options.url);
  const databases = (await listDatabases(client)).filter(
    ({ name }) => options.name === undefined || name === options.name,
  );
  if (options.name !== undefined && databases.length === 0) {
    throw new LitefsError("check", `the node has no database "${options.name}"`);
  }
  const dataDirectory = options.dataDirectory ?? (await askDataDirectory(client));
  const results: DatabaseCheck[] = [];
  for (const database of databases) {
    results.push(await checkDatabase(client, database, dataDirectory));
  }
  return results;
}

async function checkDatabase(
  client: NodeClient,
  listed: Listed,
  dataDirectory: string,
): Promise<DatabaseCheck> {
  const { name, pageCount } = listed;
  const isDeleted = listed.status === "deleted";
  const base = { name, pageCount, isDeleted, transactionCount: undefined, notes: [] };
  if (listed.status === "quarantined") {
    return { ...base, position: ZERO_POSITION, problems: [`quarantined: ${listed.reason}`] };
  }
  const problems: string[] = [];
  const notes: string[] = [];
  let position = ZERO_POSITION;
  let isWrong = false;
  let log: ReturnType<typeof checkLog> | undefined;
  for (let attempt = 1; attempt <= MAX_ATTEMPTS; attempt++) {
    const answer = await askCheck(client, name);
    problems.length = 0;
    problems.push(...answer.problems);
    position = answer.position;
    const directory = path.join(dataDirectory, "dbs", name);
    if (!isReadable(directory)) {
      notes.push(`the log was not read: ${directory} cannot be read from here`);
      break;
    }
    log = checkLog(directory, position);
    problems.push(...log.problems);
    if (!log.hasPosition) {
      problems.push(
        `the log ends at ${formatPosition(log.end)} and does not have ${formatPosition(position)}`,
      );
    }
    // Wrong pages do not become right, and the node has quarantined the database for them by now.
    isWrong = answer.isWrong;
    if (problems.length === 0 || isWrong) break;
    await sleep(RETRY_DELAY_MS);
  }
  const canBeExported = !isDeleted && !isWrong && position.txid > 0;
  if (canBeExported) problems.push(...(await checkExport(client, name)));
  return { ...base, position, transactionCount: log?.transactionCount, problems, notes };
}

/** Asks the node to read every page. */
async function askCheck(
  client: NodeClient,
  name: string,
): Promise<{ position: Position; problems: string[]; isWrong: boolean }> {
  for (let attempt = 1; attempt <= MAX_ATTEMPTS; attempt++) {
    const answer = await askJson(client, "/check", { name });
    const position = parsePosition(textOf(answer["position"])) ?? ZERO_POSITION;
    switch (answer["result"]) {
      case "ok":
        return { position, problems: [], isWrong: false };
      case "mismatch": {
        const problem =
          `the pages have checksum ${textOf(answer["computed"])}, ` +
          `the position is ${formatPosition(position)}`;
        return { position, problems: [problem], isWrong: true };
      }
      case "failed":
        return {
          position,
          problems: [`cannot be read: ${textOf(answer["reason"])}`],
          isWrong: true,
        };
      default:
        await sleep(RETRY_DELAY_MS);
    }
  }
  return {
    position: ZERO_POSITION,
    problems: ["was replaced again and again while being checked"],
    isWrong: false,
  };
}

/** A consistent copy goes through SQLite's own check; the node serves on meanwhile. */
async function checkExport(client: NodeClient, name: string): Promise<string[]> {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "litefs-check-"));
  const file = path.join(directory, "database");
  try {
    const body = await client.request({ method: "GET", path: "/export", query: { name } });
    await pipeline(body, fs.createWriteStream(file));
    return checkIntegrity(file);
  } catch (error) {
    return [`cannot be exported: ${errorText(error)}`];
  } finally {
    fs.rmSync(directory, { recursive: true, force: true });
  }
}

async function askDataDirectory(client: NodeClient): Promise<string> {
  return textOf((await askJson(client, "/info"))["path"]);
}

async function listDatabases(client: NodeClient): Promise<Listed[]> {
  const store = (await askJson(client, "/debug/vars"))["store"];
  const databases = isObject(store) ? store["dbs"] : undefined;
  if (!isObject(databases)) throw new LitefsError("node-answer", "not a litefs node of ours");
  return Object.entries(databases).map(([name, value]) => {
    const database = isObject(value) ? value : {};
    return {
      name,
      status: textOf(database["status"]),
      reason: textOf(database["reason"]),
      pageCount: Number(database["pageCount"] ?? 0),
    };
  });
}

async function askJson(
  client: NodeClient,
  target: string,
  query: Readonly<Record<string, string>> = {},
): Promise<Record<string, unknown>> {
  const body = await text(await client.request({ method: "GET", path: target, query }));
  try {
    const value: unknown = JSON.parse(body);
    if (isObject(value)) return value;
  } catch (cause) {
    throw new LitefsError("node-answer", `bad answer to ${target}: not a litefs node?`, { cause });
  }
  throw new LitefsError("node-answer", `bad answer to ${target}: not a litefs node?`);
}

function isReadable(directory: string): boolean {
  try {
    fs.accessSync(directory, fs.constants.R_OK | fs.constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
