import { readdir, writeFile } from "node:fs/promises";
import { errorCode } from "../lib/errors.ts";
import { FuseMountError, programError } from "./mount-errors.ts";
import { runCommand } from "./run-command.ts";

const CONNECTIONS = "/sys/fs/fuse/connections";

/**
 * Cuts the connection of a FUSE mount: every waiting request fails with ECONNABORTED and reading
 * /dev/fuse ends. It needs nothing from the thread that serves the mount, so it also frees one that
 * hangs. Does nothing when the connection is already gone.
 */
export async function abortConnection(connectionId: number, mountPoint: string): Promise<void> {
  try {
    if ((await readdir(CONNECTIONS)).length === 0) {
      const args = ["-t", "fusectl", "fusectl", CONNECTIONS];
      await runCommand("mount", args, { timeoutMs: 5000 });
    }
    await writeFile(`${CONNECTIONS}/${connectionId}/abort`, "1");
    return;
  } catch (error) {
    const code = errorCode(error);
    if (code === "ENODEV" || code === "ENOTCONN") return;
    await forceUnmount(connectionId, mountPoint, error);
  }
}

/** Without fusectl (a container with a read-only /sys), a forced unmount also aborts. */
async function forceUnmount(id: number, mountPoint: string, cause: unknown): Promise<void> {
  const result = await runCommand("umount", ["-f", mountPoint], { timeoutMs: 5000 }).catch(
    (error: unknown) => {
      throw programError("umount", error);
    },
  );
  if (result.exitCode === 0 || /not mounted|no mount point/i.test(result.stderr)) return;
  throw new FuseMountError(
    "FUSE_ABORT_FAILED",
    `the FUSE connection of ${mountPoint} could not be aborted: as root run \`mount -t fusectl fusectl ${CONNECTIONS}; echo 1 > ${CONNECTIONS}/${id}/abort\` (${result.stderr})`,
    { cause },
  );
}
