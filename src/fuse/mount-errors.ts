import { readFile } from "node:fs/promises";
import { LitefsError, errorCode } from "../lib/errors.ts";

/** The directory could not be mounted or unmounted; the message says what to do. */
export class FuseMountError extends LitefsError {
  override readonly name: string = "FuseMountError";
}

const CAP_SYS_ADMIN = 21n;

/** Opening /dev/fuse failed. */
export function deviceError(error: unknown): FuseMountError {
  const code = errorCode(error);
  if (code === "EACCES" || code === "EPERM") {
    return new FuseMountError(
      "FUSE_DEVICE_DENIED",
      "/dev/fuse may not be opened: run as root; in a container start it with --device /dev/fuse --cap-add SYS_ADMIN",
      { cause: error },
    );
  }
  return new FuseMountError(
    "FUSE_DEVICE_MISSING",
    "/dev/fuse is missing: load the kernel module with `modprobe fuse`; in a container start it with --device /dev/fuse (docker run --device /dev/fuse --cap-add SYS_ADMIN)",
    { cause: error },
  );
}

/** `mount` or `umount` could not be started. */
export function programError(program: string, error: unknown): FuseMountError {
  return new FuseMountError(
    "FUSE_MOUNT_PROGRAM_MISSING",
    `the program ${program} cannot be run: install the package \`mount\` (Debian, Ubuntu) or \`util-linux\``,
    { cause: error },
  );
}

export function notRootError(uid: number): FuseMountError {
  return new FuseMountError(
    "FUSE_NOT_ROOT",
    `mounting needs root and this process runs as uid ${uid}: start litefs as root (it does not use fusermount)`,
  );
}

/** What the process may do, from /proc, which decides how a refusal is explained. */
export interface Privileges {
  readonly hasSysAdmin: boolean;
  /** Name of the AppArmor profile; undefined when unconfined or without AppArmor. */
  readonly appArmorProfile: string | undefined;
}

export async function readPrivileges(): Promise<Privileges> {
  const [status, profile] = await Promise.all([
    readFile("/proc/self/status", "utf8").catch(() => ""),
    readFile("/proc/self/attr/current", "utf8").catch(() => ""),
  ]);
  return parsePrivileges(status, profile);
}

export function parsePrivileges(status: string, profile: string): Privileges {
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1];
  // Without /proc we cannot know, and then do not accuse the capability.
  const capabilities = effective === undefined ? 1n << CAP_SYS_ADMIN : BigInt(`0x${effective}`);
  const name = profile.replaceAll("\0", "").trim();
  return {
    hasSysAdmin: ((capabilities >> CAP_SYS_ADMIN) & 1n) === 1n,
    appArmorProfile: name === "" || name.startsWith("unconfined") ? undefined : name,
  };
}

/** The mount program ended with an error. */
export function refusedError(
  directory: string,
  stderr: string,
  privileges: Privileges,
): FuseMountError {
  if (/unknown filesystem type|No such device/i.test(stderr)) {
    return new FuseMountError(
      "FUSE_MODULE_MISSING",
      `the kernel does not know FUSE, ${directory} was not mounted: load it with \`modprobe fuse\` (${stderr})`,
    );
  }
  if (!privileges.hasSysAdmin) {
    return new FuseMountError(
      "FUSE_MOUNT_DENIED",
      `mounting ${directory} needs the capability CAP_SYS_ADMIN: run as root; in a container add --cap-add SYS_ADMIN --device /dev/fuse or --privileged (${stderr})`,
    );
  }
  if (/denied|not permitted|superuser/i.test(stderr)) {
    const { appArmorProfile } = privileges;
    return new FuseMountError(
      "FUSE_MOUNT_FORBIDDEN",
      appArmorProfile === undefined
        ? `mounting ${directory} was forbidden although this process has CAP_SYS_ADMIN: a security policy (AppArmor, SELinux, seccomp) is in the way; in a container try --security-opt apparmor=unconfined (${stderr})`
        : `mounting ${directory} was forbidden by the AppArmor profile ${appArmorProfile}: start the container with --security-opt apparmor=unconfined (${stderr})`,
    );
  }
  return new FuseMountError("FUSE_MOUNT_FAILED", `${directory} was not mounted: ${stderr}`);
}
