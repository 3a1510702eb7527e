import * as os from "node:os";
import { dispatch } from "./dispatch.ts";

// The entry of the program; bin/litefs starts it.

// Nobody reading our output any more is no reason for a node to die with databases mounted.
for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined);

const exitCode = await dispatch(process.argv.slice(2), {
  env: process.env,
  currentDirectory: process.cwd(),
  homeDirectory: os.homedir(),
  hostname: os.hostname(),
  print: (text) => process.stdout.write(text),
  printError: (text) => process.stderr.write(text),
  isTerminal: process.stderr.isTTY,
});
// Nothing may keep the process alive now, neither a socket nor a worker. What was printed first
// has to reach a slow pipe, which is what the empty writes wait for.
await Promise.all(
  [process.stdout, process.stderr].map(
    (stream) => new Promise<void>((resolve) => stream.write("", () => resolve())),
  ),
);
process.exit(exitCode);
