import { AcknowledgementParser, encodeAcknowledgement } from "../../../src/wire/acknowledgement.ts";
import { CHUNK_END, encodeChunks } from "../../../src/wire/chunk.ts";
import type { StreamFrame } from "../../../src/wire/frames.ts";
import { formatPosition } from "../../../src/lib/position.ts";
import { decodePositionMap, encodePositionMap } from "../../../src/wire/position-map.ts";
import {
  encodeDropDatabase,
  encodeEnd,
  encodeHandoff,
  encodeHeartbeat,
  encodeHwm,
  encodeLtxBegin,
  encodeReady,
} from "../../../src/wire/stream-encoder.ts";
import { StreamParser } from "../../../src/wire/stream-parser.ts";
import { streamSeeds } from "../seeds.ts";
import { invariant, tokens } from "../target.ts";
import type { FuzzTarget } from "../target.ts";
import { outcomeOf, portionsOf } from "./ltx.ts";

export const streamFrames: FuzzTarget = {
  name: "stream-frames",
  seeds: () => [
    ...streamSeeds("response"),
    new Uint8Array(
      Buffer.concat([encodeHandoff("lease/1"), encodeHwm("app.db", 7), encodeHeartbeat(1e12)]),
    ),
  ],
  dictionary: [encodeReady(), encodeEnd(), encodeDropDatabase("a"), encodeLtxBegin("b"), CHUNK_END],
  run(input) {
    const whole = outcomeOf(() => parse([input]));
    const cut = outcomeOf(() => parse(portionsOf(input)));
    invariant("value" in whole === "value" in cut, "the result depends on the portions");
    if ("code" in whole || "code" in cut) return;
    invariant(whole.value.length === cut.value.length, "the frames depend on the portions");
    const encoded = Buffer.concat(whole.value.map((frame) => encode(frame)));
    const again = parse([encoded]);
    invariant(describe(again) === describe(whole.value), "the frames differ after a round trip");
  },
};

/** Frames with the data of each LTX in one piece. */
function parse(portions: readonly Uint8Array[]): StreamFrame[] {
  const frames: StreamFrame[] = [];
  let pieces: Uint8Array[] = [];
  const parser = new StreamParser();
  for (const portion of portions) {
    for (const frame of parser.push(portion)) {
      if (frame.type === "ltx-data") {
        pieces.push(frame.bytes.slice());
        continue;
      }
      if (pieces.length > 0) frames.push({ type: "ltx-data", bytes: Buffer.concat(pieces) });
      pieces = [];
      frames.push(frame);
    }
  }
  parser.end();
  return frames;
}

function encode(frame: StreamFrame): Uint8Array {
  switch (frame.type) {
    case "ltx-begin":
      return encodeLtxBegin(frame.name);
    case "ltx-data":
      return encodeChunks(frame.bytes);
    case "ltx-end":
      return CHUNK_END;
    case "ready":
      return encodeReady();
    case "end":
      return encodeEnd();
    case "drop-database":
      return encodeDropDatabase(frame.name);
    case "handoff":
      return encodeHandoff(frame.leaseId);
    case "hwm":
      return encodeHwm(frame.name, frame.txid);
    case "heartbeat":
      return encodeHeartbeat(frame.timestampMs);
  }
}

function describe(frames: readonly StreamFrame[]): string {
  return frames
    .map((frame) =>
      frame.type === "ltx-data"
        ? Buffer.from(frame.bytes).toString("latin1")
        : JSON.stringify(frame),
    )
    .join("\n");
}

export const positionMap: FuzzTarget = {
  name: "position-map",
  seeds: () => streamSeeds("request"),
  dictionary: tokens("app.db", "\0\0\0\x06", "\0\0\0\x01", "..", "/"),
  run(input) {
    const entries = decodePositionMap(input);
    const again = decodePositionMap(encodePositionMap(entries));
    const sorted = entries.toSorted((a, b) =>
      Buffer.compare(Buffer.from(a.name), Buffer.from(b.name)),
    );
    const text = (list: typeof entries): string =>
      JSON.stringify(list, (_key, value: unknown) =>
        typeof value === "bigint" ? String(value) : value,
      );
    invariant(text(again) === text(sorted), "the positions differ after a round trip");
  },
};

export const acknowledgements: FuzzTarget = {
  name: "acknowledgements",
  seeds: () =>
    [1, 2].map((count) => {
      const entry = { name: "app.db", position: { txid: 7, checksum: 0x8000000000000001n } };
      const entries = [entry, { ...entry, name: "other.db" }].slice(0, count);
      return Buffer.concat([encodeAcknowledgement(entries), encodeAcknowledgement([entry])]);
    }),
  dictionary: tokens("app.db", "\0\0\0\x06", "\0\0\0\x01", "\0\x10\0\0"),
  run(input) {
    const positions = (portions: readonly Uint8Array[]): string => {
      const parser = new AcknowledgementParser();
      const entries = portions.flatMap((portion) => parser.push(portion));
      return entries.map(({ name, position }) => `${name} ${formatPosition(position)}`).join();
    };
    const whole = outcomeOf(() => positions([input]));
    const cut = outcomeOf(() => positions(portionsOf(input)));
    invariant(JSON.stringify(whole) === JSON.stringify(cut), "it depends on the portions");
  },
};
