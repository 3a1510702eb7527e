import { randomInt } from "node:crypto";
import * as net from "node:net";

/*
 * Below the range from which Linux takes ports for outgoing connections (32768-60999): a port
 * of that range that was free a moment ago may be the near end of somebody's connection when the
 * server that shall have it starts, or be handed out again by the next call.
 */
const FIRST_PORT = 20_000;
const LAST_PORT = 32_000;

const handedOut = new Set<number>();

/** Ports of the loopback that nothing listens on; none is handed out twice in one process. */
export async function freePorts(count: number): Promise<number[]> {
  const ports: number[] = [];
  while (ports.length < count) {
    if (handedOut.size > (LAST_PORT - FIRST_PORT) / 2) throw new Error("no ports are left");
    const port = randomInt(FIRST_PORT, LAST_PORT);
    if (handedOut.has(port)) continue;
    handedOut.add(port);
    if (await isFree(port)) ports.push(port);
  }
  return ports;
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const server = net.createServer();
    server.once("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "EADDRINUSE") resolve(false);
      else reject(error);
    });
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}
