import { FUSE_ROOT_ID, S_IFDIR, S_IFREG } from "../fuse/constants.ts";
import type { DirectoryWriter } from "../fuse/directory-writer.ts";

/** Listings that are being read: each keeps its names, so that none is missed or seen twice. */
export class DirectoryListings {
  readonly #names = new Map<number, readonly string[]>();
  #next = 1;

  open(names: readonly string[]): number {
    const fh = this.#next++;
    this.#names.set(fh, names);
    return fh;
  }

  replace(fh: number, names: readonly string[]): void {
    this.#names.set(fh, names);
  }

  close(fh: number): void {
    this.#names.delete(fh);
  }

  /** Adds what fits, from an offset on that an earlier entry named as its next. */
  fill(fh: number, offset: number, out: DirectoryWriter): void {
    const names = this.#names.get(fh) ?? [];
    for (let i = offset; i < names.length; i++) {
      const name = names[i] ?? "";
      const isDirectory = name === "." || name === "..";
      const ino = isDirectory ? FUSE_ROOT_ID : inodeOf(name);
      if (!out.add(name, ino, isDirectory ? S_IFDIR : S_IFREG, i + 1)) break;
    }
  }
}

/** Only for listings, where the number must be neither 0 nor that of another name. */
function inodeOf(name: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return (hash >>> 0) + FUSE_ROOT_ID + 1;
}
