import { expect, test } from "vitest";
import { hasCpuQuota } from "../../../src/fuse/cpu-quota.ts";

function on(files: Readonly<Record<string, string>>): boolean {
  return hasCpuQuota((file) => files[file]);
}

test("no control groups, no quota", () => {
  expect(on({})).toBe(false);
  expect(on({ "/proc/self/cgroup": "0::/\n" })).toBe(false);
});

test("version 2: in a container, and on a machine with the limit on a group above", () => {
  expect(on({ "/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/cpu.max": "50000 100000\n" })).toBe(
    true,
  );
  const group = "0::/system.slice/litefs.service/app\n";
  const root = "/sys/fs/cgroup/system.slice";
  expect(
    on({
      "/proc/self/cgroup": group,
      [`${root}/litefs.service/app/cpu.max`]: "max 100000\n",
      [`${root}/litefs.service/cpu.max`]: "200000 100000\n",
    }),
  ).toBe(true);
  expect(
    on({ "/proc/self/cgroup": group, [`${root}/litefs.service/app/cpu.max`]: "max 100000\n" }),
  ).toBe(false);
});

test("version 1: by the path of the group, or as the root of a container", () => {
  const groups = "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n";
  const directory = "/sys/fs/cgroup/cpu,cpuacct";
  const own = `${directory}/docker/abc/cpu.cfs_quota_us`;
  expect(on({ "/proc/self/cgroup": groups, [own]: "100000\n" })).toBe(true);
  expect(on({ "/proc/self/cgroup": groups, [own]: "-1\n" })).toBe(false);
  expect(on({ "/proc/self/cgroup": groups, [`${directory}/cpu.cfs_quota_us`]: "25000\n" })).toBe(
    true,
  );
});
