import type { OpenFile } from "./files.ts";

interface IndexStore {
  readonly offsetBytes: number;
  readonly bytes: Uint8Array;
}

/**
 * Bytes of the wal-index that are in its file and on their way to the kernel's cache. In between the
 * kernel may write a page back that applications have changed, their read marks for instance, and with
 * it what stood there before ours: the file would lack an entry that the cache has, and when memory
 * is scarce the page comes from the file again. So what is written over is written again.
 */
export class IndexStores {
  #stores: IndexStore[] = [];
  #arrivedCount = 0;

  add(offsetBytes: number, bytes: Uint8Array): void {
    this.#stores.push({ offsetBytes, bytes: bytes.slice() });
  }

  /** Everything that was added so far, for `arrived`. */
  mark(): number {
    return this.#arrivedCount + this.#stores.length;
  }

  /** The kernel has everything up to a mark. */
  arrived(mark: number): void {
    const count = mark - this.#arrivedCount;
    if (count <= 0) return;
    this.#stores = this.#stores.slice(count);
    this.#arrivedCount = mark;
  }

  /** These bytes of the file were just written by the kernel. */
  mend(file: OpenFile, offsetBytes: number, lengthBytes: number): void {
    for (const { offsetBytes: at, bytes } of this.#stores) {
      if (at >= offsetBytes + lengthBytes || at + bytes.length <= offsetBytes) continue;
      file.writeAt(bytes, 0, bytes.length, at);
    }
  }

  /** The file was cut, or is another one. */
  forget(): void {
    this.arrived(this.mark());
  }
}
