import { parseArguments } from "../../../src/cli/arguments.ts";
import { parseListenAddress } from "../../../src/cli/listen-address.ts";
import { parseDuration } from "../../../src/config/duration.ts";
import { expandEnv } from "../../../src/config/expand-env.ts";
import { parseConfig } from "../../../src/config/parse.ts";
import { splitShellWords } from "../../../src/config/shell-words.ts";
import { validateConfig } from "../../../src/config/validate.ts";
import { parseSegmentName, segmentName } from "../../../src/database/log/record.ts";
import { isDatabaseName, nameOf, parseName } from "../../../src/filesystem/names.ts";
import { parseMountinfo } from "../../../src/fuse/mountinfo.ts";
import { formatPosition, parsePosition } from "../../../src/lib/position.ts";
import { formatLtxFilename, parseLtxFilename } from "../../../src/ltx/filename.ts";
import * as fs from "node:fs";
import * as path from "node:path";
import { invariant, tokens } from "../target.ts";
import type { FuzzTarget } from "../target.ts";

/** What a terminal or a file holds need not be UTF-8. */
function textOf(input: Uint8Array): string {
  return Buffer.from(input).toString("utf8");
}

const EXAMPLE = path.join(import.meta.dirname, "../../../litefs.yml.example");

export const config: FuzzTarget = {
  name: "config",
  seeds: () => [
    ...tokens(
      "fuse: {dir: /litefs}\ndata: {dir: /data}\nlease: {type: static}\n",
      "a: &a [1, *a]\nb: {<<: *a}\nexec:\n  - cmd: 'sh -c \"x\"'\n    if-candidate: true\n",
      "data:\n  retention: 1h30m\n  compress: yes\nproxy:\n  passthrough: ['*.js', /a/]\n",
    ),
    new Uint8Array(fs.readFileSync(EXAMPLE)),
  ],
  dictionary: tokens(
    ..."data: dir: fuse: lease: type: static exec: cmd: proxy: http: addr: log: [ ] { } &a *a << ! | > ' \" # - ? --- ... ~ null true 0x1f 1e400 .inf !!binary !!float %YAML $HOME ${X} \\x".split(
      " ",
    ),
    "\n",
    "  ",
    "\t",
  ),
  maxBytes: 16 * 1024,
  run(input) {
    const expanded = expandEnv(textOf(input), { X: "x", HOME: "/root" });
    const machine = { hostname: "host", currentDirectory: "/" };
    validateConfig(parseConfig(expanded, "litefs.yml"), machine);
  },
};

export const durations: FuzzTarget = {
  name: "durations",
  seeds: () => tokens("1h30m", "1.5s", "100ms", "0", "+1us", "292y", ".5h", "1000000000000h"),
  dictionary: tokens(..."0 9 . + - ns us µs ms s m h e".split(" ")),
  run(input) {
    const durationMs = parseDuration(textOf(input));
    invariant(
      durationMs === undefined || (Number.isFinite(durationMs) && durationMs >= 0),
      "a duration is no time",
    );
  },
};

export const shellWords: FuzzTarget = {
  name: "shell-words",
  seeds: () => tokens("node server.js", `sh -c "echo 'a b'" c\\ d`, "a\\tb 'x\\y' \"\""),
  dictionary: tokens(..."' \" \\ ; & | < > ( ) ` $".split(" "), " ", "\n"),
  run(input) {
    const words = splitShellWords(textOf(input));
    if (words === undefined) return;
    const quoted = words.map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(" ");
    invariant(
      JSON.stringify(splitShellWords(quoted)) === JSON.stringify(words),
      "quoted words are other words",
    );
  },
};

/** Arguments are separated by NUL, as the kernel hands them over. */
export const cliArguments: FuzzTarget = {
  name: "cli-arguments",
  seeds: () =>
    tokens("-config\0x.yml\0--\0sh\0-c\0true", "--debug=false\0-name=a=b\0pos", "-h", "-\0--x"),
  dictionary: tokens("-", "--", "=", "\0", "config", "debug", "true", "__proto__", "constructor"),
  run(input) {
    const args = textOf(input).split("\0");
    const { flags } = parseArguments(args, { config: "", debug: false, name: "" });
    invariant(Object.keys(flags).length === 3, "a flag came from nowhere");
    parseListenAddress(args[0] ?? "");
  },
};

/** Names of databases and of files, positions and mounts: texts that become paths. */
export const names: FuzzTarget = {
  name: "names",
  seeds: () =>
    tokens(
      "app.db",
      "app.db-journal",
      "a-wal-pos",
      "0000000000000001-00000000000000ff.ltx",
      "000000000000000a.seg",
      "0000000000000001/8000000000000000",
      "36 35 0:49 / /litefs\\040x rw - fuse litefs rw",
    ),
  dictionary: tokens("..", ".", "/", "\0", "-shm", "-lock", ".lag", ".primary", "é", "\ud7ff"),
  run(input) {
    const text = textOf(input);
    const parsed = parseName(text);
    if (parsed.kind === "file") {
      invariant(nameOf(parsed.database, parsed.file) === text, "a name does not lead back");
      const joined = path.join("/data/dbs", parsed.database);
      invariant(joined === `/data/dbs/${parsed.database}`, "a name leaves its directory");
      invariant(isDatabaseName(parsed.database), "a name is no name");
    }
    const range = parseLtxFilename(text);
    if (range !== undefined) {
      invariant(formatLtxFilename(range.minTxid, range.maxTxid) === text, "an LTX name differs");
    }
    const segment = parseSegmentName(text);
    if (segment !== undefined) invariant(segmentName(segment) === text, "a segment name differs");
    const position = parsePosition(text);
    if (position !== undefined) {
      invariant(formatPosition(position) === text.toLowerCase(), "a position differs");
    }
    parseMountinfo(text);
  },
};
