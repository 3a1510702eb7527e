import { readFile, realpath } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";

/** One line of /proc/self/mountinfo, as far as we need it. */
export interface MountEntry {
  readonly mountPoint: string;
  readonly fileSystemType: string;
  readonly source: string;
  /** Minor number of the device; for FUSE it names the connection under /sys/fs/fuse. */
  readonly deviceMinor: number;
}

/*
 * 36 35 0:49 / /litefs rw,nosuid shared:1 - fuse litefs rw,user_id=0
 *       ^^^^   ^^^^^^^           optional^  ^^^^ ^^^^^^
 */
export function parseMountinfo(text: string): MountEntry[] {
  const entries: MountEntry[] = [];
  for (const line of text.split("\n")) {
    const [left, right] = line.split(" - ");
    if (left === undefined || right === undefined) continue;
    const fields = left.split(" ");
    const [fileSystemType = "", source = ""] = right.split(" ");
    entries.push({
      mountPoint: unescapePath(fields[4] ?? ""),
      fileSystemType,
      source: unescapePath(source),
      deviceMinor: Number(fields[2]?.split(":")[1]),
    });
  }
  return entries;
}

/** Blanks and backslashes in paths are written as three octal digits. */
function unescapePath(path: string): string {
  // Each escape is one byte of UTF-8; only ASCII is ever escaped.
  return path.replaceAll(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}

/** What is mounted on exactly this path; the topmost when there are several. */
export async function findMount(mountPoint: string): Promise<MountEntry | undefined> {
  const entries = parseMountinfo(await readFile("/proc/self/mountinfo", "utf8"));
  return entries.findLast((entry) => entry.mountPoint === mountPoint);
}

/**
 * The path as the kernel lists it. Asks what is mounted before it looks at the directory itself,
 * because that could wait for a file system whose server is gone.
 */
export async function canonicalMountPoint(directory: string): Promise<string> {
  const absolute = resolve(directory);
  if (absolute === "/") return absolute;
  const path = join(await realpath(dirname(absolute)), basename(absolute));
  if ((await findMount(path)) !== undefined) return path;
  // Not a mount point, but perhaps a link to one.
  return realpath(path);
}

export function isFuse(entry: MountEntry): boolean {
  return entry.fileSystemType === "fuse" || entry.fileSystemType.startsWith("fuse.");
}
