export const MIN_PAGE_SIZE: number = 512;
export const MAX_PAGE_SIZE: number = 65536;

export function isValidPageSize(pageSize: number): boolean {
  return (
    Number.isInteger(pageSize) &&
    pageSize >= MIN_PAGE_SIZE &&
    pageSize <= MAX_PAGE_SIZE &&
    (pageSize & (pageSize - 1)) === 0
  );
}

/** Two-byte fields cannot hold 65536: the database header and the wal-index store 1 instead. */
export function pageSizeToUint16(pageSize: number): number {
  return pageSize === MAX_PAGE_SIZE ? 1 : pageSize;
}

/** Undefined when the field holds no valid page size. */
export function pageSizeFromUint16(field: number): number | undefined {
  const pageSize = field === 1 ? MAX_PAGE_SIZE : field;
  return isValidPageSize(pageSize) ? pageSize : undefined;
}
