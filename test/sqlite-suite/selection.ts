/** Where a file system matters, and the most likely to find something first. */
const GROUPS: readonly RegExp[] = [
  /^wal/,
  /^lock/,
  /^pager/,
  /^crash/,
  /^(io|iofault)/,
  /^journal/,
  /^jrnlmode/,
  /^savepoint/,
  /^vacuum/,
  /^(incrvacuum|autovacuum)/,
  /^page\w*\.test/,
  /^mmap/,
  /^trans/,
  /^(shared|tempdb|temptable|tempfault|multiplex|quota|symlink|superlock|unixexcl|exclusive)/,
  /^(backup|attach|memdb|dbpage|bigfile|stmt|snapshot|recover|nolock|uri|zerodamage|oserror)/,
  /^tkt/,
  /^(fts|rtree)/,
];

/** Need memory allocation tricks or hours, and no file system. */
const LEFT_OUT =
  /^(memsubsys|malloc|mallocA|all|quick|veryquick|full|permutations|soak|fuzz-oss1|speed|threadtest|releasetest|rbu\w*crash|loadext|thread00|bigsort|fuzzer2|walslow)/;

/** The files in the order in which they are worth running; the rest, if asked for, comes last. */
export function selectFiles(all: readonly string[], veryQuick: readonly string[]): string[] {
  const rest = new Set(all.filter((file) => !LEFT_OUT.test(file)));
  const chosen: string[] = [];
  for (const group of GROUPS) {
    for (const file of [...rest].sort()) {
      if (!group.test(file)) continue;
      chosen.push(file);
      rest.delete(file);
    }
  }
  for (const file of veryQuick) if (rest.delete(file)) chosen.push(file);
  return chosen;
}

/** `wal*` and the like. */
export function matchesAny(file: string, patterns: readonly string[]): boolean {
  return patterns.some((pattern) => {
    const source = pattern.replace(/\.test$/, "").replace(/[.+?^${}()|[\]\\]/g, "\\$&");
    return new RegExp(`^${source.replaceAll("*", ".*")}\\.test$`).test(file);
  });
}
