import * as http from "node:http";
import { text } from "node:stream/consumers";
import type { PeerClient } from "../cluster/cluster-node.ts";
import type { CandidateState } from "../cluster/progress.ts";
import { LitefsError } from "../lib/errors.ts";
import { parsePosition } from "../lib/position.ts";

const MAX_REFUSAL_CHARACTERS = 300;

/** Other nodes over their HTTP API, each request with a deadline of its own. */
export const httpPeerClient: PeerClient = {
  async state(peer, timeoutMs) {
    const url = new URL("/status", peer.advertiseUrl);
    return candidateState(await exchange("GET", url, timeoutMs), url);
  },
  async requestHandoff(primary, nodeId, timeoutMs) {
    const url = new URL("/handoff", primary.advertiseUrl);
    url.searchParams.set("nodeID", nodeId);
    await exchange("POST", url, timeoutMs);
  },
};

async function exchange(method: string, url: URL, timeoutMs: number): Promise<string> {
  const signal = AbortSignal.timeout(timeoutMs);
  let status: number | undefined;
  let body: string;
  try {
    const answered = Promise.withResolvers<http.IncomingMessage>();
    // Nodes speak cleartext whatever the scheme, as LiteFS does.
    const request = http.request({
      method,
      host: url.hostname.replace(/^\[|\]$/g, ""),
      port: url.port === "" ? (url.protocol === "https:" ? 443 : 80) : url.port,
      path: `${url.pathname}${url.search}`,
      headers: { host: url.host },
      agent: false,
      signal,
    });
    request.once("response", answered.resolve);
    request.once("error", answered.reject);
    request.end();
    const response = await answered.promise;
    status = response.statusCode;
    body = await text(response);
  } catch (cause) {
    throw new LitefsError("PEER_UNREACHABLE", `no answer from the node at ${url.origin}`, {
      cause,
    });
  }
  if (status === 200) return body;
  const reason = body.slice(0, MAX_REFUSAL_CHARACTERS).trim().replaceAll("\n", " ");
  throw new LitefsError("PEER_REFUSED", `the node at ${url.origin} refused: ${reason}`);
}

function candidateState(body: string, url: URL): CandidateState {
  const state: unknown = JSON.parse(body);
  const member = (name: string): unknown =>
    typeof state === "object" && state !== null ? Reflect.get(state, name) : undefined;
  const nodeId = member("nodeID");
  const clusterId = member("clusterID");
  const term = member("term");
  const databases = member("databases");
  if (typeof nodeId !== "string" || !Array.isArray(databases)) {
    throw new LitefsError("PEER_REFUSED", `the node at ${url.origin} is not a litefs node`);
  }
  return {
    nodeId,
    term: typeof term === "number" ? term : undefined,
    ...progressIn(databases),
    isCandidate: member("candidate") === true,
    clusterId: typeof clusterId === "string" ? clusterId : undefined,
  };
}

function progressIn(
  databases: readonly unknown[],
): Pick<CandidateState, "progress" | "quarantined"> {
  const progress = new Map<string, number>();
  const quarantined = new Set<string>();
  for (const database of databases) {
    if (typeof database !== "object" || database === null) continue;
    const name: unknown = Reflect.get(database, "name");
    const position: unknown = Reflect.get(database, "position");
    if (typeof name !== "string" || typeof position !== "string") continue;
    if (Reflect.get(database, "status") === "quarantined") quarantined.add(name);
    else progress.set(name, parsePosition(position)?.txid ?? 0);
  }
  return { progress, quarantined };
}
