import type { CommitArbiter, ForwardedCommit } from "../database/forwarded-commit.ts";
import type { WriteEvent } from "../database/write-engine.ts";
import { Numbered } from "../lib/numbered.ts";
import type { Position } from "../lib/position.ts";

interface Submitted {
  /** Where the database stands after it. */
  readonly position: Position;
  readonly decided: (isCommitted: boolean) => void;
}

/** What applications on a replica have committed, and wait for the primary's word on. */
export class SubmittedCommits implements CommitArbiter {
  readonly #database: string;
  readonly #tell: (event: WriteEvent) => void;
  readonly #commits = new Numbered<Submitted>();
  readonly #syncs = new Numbered<(isDurable: boolean) => void>();

  constructor(database: string, tell: (event: WriteEvent) => void) {
    this.#database = database;
    this.#tell = tell;
  }

  submit(
    { position, ltx, path, isDurable }: ForwardedCommit,
    decided: (isCommitted: boolean) => void,
  ): void {
    const commit = this.#commits.add({ position, decided });
    const database = this.#database;
    this.#tell({ type: "commit", database, commit, position, ltx, path, isDurable });
  }

  makeDurable(position: Position, done: (isDurable: boolean) => void): void {
    const sync = this.#syncs.add(done);
    this.#tell({ type: "sync", database: this.#database, sync, position });
  }

  decideSync(sync: number, isDurable: boolean): void {
    this.#syncs.take(sync)?.(isDurable);
  }

  /** Undefined for one that is decided already. */
  take(commit: number): Submitted | undefined {
    return this.#commits.take(commit);
  }
}
