import type { Database } from "../../../../src/database/database.ts";
import type { Content } from "./pager-types.ts";

/**
 * A commit may leave another change counter behind than SQLite wrote, which SQLite finds in the file
 * before it trusts its cache. Puts it into what the transaction is known to have written.
 */
export function adoptCounter(
  pager: { readonly db: Database; changeCounter: number },
  pages: Map<number, Uint8Array>,
  next: Content,
): void {
  const found = new Uint8Array(4);
  if (pager.db.files.get("database")?.readAt(found, 0, 4, 24) !== 4) return;
  const page = next.pages.get(1)?.slice();
  if (page === undefined || Buffer.compare(page.subarray(24, 28), found) === 0) return;
  page.set(found, 24);
  page.set(found, 92);
  next.pages.set(1, page);
  if (pages.has(1)) pages.set(1, page);
  pager.changeCounter = new DataView(found.buffer).getUint32(0);
}
