import { type MessagePort, receiveMessageOnPort, workerData } from "node:worker_threads";
import { silentLogger } from "../../../src/lib/log.ts";
import { FuseSession } from "../../../src/fuse/session.ts";
import { MemoryFileSystem } from "./memory-filesystem.ts";

export interface WorkerInput {
  readonly fd: number;
  readonly commands: MessagePort;
  readonly posixLocks: boolean;
  readonly spinMs: number;
}

const input: WorkerInput = workerData;
const { fd, commands, posixLocks, spinMs } = input;
const report = (event: unknown): void => commands.postMessage(event, []);
const handler = new MemoryFileSystem(report, () => {
  const command: unknown = receiveMessageOnPort(commands)?.message;
  report({ kind: "wake", command });
  if (command === "stop") session.stop();
  if (command === "fail") throw new Error("a mistake of the handler's");
});
const session = new FuseSession({ fd, handler, logger: silentLogger, posixLocks, spinMs });
report({ kind: "end", reason: run() });
commands.close();

/** As the mount thread does. */
function run(): string {
  try {
    return session.run();
  } catch (error) {
    report({ kind: "failed", text: String(error) });
    session.refuseAll(() => false);
    return "aborted";
  }
}
