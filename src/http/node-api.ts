import type { PrimaryInfo } from "../cluster/lease.ts";
import type { EventHub } from "../cluster/events.ts";
import type { LoanDesk } from "../cluster/forwarding/loan-desk.ts";
import type { StreamServer } from "../cluster/replication/stream-server.ts";
import type { SyncDesk } from "../cluster/sync/sync-desk.ts";
import type { Engine, NodeRole } from "../database/engine.ts";
import type { Logger } from "../lib/log.ts";
import type { DatabaseImporter } from "./database-import.ts";

/** What the HTTP API shows of a node. Everything that changes is asked for at each request. */
export interface NodeApi {
  /** 16 upper-case hex digits. */
  readonly nodeId: string;
  /** `lease.hostname`. */
  readonly hostname: string;
  /** `lease.type`. */
  readonly leaseKind: string;
  readonly isCandidate: boolean;
  /** `data.dir`. */
  readonly dataDirectory: string;
  readonly engine: Engine;
  readonly streams: StreamServer;
  readonly events: EventHub;
  readonly loans: LoanDesk;
  /** Undefined when no commit ever waits for replicas. */
  readonly sync?: SyncDesk | undefined;
  /** For how long this replica has had the right to write a database; undefined: it has not. */
  heldForMs(database: string): number | undefined;
  readonly metrics: MetricsSource;
  readonly log: Logger;
  readonly importer: DatabaseImporter;
  readonly control: RoleControl;
  clusterId(): string | undefined;
  /** Whose history this node has, see TermStore. */
  term(): number;
  role(): NodeRole;
  /** Undefined on the primary itself, and while none is known. */
  primary(): PrimaryInfo | undefined;
  /** On the primary: since when it has the lease, and for how long it is covered. */
  leaseState(): { readonly ageMs: number; readonly remainingMs: number } | undefined;
  /** True once the node has served, or received, a complete set of databases. */
  isReady(): boolean;
  lagMs(): number;
  /** Requests of the kernel to the mount since the start, by name. */
  fuseRequestCounts(): Readonly<Record<string, number>>;
}

/** What operators may ask of a node; everything rejects with a reason in one line. */
export interface RoleControl {
  promote(options: { readonly force: boolean }): Promise<void>;
  handOff(nodeId: string): Promise<void>;
  demote(): Promise<void>;
}

export interface MetricsSource {
  readonly contentType: string;
  /** The Prometheus text exposition of this moment. */
  text(): Promise<string>;
}
