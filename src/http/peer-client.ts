import * as http from "node:http";
import { text } from "node:stream/consumers";
import type { PeerClient } from "../cluster/cluster-node.ts";
import { progressOf, quarantinedOf } from "../cluster/progress.ts";
import type { CandidateState, Standing } from "../cluster/progress.ts";
import { LitefsError } from "../lib/errors.ts";
import { parsePosition, ZERO_POSITION } from "../lib/position.ts";

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
  const standings = standingsIn(databases);
  return {
    nodeId,
    term: typeof term === "number" ? term : undefined,
    progress: progressOf(standings),
    quarantined: quarantinedOf(standings),
    isCandidate: member("candidate") === true,
    clusterId: typeof clusterId === "string" ? clusterId : undefined,
  };
}

function standingsIn(databases: readonly unknown[]): Standing[] {
  const standings: Standing[] = [];
  for (const database of databases) {
    if (typeof database !== "object" || database === null) continue;
    const name: unknown = Reflect.get(database, "name");
    const shown: unknown = Reflect.get(database, "position");
    if (typeof name !== "string" || typeof shown !== "string") continue;
    const status = Reflect.get(database, "status") === "quarantined" ? "quarantined" : "ok";
    standings.push({ name, status, position: parsePosition(shown) ?? ZERO_POSITION });
  }
  return standings;
}
