import { freePorts } from "../free-ports.ts";
import { CONSUL, debianProgram } from "./debian-program.ts";
import { ServerProcess } from "./server-process.ts";

const QUIET = ["-serf-wan-port=-1", "-dns-port=-1", "-grpc-port=-1", "-disable-host-node-id"];

export interface ConsulServer {
  readonly url: string;
  readonly process: ServerProcess;
}

/** One Consul in development mode; undefined, after saying so, where there is none to be had. */
export async function startConsul(args: readonly string[] = []): Promise<ConsulServer | undefined> {
  const program = await debianProgram(CONSUL);
  if (program === undefined) return undefined;
  const [http = 0, server = 0, serf = 0] = await freePorts(3);
  const consul = new ServerProcess(program, () => [
    "agent",
    "-dev",
    "-node=c1",
    "-bind=127.0.0.1",
    "-client=127.0.0.1",
    "-log-level=warn",
    `-http-port=${http}`,
    `-server-port=${server}`,
    `-serf-lan-port=${serf}`,
    ...QUIET,
    ...args,
  ]);
  consul.start();
  const url = `http://127.0.0.1:${http}`;
  await consul.ready("Consul", () => hasLeader(url));
  return { url, process: consul };
}

/** Three servers that elect a leader among themselves. */
export async function startConsulCluster(): Promise<readonly ConsulServer[] | undefined> {
  const program = await debianProgram(CONSUL);
  if (program === undefined) return undefined;
  const ports = await freePorts(9);
  const servers = [0, 3, 6].map((at, i) => {
    const [http = 0, server = 0, serf = 0] = ports.slice(at);
    const consul = new ServerProcess(program, (directory) => [
      "agent",
      "-server",
      `-node=s${i}`,
      `-data-dir=${directory}/data`,
      "-bootstrap-expect=3",
      "-bind=127.0.0.1",
      "-client=127.0.0.1",
      "-log-level=warn",
      "-retry-interval=1s",
      `-http-port=${http}`,
      `-server-port=${server}`,
      `-serf-lan-port=${serf}`,
      ...QUIET,
      `-retry-join=127.0.0.1:${ports[2]}`,
    ]);
    consul.start();
    return { url: `http://127.0.0.1:${http}`, process: consul };
  });
  for (const { url, process } of servers) await process.ready("Consul", () => hasLeader(url));
  return servers;
}

/** Which of them is the leader now. */
export async function consulLeader(servers: readonly ConsulServer[]): Promise<ConsulServer> {
  for (const server of servers) {
    const answer = await fetch(`${server.url}/v1/operator/raft/configuration`, {
      signal: AbortSignal.timeout(5_000),
    });
    const { Servers }: { Servers: readonly { Node: string; Leader: boolean }[] } =
      (await answer.json()) as never;
    const leader = servers[Number(Servers.find(({ Leader }) => Leader)?.Node.slice(1))];
    if (leader !== undefined) return leader;
  }
  throw new Error("the Consul cluster has no leader");
}

async function hasLeader(url: string): Promise<boolean> {
  const answer = await fetch(`${url}/v1/status/leader`, { signal: AbortSignal.timeout(2_000) });
  return answer.ok && (await answer.text()).length > 4;
}
