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
