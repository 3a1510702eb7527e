import { expect, test } from "vitest";
import {
  deviceError,
  notRootError,
  parsePrivileges,
  refusedError,
} from "../../../src/fuse/mount-errors.ts";

const systemError = (code: string): Error => Object.assign(new Error(code), { code });
const ROOT = { hasSysAdmin: true, appArmorProfile: undefined };

test.each([
  ["ENOENT", "FUSE_DEVICE_MISSING", "modprobe fuse"],
  ["ENODEV", "FUSE_DEVICE_MISSING", "docker run --device /dev/fuse"],
  ["EPERM", "FUSE_DEVICE_DENIED", "--cap-add SYS_ADMIN"],
  ["EACCES", "FUSE_DEVICE_DENIED", "run as root"],
])("opening /dev/fuse: %s", (code, expected, remedy) => {
  const error = deviceError(systemError(code));
  expect(error.code).toBe(expected);
  expect(error.message).toContain(remedy);
  expect(error.cause).toMatchObject({ code });
});

test.each([
  ["unknown filesystem type 'fuse'", ROOT, "FUSE_MODULE_MISSING", "modprobe fuse"],
  [
    "permission denied",
    { ...ROOT, hasSysAdmin: false },
    "FUSE_MOUNT_DENIED",
    "--cap-add SYS_ADMIN",
  ],
  ["permission denied", ROOT, "FUSE_MOUNT_FORBIDDEN", "apparmor=unconfined"],
  [
    "permission denied",
    { ...ROOT, appArmorProfile: "docker-default (enforce)" },
    "FUSE_MOUNT_FORBIDDEN",
    "AppArmor profile docker-default (enforce)",
  ],
  ["wrong fs type, bad option", ROOT, "FUSE_MOUNT_FAILED", "wrong fs type"],
])("mount says: %s", (stderr, privileges, code, remedy) => {
  const error = refusedError("/litefs", `mount: /litefs: ${stderr}.`, privileges);
  expect(error.code).toBe(code);
  expect(error.message).toContain(remedy);
  expect(error.message).toContain("/litefs");
});

test("not root: says that there is no fusermount path", () => {
  expect(notRootError(1000).message).toContain("uid 1000");
  expect(notRootError(1000).message).toContain("does not use fusermount");
});

test("privileges are read from /proc", () => {
  expect(parsePrivileges("CapEff:\t00000000a80425fb\n", "docker-default (enforce)\n")).toEqual({
    hasSysAdmin: false,
    appArmorProfile: "docker-default (enforce)",
  });
  expect(parsePrivileges("CapEff:\t000001ffffffffff\n", "unconfined\n")).toEqual(ROOT);
  expect(parsePrivileges("", "")).toEqual(ROOT);
});
