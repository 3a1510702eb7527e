import { createHash } from "node:crypto";
import * as fs from "node:fs";
import * as path from "node:path";
import { decodeLtx } from "../../../src/ltx/decode-ltx.ts";
import { StreamParser } from "../../../src/wire/stream-parser.ts";
import type { FakeEngine } from "../../support/fake-engine.ts";

const ROOT = path.join(import.meta.dirname, "../../fixtures/litefs-0.5.14/stream");

export interface Capture {
  readonly name: string;
  readonly what: string;
  readonly request: Buffer;
  readonly response: Buffer;
  readonly path: string;
  readonly status: number;
  readonly clientAfter: Readonly<
    Record<string, { readonly pos: string; readonly sha256: string | null }>
  >;
}

interface CaptureJson {
  readonly what: string;
  readonly request: { readonly headers: readonly (readonly [string, string])[] };
  readonly response: { readonly status: number };
  readonly clientAfter?: Capture["clientAfter"];
}

export function readCapture(name: string): Capture {
  const json: CaptureJson = JSON.parse(fs.readFileSync(path.join(ROOT, `${name}.json`), "utf8"));
  const header = json.request.headers.find(([key]) => key === ":path");
  return {
    name,
    what: json.what,
    request: fs.readFileSync(path.join(ROOT, `${name}.request.bin`)),
    response: fs.readFileSync(path.join(ROOT, `${name}.response.bin`)),
    path: header?.[1] ?? "/stream",
    status: json.response.status,
    clientAfter: json.clientAfter ?? {},
  };
}

/** All LTX files of one database of a recorded state, in order. */
export function stateFiles(state: "state-1" | "state-2", database: string): Buffer[] {
  const directory = path.join(ROOT, state, database, "ltx");
  return fs
    .readdirSync(directory)
    .sort()
    .map((file) => fs.readFileSync(path.join(directory, file)));
}

export function loadState2(engine: FakeEngine): void {
  for (const name of ["app.db", "second.db", "deleted.db"]) {
    engine.load(name, stateFiles("state-2", name));
  }
  engine.database("zero.db");
}

/** A frame with everything that does not differ from run to run. */
export type PlainFrame = Readonly<Record<string, unknown>> & { readonly type: string };

export function plainFrames(bytes: Uint8Array): PlainFrame[] {
  const frames: PlainFrame[] = [];
  const parser = new StreamParser();
  let name = "";
  let parts: Uint8Array[] = [];
  for (const frame of parser.push(bytes)) {
    switch (frame.type) {
      case "ltx-begin":
        name = frame.name;
        parts = [];
        break;
      case "ltx-data":
        parts.push(frame.bytes);
        break;
      case "ltx-end":
        frames.push({ type: "ltx", name, ...plainLtx(Buffer.concat(parts)) });
        break;
      case "heartbeat":
        frames.push({ type: "heartbeat" });
        break;
      default:
        frames.push(frame);
    }
  }
  parser.end();
  return frames;
}

function plainLtx(bytes: Uint8Array): Readonly<Record<string, unknown>> {
  const { header, pages, trailer } = decodeLtx(new Uint8Array(bytes));
  const isSnapshot = header.minTxid === 1;
  const hash = createHash("sha256");
  for (const { data } of pages) hash.update(data);
  return {
    pageSize: header.pageSize,
    commit: header.commit,
    minTxid: header.minTxid,
    maxTxid: header.maxTxid,
    preApplyChecksum: header.preApplyChecksum,
    postApplyChecksum: trailer.postApplyChecksum,
    pgnos: pages.map(({ pgno }) => pgno),
    pagesSha256: hash.digest("hex"),
    // A snapshot carries the sender and the moment of sending.
    timestampMs: isSnapshot ? "now" : header.timestampMs,
    nodeId: isSnapshot ? "sender" : header.nodeId,
  };
}

/** The order between databases means nothing; that within one database does. */
export function byDatabase(frames: readonly PlainFrame[]): PlainFrame[] {
  const ready = frames.findIndex(({ type }) => type === "ready");
  const initial = frames.slice(0, ready);
  const named = (frame: PlainFrame): string => String(frame["name"]);
  const sorted = initial
    .map((frame, index) => ({ frame, index }))
    .sort((a, b) =>
      named(a.frame) === named(b.frame)
        ? a.index - b.index
        : named(a.frame) < named(b.frame)
          ? -1
          : 1,
    );
  return [...sorted.map(({ frame }) => frame), ...frames.slice(ready)];
}
