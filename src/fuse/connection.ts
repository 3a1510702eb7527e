import { writeFile } from "node:fs/promises";
import { errorCode } from "../lib/errors.ts";
import { FuseMountError, programError } from "./mount-errors.ts";
import { findMount } from "./mountinfo.ts";
import { runCommand } from "./run-command.ts";

const CONNECTIONS = "/sys/fs/fuse/connections";
const TIMEOUT_MS = 5000;

/**
 * Cuts the connection of a FUSE mount: every waiting request fails with ECONNABORTED and reading
 * /dev/fuse ends. It needs nothing from the thread that serves the mount, so it also frees one that
 * hangs. Does nothing when the connection is already gone.
 */
export async function abortConnection(connectionId: number, mountPoint: string): Promise<void> {
  const hasControl = await mountControl();
  try {
    await writeFile(`${CONNECTIONS}/${connectionId}/abort`, "1");
  } catch (error) {
    if (hasControl && errorCode(error) === "ENOENT") return;
    await abortByForcedUnmount(connectionId, mountPoint, error);
  }
}

/**
 * A forced unmount aborts as well, even when it then fails because files are open. For containers,
 * whose /sys is often read-only.
 */
export async function abortByForcedUnmount(
  connectionId: number,
  mountPoint: string,
  cause?: unknown,
): Promise<void> {
  const isOurs = (await findMount(mountPoint))?.deviceMinor === connectionId;
  if (!isOurs) return;
  const result = await runCommand("umount", ["-f", mountPoint], { timeoutMs: TIMEOUT_MS }).catch(
    (error: unknown) => {
      throw programError("umount", error);
    },
  );
  if (result.exitCode === 0 || /busy/i.test(result.stderr)) return;
  throw new FuseMountError(
    "FUSE_ABORT_FAILED",
    `the FUSE connection of ${mountPoint} could not be aborted: as root run \`mount -t fusectl fusectl ${CONNECTIONS}; echo 1 > ${CONNECTIONS}/${connectionId}/abort\` (${result.stderr})`,
    { cause },
  );
}

/** Makes the kernel's control files appear; false when that is not allowed here. */
async function mountControl(): Promise<boolean> {
  if ((await findMount(CONNECTIONS))?.fileSystemType === "fusectl") return true;
  const args = ["-t", "fusectl", "fusectl", CONNECTIONS];
  const result = await runCommand("mount", args, { timeoutMs: TIMEOUT_MS }).catch(
    (error: unknown) => {
      throw programError("mount", error);
    },
  );
  return result.exitCode === 0;
}
