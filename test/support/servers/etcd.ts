import { freePorts } from "../free-ports.ts";
import { debianProgram, ETCD } from "./debian-program.ts";
import { ServerProcess } from "./server-process.ts";

export interface EtcdServer {
  readonly url: string;
  readonly process: ServerProcess;
}

/** One etcd on loopback; undefined, after saying so, where there is none to be had. */
export async function startEtcd(): Promise<EtcdServer | undefined> {
  const program = await debianProgram(ETCD);
  if (program === undefined) return undefined;
  const [client = 0, peer = 0] = await freePorts(2);
  const url = `http://127.0.0.1:${client}`;
  const peerUrl = `http://127.0.0.1:${peer}`;
  const etcd = new ServerProcess(program, (directory) => [
    "--name",
    "e1",
    "--data-dir",
    `${directory}/data`,
    "--log-level",
    "warn",
    "--listen-client-urls",
    url,
    "--advertise-client-urls",
    url,
    "--listen-peer-urls",
    peerUrl,
    "--initial-advertise-peer-urls",
    peerUrl,
    "--initial-cluster",
    `e1=${peerUrl}`,
  ]);
  etcd.start();
  await etcd.ready("etcd", async () => {
    const answer = await fetch(`${url}/health`, { signal: AbortSignal.timeout(2_000) });
    return answer.ok && (await answer.text()).includes("true");
  });
  return { url, process: etcd };
}

/** The lines of the `lease` section for it, see ElectedClusterOptions. */
export function etcdLease({ url }: EtcdServer, ttl = "2s"): string[] {
  return ["type: etcd", `etcd: {endpoints: ["${url}"], key: KEY, ttl: ${ttl}}`];
}
