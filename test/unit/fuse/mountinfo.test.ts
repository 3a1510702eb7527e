import { expect, test } from "vitest";
import { isFuse, parseMountinfo } from "../../../src/fuse/mountinfo.ts";

const TEXT = String.raw`22 1 254:0 / / rw,relatime - ext4 /dev/root rw
36 22 0:49 / /mnt/a\040b\134c rw,nosuid shared:1 master:2 - fuse litefs rw,user_id=0
37 22 0:50 / /x rw - fuse.sshfs host: rw
38 22 0:51 / /sys/fs/fuse/connections rw - fusectl none rw
`;

test("finds mount points, types and devices", () => {
  expect(parseMountinfo(TEXT)).toEqual([
    { mountPoint: "/", fileSystemType: "ext4", source: "/dev/root", deviceMinor: 0 },
    { mountPoint: "/mnt/a b\\c", fileSystemType: "fuse", source: "litefs", deviceMinor: 49 },
    { mountPoint: "/x", fileSystemType: "fuse.sshfs", source: "host:", deviceMinor: 50 },
    {
      mountPoint: "/sys/fs/fuse/connections",
      fileSystemType: "fusectl",
      source: "none",
      deviceMinor: 51,
    },
  ]);
});

test("fusectl is not FUSE", () => {
  expect(parseMountinfo(TEXT).map(isFuse)).toEqual([false, true, true, false]);
});
