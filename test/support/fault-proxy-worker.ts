import * as net from "node:net";
import { parentPort, workerData } from "node:worker_threads";

/*
 * The thread of a FaultProxy. On its own, because a test that waits inside SQLite would hold up a
 * proxy on the same thread, and with it the answer it waits for.
 */

/** What happens to the bytes of one direction. */
export type Direction = "pass" | "drop" | "hold";

export interface Faults {
  readonly latencyMs: number;
  readonly toServer: Direction;
  readonly toClient: Direction;
  /** New connections are refused. */
  readonly isCut: boolean;
}

export type ProxyCommand =
  | { readonly type: "faults"; readonly id: number; readonly faults: Faults }
  /** Ends every open connection. */
  | { readonly type: "reset"; readonly id: number }
  | { readonly type: "counts"; readonly id: number };

export interface ProxyAnswer {
  readonly id: number;
  readonly port?: number;
  /** Bytes that a client has sent, passed on or not. */
  readonly fromClients?: number;
  readonly fromServer?: number;
}

const port = parentPort;
if (port === null) throw new Error("the proxy runs in a worker");
const { targetPort } = workerData as { targetPort: number };
let faults: Faults = { latencyMs: 0, toServer: "pass", toClient: "pass", isCut: false };
let fromClients = 0;
let fromServer = 0;
const held: (() => void)[] = [];
const sockets = new Set<net.Socket>();

const server = net.createServer({ noDelay: true }, (client) => {
  if (faults.isCut) {
    client.destroy();
    return;
  }
  const target = net.connect({ port: targetPort, host: "127.0.0.1", noDelay: true });
  track(client, target);
  track(target, client);
  pipe(client, target, "toServer");
  pipe(target, client, "toClient");
});
server.listen(0, "127.0.0.1", () => {
  const address = server.address();
  answer({ id: 0, port: typeof address === "object" && address !== null ? address.port : 0 });
});

function track(socket: net.Socket, other: net.Socket): void {
  sockets.add(socket);
  socket.on("error", () => other.destroy());
  socket.once("close", () => {
    sockets.delete(socket);
    other.destroy();
  });
}

function pipe(from: net.Socket, to: net.Socket, direction: "toServer" | "toClient"): void {
  from.on("data", (bytes: Buffer) => {
    if (direction === "toServer") fromClients += bytes.length;
    else fromServer += bytes.length;
    later(direction, () => {
      if (!to.destroyed) to.write(bytes);
    });
  });
  from.once("end", () => later(direction, () => to.end()));
}

function later(direction: "toServer" | "toClient", act: () => void): void {
  const what = faults[direction];
  if (what === "drop") return;
  if (what === "hold") held.push(act);
  else if (faults.latencyMs === 0) act();
  else setTimeout(act, faults.latencyMs);
}

function answer(message: ProxyAnswer): void {
  port?.postMessage(message);
}

port.on("message", (command: ProxyCommand) => {
  switch (command.type) {
    case "faults":
      faults = command.faults;
      if (faults.toServer !== "hold" && faults.toClient !== "hold") {
        for (const act of held.splice(0)) act();
      }
      break;
    case "reset":
      held.length = 0;
      for (const socket of sockets) socket.destroy();
      break;
    case "counts":
  }
  answer({ id: command.id, fromClients, fromServer });
});
