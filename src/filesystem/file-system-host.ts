import type { Database } from "../database/database.ts";
import type { NodePhase } from "../database/engine.ts";
import type { Logger } from "../lib/log.ts";
import type { WriteEvent } from "../database/write-engine.ts";
import type { FileSystemStatistics } from "../fuse/replies.ts";
import type { DatabaseEntry } from "./entry.ts";
import type { ShelvedLook } from "./nodes.ts";

/** What the file system needs from the rest of the mount thread. */
export interface FileSystemHost {
  readonly logger: Logger;
  isPrimary(): boolean;
  /** Whether commits are accepted at this very moment. */
  mayCommit(): boolean;
  /** For `.role`. */
  phase(): NodePhase;
  primaryHostname(): string | undefined;
  /** Milliseconds behind the primary, as `.lag` shows it. */
  lagMs(): number;
  createDatabase(name: string): Database;
  /** One that nobody has asked for since the start, see DatabaseTable. */
  takeFromShelf(name: string, shelved: string): Database;
  /** What the file of one looks like; undefined where it is not as it was when it was shelved. */
  lookAtShelved(name: string, shelved: string): ShelvedLook | undefined;
  statistics(): FileSystemStatistics;
  /** Another thread has left messages. */
  wake(): void;
  /** Nobody has a file of this database open any more. */
  closed(entry: DatabaseEntry): void;
  /** Writes a STORE from this thread; only for pages that nobody can hold. */
  storeNow(message: Uint8Array): void;
  /** Something about the right to write that the main thread must know. */
  tell(event: WriteEvent): void;
  /** A request that may have moved a database has been answered. */
  afterReply(): void;
}
