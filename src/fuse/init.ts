import { LitefsError } from "../lib/errors.ts";
import {
  FUSE_ASYNC_READ,
  FUSE_BIG_WRITES,
  FUSE_DO_READDIRPLUS,
  FUSE_EXPLICIT_INVAL_DATA,
  FUSE_INIT_EXT,
  FUSE_KERNEL_VERSION,
  FUSE_MAX_PAGES,
  FUSE_MINOR_VERSION_MAX,
  FUSE_MINOR_VERSION_MIN,
  FUSE_PARALLEL_DIROPS,
  FUSE_POSIX_LOCKS,
  FUSE_READDIRPLUS_AUTO,
} from "./constants.ts";

/** The kernel and this program have no common protocol. */
export class FuseProtocolError extends LitefsError {
  override readonly name: string = "FuseProtocolError";
}

export interface InitOffer {
  readonly major: number;
  readonly minor: number;
  readonly maxReadaheadBytes: number;
  readonly flags: number;
}

export interface InitOptions {
  readonly maxWriteBytes: number;
  /** Ask for every fcntl lock instead of leaving them to the kernel. */
  readonly posixLocks: boolean;
  /** The handler implements readdirplus. */
  readonly readdirplus: boolean;
}

/** What both sides agreed on. */
export interface InitResult {
  readonly major: number;
  readonly minor: number;
  readonly maxReadaheadBytes: number;
  readonly flags: number;
  readonly maxWriteBytes: number;
  readonly maxPages: number;
}

const PAGE_BYTES = 4096;

/**
 * Chooses the features of the connection. Left out on purpose:
 * - WRITEBACK_CACHE: a commit must reach us before the application is told that it happened;
 * - AUTO_INVAL_DATA: it would drop cached pages whenever a size or time moves; every change comes
 *   through this kernel or from us, and we notify (EXPLICIT_INVAL_DATA);
 * - ATOMIC_O_TRUNC: truncation then always arrives as SETATTR;
 * - HANDLE_KILLPRIV, SETXATTR_EXT, SECURITY_CTX: they extend requests that we do not need.
 */
export function negotiate(offer: InitOffer, options: InitOptions): InitResult {
  const { major, minor } = offer;
  if (major !== FUSE_KERNEL_VERSION || minor < FUSE_MINOR_VERSION_MIN) {
    throw new FuseProtocolError(
      "FUSE_KERNEL_TOO_OLD",
      `the kernel speaks FUSE protocol ${major}.${minor}, litefs needs ${FUSE_KERNEL_VERSION}.${FUSE_MINOR_VERSION_MIN} or newer: use Linux 5.4 or newer`,
    );
  }
  const required = FUSE_BIG_WRITES | FUSE_MAX_PAGES | (options.posixLocks ? FUSE_POSIX_LOCKS : 0);
  if ((offer.flags & required) !== required) {
    throw new FuseProtocolError(
      "FUSE_KERNEL_FEATURES",
      `the kernel's FUSE lacks features that litefs needs (offered 0x${(offer.flags >>> 0).toString(16)}, needed 0x${required.toString(16)}): use a stock Linux 5.4 or newer`,
    );
  }
  const wanted =
    required |
    FUSE_ASYNC_READ |
    FUSE_PARALLEL_DIROPS |
    FUSE_EXPLICIT_INVAL_DATA |
    FUSE_INIT_EXT |
    (options.readdirplus ? FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO : 0);
  return {
    major: FUSE_KERNEL_VERSION,
    minor: Math.min(minor, FUSE_MINOR_VERSION_MAX),
    maxReadaheadBytes: offer.maxReadaheadBytes,
    flags: wanted & offer.flags,
    maxWriteBytes: options.maxWriteBytes,
    maxPages: options.maxWriteBytes / PAGE_BYTES,
  };
}
