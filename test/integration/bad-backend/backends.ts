import { afterEach } from "vitest";
import { ElectedCluster } from "../../support/elected-cluster.ts";
import type { ElectedClusterOptions } from "../../support/elected-cluster.ts";
import { startConsul } from "../../support/servers/consul.ts";
import { startEtcd } from "../../support/servers/etcd.ts";
import type { ServerProcess } from "../../support/servers/server-process.ts";

export interface Server {
  readonly url: string;
  readonly process: ServerProcess;
}

/** What elects the primary, for tests of which the outcome must not depend on it. */
export interface Backend {
  readonly name: string;
  /** Undefined, after saying so, where there is none to be had. */
  start(): Promise<Server | undefined>;
  /** Lines of the `lease` section. */
  lease(url: string): string[];
  /** What the log says to do when it does not answer. */
  readonly remedy: string;
}

export const consul: Backend = {
  name: "Consul",
  start: () => startConsul(),
  lease: (url) => [
    "type: consul",
    `consul: {url: "${url}", key: KEY, ttl: 10s, lock-delay: 100ms}`,
  ],
  remedy: "check lease.consul.url and the network",
};

export const etcd: Backend = {
  name: "etcd",
  start: () => startEtcd(),
  lease: (url) => ["type: etcd", `etcd: {endpoints: ["${url}"], key: KEY, ttl: 5s}`],
  remedy: "check lease.etcd.endpoints and the network",
};

/** The server and the cluster of one test, gone after it. */
export class Stage {
  #server: Server | undefined;
  #cluster: ElectedCluster | undefined;

  constructor() {
    afterEach(async ({ task }) => {
      if (task.result?.state === "fail") this.#cluster?.printLogs();
      await this.#cluster?.dispose();
      await this.#server?.process.dispose();
      this.#cluster = undefined;
      this.#server = undefined;
    });
  }

  /** Undefined where there is none to be had. */
  async server(starting: Promise<Server | undefined>): Promise<Server | undefined> {
    this.#server = await starting;
    return this.#server;
  }

  /** In the place of the one before. */
  async cluster(options: ElectedClusterOptions): Promise<ElectedCluster> {
    await this.#cluster?.dispose();
    this.#cluster = await ElectedCluster.create(options);
    return this.#cluster;
  }
}
