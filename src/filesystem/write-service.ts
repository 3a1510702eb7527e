import { applyLtxFile } from "../database/apply-file.ts";
import { applyTransactions } from "../database/apply.ts";
import type { ForwardedBy } from "../database/apply.ts";
import type { ApplyResult } from "../database/engine.ts";
import type { Job } from "../database/host.ts";
import type { ForwardedTransaction, ForwardResult } from "../database/write-engine.ts";
import { bigintHi, bigintLo } from "../ltx/crc64.ts";
import type { Position } from "../lib/position.ts";
import { assert, assertNever } from "../lib/assert.ts";
import type { DatabaseEntry } from "./entry.ts";
import type { MountResult, WriteRequest } from "./messages.ts";
import { isDatabaseName } from "./names.ts";

export interface WriteServiceHost {
  isPrimary(): boolean;
  /** Whether commits are accepted at this very moment. */
  mayCommit(): boolean;
  /** Made when there is none. */
  entry(name: string): DatabaseEntry;
  find(name: string): DatabaseEntry | undefined;
  /** A transaction was applied, so there may be something to tidy up. */
  applied(entry: DatabaseEntry): void;
  /** Tells the main thread at once where a database stands. */
  publish(entry: DatabaseEntry): void;
  reply(id: number, result: MountResult): void;
  fail(id: number, error: unknown): void;
}

/** Serves the main thread's calls about the right to write. */
export class WriteService {
  readonly #host: WriteServiceHost;

  constructor(host: WriteServiceHost) {
    this.#host = host;
  }

  handle(request: WriteRequest): void {
    const { id } = request;
    switch (request.type) {
      case "lend":
        this.#lend(id, request.database, request.loan);
        return;
      case "apply-forwarded":
        this.#applyForwarded(id, request.forwarded);
        return;
      case "end-loan":
        this.#host.find(request.database)?.turns.endLoan(request.loan);
        this.#host.reply(id, undefined);
        return;
      case "grant-right":
        this.#host.reply(id, this.#host.entry(request.database).turns.grant(request.position));
        return;
      case "recall-right":
        this.#host.reply(id, this.#host.find(request.database)?.turns.recall() ?? true);
        return;
      case "lose-right":
        this.#host.find(request.database)?.turns.lose();
        this.#host.reply(id, undefined);
        return;
      case "end-reservation":
        this.#host.find(request.database)?.turns.endReservation();
        this.#host.reply(id, undefined);
        return;
      case "deny-writers":
        this.#host.find(request.database)?.turns.deny(request.waitedMs);
        this.#host.reply(id, undefined);
        return;
      case "has-position":
        this.#hasPosition(id, request.database, request.position);
        return;
      case "decide-commit":
        this.#decide(request);
        return;
      case "decide-sync":
        this.#host
          .find(request.database)
          ?.turns.submitted.decideSync(request.sync, request.isDurable);
        this.#host.reply(id, undefined);
        return;
      default:
        assertNever(request);
    }
  }

  #decide(request: Extract<WriteRequest, { type: "decide-commit" }>): void {
    const { id, database, commit, isCommitted } = request;
    const entry = this.#host.find(database);
    entry?.turns.decide(commit, isCommitted);
    // The stream is about to bring it too: the main thread can see that it is here.
    if (entry !== undefined && isCommitted) this.#host.publish(entry);
    this.#host.reply(id, undefined);
  }

  #hasPosition(id: number, database: string, { txid, checksum }: Position): void {
    const { db } = this.#host.find(database) ?? {};
    const has = db?.applied.has(txid, bigintHi(checksum), bigintLo(checksum)) === true;
    // Whoever asks lets his application's COMMIT return.
    if (has && db.replicaWaits !== undefined) {
      db.replicaWaits.whenReplicated((isSafe) => this.#host.reply(id, isSafe));
    } else this.#host.reply(id, has);
  }

  #lend(id: number, database: string, loan: string): void {
    if (!this.#host.isPrimary()) {
      this.#host.reply(id, { kind: "refused", reason: "this node is not the primary" });
      return;
    }
    if (!isDatabaseName(database)) {
      this.#host.reply(id, { kind: "refused", reason: "invalid database name" });
      return;
    }
    const entry = this.#host.entry(database);
    if (entry.db.isFenced) {
      this.#host.reply(id, { kind: "refused", reason: "too few replicas acknowledge" });
      return;
    }
    entry.turns.lend(loan, (result) => this.#host.reply(id, result));
  }

  /**
   * In WAL mode the readers here are shown it before the answer goes out: whoever is told of his commit
   * may look here next, and nothing would hold him back. In other modes they wait at a lock of the
   * daemon's until the file has it, so the log is enough.
   */
  #applyForwarded(id: number, forwarded: ForwardedTransaction): void {
    const entry = this.#host.entry(forwarded.database);
    const { db } = entry;
    let isAnswered = false;
    let isWaiting = false;
    let isShown = false;
    /** The lease covered it, looked at when it was in the log. */
    let isCovered = false;
    let replicated: ForwardResult | undefined;
    const answer = (result: ForwardResult): void => {
      if (!isAnswered) this.#host.reply(id, result);
      isAnswered = true;
    };
    const committedAt = (position: Position): ForwardResult =>
      isCovered ? { kind: "committed", position } : UNCOVERED;
    const node: ForwardedBy = {
      isPermitted: () =>
        this.#host.mayCommit() && entry.turns.loan === forwarded.loan && !db.isFenced,
      onLogged: (readersWait) => {
        if (forwarded.isDurable) db.log.sync();
        isCovered = this.#host.mayCommit();
        db.counters.commits++;
        isShown = readersWait;
        // Before the answer: who is told of his commit may ask for the position here next.
        this.#host.publish(entry);
        const { position } = db;
        if (db.replicaWaits === undefined) {
          if (isShown) answer(committedAt(position));
          return;
        }
        isWaiting = true;
        db.replicaWaits.whenReplicated((isSafe) => {
          replicated = isSafe ? { kind: "committed", position } : UNKNOWN;
          if (isShown) answer(replicated);
        });
      },
    };
    entry.enqueue(
      () => applyForwarded(entry, forwarded, node),
      (result) => {
        isShown = true;
        if (isWaiting) {
          // For the replicas, and that is answered on its own, unless it was over before this.
          if (replicated !== undefined) answer(replicated);
        } else if (result.kind === "applied") {
          answer(committedAt(result.position));
        } else answer({ kind: "refused", reason: result.reason });
        this.#host.applied(entry);
      },
      (error) => {
        isShown = true;
        if (replicated !== undefined) answer(replicated);
        if (isAnswered || isWaiting)
          db.host.logger.error("cannot show a transaction", { error: String(error) });
        else this.#host.fail(id, error);
      },
    );
  }
}

/** The sender's application gets an error, and the stream brings the transaction. */
const UNKNOWN: ForwardResult = {
  kind: "refused",
  reason: "too few replicas have acknowledged it in time: it may or may not stay",
};

const UNCOVERED: ForwardResult = {
  kind: "refused",
  reason: "the lease ran out while it was written: it may or may not stay",
};

function* applyForwarded(
  entry: DatabaseEntry,
  { ltx, path }: ForwardedTransaction,
  node: ForwardedBy,
): Job<ApplyResult> {
  const { db, local } = entry;
  if (ltx !== undefined) return yield* applyTransactions(db, local, entry, [ltx], node);
  assert(path !== undefined, "a transaction is in memory or in a file");
  return yield* applyLtxFile(db, local, entry, path, node);
}
