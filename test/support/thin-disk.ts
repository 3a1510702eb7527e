import * as fs from "node:fs";
import * as path from "node:path";
import { shell } from "./shell.ts";

const MEGABYTE = 1024 * 1024;

/**
 * A real ext4 on a loop device whose blocks get their space only when they are first written, from a
 * tmpfs that can be filled up under it. Then writing into the page cache still works, but the disk
 * fails when the pages are to be written back: fsync reports it once, as a bad disk does.
 */
export class ThinDisk {
  readonly mountPoint: string;
  readonly #store: string;

  private constructor(mountPoint: string, store: string) {
    this.mountPoint = mountPoint;
    this.#store = store;
  }

  static create(mountPoint: string, options: { megabytes: number; journal: boolean }): ThinDisk {
    const store = `${mountPoint}.store`;
    fs.mkdirSync(mountPoint, { recursive: true });
    fs.mkdirSync(store);
    shell("mount", ["-t", "tmpfs", "-o", `size=${options.megabytes}m`, "tmpfs", store]);
    const image = path.join(store, "image");
    fs.closeSync(fs.openSync(image, "w"));
    fs.truncateSync(image, 2 * options.megabytes * MEGABYTE);
    // All metadata is written now, so that only the content of files can fail later.
    const features = options.journal ? "has_journal" : "^has_journal";
    shell("mkfs.ext4", ["-q", "-m", "0", "-O", features, "-E", "lazy_itable_init=0", image]);
    const errors = options.journal ? "remount-ro" : "continue";
    shell("mount", ["-o", `loop,errors=${errors}`, image, mountPoint]);
    return new ThinDisk(mountPoint, store);
  }

  /** From now on the disk cannot write a block that it has never written. */
  starve(): void {
    shell("sync", ["-f", this.mountPoint]);
    const { bsize, bavail } = fs.statfsSync(this.#store);
    fs.writeFileSync(path.join(this.#store, "ballast"), Buffer.alloc(bsize * bavail, 1));
  }

  feed(): void {
    fs.rmSync(path.join(this.#store, "ballast"), { force: true });
  }

  dispose(): void {
    for (const directory of [this.mountPoint, this.#store]) {
      shell("umount", ["-l", directory]);
    }
  }
}
