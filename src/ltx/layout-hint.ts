import { FormatError } from "../lib/errors.ts";

const WATCHED_BYTES = 10;
const LZ4_MAGIC_TEXT = "04224d18";

/**
 * Later versions of LTX (V2, V3) have the same magic and no version field. They fail as V1 files,
 * but with errors that mislead, so the first bytes after the header are kept to name the layout.
 */
export class LayoutHint {
  readonly #first = new Uint8Array(WATCHED_BYTES);
  #count = 0;

  /** Looks at body bytes in file order; only the first few matter. */
  watch(chunk: Uint8Array, start: number): void {
    for (let at = start; this.#count < WATCHED_BYTES && at < chunk.length; at++) {
      this.#first[this.#count++] = chunk[at]!;
    }
  }

  /** The error with the layout's name, when the file looks like one of the later layouts. */
  explain(error: FormatError): FormatError {
    const layout = this.#layout();
    if (layout === undefined) return error;
    return new FormatError(
      "LTX_UNSUPPORTED_LAYOUT",
      `${error.message}; it looks like LTX layout ${layout}, ` +
        "and only files of LiteFS 0.5 (layout V1) can be read",
      { cause: error },
    );
  }

  #layout(): string | undefined {
    if (this.#count < WATCHED_BYTES) return undefined;
    const hex = Buffer.from(this.#first).toString("hex", 4);
    if (hex.startsWith(LZ4_MAGIC_TEXT)) return "V2 (LTX 0.4)";
    if (hex === `0000${LZ4_MAGIC_TEXT}`) return "V3 (LTX 0.5.0)";
    // A frame flagged as sized, and a size that a compressed page can have.
    const size = Number.parseInt(hex.slice(4), 16);
    if (hex.startsWith("0001") && size > 0 && size < 2 * 65536) return "V3 (LTX 0.5.2)";
    return undefined;
  }
}
