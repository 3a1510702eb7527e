import * as fs from "node:fs";

/** Why the demo cannot run on this machine, with the remedy, in one line; undefined when it can. */
export function missingForDemo(): string | undefined {
  if (process.platform !== "linux") {
    return "the demo needs Linux: try docker run --rm -it --privileged -v .:/src -w /src node:24 npm run demo";
  }
  if (process.getuid?.() !== 0) {
    return "the demo mounts file systems, which needs root: run sudo npm run demo";
  }
  if (!fs.existsSync("/dev/fuse")) {
    return "the demo needs /dev/fuse: run modprobe fuse, or start the container with --device /dev/fuse --cap-add SYS_ADMIN";
  }
  return undefined;
}
