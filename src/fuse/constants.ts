/** Numbers of the Linux FUSE kernel protocol, named as in include/uapi/linux/fuse.h. */

/** The protocol we speak: the oldest kernel we accept and the newest we know. */
export const FUSE_KERNEL_VERSION = 7;
export const FUSE_MINOR_VERSION_MIN = 31;
export const FUSE_MINOR_VERSION_MAX = 45;

/** The node id of the root directory. */
export const FUSE_ROOT_ID = 1;

// Opcodes of requests.
export const FUSE_LOOKUP = 1;
export const FUSE_FORGET = 2;
export const FUSE_GETATTR = 3;
export const FUSE_SETATTR = 4;
export const FUSE_READLINK = 5;
export const FUSE_SYMLINK = 6;
export const FUSE_MKNOD = 8;
export const FUSE_MKDIR = 9;
export const FUSE_UNLINK = 10;
export const FUSE_RMDIR = 11;
export const FUSE_RENAME = 12;
export const FUSE_LINK = 13;
export const FUSE_OPEN = 14;
export const FUSE_READ = 15;
export const FUSE_WRITE = 16;
export const FUSE_STATFS = 17;
export const FUSE_RELEASE = 18;
export const FUSE_FSYNC = 20;
export const FUSE_SETXATTR = 21;
export const FUSE_GETXATTR = 22;
export const FUSE_LISTXATTR = 23;
export const FUSE_REMOVEXATTR = 24;
export const FUSE_FLUSH = 25;
export const FUSE_INIT = 26;
export const FUSE_OPENDIR = 27;
export const FUSE_READDIR = 28;
export const FUSE_RELEASEDIR = 29;
export const FUSE_FSYNCDIR = 30;
export const FUSE_GETLK = 31;
export const FUSE_SETLK = 32;
export const FUSE_SETLKW = 33;
export const FUSE_ACCESS = 34;
export const FUSE_CREATE = 35;
export const FUSE_INTERRUPT = 36;
export const FUSE_BMAP = 37;
export const FUSE_DESTROY = 38;
export const FUSE_IOCTL = 39;
export const FUSE_POLL = 40;
export const FUSE_NOTIFY_REPLY = 41;
export const FUSE_BATCH_FORGET = 42;
export const FUSE_FALLOCATE = 43;
export const FUSE_READDIRPLUS = 44;
export const FUSE_RENAME2 = 45;
export const FUSE_LSEEK = 46;
export const FUSE_COPY_FILE_RANGE = 47;
export const FUSE_SYNCFS = 50;
export const FUSE_TMPFILE = 51;
export const FUSE_STATX = 52;

// Codes of notifications, which travel in the error field of a message with unique 0.
export const FUSE_NOTIFY_INVAL_INODE = 2;
export const FUSE_NOTIFY_INVAL_ENTRY = 3;
export const FUSE_NOTIFY_STORE = 4;
export const FUSE_NOTIFY_RETRIEVE = 5;
export const FUSE_NOTIFY_DELETE = 6;

// INIT flags (the low 32 of 64).
export const FUSE_ASYNC_READ = 0x1;
export const FUSE_POSIX_LOCKS = 0x2;
export const FUSE_ATOMIC_O_TRUNC = 0x8;
export const FUSE_BIG_WRITES = 0x20;
export const FUSE_AUTO_INVAL_DATA = 0x1000;
export const FUSE_DO_READDIRPLUS = 0x2000;
export const FUSE_READDIRPLUS_AUTO = 0x4000;
export const FUSE_WRITEBACK_CACHE = 0x10000;
export const FUSE_PARALLEL_DIROPS = 0x40000;
export const FUSE_MAX_PAGES = 0x400000;
export const FUSE_EXPLICIT_INVAL_DATA = 0x2000000;
export const FUSE_INIT_EXT = 0x40000000;

// SETATTR: which fields are meant.
export const FATTR_MODE = 0x1;
export const FATTR_UID = 0x2;
export const FATTR_GID = 0x4;
export const FATTR_SIZE = 0x8;
export const FATTR_ATIME = 0x10;
export const FATTR_MTIME = 0x20;
export const FATTR_FH = 0x40;
export const FATTR_ATIME_NOW = 0x80;
export const FATTR_MTIME_NOW = 0x100;
export const FATTR_LOCKOWNER = 0x200;
export const FATTR_CTIME = 0x400;
export const FATTR_KILL_SUIDGID = 0x800;

// Answers to OPEN, OPENDIR and CREATE.
export const FOPEN_DIRECT_IO = 0x1;
export const FOPEN_KEEP_CACHE = 0x2;
export const FOPEN_NONSEEKABLE = 0x4;
export const FOPEN_CACHE_DIR = 0x8;
export const FOPEN_NOFLUSH = 0x20;

// Flags of single requests.
export const FUSE_RELEASE_FLUSH = 0x1;
export const FUSE_GETATTR_FH = 0x1;
export const FUSE_LK_FLOCK = 0x1;
/** Written back from the page cache (mmap); the file handle is guessed, the owner unknown. */
export const FUSE_WRITE_CACHE = 0x1;
export const FUSE_WRITE_LOCKOWNER = 0x2;
export const FUSE_READ_LOCKOWNER = 0x2;
export const FUSE_FSYNC_FDATASYNC = 0x1;

// Lock types of fcntl(2).
export const F_RDLCK = 0;
export const F_WRLCK = 1;
export const F_UNLCK = 2;

// open(2) flags on x86-64 and arm64 that are the same on both.
export const O_ACCMODE = 0o3;
export const O_RDONLY = 0o0;
export const O_WRONLY = 0o1;
export const O_RDWR = 0o2;
export const O_CREAT = 0o100;
export const O_EXCL = 0o200;
export const O_TRUNC = 0o1000;
export const O_APPEND = 0o2000;

// File types in `mode`, and shifted down by 12 in directory entries.
export const S_IFMT = 0o170000;
export const S_IFDIR = 0o040000;
export const S_IFREG = 0o100000;
export const S_IFLNK = 0o120000;
