import {
  FATTR_FH,
  FUSE_ACCESS,
  FUSE_BATCH_FORGET,
  FUSE_COPY_FILE_RANGE,
  FUSE_CREATE,
  FUSE_FALLOCATE,
  FUSE_FLUSH,
  FUSE_FORGET,
  FUSE_FSYNC,
  FUSE_FSYNC_FDATASYNC,
  FUSE_FSYNCDIR,
  FUSE_GETATTR,
  FUSE_GETATTR_FH,
  FUSE_GETLK,
  FUSE_GETXATTR,
  FUSE_INTERRUPT,
  FUSE_LINK,
  FUSE_LISTXATTR,
  FUSE_LOOKUP,
  FUSE_LSEEK,
  FUSE_MKDIR,
  FUSE_MKNOD,
  FUSE_NOTIFY_REPLY,
  FUSE_OPEN,
  FUSE_OPENDIR,
  FUSE_READ,
  FUSE_READDIR,
  FUSE_READDIRPLUS,
  FUSE_READLINK,
  FUSE_RELEASE,
  FUSE_RELEASEDIR,
  FUSE_REMOVEXATTR,
  FUSE_RENAME,
  FUSE_RENAME2,
  FUSE_RMDIR,
  FUSE_SETATTR,
  FUSE_SETLK,
  FUSE_SETLKW,
  FUSE_SETXATTR,
  FUSE_STATFS,
  FUSE_SYMLINK,
  FUSE_UNLINK,
  FUSE_WRITE,
} from "./constants.ts";
import type { FuseHandler, SetattrFields } from "./handler.ts";
import { type RequestBuffer, IN_HEADER_BYTES } from "./request.ts";
import { isWake } from "./wake.ts";

/** Where the body of a request starts; all offsets below are relative to the body. */
const BODY = IN_HEADER_BYTES;

/**
 * Decodes the body of a request and calls the handler. Returns false when the handler does not
 * implement it. The operations of a running SQLite come first; whole names and everything rare
 * are left to the functions below.
 */
export function dispatchRequest(b: RequestBuffer, handler: FuseHandler): boolean {
  switch (b.opcode) {
    case FUSE_SETLK:
    case FUSE_SETLKW:
      // fuse_lk_in: 0 fh, 8 owner, 16 start, 24 end, 32 type, 36 pid, 40 lk_flags
      b.requireLength(BODY + 48);
      handler.setlk(
        b,
        b.id(BODY),
        b.int32(BODY + 8),
        b.int32(BODY + 12),
        b.uint64(BODY + 16),
        b.uint64(BODY + 24),
        b.int32(BODY + 32),
        b.int32(BODY + 36),
        b.int32(BODY + 40),
        b.opcode === FUSE_SETLKW,
      );
      return true;
    case FUSE_WRITE: {
      // fuse_write_in: 0 fh, 8 offset, 16 size, 20 write_flags, 24 lock_owner, 32 flags, 40 data
      const size = b.uint32(BODY + 16);
      b.requireLength(BODY + 40 + size);
      handler.write(
        b,
        b.id(BODY),
        b.uint64(BODY + 8),
        b.bytes,
        BODY + 40,
        size,
        b.int32(BODY + 20),
        b.int32(BODY + 24),
        b.int32(BODY + 28),
      );
      return true;
    }
    case FUSE_READ:
      // fuse_read_in: 0 fh, 8 offset, 16 size, 20 read_flags, 24 lock_owner, 32 flags
      b.requireLength(BODY + 40);
      handler.read(
        b,
        b.id(BODY),
        b.uint64(BODY + 8),
        b.readSize(BODY + 16),
        b.int32(BODY + 20),
        b.int32(BODY + 24),
        b.int32(BODY + 28),
      );
      return true;
    case FUSE_FSYNC:
      // fuse_fsync_in: 0 fh, 8 fsync_flags
      b.requireLength(BODY + 16);
      handler.fsync(b, b.id(BODY), (b.int32(BODY + 8) & FUSE_FSYNC_FDATASYNC) !== 0);
      return true;
    case FUSE_GETATTR: {
      // fuse_getattr_in: 0 getattr_flags, 8 fh
      b.requireLength(BODY + 16);
      const hasHandle = (b.int32(BODY) & FUSE_GETATTR_FH) !== 0;
      handler.getattr(b, hasHandle ? b.id(BODY + 8) : -1);
      return true;
    }
    case FUSE_FLUSH:
      // fuse_flush_in: 0 fh, 16 lock_owner
      b.requireLength(BODY + 24);
      handler.flush(b, b.id(BODY), b.int32(BODY + 16), b.int32(BODY + 20));
      return true;
    case FUSE_LOOKUP:
      handler.lookup(b, b.name(BODY));
      return true;
    default:
      return dispatchFile(b, handler);
  }
}

function dispatchFile(b: RequestBuffer, handler: FuseHandler): boolean {
  switch (b.opcode) {
    case FUSE_OPEN:
      // fuse_open_in: 0 flags
      handler.open(b, b.int32(BODY));
      return true;
    case FUSE_RELEASE:
      // fuse_release_in: 0 fh, 8 flags, 12 release_flags, 16 lock_owner
      b.requireLength(BODY + 24);
      handler.release(
        b,
        b.id(BODY),
        b.int32(BODY + 8),
        b.int32(BODY + 12),
        b.int32(BODY + 16),
        b.int32(BODY + 20),
      );
      return true;
    case FUSE_GETLK:
      b.requireLength(BODY + 48);
      handler.getlk(
        b,
        b.id(BODY),
        b.int32(BODY + 8),
        b.int32(BODY + 12),
        b.uint64(BODY + 16),
        b.uint64(BODY + 24),
        b.int32(BODY + 32),
        b.int32(BODY + 36),
      );
      return true;
    case FUSE_SETATTR:
      decodeSetattr(b);
      handler.setattr(b, b.int32(BODY), setattrFields);
      return true;
    case FUSE_ACCESS:
      handler.access(b, b.int32(BODY));
      return true;
    case FUSE_STATFS:
      handler.statfs(b);
      return true;
    case FUSE_FORGET:
      handler.forget(b.nodeId, b.uint64(BODY));
      return true;
    case FUSE_BATCH_FORGET:
      dispatchBatchForget(b, handler);
      return true;
    case FUSE_INTERRUPT:
      handler.interrupt(b.int32(BODY), b.int32(BODY + 4));
      return true;
    case FUSE_NOTIFY_REPLY:
      dispatchNotifyReply(b, handler);
      return true;
    default:
      return dispatchName(b, handler);
  }
}

function dispatchName(b: RequestBuffer, handler: FuseHandler): boolean {
  switch (b.opcode) {
    case FUSE_CREATE:
      // fuse_create_in: 0 flags, 4 mode, 8 umask, 12 open_flags, 16 name
      handler.create(b, b.name(BODY + 16), b.int32(BODY), b.int32(BODY + 4));
      return true;
    case FUSE_UNLINK:
      handler.unlink(b, b.name(BODY));
      return true;
    case FUSE_RMDIR:
      handler.rmdir?.(b, b.name(BODY));
      return handler.rmdir !== undefined;
    case FUSE_MKDIR:
      // fuse_mkdir_in: 0 mode, 4 umask, 8 name
      handler.mkdir?.(b, b.name(BODY + 8), b.int32(BODY));
      return handler.mkdir !== undefined;
    case FUSE_MKNOD:
      // fuse_mknod_in: 0 mode, 4 rdev, 8 umask, 16 name
      handler.mknod?.(b, b.name(BODY + 16), b.int32(BODY), b.int32(BODY + 4));
      return handler.mknod !== undefined;
    case FUSE_RENAME:
      // fuse_rename_in: 0 newdir, 8 oldname, newname
      return dispatchRename(b, handler, BODY + 8, 0);
    case FUSE_RENAME2:
      // fuse_rename2_in: 0 newdir, 8 flags, 16 oldname, newname
      return dispatchRename(b, handler, BODY + 16, b.int32(BODY + 8));
    case FUSE_LINK:
      // fuse_link_in: 0 oldnodeid, 8 newname
      handler.link?.(b, b.id(BODY), b.name(BODY + 8));
      return handler.link !== undefined;
    case FUSE_SYMLINK: {
      const end = b.nameEnd(BODY);
      handler.symlink?.(b, b.component(BODY, end), b.text(end + 1, b.nameEnd(end + 1)));
      return handler.symlink !== undefined;
    }
    case FUSE_READLINK:
      handler.readlink?.(b);
      return handler.readlink !== undefined;
    default:
      return dispatchRare(b, handler);
  }
}

function dispatchRare(b: RequestBuffer, handler: FuseHandler): boolean {
  switch (b.opcode) {
    case FUSE_OPENDIR:
      handler.opendir(b, b.int32(BODY));
      return true;
    case FUSE_READDIR:
      // fuse_read_in
      handler.readdir(b, b.id(BODY), b.uint64(BODY + 8), b.readSize(BODY + 16));
      return true;
    case FUSE_READDIRPLUS:
      handler.readdirplus?.(b, b.id(BODY), b.uint64(BODY + 8), b.readSize(BODY + 16));
      return handler.readdirplus !== undefined;
    case FUSE_RELEASEDIR:
      handler.releasedir(b, b.id(BODY), b.int32(BODY + 8));
      return true;
    case FUSE_FSYNCDIR:
      handler.fsyncdir?.(b, b.id(BODY), (b.int32(BODY + 8) & FUSE_FSYNC_FDATASYNC) !== 0);
      return handler.fsyncdir !== undefined;
    case FUSE_FALLOCATE:
      // fuse_fallocate_in: 0 fh, 8 offset, 16 length, 24 mode
      handler.fallocate?.(
        b,
        b.id(BODY),
        b.uint64(BODY + 8),
        b.uint64(BODY + 16),
        b.int32(BODY + 24),
      );
      return handler.fallocate !== undefined;
    case FUSE_LSEEK:
      // fuse_lseek_in: 0 fh, 8 offset, 16 whence
      handler.lseek?.(b, b.id(BODY), b.uint64(BODY + 8), b.int32(BODY + 16));
      return handler.lseek !== undefined;
    case FUSE_COPY_FILE_RANGE:
      // fuse_copy_file_range_in: 0 fh_in, 8 off_in, 16 nodeid_out, 24 fh_out, 32 off_out, 40 len
      handler.copyFileRange?.(
        b,
        b.id(BODY),
        b.uint64(BODY + 8),
        b.id(BODY + 16),
        b.id(BODY + 24),
        b.uint64(BODY + 32),
        b.uint64(BODY + 40),
      );
      return handler.copyFileRange !== undefined;
    default:
      return dispatchXattr(b, handler);
  }
}

/** Everything else (IOCTL, POLL, BMAP, TMPFILE, STATX, SYNCFS, …) is ENOSYS by design. */
function dispatchXattr(b: RequestBuffer, handler: FuseHandler): boolean {
  switch (b.opcode) {
    case FUSE_GETXATTR:
      // fuse_getxattr_in: 0 size, 8 name
      handler.getxattr?.(b, b.text(BODY + 8, b.nameEnd(BODY + 8)), b.int32(BODY));
      return handler.getxattr !== undefined;
    case FUSE_LISTXATTR:
      handler.listxattr?.(b, b.int32(BODY));
      return handler.listxattr !== undefined;
    case FUSE_SETXATTR: {
      // fuse_setxattr_in without SETXATTR_EXT: 0 size, 4 flags, 8 name, value
      const end = b.nameEnd(BODY + 8);
      const size = b.uint32(BODY);
      b.requireLength(end + 1 + size);
      const name = b.text(BODY + 8, end);
      handler.setxattr?.(b, name, b.bytes, end + 1, size, b.int32(BODY + 4));
      return handler.setxattr !== undefined;
    }
    case FUSE_REMOVEXATTR:
      handler.removexattr?.(b, b.text(BODY, b.nameEnd(BODY)));
      return handler.removexattr !== undefined;
    default:
      return false;
  }
}

const setattrFields: { -readonly [Field in keyof SetattrFields]: SetattrFields[Field] } = {
  fh: -1,
  size: 0,
  atimeMs: 0,
  mtimeMs: 0,
  ctimeMs: 0,
  mode: 0,
  uid: 0,
  gid: 0,
  ownerLo: 0,
  ownerHi: 0,
};

/*
 * struct fuse_setattr_in
 *
 * | offset | size | field      |     | offset | size | field     |
 * |--------|------|------------|     |--------|------|-----------|
 * | 0      | 4    | valid      |     | 48     | 8    | ctime     |
 * | 4      | 4    | padding    |     | 56     | 4    | atimensec |
 * | 8      | 8    | fh         |     | 60     | 4    | mtimensec |
 * | 16     | 8    | size       |     | 64     | 4    | ctimensec |
 * | 24     | 8    | lock_owner |     | 68     | 4    | mode      |
 * | 32     | 8    | atime      |     | 76     | 4    | uid       |
 * | 40     | 8    | mtime      |     | 80     | 4    | gid       |
 */
function decodeSetattr(b: RequestBuffer): void {
  b.requireLength(BODY + 88);
  const hasHandle = (b.int32(BODY) & FATTR_FH) !== 0;
  setattrFields.fh = hasHandle ? b.id(BODY + 8) : -1;
  setattrFields.size = b.uint64(BODY + 16);
  setattrFields.ownerLo = b.int32(BODY + 24);
  setattrFields.ownerHi = b.int32(BODY + 28);
  setattrFields.atimeMs = b.timeMs(BODY + 32, BODY + 56);
  setattrFields.mtimeMs = b.timeMs(BODY + 40, BODY + 60);
  setattrFields.ctimeMs = b.timeMs(BODY + 48, BODY + 64);
  setattrFields.mode = b.int32(BODY + 68);
  setattrFields.uid = b.uint32(BODY + 76);
  setattrFields.gid = b.uint32(BODY + 80);
}

/** fuse_batch_forget_in: 0 count, then per node 0 nodeid, 8 nlookup. */
function dispatchBatchForget(b: RequestBuffer, handler: FuseHandler): void {
  const count = b.uint32(BODY);
  b.requireLength(BODY + 8 + count * 16);
  for (let i = 0; i < count; i++) {
    const at = BODY + 8 + i * 16;
    handler.forget(b.id(at), b.uint64(at + 8));
  }
}

/** fuse_notify_retrieve_in: 8 offset, 16 size, 40 data. The unique id is the one we chose. */
function dispatchNotifyReply(b: RequestBuffer, handler: FuseHandler): void {
  if (isWake(b.uniqueLo, b.uniqueHi)) {
    handler.wake();
    return;
  }
  const size = b.uint32(BODY + 16);
  b.requireLength(BODY + 40 + size);
  handler.notifyReply(b, b.uniqueLo >>> 0, b.uint64(BODY + 8), b.bytes, BODY + 40, size);
}

function dispatchRename(b: RequestBuffer, h: FuseHandler, names: number, flags: number): boolean {
  const end = b.nameEnd(names);
  h.rename?.(b, b.component(names, end), b.id(BODY), b.name(end + 1), flags);
  return h.rename !== undefined;
}
