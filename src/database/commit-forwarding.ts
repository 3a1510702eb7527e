import { assert } from "../lib/assert.ts";
import { errorText } from "../lib/errors.ts";
import { halvesToBigint } from "../ltx/crc64.ts";
import type { Position } from "../lib/position.ts";
import type { Commit, EncodedCommit } from "./commit.ts";
import { encodeCommit } from "./commit.ts";
import type { Database } from "./database.ts";
import type { LogMark } from "./log/record.ts";
import { LtxSpool } from "./forwarded-commit.ts";
import type { Decision, Durability } from "./forwarded-commit.ts";
import type { FinalOutcome, Outcome } from "./outcome.ts";

/** Carries out the decision about a commit, and says how the application's call ends. */
export type Settle = (decision: Decision) => FinalOutcome;

interface Pending {
  readonly encoded: EncodedCommit;
  readonly spool: LtxSpool;
  readonly settle: Settle;
  answer: ((outcome: FinalOutcome) => void) | undefined;
  /** What the application is to be told if the primary says so: it is carried out here already. */
  early: FinalOutcome | undefined;
  readonly position: Position;
  readonly isDurable: boolean;
}

interface PendingSync {
  answer: ((outcome: FinalOutcome) => void) | undefined;
}

/**
 * The commits of a database whose primary is another node. One at a time: while it is being
 * decided, the application that made it waits in its call and holds SQLite's write lock.
 *
 * Nothing is appended to the log before the primary has the transaction in its own, so the two
 * cannot differ: what is lost here comes again by the stream.
 */
export class CommitForwarding {
  readonly #db: Database;
  #waiting: Pending | undefined;
  /**
   * SQLite has synced the WAL since the last commit. It does after each with `synchronous=FULL`, and
   * then the primary had better sync along with the next one: another round trip would only do that.
   */
  #isSyncExpected = true;
  /** The last commit that the primary may have in its memory alone. */
  #volatile: Position | undefined;
  #lastSync: PendingSync | undefined;

  constructor(db: Database) {
    this.#db = db;
  }

  get isPending(): boolean {
    return this.#waiting !== undefined;
  }

  whenDecided(answer: (outcome: FinalOutcome) => void): void {
    assert(this.#waiting !== undefined, "a commit to be decided");
    this.#waiting.answer = answer;
  }

  submit(commit: Commit, durability: Durability, settle: Settle): Outcome {
    const { arbiter, files, host, log, name, store } = this.#db;
    if (arbiter === undefined) return "read-only";
    assert(this.#waiting === undefined, "one commit at a time");
    const spool = new LtxSpool(files.files, files.pathOf("forward.ltx.tmp"));
    let encoded: EncodedCommit | undefined;
    try {
      encoded = encodeCommit(store, log, commit, (bytes) => spool.add(bytes));
    } catch (error) {
      host.logger.error("cannot forward a commit", { db: name, error: errorText(error) });
      spool.discard();
      return "io";
    }
    if (encoded === undefined) {
      spool.discard();
      return settle("unchanged");
    }
    const { header, postHi, postLo } = encoded;
    const position = { txid: header.maxTxid, checksum: halvesToBigint(postHi, postLo) };
    const { ltx, path } = spool;
    const isDurable =
      durability === "now" || (durability === "when-synced" && this.#isSyncExpected);
    if (durability === "when-synced") this.#isSyncExpected = false;
    const waiting = { answer: undefined, early: undefined };
    const pending: Pending = { encoded, spool, settle, position, isDurable, ...waiting };
    this.#waiting = pending;
    arbiter.submit({ position, ltx, path, isDurable }, (isCommitted) => {
      this.#decided(isCommitted, pending);
    });
    return "later";
  }

  /**
   * The primary has this transaction and waits until its replicas have it too, of which this node is
   * one. So it is committed here before the answer, which is about the application alone.
   */
  arrived(txid: number, hi: number, lo: number): void {
    const pending = this.#waiting;
    if (pending === undefined || pending.early !== undefined) return;
    const { header, postHi, postLo } = pending.encoded;
    if (header.maxTxid !== txid || (postHi ^ hi) !== 0 || (postLo ^ lo) !== 0) return;
    if (!this.#append(pending.encoded, pending.spool)) return;
    pending.early = pending.settle("committed");
    this.#db.forwarded();
  }

  #decided(isCommitted: boolean, pending: Pending): void {
    const { spool, answer } = pending;
    let outcome: FinalOutcome;
    try {
      outcome = pending.early ?? this.#carryOut(isCommitted, pending);
    } catch (error) {
      this.#db.quarantine(`a decided commit cannot be carried out: ${errorText(error)}`, "disk");
      outcome = "io";
    }
    spool.discard();
    this.#waiting = undefined;
    if (isCommitted) this.#volatile = pending.isDurable ? undefined : pending.position;
    // It stays, but SQLite takes it for rolled back: whoever gives up its lock has it published.
    const isUnknown = outcome === "ok" && !isCommitted;
    if (isUnknown) this.#db.suspect = true;
    this.#answer(isUnknown ? "io" : outcome, answer);
  }

  /** An application has synced the WAL: what it has committed must survive the primary's power. */
  walSynced(): Outcome {
    this.#isSyncExpected = true;
    const { arbiter, host } = this.#db;
    const position = this.#volatile;
    // Without the right to write nobody here is in the middle of a commit.
    if (position === undefined || arbiter === undefined || host.isPrimary()) return "ok";
    const sync: PendingSync = { answer: undefined };
    this.#lastSync = sync;
    arbiter.makeDurable(position, (isDurable) => {
      // One failure is told once: what comes after it is not to blame.
      if (this.#volatile === position) this.#volatile = undefined;
      // SQLite takes the transaction for rolled back; the log has it.
      if (!isDurable) this.#db.suspect = true;
      sync.answer?.(isDurable ? "ok" : "io");
    });
    return "later";
  }

  /** Told once, after `walSynced` has answered "later". */
  whenSynced(answer: (outcome: FinalOutcome) => void): void {
    assert(this.#lastSync !== undefined, "a sync that waits");
    this.#lastSync.answer = answer;
    this.#lastSync = undefined;
  }

  #carryOut(isCommitted: boolean, { encoded, spool, settle }: Pending): FinalOutcome {
    const isAppended = isCommitted && this.#append(encoded, spool);
    const outcome = settle(isAppended ? "committed" : "refused");
    if (isAppended) this.#db.forwarded();
    return outcome;
  }

  #answer(outcome: FinalOutcome, answer: Pending["answer"]): void {
    if (outcome === "ok") {
      answer?.(outcome);
      return;
    }
    const { kernel } = this.#db;
    // What was taken back must be gone from the kernel's cache before the locks are. Only after
    // the answer its names: one that is being removed is locked until then.
    kernel.settled(() => {
      answer?.(outcome);
      kernel.invalidateName("journal");
    });
  }

  /** False when there is no room for it here; then it comes again by the stream. */
  #append({ header, postHi, postLo }: EncodedCommit, spool: LtxSpool): boolean {
    const { host, log, name } = this.#db;
    let mark: LogMark | undefined;
    try {
      mark = log.mark();
      log.appendReceived(header, postHi, postLo, spool.bytes);
      return true;
    } catch (error) {
      if (mark !== undefined) log.truncateTo(mark);
      host.logger.error("cannot log a forwarded commit", { db: name, error: errorText(error) });
      return false;
    }
  }
}
