import * as fs from "node:fs";
import * as path from "node:path";
import { gunzipSync } from "node:zlib";

const FIXTURES = path.join(import.meta.dirname, "../fixtures/litefs-0.5.14");
const TAR_BLOCK_BYTES = 512;

/** Larger files make for slow inputs and teach nothing new. */
const MAX_SEED_BYTES = 40 * 1024;

function load(folder: string, matches: (name: string) => boolean): Uint8Array[] {
  const directory = path.join(FIXTURES, folder);
  return fs
    .readdirSync(directory)
    .sort()
    .filter(matches)
    .map((name) => new Uint8Array(fs.readFileSync(path.join(directory, name))))
    .filter((bytes) => bytes.length <= MAX_SEED_BYTES);
}

/** Transactions that LiteFS wrote, the first ones of a history in order. */
export function ltxSeeds(history: "raw-4096" | "delete-1024" | "drop-4096"): Uint8Array[] {
  return load(`${history}/ltx`, (name) => name.endsWith(".ltx"));
}

export function streamSeeds(kind: "request" | "response"): Uint8Array[] {
  return load("stream", (name) => name.endsWith(`.${kind}.bin`));
}

export function importSeeds(): Uint8Array[] {
  return load("http/tx-import", (name) => name.endsWith(".bin"));
}

/** A WAL of several transactions. */
export function walSeed(): Uint8Array {
  const packed = fs.readFileSync(path.join(FIXTURES, "raw-4096/wal/01.wal.gz"));
  return new Uint8Array(gunzipSync(packed)).slice(0, 32 + 8 * (24 + 4096));
}

export function databaseSeed(history: "raw-4096" | "delete-1024"): Uint8Array {
  return new Uint8Array(fs.readFileSync(path.join(FIXTURES, history, "export.db")));
}

/** Data directories that LiteFS left: the files of one database each, by path below it. */
export function directorySeeds(): Map<string, Uint8Array>[] {
  const directory = path.join(FIXTURES, "data-dir");
  return fs
    .readdirSync(directory)
    .sort()
    .filter((name) => name.endsWith(".tar"))
    .flatMap((name) => databasesInTar(new Uint8Array(fs.readFileSync(path.join(directory, name)))));
}

/** Only what these archives use: plain files with short names. */
function databasesInTar(tar: Uint8Array): Map<string, Uint8Array>[] {
  const databases = new Map<string, Map<string, Uint8Array>>();
  const text = (start: number, length: number): string =>
    Buffer.from(tar.subarray(start, start + length))
      .toString("latin1")
      .replace(/\0.*$/s, "");
  for (let at = 0; at + TAR_BLOCK_BYTES <= tar.length;) {
    const name = text(at, 100);
    if (name === "") break;
    const sizeBytes = Number.parseInt(text(at + 124, 12), 8);
    const content = tar.slice(at + TAR_BLOCK_BYTES, at + TAR_BLOCK_BYTES + sizeBytes);
    const match = /\/dbs\/([^/]+)\/(.+[^/])$/.exec(name);
    if (match !== null) {
      const [, database = "", file = ""] = match;
      const files = databases.get(database) ?? new Map<string, Uint8Array>();
      files.set(file, content);
      databases.set(database, files);
    }
    at += TAR_BLOCK_BYTES * (1 + Math.ceil(sizeBytes / TAR_BLOCK_BYTES));
  }
  return [...databases.values()];
}
