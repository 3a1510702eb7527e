import * as fs from "node:fs";
import * as path from "node:path";

const ROOT = "/sys/fs/cgroup";

/**
 * Whether a control group limits how much processor time this process gets, as the limit of a
 * container does. Looks at its group and all above it as far as they can be seen from here: inside
 * of a container the innermost one often looks like the root.
 */
export function hasCpuQuota(read: (file: string) => string | undefined = readText): boolean {
  const groups = read("/proc/self/cgroup") ?? "";
  for (const line of groups.split("\n")) {
    // hierarchy-ID:controllers:path; version 2 has an ID of 0 and no controllers.
    const [id, controllers = "", ...rest] = line.split(":");
    const isVersion2 = id === "0" && controllers === "";
    if (!isVersion2 && !controllers.split(",").includes("cpu")) continue;
    for (const group of selfAndAncestors(rest.join(":"))) {
      const limit = isVersion2
        ? (read(path.join(ROOT, group, "cpu.max")) ?? "max")
        : (read(path.join(ROOT, controllers, group, "cpu.cfs_quota_us")) ?? "-1");
      // "max 100000" or "50000 100000"; version 1: -1 or 50000.
      if (Number.parseInt(limit, 10) > 0) return true;
    }
  }
  return false;
}

function selfAndAncestors(group: string): string[] {
  const groups = [group];
  while (group !== "/" && group !== "." && group !== "") {
    group = path.dirname(group);
    groups.push(group);
  }
  return groups;
}

/** What cannot be read sets no limit that we could know of. */
function readText(file: string): string | undefined {
  try {
    return fs.readFileSync(file, "latin1");
  } catch {
    return undefined;
  }
}
