import type { FuzzTarget } from "../target.ts";
import { apply, dataDirectory, logRecords } from "./engine.ts";
import { fuseCalls, fuseRequests } from "./fuse.ts";
import { ltx, lz4Block, lz4Frame } from "./ltx.ts";
import { databaseHeader, journal, wal, walIndex } from "./sqlite-files.ts";
import { httpConnection, streamClient } from "./network.ts";
import { acknowledgements, positionMap, streamFrames } from "./stream.ts";
import { cliArguments, config, durations, names, shellWords } from "./text.ts";

export const TARGETS: readonly FuzzTarget[] = [
  ltx,
  lz4Frame,
  lz4Block,
  streamFrames,
  positionMap,
  acknowledgements,
  journal,
  wal,
  walIndex,
  databaseHeader,
  logRecords,
  dataDirectory,
  apply,
  fuseCalls,
  fuseRequests,
  streamClient,
  httpConnection,
  config,
  durations,
  shellWords,
  cliArguments,
  names,
];

export function targetNamed(name: string): FuzzTarget {
  const target = TARGETS.find((other) => other.name === name);
  if (target === undefined) {
    throw new Error(`no target ${name}; there are ${TARGETS.map((t) => t.name).join(", ")}`);
  }
  return target;
}
