import * as net from "node:net";
import { afterEach, expect, test } from "vitest";
import type { FlowFault } from "../../integration/chaos/flows.ts";
import { both, CLEAR, flowOf } from "../../integration/chaos/flows.ts";
import { Network } from "../../integration/chaos/network.ts";

const [CALLER, CALLED, OTHER] = [0, 1, 2];

const cleanUps: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0)) await cleanUp();
});

/** Three machines that answer what they are told, each with its number before it. */
async function start(): Promise<{ network: Network; call: (from: number, to: number) => Call }> {
  const servers = await Promise.all(
    [CALLER, CALLED, OTHER].map(async (number) => {
      const server = net.createServer((socket) => {
        socket.on("error", () => undefined);
        socket.on("data", (bytes) => socket.write(`${number}:${bytes.toString()}`));
      });
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
      cleanUps.push(() => server.close());
      return server;
    }),
  );
  const ports = servers.map((server) => (server.address() as net.AddressInfo).port);
  const network = await Network.start(ports, 1);
  cleanUps.push(async () => await network.close());
  const call = (from: number, to: number): Call =>
    new Call(network.routesOf(from)[ports[to] ?? 0] ?? 0);
  return { network, call };
}

/** A connection, and what came back on it. */
class Call {
  readonly socket: net.Socket;
  received = "";
  isBroken = false;

  constructor(port: number) {
    this.socket = net.connect(port, "127.0.0.1");
    this.socket.on("data", (bytes) => (this.received += bytes.toString()));
    this.socket.on("error", () => undefined);
    this.socket.once("close", () => (this.isBroken = true));
    cleanUps.push(() => this.socket.destroy());
  }

  say(text: string): void {
    this.socket.write(text);
  }

  async hears(text: string): Promise<void> {
    await expect.poll(() => this.received, { timeout: 10_000 }).toBe(text);
  }

  async breaks(): Promise<void> {
    await expect.poll(() => this.isBroken, { timeout: 10_000 }).toBe(true);
  }
}

test("without a fault everything arrives", async () => {
  const { call } = await start();
  const [one, two] = [call(CALLER, CALLED), call(CALLER, OTHER)];
  one.say("a");
  two.say("b");
  await one.hears("1:a");
  await two.hears("2:b");
});

test("a one-way cut holds one direction, whoever has called, and no other pair", async () => {
  const { network, call } = await start();
  const cut: FlowFault[] = [{ from: CALLED, to: CALLER, change: { isHeld: true } }];
  const [there, back, beside] = [call(CALLER, CALLED), call(CALLED, CALLER), call(CALLER, OTHER)];
  there.say("a");
  await there.hears("1:a");
  await network.add(cut);
  // The answer to the one, and the question of the other.
  there.say("b");
  back.say("c");
  beside.say("d");
  await beside.hears("2:d");
  expect([there.received, back.received]).toEqual(["1:a", ""]);
  await network.remove(cut, "deliver");
  await there.hears("1:a1:b");
  await back.hears("0:c");
});

test("what a cut has held is lost when it ends with broken connections", async () => {
  const { network, call } = await start();
  const cut = both([[CALLER, CALLED]], { isHeld: true });
  const [held, beside] = [call(CALLER, CALLED), call(CALLER, OTHER)];
  held.say("a");
  await held.hears("1:a");
  await network.add(cut);
  held.say("b");
  await network.remove(cut, "break");
  await held.breaks();
  expect(held.received).toBe("1:a");
  beside.say("c");
  await beside.hears("2:c");
  const again = call(CALLER, CALLED);
  again.say("d");
  await again.hears("1:d");
});

test("a connection that is closed behind a cut is not seen to be", async () => {
  const { network, call } = await start();
  const cut = both([[CALLER, CALLED]], { isHeld: true });
  const held = call(CALLER, CALLED);
  held.say("a");
  await held.hears("1:a");
  await network.add(cut);
  held.say("b");
  held.socket.destroy();
  await network.remove(cut, "deliver");
  const next = call(CALLER, CALLED);
  next.say("c");
  await next.hears("1:c");
});

test("a refusing machine breaks connections and takes no new ones", async () => {
  const { network, call } = await start();
  const refuse = both([[CALLER, CALLED]], { isRefused: true });
  const one = call(CALLER, CALLED);
  one.say("a");
  await one.hears("1:a");
  await network.add(refuse);
  await one.breaks();
  await call(CALLER, CALLED).breaks();
  await network.remove(refuse, "deliver");
  const again = call(CALLER, CALLED);
  again.say("b");
  await again.hears("1:b");
});

test("latency and loss change nothing but the time: all arrives, and in order", async () => {
  const { network, call } = await start();
  const bad = both([[CALLER, CALLED]], { latencyMs: 20, lossRate: 0.2 });
  await network.add(bad);
  const one = call(CALLER, CALLED);
  const sent = Array.from({ length: 200 }, (_, i) => `${i},`);
  for (const text of sent) {
    one.say(text);
    await new Promise((resolve) => setImmediate(resolve));
  }
  // A direction that gets better does not overtake itself.
  await network.remove(bad, "deliver");
  one.say("end");
  await expect
    .poll(() => one.received.replaceAll("1:", ""), { timeout: 20_000 })
    .toBe(`${sent.join("")}end`);
});

test("faults add up, and end one by one", () => {
  const slow: FlowFault = { from: 0, to: 1, change: { latencyMs: 5 } };
  const slower: FlowFault = { from: 0, to: 1, change: { latencyMs: 7, lossRate: 0.5 } };
  const cut: FlowFault = { from: 0, to: 1, change: { isHeld: true } };
  const all = { isHeld: true, latencyMs: 12, lossRate: 0.5, isRefused: false };
  expect(flowOf([slow, slower, cut], 0, 1)).toEqual(all);
  expect(flowOf([slow, slower], 0, 1)).toEqual({ ...all, isHeld: false });
  expect(flowOf([slow, slower, cut], 1, 0)).toEqual(CLEAR);
  expect(flowOf([], 0, 1)).toEqual(CLEAR);
});
