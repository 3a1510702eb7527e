import * as fs from "node:fs";
import * as net from "node:net";

/*
 * Loaded by a node of a chaos run before litefs, on every thread of it. Its calls to the other
 * machines go through the faults, and its wall clock jumps when the test says so; the machine's own
 * clock is left alone, and so is the monotonic one.
 */

const CLOCK_READ_INTERVAL_MS = 20;

/** By the port that is called: which one to call in its place. */
const routes = JSON.parse(process.env["LITEFS_CHAOS_ROUTES"] ?? "{}") as Record<string, number>;
const clockFile = process.env["LITEFS_CHAOS_CLOCK"];

interface Address {
  port?: number | string;
}

const prototype = net.Socket.prototype as unknown as {
  connect: (this: net.Socket, ...args: unknown[]) => net.Socket;
};
// oxlint-disable-next-line typescript/unbound-method -- it is called with its socket below.
const { connect } = prototype;
prototype.connect = function reroute(...args) {
  // `net.connect` passes its own arguments on as one array.
  const [first] = args;
  const address = (Array.isArray(first) ? first[0] : first) as Address;
  const port = routes[String(address.port)];
  if (port !== undefined) {
    const changed = { ...address, port };
    if (Array.isArray(first)) first[0] = changed;
    else args[0] = changed;
  }
  return connect.apply(this, args);
};

if (clockFile !== undefined) {
  const now = Date.now;
  let offsetMs = 0;
  let readAtMs = -Infinity;
  Date.now = () => {
    if (performance.now() - readAtMs > CLOCK_READ_INTERVAL_MS) {
      readAtMs = performance.now();
      offsetMs = Number(fs.readFileSync(clockFile, "latin1"));
    }
    return now() + offsetMs;
  };
}
