import * as os from "node:os";
import { dispatch } from "./dispatch.ts";

// The entry of the program; bin/litefs starts it.

// Nobody reading our output any more is no reason for a node to die with databases mounted.
for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined);

// Read by Node.js at its start, and set for this process alone: bin/litefs says why.
if (process.env["LITEFS_SET_THREADPOOL"] === "1") {
  delete process.env["UV_THREADPOOL_SIZE"];
  delete process.env["LITEFS_SET_THREADPOOL"];
}

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
