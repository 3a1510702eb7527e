import { parseArguments, refusePositionals } from "./arguments.ts";
import type { Command } from "./context.ts";
import { EXIT_OK } from "./exit-codes.ts";
import { COMMAND_USAGE, printUsage } from "./help.ts";
import { DEFAULT_URL, NodeClient } from "./node-client.ts";

type Members = Readonly<Record<string, unknown>>;

/** Shows what a node is to its cluster, and where its databases stand. */
export const statusCommand: Command = async (args, context) => {
  const { flags, positionals, help } = parseArguments(args, { url: DEFAULT_URL, json: false });
  if (help) return printUsage(context, COMMAND_USAGE["status"] ?? "");
  refusePositionals(positionals);
  const status = await new NodeClient(flags.url).status();
  context.print(flags.json ? `${JSON.stringify(status, undefined, 2)}\n` : describe(status));
  return EXIT_OK;
};

function describe(status: Members): string {
  const rows: string[][] = [
    ["node", `${text(status["hostname"])} (${text(status["nodeID"])})`],
    ["role", text(status["role"])],
    ["primary", primaryText(status)],
    ["lease", leaseText(members(status["lease"]))],
    ["candidate", text(status["candidate"])],
    ["ready", text(status["ready"])],
    ["cluster", text(status["clusterID"]) || "none yet"],
    ["lag", lagText(status["lagMs"])],
    ...syncRows(members(status["sync"])),
  ];
  const databases = list(status["databases"]).map((database) => [
    text(database["name"]),
    text(database["status"]),
    text(database["position"]),
    `${text(database["sizeBytes"])} bytes`,
    ...(Number(database["divergedHistories"]) > 0
      ? [`${text(database["divergedHistories"])} diverged`]
      : []),
    ...loanText(database),
  ]);
  const replicas = list(status["replicas"]).map((replica) => [
    text(replica["hostname"]) || text(replica["nodeID"]),
    replica["candidate"] === true ? "candidate" : "replica",
    `${text(replica["unsentTransactions"])} transactions behind`,
    `since ${text(replica["connectedAt"])}`,
    ...(replica["acknowledges"] === true ? ["acknowledges"] : []),
  ]);
  return (
    table(rows) +
    (databases.length === 0 ? "" : `\ndatabases\n${table(databases)}`) +
    (replicas.length === 0 ? "" : `\nreplicas\n${table(replicas)}`)
  );
}

/** Who may write it, when that is not simply the primary. */
function loanText(database: Members): string[] {
  const lentTo = members(database["lentTo"]);
  const borrowed = members(database["borrowed"]);
  if (borrowed !== undefined) return [`borrowed for ${text(borrowed["heldForMs"])} ms`];
  if (lentTo === undefined) return [];
  const node = text(lentTo["hostname"]) || text(lentTo["nodeID"]);
  return [`lent to ${node} for ${text(lentTo["heldForMs"])} ms`];
}

function primaryText(status: Members): string {
  if (status["isPrimary"] === true) return "this node";
  const primary = members(status["primary"]);
  if (primary === undefined) return "none known";
  return `${text(primary["hostname"])} (${text(primary["url"])})`;
}

function leaseText(lease: Members | undefined): string {
  if (lease === undefined) return "";
  const { ageMs, remainingMs } = lease;
  if (typeof ageMs !== "number" || typeof remainingMs !== "number") return text(lease["type"]);
  const seconds = (ms: number): string => (ms / 1000).toFixed(1);
  return `${text(lease["type"])}, held for ${seconds(ageMs)} s, covered for ${seconds(remainingMs)} s`;
}

/** Of commits that wait for replicas: how many are there, and what comes of it if too few are. */
function syncRows(sync: Members | undefined): string[][] {
  if (sync === undefined) return [];
  const names = (value: unknown): string =>
    Array.isArray(value) ? value.map(text).join(", ") : "";
  const fenced = names(sync["fenced"]);
  const degraded = names(sync["degraded"]);
  const troubles = [
    ...(fenced === "" ? [] : [`nobody may write: ${fenced}`]),
    ...(degraded === "" ? [] : [`commits do not wait: ${degraded}`]),
  ];
  const replicas = `${text(sync["replicas"])} replicas acknowledge`;
  return [["sync", [replicas, ...troubles].join("; ")]];
}

/** A replica that was never in sync shows the largest number there is. */
function lagText(lagMs: unknown): string {
  if (typeof lagMs !== "number") return "";
  return lagMs === 2 ** 31 - 1 ? "never in sync" : `${lagMs} ms`;
}

function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length);
  }
  const line = (row: readonly string[]): string =>
    row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join("  ");
  return rows.map((row) => `${line(row).trimEnd()}\n`).join("");
}

function text(value: unknown): string {
  const isPlain = typeof value === "string" || typeof value === "number";
  return isPlain || typeof value === "boolean" ? String(value) : "";
}

function members(value: unknown): Members | undefined {
  return typeof value === "object" && value !== null ? { ...value } : undefined;
}

function list(value: unknown): Members[] {
  return Array.isArray(value) ? value.map(members).filter((member) => member !== undefined) : [];
}
