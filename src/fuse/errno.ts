/** Linux error numbers, positive, as answers to the kernel carry them (there negated). */
export const EPERM = 1;
export const ENOENT = 2;
export const EINTR = 4;
export const EIO = 5;
export const EBADF = 9;
export const EAGAIN = 11;
export const ENOMEM = 12;
export const EACCES = 13;
export const EBUSY = 16;
export const EEXIST = 17;
export const EXDEV = 18;
export const ENODEV = 19;
export const ENOTDIR = 20;
export const EISDIR = 21;
export const EINVAL = 22;
export const ENFILE = 23;
export const EFBIG = 27;
export const ENOSPC = 28;
export const EROFS = 30;
export const ERANGE = 34;
export const EDEADLK = 35;
export const ENAMETOOLONG = 36;
export const ENOLCK = 37;
export const ENOSYS = 38;
export const ENOTEMPTY = 39;
export const ENODATA = 61;
export const EPROTO = 71;
export const EILSEQ = 84;
export const EOPNOTSUPP = 95;
export const ENOTSUP = 95;
export const ETIMEDOUT = 110;
export const ESTALE = 116;
export const EDQUOT = 122;

/** The number of a failed system call (Node keeps it negated), or undefined for other errors. */
export function systemErrno(error: unknown): number | undefined {
  if (error instanceof Error && "errno" in error && typeof error.errno === "number") {
    return error.errno < 0 ? -error.errno : undefined;
  }
  return undefined;
}
