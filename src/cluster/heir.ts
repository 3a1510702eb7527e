import type { DatabaseState } from "../database/engine.ts";
import { errorText, LitefsError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import type { Peer } from "./lease.ts";
import type { CandidateState } from "./progress.ts";
import type { ConnectedReplica } from "./replication/stream-server.ts";

/** Of the candidates the one that was sent most; undefined when none is connected. */
export function bestHeir(
  replicas: readonly ConnectedReplica[],
  databases: Iterable<string>,
): string | undefined {
  const names = [...databases];
  let best: { readonly nodeId: string; readonly sent: number } | undefined;
  for (const replica of replicas) {
    if (replica.description?.isCandidate !== true) continue;
    let sent = 0;
    for (const name of names) sent += replica.sentPosition(name).txid;
    if (best === undefined || sent > best.sent) best = { nodeId: replica.nodeId, sent };
  }
  return best?.nodeId;
}

/** What an heir may take to say how it is; writers are not held back yet. */
const ASK_TIMEOUT_MS = 500;

export interface HeirQuestion {
  readonly replicas: readonly ConnectedReplica[];
  readonly databases: ReadonlyMap<string, DatabaseState>;
  readonly log: Logger;
  ask(peer: Peer, timeoutMs: number): Promise<CandidateState>;
}

/**
 * Rejects when the heir could not serve a database that this node can. One that does not answer may be
 * the primary all the same: LiteFS has no such question, and its stream is open.
 */
export async function requireFitHeir(nodeId: string, question: HeirQuestion): Promise<void> {
  const { databases, log, replicas } = question;
  const heir = replicas.find((replica) => replica.nodeId === nodeId);
  if (heir?.description === undefined) return;
  let quarantined: ReadonlySet<string>;
  try {
    const state = await question.ask({ nodeId: heir.nodeId, ...heir.description }, ASK_TIMEOUT_MS);
    quarantined = state.nodeId === heir.nodeId ? state.quarantined : new Set();
  } catch (error) {
    log.debug("the heir does not say how it is", { error: errorText(error) });
    return;
  }
  for (const name of quarantined) {
    const here = databases.get(name);
    if (here === undefined || here.status === "quarantined") continue;
    throw new LitefsError(
      "HANDOFF_REFUSED",
      `${name} is quarantined on ${heir.description.hostname}, which could not serve it`,
    );
  }
}
