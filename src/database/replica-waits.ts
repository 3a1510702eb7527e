import { assert } from "../lib/assert.ts";
import type { Position } from "../lib/position.ts";
import type { Database } from "./database.ts";
import type { FinalOutcome, Outcome } from "./outcome.ts";
import type { WaitSettlement } from "./sync-engine.ts";
import { replicasNeeded } from "./sync-policy.ts";
import type { SyncPolicy } from "./sync-policy.ts";

/**
 * What a commit does about replicas. "none": it is over when the primary has it; "wait": it is over
 * when enough replicas have it; "refuse": it is taken back before anybody else has seen it.
 */
export type SyncDuty = "none" | "wait" | "refuse";

/** What the databases of a node share for it. */
export interface SyncHost {
  readonly policy: SyncPolicy;
  /** Replicas that tell what they have on their disks, at this moment. */
  replicaCount(): number;
  commitWaits(database: string): void;
}

interface Wait {
  readonly position: Position;
  answer: (isAcknowledged: boolean) => void;
}

/**
 * The commits of a database of the primary that wait for replicas. The transaction is in the log,
 * and on its way: nothing can take it back any more, because a replica that has it may be the next
 * primary. Only the answer waits, in the call by which the application commits.
 */
export class ReplicaWaits {
  readonly #db: Database;
  readonly #host: SyncHost;
  readonly #needed: number;
  /** The present operation has committed something. */
  #hasCommitted = false;
  #waits: Wait[] = [];
  /** What the main thread says, which sees more than a number of replicas. */
  #next: SyncDuty = "wait";

  constructor(db: Database, host: SyncHost) {
    this.#db = db;
    this.#host = host;
    this.#needed = replicasNeeded(host.policy, db.name);
  }

  get duty(): SyncDuty {
    if (this.#needed === 0 || !this.#db.host.isPrimary()) return "none";
    if (this.#next !== "wait" || this.#host.replicaCount() >= this.#needed) return this.#next;
    return this.#host.policy.isStrict ? "refuse" : "none";
  }

  committed(): void {
    this.#hasCommitted = true;
  }

  /** Nobody waits for the operation that has committed. */
  forget(): void {
    this.#hasCommitted = false;
  }

  /** The outcome of an operation that may have committed: "later" if it did, and must wait. */
  outcomeOf(outcome: Outcome): Outcome {
    const mustWait = this.#hasCommitted && outcome === "ok" && this.duty !== "none";
    this.#hasCommitted = false;
    if (!mustWait) return outcome;
    this.#begin(() => undefined);
    return "later";
  }

  /** Told once, after an operation was answered with "later". */
  whenDecided(answer: (outcome: FinalOutcome) => void): void {
    const wait = this.#waits.at(-1);
    assert(wait !== undefined, "a commit that waits");
    wait.answer = (isAcknowledged) => {
      if (isAcknowledged) answer("ok");
      else this.#answerUnknown(answer);
    };
    this.#syncLog();
  }

  /**
   * The same for whoever is no application: calls back when what there is now is safe, or not. Also
   * while nobody may write: it may become safe, as soon as a replica has come back.
   */
  whenReplicated(then: (isAcknowledged: boolean) => void): void {
    this.forget();
    // What only a deposed primary has is not safe, and it waits for nobody any more.
    if (this.#needed > 0 && !this.#db.host.isPrimary()) then(false);
    else if (this.duty === "none") then(true);
    else {
      this.#begin(then);
      this.#syncLog();
    }
  }

  #begin(answer: (isAcknowledged: boolean) => void): void {
    const { name, position } = this.#db;
    this.#waits.push({ position, answer });
    this.#host.commitWaits(name);
  }

  /**
   * The primary must not be the one to lose it: the replicas would follow it back. While they sync
   * their logs it syncs its own.
   */
  #syncLog(): void {
    try {
      this.#db.log.sync();
    } catch {
      // The log has told of it itself.
      this.#end(Infinity, false);
    }
  }

  settle({ throughTxid, isAcknowledged, next }: WaitSettlement): void {
    this.#next = next;
    // Another primary may have gone on without it, if the lease has run out in the meantime.
    const { host } = this.#db;
    this.#end(throughTxid, isAcknowledged && host.isPrimary() && host.mayCommit());
  }

  /** This node has become the primary, or has stopped being it: its history decides no more. */
  roleChanged(): void {
    this.#next = "wait";
    this.#hasCommitted = false;
    this.#end(Infinity, false);
  }

  #end(throughTxid: number, isAcknowledged: boolean): void {
    const over = this.#waits.filter(({ position }) => position.txid <= throughTxid);
    this.#waits = this.#waits.filter(({ position }) => position.txid > throughTxid);
    for (const { answer } of over) answer(isAcknowledged);
  }

  /**
   * SQLite is told of an error, and takes the transaction for rolled back; the log has it. Whoever
   * gives up the lock next has it published, and of a journal that is gone the kernel must not
   * believe otherwise.
   */
  #answerUnknown(answer: (outcome: FinalOutcome) => void): void {
    this.#db.suspect = true;
    const { kernel } = this.#db;
    kernel.settled(() => {
      answer("io");
      kernel.invalidateName("journal");
      kernel.invalidate("journal", 0, 0);
    });
  }
}
