import * as fs from "node:fs";
import * as net from "node:net";
import * as path from "node:path";
import { errorCode, errorText, LitefsError } from "../lib/errors.ts";
import { makeDirectories } from "../lib/make-directories.ts";

/** A Unix socket path may not be longer than this. */
const SOCKET_PATH_MAX_BYTES = 107;

/** Where its databases are. A directory without that is not one of litefs, and is left as it is. */
export function databasesIn(dataDirectory: string, command: string): string {
  const databases = path.join(dataDirectory, "dbs");
  if (fs.existsSync(databases)) return databases;
  throw new LitefsError(command, `${dataDirectory} is not a data directory of litefs`);
}

/** The data directory while this process alone uses it. */
export interface DataDirectoryClaim {
  release(): Promise<void>;
}

/**
 * Creates the data directory if need be and claims it. The claim is a listening socket inside of
 * it: it vanishes with the process however that ends, and works across containers that share the
 * volume, which a file with a process id does not.
 */
export async function claimDataDirectory(directory: string): Promise<DataDirectoryClaim> {
  try {
    makeDirectories(directory);
    fs.accessSync(directory, fs.constants.W_OK | fs.constants.X_OK);
    const probe = path.join(directory, ".write-test");
    fs.writeFileSync(probe, "");
    fs.rmSync(probe);
  } catch (cause) {
    throw new LitefsError(
      "DATA_DIR_UNUSABLE",
      `cannot write to data directory ${directory}: ${reasonOf(cause)}; ` +
        `set data.dir to a directory that this user may write`,
      { cause },
    );
  }
  return await claim(path.join(directory, "lock.sock"), directory);
}

async function claim(socketPath: string, directory: string): Promise<DataDirectoryClaim> {
  // Longer paths are reached through the descriptor of the directory.
  const fd = fs.openSync(directory, fs.constants.O_RDONLY | fs.constants.O_DIRECTORY);
  const address =
    Buffer.byteLength(socketPath) <= SOCKET_PATH_MAX_BYTES
      ? socketPath
      : `/proc/self/fd/${fd}/lock.sock`;
  try {
    const server = (await listen(address)) ?? (await takeOver(address, socketPath, directory));
    server.unref();
    return {
      release: async () => {
        await new Promise((resolve) => server.close(resolve));
        fs.closeSync(fd);
      },
    };
  } catch (error) {
    fs.closeSync(fd);
    throw error;
  }
}

/** Undefined when the address is taken. */
function listen(address: string): Promise<net.Server | undefined> {
  return new Promise((resolve, reject) => {
    const server = net.createServer((socket) => socket.destroy());
    server.once("error", (error) => {
      if (errorCode(error) === "EADDRINUSE") resolve(undefined);
      else reject(error);
    });
    server.listen(address, () => resolve(server));
  });
}

/** A socket nobody listens on is what a killed predecessor left. */
async function takeOver(
  address: string,
  socketPath: string,
  directory: string,
): Promise<net.Server> {
  if (!(await isAlive(address))) {
    fs.rmSync(socketPath, { force: true });
    const server = await listen(address);
    if (server !== undefined) return server;
  }
  throw new LitefsError(
    "DATA_DIR_IN_USE",
    `data directory ${directory} is in use by another litefs; stop it, or set data.dir to ` +
      `another directory`,
  );
}

function isAlive(address: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(address);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

function reasonOf(cause: unknown): string {
  return errorCode(cause) ?? errorText(cause);
}
