import * as path from "node:path";
import type { FileIdentity, Files, OpenFile } from "../database/files.ts";
import { errorCode } from "../lib/errors.ts";

const BLOCK_BYTES = 4096;

/**
 * Files that can be written without touching what lies below: whatever is written is kept in
 * memory, by blocks. Lets the recovery of a node run for a look at its result.
 */
export class OverlayFiles implements Files {
  readonly #below: Files;
  /** By path; undefined marks a file that was removed or renamed away. */
  readonly #changed = new Map<string, OverlayFile | undefined>();

  constructor(below: Files) {
    this.#below = below;
  }

  bootId(): string {
    return this.#below.bootId();
  }

  open(file: string, options: { create?: boolean; readOnly?: boolean } = {}): OpenFile | undefined {
    const changed = this.#changed.get(file);
    if (changed !== undefined) return changed;
    const below = this.#changed.has(file) ? undefined : this.#below.open(file, { readOnly: true });
    if (below === undefined && options.create !== true) return undefined;
    // Whoever only reads needs no copy of what changes, and may read thousands of segments.
    if (below !== undefined && options.readOnly === true) return below;
    const overlay = new OverlayFile(below);
    this.#changed.set(file, overlay);
    return overlay;
  }

  list(directory: string): string[] {
    const names = new Set(this.#below.list(directory));
    for (const [file, content] of this.#changed) {
      const [first, ...rest] = path.relative(directory, file).split(path.sep);
      if (first === undefined || first === "" || first === "..") continue;
      if (content !== undefined) names.add(first);
      else if (rest.length === 0) names.delete(first);
    }
    return [...names];
  }

  size(file: string): number | undefined {
    return this.#changed.has(file) ? this.#changed.get(file)?.size() : this.#below.size(file);
  }

  /** Of the file below: nobody looks at those that changed here. */
  identify(file: string): FileIdentity | undefined {
    return this.#changed.has(file) ? undefined : this.#below.identify(file);
  }

  mkdir(): void {
    // Directories appear with their first file.
  }

  rename(from: string, to: string): void {
    // A directory goes with everything in it. Those that matter here are never empty.
    const file = this.#tryOpen(from);
    if (file === undefined) {
      for (const name of this.list(from)) this.rename(path.join(from, name), path.join(to, name));
      return;
    }
    this.#changed.set(from, undefined);
    this.#changed.set(to, file);
  }

  /** Undefined for a directory, and for what does not exist. */
  #tryOpen(file: string): OverlayFile | undefined {
    try {
      const open = this.open(file);
      // Opened to write, so it is one of ours; reading a directory fails.
      open?.readAt(new Uint8Array(1), 0, 1, 0);
      return open instanceof OverlayFile ? open : undefined;
    } catch (error) {
      if (errorCode(error) !== "EISDIR") throw error;
      this.#changed.delete(file);
      return undefined;
    }
  }

  remove(file: string): void {
    this.#changed.set(file, undefined);
  }

  removeDirectory(directory: string): void {
    for (const name of this.list(directory)) this.remove(path.join(directory, name));
  }

  syncDirectory(): void {
    // Nothing reaches a disk.
  }

  /** Gives back every descriptor. */
  close(): void {
    for (const file of this.#changed.values()) file?.closeBelow();
    this.#changed.clear();
  }
}

/** One file: blocks in memory over a file that is only read. */
class OverlayFile implements OpenFile {
  readonly #below: OpenFile | undefined;
  readonly #blocks = new Map<number, Uint8Array>();
  /** Bytes of the file below that still show through. */
  #belowBytes: number;
  #size: number;

  constructor(below: OpenFile | undefined) {
    this.#below = below;
    this.#belowBytes = below?.size() ?? 0;
    this.#size = this.#belowBytes;
  }

  readAt(out: Uint8Array, outOffset: number, lengthBytes: number, offsetBytes: number): number {
    const count = Math.max(0, Math.min(lengthBytes, this.#size - offsetBytes));
    for (let done = 0; done < count;) {
      const at = offsetBytes + done;
      const inBlock = at % BLOCK_BYTES;
      const part = Math.min(count - done, BLOCK_BYTES - inBlock);
      const block = this.#blocks.get((at - inBlock) / BLOCK_BYTES);
      if (block === undefined) this.#readBelow(out, outOffset + done, part, at);
      else out.set(block.subarray(inBlock, inBlock + part), outOffset + done);
      done += part;
    }
    return count;
  }

  #readBelow(out: Uint8Array, outOffset: number, lengthBytes: number, offsetBytes: number): void {
    const wanted = Math.max(0, Math.min(lengthBytes, this.#belowBytes - offsetBytes));
    const count = wanted > 0 ? (this.#below?.readAt(out, outOffset, wanted, offsetBytes) ?? 0) : 0;
    out.fill(0, outOffset + count, outOffset + lengthBytes);
  }

  writeAt(data: Uint8Array, start: number, lengthBytes: number, offsetBytes: number): void {
    for (let done = 0; done < lengthBytes;) {
      const at = offsetBytes + done;
      const inBlock = at % BLOCK_BYTES;
      const part = Math.min(lengthBytes - done, BLOCK_BYTES - inBlock);
      this.#block((at - inBlock) / BLOCK_BYTES).set(
        data.subarray(start + done, start + done + part),
        inBlock,
      );
      done += part;
    }
    this.#size = Math.max(this.#size, offsetBytes + lengthBytes);
  }

  #block(index: number): Uint8Array {
    const existing = this.#blocks.get(index);
    if (existing !== undefined) return existing;
    const block = new Uint8Array(BLOCK_BYTES);
    this.#readBelow(block, 0, BLOCK_BYTES, index * BLOCK_BYTES);
    this.#blocks.set(index, block);
    return block;
  }

  truncate(sizeBytes: number): void {
    this.#size = sizeBytes;
    this.#belowBytes = Math.min(this.#belowBytes, sizeBytes);
    const inBlock = sizeBytes % BLOCK_BYTES;
    const last = (sizeBytes - inBlock) / BLOCK_BYTES;
    for (const index of this.#blocks.keys()) {
      if (index > last) this.#blocks.delete(index);
    }
    this.#blocks.get(last)?.fill(0, inBlock);
  }

  sync(): void {
    // Nothing reaches a disk.
  }
  size(): number {
    return this.#size;
  }
  close(): void {
    // Others may open it again: what was written must not be lost with the first descriptor.
  }
  closeBelow(): void {
    this.#below?.close();
  }
}
