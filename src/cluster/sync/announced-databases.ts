import { replicasNeeded } from "../../database/sync-policy.ts";
import type { SyncPolicy } from "../../database/sync-policy.ts";

/**
 * In the answer to POST /stream: the databases whose commits wait for replicas. LiteFS's nodes do
 * not know it, and so acknowledge nothing. `*` stands for all that are not named; a name is followed
 * by `=0` when its commits do not wait.
 */
export const SYNC_HEADER = "litefs-sync";

export function announce(policy: SyncPolicy): string {
  const named = [...policy.databases].map(([name, needed]) => {
    return encodeURIComponent(name) + (needed > 0 ? "" : "=0");
  });
  return [...(policy.needed > 0 ? ["*"] : []), ...named].join(",");
}

/** The same policy as far as a replica must know it; undefined when nobody waits for this node. */
export function announcedDatabases(header: string | undefined): AnnouncedDatabases | undefined {
  if (header === undefined || header === "") return undefined;
  const databases = new Map<string, number>();
  let needed = 0;
  for (const item of header.split(",")) {
    const [name = "", count] = item.split("=");
    if (name === "*") needed = 1;
    else databases.set(decoded(name), count === "0" ? 0 : 1);
  }
  const policy: SyncPolicy = { needed, databases, isStrict: true };
  return { has: (database) => replicasNeeded(policy, database) > 0 };
}

export interface AnnouncedDatabases {
  has(database: string): boolean;
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
