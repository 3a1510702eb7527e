import { FUSE_ROOT_ID, S_IFDIR, S_IFLNK, S_IFREG } from "../fuse/constants.ts";
import type { DirectoryWriter } from "../fuse/directory-writer.ts";

export interface DirectoryEntry {
  readonly name: string;
  readonly type: "file" | "directory" | "symlink";
}

const MODES = { file: S_IFREG, directory: S_IFDIR, symlink: S_IFLNK } as const;

/** Listings that are being read: each keeps its names, so that none is missed or seen twice. */
export class DirectoryListings {
  readonly #listings = new Map<number, readonly DirectoryEntry[] | undefined>();
  #next = 1;

  /** What is in it is not looked at before somebody reads it. */
  open(): number {
    const fh = this.#next++;
    this.#listings.set(fh, undefined);
    return fh;
  }

  isListed(fh: number): boolean {
    return this.#listings.get(fh) !== undefined;
  }

  replace(fh: number, entries: readonly DirectoryEntry[]): void {
    this.#listings.set(fh, entries);
  }

  close(fh: number): void {
    this.#listings.delete(fh);
  }

  /** Adds what fits, from an offset on that an earlier entry named as its next. */
  fill(fh: number, offset: number, out: DirectoryWriter): void {
    const entries = this.#listings.get(fh) ?? [];
    for (let i = offset; i < entries.length; i++) {
      const entry = entries[i];
      if (entry === undefined) break;
      const { name, type } = entry;
      const ino = name === "." || name === ".." ? FUSE_ROOT_ID : inodeOf(name);
      if (!out.add(name, ino, MODES[type], i + 1)) break;
    }
  }
}

/** Only for listings, where the number must be neither 0 nor that of another name. */
function inodeOf(name: string): number {
  let hash = 0x811c9dc5;
  for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
  return (hash >>> 0) + FUSE_ROOT_ID + 1;
}
