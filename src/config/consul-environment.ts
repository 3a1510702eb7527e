import type { Environment } from "./expand-env.ts";

/** What Consul's own tools take from the environment, for the ways into a secured Consul. */
export interface ConsulEnvironment {
  /** Empty where there is none, as everything here. */
  readonly token: string;
  readonly tokenFile: string;
  readonly caFile: string;
  readonly certFile: string;
  readonly keyFile: string;
  readonly serverName: string;
  /** False accepts any certificate. */
  readonly verify: boolean;
}

export function consulEnvironment(env: Environment): ConsulEnvironment {
  return {
    token: env["CONSUL_HTTP_TOKEN"] ?? "",
    tokenFile: env["CONSUL_HTTP_TOKEN_FILE"] ?? "",
    caFile: env["CONSUL_CACERT"] ?? "",
    certFile: env["CONSUL_CLIENT_CERT"] ?? "",
    keyFile: env["CONSUL_CLIENT_KEY"] ?? "",
    serverName: env["CONSUL_TLS_SERVER_NAME"] ?? "",
    verify: !/^(?:0|f|false)$/i.test(env["CONSUL_HTTP_SSL_VERIFY"] ?? ""),
  };
}
