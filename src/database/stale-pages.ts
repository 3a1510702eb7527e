import type { KernelCache } from "./host.ts";

/** More pages than this and the kernel is told to forget the whole file instead. */
const INVALIDATE_MAX_PAGES = 64;

/** This node has written pages of the database file behind the kernel's back. */
export function invalidatePages(
  kernel: KernelCache,
  pageSize: number,
  pgnos: readonly number[],
): void {
  if (pgnos.length > INVALIDATE_MAX_PAGES) {
    kernel.invalidate("database", 0, 0);
    return;
  }
  for (const pgno of pgnos) kernel.invalidate("database", (pgno - 1) * pageSize, pageSize);
}
