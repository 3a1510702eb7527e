import { errorCode, errorText, LitefsError } from "../lib/errors.ts";
import { makeDirectories } from "../lib/make-directories.ts";

/** Makes the directory that is mounted on, if need be. */
export function makeMountPoint(directory: string): void {
  try {
    makeDirectories(directory);
  } catch (cause) {
    throw new LitefsError(
      "FUSE_DIR_UNUSABLE",
      `cannot mount on fuse.dir ${directory}: ${problemOf(cause)}`,
      { cause },
    );
  }
}

function problemOf(cause: unknown): string {
  switch (errorCode(cause)) {
    case "EEXIST":
    case "ENOTDIR":
      return "it, or what is above it, is no directory; set fuse.dir to one, or to what does not exist yet";
    case "ENOTCONN":
      return "there is a mount whose litefs is gone; unmount it, or leave -skip-unmount out";
    default:
      return `${errorCode(cause) ?? errorText(cause)}; set fuse.dir to a directory that can be made there`;
  }
}
