import { Transform } from "node:stream";

export interface ProgressOptions {
  /** What is being done, such as "importing app.db". */
  readonly label: string;
  /** Unknown while exporting: a node does not say how much it is going to send. */
  readonly totalBytes?: number;
  /** A bar that redraws itself on a terminal, and whole lines, fewer of them, elsewhere. */
  readonly isTerminal: boolean;
  write(text: string): void;
}

const BAR_WIDTH = 30;
const BAR_STEP_BYTES = 1 << 20;
const LINE_STEP_BYTES = 256 << 20;

/** Counts the bytes that pass through it and shows how far they are. */
export class Progress extends Transform {
  readonly #options: ProgressOptions;
  #doneBytes = 0;
  #nextBytes: number;

  constructor(options: ProgressOptions) {
    super();
    this.#options = options;
    this.#nextBytes = this.#stepBytes();
  }

  override _transform(
    chunk: Buffer,
    _encoding: BufferEncoding,
    callback: (error: null, chunk: Buffer) => void,
  ): void {
    this.#doneBytes += chunk.length;
    if (this.#doneBytes >= this.#nextBytes) {
      this.#nextBytes = this.#doneBytes + this.#stepBytes();
      this.#show();
    }
    callback(null, chunk);
  }

  /** Says that all of it has arrived where it should. */
  finish(): void {
    if (this.#options.isTerminal) this.#show();
    const ending = this.#options.isTerminal ? "\n" : "";
    this.#options.write(`${ending}${this.#options.label}: done, ${formatBytes(this.#doneBytes)}\n`);
  }

  /** Leaves the line of the bar, so that an error gets its own. */
  abandon(): void {
    if (this.#options.isTerminal && this.#doneBytes >= BAR_STEP_BYTES) this.#options.write("\n");
  }

  #stepBytes(): number {
    return this.#options.isTerminal ? BAR_STEP_BYTES : LINE_STEP_BYTES;
  }

  #show(): void {
    const { label, totalBytes, isTerminal } = this.#options;
    const done = formatBytes(this.#doneBytes);
    const share = totalBytes ? Math.min(1, this.#doneBytes / totalBytes) : undefined;
    if (!isTerminal) {
      const percent = share === undefined ? "" : ` (${Math.floor(share * 100)} %)`;
      return this.#options.write(`${label}: ${done}${percent}\n`);
    }
    const filled = Math.round((share ?? 0) * BAR_WIDTH);
    const bar = share === undefined ? "" : `[${"#".repeat(filled).padEnd(BAR_WIDTH)}] `;
    this.#options.write(`\r${label}: ${bar}${done}`);
  }
}

export function formatBytes(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`;
  const units = ["KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(units.length, Math.floor(Math.log2(bytes) / 10));
  return `${(bytes / 1024 ** power).toFixed(1)} ${units[power - 1]}`;
}
