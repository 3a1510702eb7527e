import * as C from "../../../src/fuse/constants.ts";
import { InvariantError } from "../../../src/lib/assert.ts";
import { encodeJournalHeader } from "../../../src/sqlite/journal.ts";
import { RESERVED_BYTE, SHARED_FIRST, WAL_WRITE_LOCK } from "../../../src/sqlite/locks.ts";
import { encodeWalHeader, sealFrame, WalChecksum } from "../../../src/sqlite/wal.ts";
import { databaseSeed } from "../seeds.ts";
import { invariant } from "../target.ts";
import type { FuzzTarget } from "../target.ts";
import { checkDatabase } from "./engine.ts";
import { FuseWithoutKernel } from "./fuse-kernel.ts";

const NAMES = ["a", "a-journal", "a-wal", "a-shm", "a-pos", "a-lock", "b", "b-wal", ".lag"];
const ODD_NAMES = [".primary", "-wal", "d", "", "\u00e9", "x".repeat(247), "y".repeat(255)];
const OFFSETS = [
  0,
  0,
  0,
  24,
  32,
  56,
  100,
  512,
  4096,
  4152,
  4176,
  8272,
  8192,
  1 << 16,
  1 << 20,
  2 ** 30,
  2 ** 31,
  2 ** 32,
  2 ** 40,
  2 ** 53,
  2 ** 62,
];
const SIZES = [
  0,
  0,
  1,
  28,
  32,
  512,
  4096,
  8192,
  12288,
  1 << 16,
  2 ** 31,
  2 ** 32,
  2 ** 40,
  2 ** 62,
];
const PAGE_SIZE = 4096;
const ENTRY_BYTES = 128;
const MAX_OPERATIONS = 200;
const MAX_WRITTEN_BYTES = 32 * 1024;

interface Handle {
  readonly fh: number;
  readonly nodeId: number;
}

/** Reads an input as a program: what is missing at its end is zero. */
class Program {
  readonly #bytes: Uint8Array;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }
  get isOver(): boolean {
    return this.#at >= this.#bytes.length;
  }
  byte(): number {
    return this.#bytes[this.#at++] ?? 0;
  }
  pick<T>(items: readonly T[]): T {
    const item = items[this.byte() % items.length];
    invariant(item !== undefined, "a list has no items");
    return item;
  }
  bytes(count: number): Uint8Array {
    const part = this.#bytes.subarray(this.#at, this.#at + count);
    this.#at += count;
    return part;
  }
}

/** What the kernel would send for the calls of a program; the kernel itself makes no mistakes. */
class FakeKernelCalls {
  readonly mount: FuseWithoutKernel;
  readonly #program: Program;
  readonly #nodes: number[] = [C.FUSE_ROOT_ID, 2];
  readonly #handles: Handle[] = [];
  readonly #checksum = new WalChecksum(false);

  constructor(mount: FuseWithoutKernel, program: Program) {
    this.mount = mount;
    this.#program = program;
  }

  run(): void {
    for (let i = 0; i < MAX_OPERATIONS && !this.#program.isOver; i++) this.#step();
    for (const handle of this.#handles.splice(0)) this.#close(handle);
  }

  #step(): void {
    const p = this.#program;
    switch (p.byte() % 16) {
      case 0:
        return this.#entered(this.#send(C.FUSE_LOOKUP, 1, [this.#name()]));
      case 1:
        return this.#create();
      case 2:
        return this.#open();
      case 3:
      case 4:
      case 5:
        return this.#write();
      case 6:
        return void this.#send(C.FUSE_UNLINK, 1, [this.#name()]);
      case 7:
        return this.#setSize();
      case 8:
        return this.#lock();
      case 9: {
        const { fh, nodeId } = this.#handle();
        return void this.#send(C.FUSE_FSYNC, nodeId, [u64(fh), u32(p.byte()), u32(0)]);
      }
      case 10:
        return this.#flush(this.#handle());
      case 11: {
        const [handle] = this.#handles.splice(p.byte() % Math.max(1, this.#handles.length), 1);
        return handle === undefined ? undefined : this.#close(handle);
      }
      case 12:
        return this.#list();
      case 13: {
        const { fh, nodeId } = this.#handle();
        const where = [u64(fh), u64(p.pick(OFFSETS)), u32(p.pick([0, 1, 4096, 65536]))];
        return void this.#send(C.FUSE_READ, nodeId, [...where, ...zeros(5)]);
      }
      case 14:
        return this.#rare();
      default:
        return void this.#send(C.FUSE_FORGET, this.#node(), [u64(p.byte() % 3)]);
    }
  }

  #send(opcode: number, nodeId: number, parts: readonly Uint8Array[]): Buffer | number | undefined {
    const answer = this.mount.send(opcode, nodeId, Buffer.concat(parts));
    return Buffer.isBuffer(answer) ? Buffer.from(answer) : answer;
  }

  /** Ended by a zero byte; the kernel lets no '/' through and nothing longer than 255 bytes. */
  #name(): Uint8Array {
    const p = this.#program;
    const choice = p.byte();
    if (choice < 200) return text(NAMES[choice % NAMES.length] ?? "a");
    if (choice < 230) return text(p.pick(ODD_NAMES));
    const bytes = Buffer.from(p.bytes(p.byte())).map((b) => (b === 0 || b === 0x2f ? 0xff : b));
    return Buffer.concat([bytes, Uint8Array.of(0)]);
  }

  #node(): number {
    return this.#program.pick(this.#nodes);
  }

  #handle(): Handle {
    return this.#handles.length === 0 ? { fh: 0, nodeId: 1 } : this.#program.pick(this.#handles);
  }

  #entered(answer: Buffer | number | undefined): void {
    if (!Buffer.isBuffer(answer)) return;
    const nodeId = Number(answer.readBigUInt64LE(0));
    if (nodeId > 1 && !this.#nodes.includes(nodeId)) this.#nodes.push(nodeId);
  }

  #create(): void {
    const flags = this.#program.pick([C.O_RDWR, C.O_RDWR | C.O_EXCL]);
    const head = [u32(flags), u32(0o644), u32(0), u32(0)];
    const answer = this.#send(C.FUSE_CREATE, 1, [...head, this.#name()]);
    this.#entered(answer);
    if (!Buffer.isBuffer(answer)) return;
    const fh = Number(answer.readBigUInt64LE(ENTRY_BYTES));
    this.#handles.push({ fh, nodeId: Number(answer.readBigUInt64LE(0)) });
  }

  #open(): void {
    const nodeId = this.#node();
    if (nodeId === C.FUSE_ROOT_ID) return;
    const flags = this.#program.pick([C.O_RDONLY, C.O_RDWR, C.O_WRONLY]);
    const answer = this.#send(C.FUSE_OPEN, nodeId, [u32(flags), u32(0)]);
    if (Buffer.isBuffer(answer)) {
      this.#handles.push({ fh: Number(answer.readBigUInt64LE(0)), nodeId });
    }
  }

  #write(): void {
    const p = this.#program;
    const { fh, nodeId } = this.#handle();
    const offset = p.pick(OFFSETS);
    const data = this.#data();
    const head = [u64(fh), u64(offset), u32(data.length), ...zeros(5)];
    this.#send(C.FUSE_WRITE, nodeId, [...head, data]);
  }

  /** Something that means something in one of SQLite's files, or anything. */
  #data(): Uint8Array {
    const p = this.#program;
    switch (p.byte() % 6) {
      case 0: {
        const pages = databasePages.slice(0, PAGE_SIZE * (1 + (p.byte() % 3)));
        pages[18] = pages[19] = p.pick([1, 2]);
        pages[31] = p.byte() % 8;
        return pages;
      }
      case 1: {
        const out = new Uint8Array(32);
        const walHeader = encodeWalHeader(
          {
            bigEndianChecksum: p.byte() > 127,
            pageSize: p.pick([PAGE_SIZE, PAGE_SIZE, 512]),
            checkpointSequence: 0,
            salt1: 1,
            salt2: p.byte(),
          },
          out,
          0,
        );
        this.#salt2 = walHeader.salt2;
        this.#checksum.bigEndian = walHeader.bigEndianChecksum;
        this.#checksum.set(walHeader.checksum1, walHeader.checksum2);
        return out;
      }
      case 2:
        return this.#frames();
      case 3: {
        const out = new Uint8Array(512);
        const initialPageCount = p.byte() % 4;
        const header = { recordCount: 0, nonce: 1, sectorSize: 512, pageSize: PAGE_SIZE };
        encodeJournalHeader({ ...header, initialPageCount }, out, 0);
        return out;
      }
      case 4:
        return new Uint8Array(p.pick([1, 28, 100, 512, PAGE_SIZE, MAX_WRITTEN_BYTES]));
      default:
        return p.bytes(p.byte());
    }
  }

  #salt2 = 0;

  /** Frames that continue the WAL written last; the last one may commit. */
  #frames(): Uint8Array {
    const p = this.#program;
    const count = 1 + (p.byte() % 3);
    const out = new Uint8Array(count * (24 + PAGE_SIZE));
    for (let i = 0; i < count; i++) {
      const at = i * (24 + PAGE_SIZE);
      const pgno = p.byte() % 5;
      out.set(databasePages.subarray(0, pgno === 1 ? PAGE_SIZE : 0), at + 24);
      out[at + 2000] = p.byte();
      const commit = i === count - 1 ? p.byte() % 6 : 0;
      const frame = { pgno, commit, salt1: 1, salt2: this.#salt2 };
      sealFrame(frame, this.#checksum, PAGE_SIZE, out, at);
    }
    return out;
  }

  #setSize(): void {
    const p = this.#program;
    const { fh, nodeId } = this.#handle();
    const valid = p.pick([C.FATTR_SIZE | C.FATTR_FH, C.FATTR_SIZE, C.FATTR_MTIME, 0xfff]);
    const head = [u32(valid), u32(0), u64(fh), u64(p.pick(SIZES)), u64(p.byte())];
    // Seconds are signed.
    const times = [u64(-p.byte()), u64(2 ** 62), u64(0), u32(0xffffffff), u32(0), u32(0)];
    this.#send(C.FUSE_SETATTR, nodeId, [...head, ...times, ...zeros(5)]);
  }

  #lock(): void {
    const p = this.#program;
    const { fh, nodeId } = this.#handle();
    const starts = [WAL_WRITE_LOCK, 128, 0, RESERVED_BYTE, SHARED_FIRST, 2 ** 62];
    const start = p.pick(starts);
    const end = p.pick([start, start + 1, start + 509, 2 ** 63 - 1025]);
    const type = p.pick([C.F_RDLCK, C.F_WRLCK, C.F_UNLCK]);
    const opcode = p.pick([C.FUSE_SETLK, C.FUSE_SETLK, C.FUSE_SETLKW, C.FUSE_GETLK]);
    const owner = u64(1 + (p.byte() % 3));
    const range = [u64(fh), owner, u64(start), u64(end), u32(type), u32(1), u32(0), u32(0)];
    this.#send(opcode, nodeId, range);
  }

  #flush({ fh, nodeId }: Handle): void {
    const owner = u64(1 + (this.#program.byte() % 3));
    this.#send(C.FUSE_FLUSH, nodeId, [u64(fh), u64(0), owner]);
  }

  #close(handle: Handle): void {
    for (const owner of [1, 2, 3]) {
      this.#send(C.FUSE_FLUSH, handle.nodeId, [u64(handle.fh), u64(0), u64(owner)]);
    }
    this.#send(C.FUSE_RELEASE, handle.nodeId, [u64(handle.fh), ...zeros(4)]);
  }

  #list(): void {
    const p = this.#program;
    const answer = this.#send(C.FUSE_OPENDIR, 1, [u32(0), u32(0)]);
    if (!Buffer.isBuffer(answer)) return;
    const fh = answer.readBigUInt64LE(0);
    for (let offset = 0, i = 0; i < 5; i++) {
      const size = p.pick([0, 1, 24, 256, 4096, 65536]);
      const where = [u64(Number(fh)), u64(offset), u32(size), ...zeros(5)];
      this.#send(C.FUSE_READDIR, 1, where);
      offset = p.pick([i, 100, 2 ** 31, 2 ** 53, 2 ** 62]);
    }
    this.#send(C.FUSE_RELEASEDIR, 1, [u64(Number(fh)), ...zeros(4)]);
  }

  /** Whole names and numbers of everything else; opcodes of the future among them. */
  #rare(): void {
    const p = this.#program;
    const { fh, nodeId } = this.#handle();
    const offset = u64(p.pick(OFFSETS));
    const requests: readonly (readonly [number, number, readonly Uint8Array[]])[] = [
      [C.FUSE_RENAME, 1, [u64(1), this.#name(), this.#name()]],
      [C.FUSE_RENAME2, 1, [u64(1), u32(p.byte()), u32(0), this.#name(), this.#name()]],
      [C.FUSE_MKDIR, 1, [u32(0), u32(0), this.#name()]],
      [C.FUSE_RMDIR, 1, [this.#name()]],
      [C.FUSE_SYMLINK, 1, [this.#name(), this.#name()]],
      [C.FUSE_LINK, 1, [u64(this.#node()), this.#name()]],
      [C.FUSE_MKNOD, 1, [...zeros(4), this.#name()]],
      [C.FUSE_STATFS, 1, []],
      [C.FUSE_ACCESS, this.#node(), [u32(p.byte()), u32(0)]],
      [C.FUSE_GETATTR, this.#node(), [u32(p.byte() % 2), u32(0), u64(fh)]],
      [C.FUSE_FALLOCATE, nodeId, [u64(fh), offset, u64(4096), u32(p.byte()), u32(0)]],
      [C.FUSE_LSEEK, nodeId, [u64(fh), offset, u32(p.byte() % 5), u32(0)]],
      [C.FUSE_GETXATTR, nodeId, [u32(p.byte()), u32(0), this.#name()]],
      [C.FUSE_LISTXATTR, nodeId, [u32(p.byte()), u32(0)]],
      [C.FUSE_SETXATTR, nodeId, [u32(1), u32(0), this.#name(), Uint8Array.of(1)]],
      [C.FUSE_REMOVEXATTR, nodeId, [this.#name()]],
      [C.FUSE_FSYNCDIR, 1, [u64(fh), ...zeros(2)]],
      [C.FUSE_INTERRUPT, 0, [u64(p.byte())]],
      [C.FUSE_BATCH_FORGET, 0, [u32(1), u32(0), u64(this.#node()), u64(p.byte())]],
      [C.FUSE_COPY_FILE_RANGE, nodeId, [u64(fh), offset, u64(nodeId), u64(fh), ...zeros(6)]],
      [60 + p.byte(), nodeId, [p.bytes(16)]],
    ];
    const [opcode, node, body] = p.pick(requests);
    this.#send(opcode, node, body);
  }
}

const databasePages = databaseSeed("raw-4096");

function u32(value: number): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0);
  return bytes;
}

function u64(value: number): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)));
  return bytes;
}

function zeros(words: number): Uint8Array[] {
  return [new Uint8Array(4 * words)];
}

function text(name: string): Uint8Array {
  return Buffer.from(`${name}\0`);
}

/** Programs of calls on a mount; the first byte says which role the node has. */
export const fuseCalls: FuzzTarget = {
  name: "fuse-calls",
  seeds: () => [
    // Create a database by writing its file, and one transaction through a WAL.
    Uint8Array.of(0, 1, 0, 0, 3, 0, 0, 0, 2, 1, 3, 11, 0, 0, 0, 2, 0, 1),
    Uint8Array.of(
      0,
      1,
      0,
      0,
      3,
      0,
      0,
      0,
      0,
      2,
      3,
      11,
      0,
      1,
      0,
      2,
      3,
      0,
      0,
      1,
      0,
      0,
      7,
      3,
      0,
      4,
      2,
      1,
      1,
      9,
      2,
      8,
      3,
    ),
    // A rollback journal around a write, ended by its removal.
    Uint8Array.of(
      0,
      1,
      0,
      0,
      3,
      0,
      0,
      0,
      0,
      1,
      2,
      11,
      0,
      1,
      0,
      1,
      3,
      0,
      0,
      3,
      2,
      2,
      1,
      1,
      3,
      1,
      8,
      4,
      4,
      6,
      1,
    ),
    Uint8Array.of(1, 0, 0, 1, 0, 1, 12, 3, 2, 4, 8, 0, 0, 0, 1, 0, 0, 14, 1, 2, 3, 4, 5, 6, 7),
  ],
  maxBytes: 1024,
  run(input) {
    const mount = new FuseWithoutKernel((input[0] ?? 0) % 2 === 0);
    try {
      new FakeKernelCalls(mount, new Program(input.subarray(1))).run();
      for (const { db } of mount.fileSystem.entries.awake()) checkDatabase(db);
    } finally {
      mount.close();
    }
  },
};

/** Two bytes opcode, one byte node, and any body at all: a kernel that has gone mad. */
export const fuseRequests: FuzzTarget = {
  name: "fuse-requests",
  seeds: () =>
    Array.from(
      { length: 55 },
      (_, opcode) =>
        new Uint8Array(
          Buffer.concat([Uint8Array.of(opcode, 0, 1), new Uint8Array(48), Buffer.from("a\0b\0")]),
        ),
    ),
  maxBytes: 512,
  run(input) {
    if (input.length < 3) return;
    const mount = new FuseWithoutKernel(true);
    try {
      mount.send(C.FUSE_CREATE, 1, Buffer.concat([...zeros(4), text("a")]));
      mount.send(input[0]! | (input[1]! << 8), input[2]! % 32, input.subarray(3));
    } catch (error) {
      // The kernel is trusted: a request that it never sends ends the session.
      if (!(error instanceof InvariantError)) throw error;
    } finally {
      mount.close();
    }
  },
};
