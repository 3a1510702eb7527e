import { halvesToBigint } from "../ltx/crc64.ts";
import type { Files } from "./files.ts";
import { LogReader } from "./log/log-reader.ts";
import type { TransactionLog } from "./log/transaction-log.ts";

const REMEMBERED = 1024;

/**
 * Which transactions a database has already. What this node has forwarded comes back by the
 * stream, and is told from news by its position, not by who made it.
 */
export class AppliedPositions {
  readonly #log: TransactionLog;
  readonly #reader: LogReader;
  /** A ring of three words each: TXID modulo 2^32, and the halves of the checksum. */
  readonly #ring = new Int32Array(REMEMBERED * 3);

  constructor(log: TransactionLog, files: Files, directory: string) {
    this.#log = log;
    this.#reader = new LogReader(files, directory);
  }

  note(txid: number, hi: number, lo: number): void {
    const at = (txid % REMEMBERED) * 3;
    this.#ring[at] = txid | 0;
    this.#ring[at + 1] = hi;
    this.#ring[at + 2] = lo;
  }

  has(txid: number, hi: number, lo: number): boolean {
    const log = this.#log;
    if (txid > log.txid) return false;
    if (txid === log.txid) return hi === log.checksumHi && lo === log.checksumLo;
    const at = (txid % REMEMBERED) * 3;
    const ring = this.#ring;
    if (ring[at] === (txid | 0) && ring[at + 1] === hi && ring[at + 2] === lo) return true;
    const position = { txid, checksum: halvesToBigint(hi, lo) };
    const { segment, offsetBytes } = log.end;
    const end = { segment, offsetBytes, position: log.position };
    return this.#reader.read(position, end, 1).kind !== "unavailable";
  }
}
