import type { ListenAddress } from "../http/listener.ts";
import { LitefsError } from "../lib/errors.ts";

/** `:20202`, `127.0.0.1:20202`, `[::1]:20202` or `localhost:0`. */
export function parseListenAddress(text: string): ListenAddress {
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]*)):(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  if (match === null || port > 65535) {
    throw new LitefsError(
      "LISTEN_ADDRESS_INVALID",
      `http.addr "${text}" is not an address; write it as ":20202" or "127.0.0.1:20202"`,
    );
  }
  const host = match[1] ?? match[2];
  return { host: host === "" ? undefined : host, port };
}
