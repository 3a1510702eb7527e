import * as fs from "node:fs";
import * as path from "node:path";
import type { Database } from "../../../src/database/database.ts";
import { openDatabase } from "../../../src/database/recover.ts";
import type { FileSystemHost } from "../../../src/filesystem/file-system-host.ts";
import { LitefsFileSystem } from "../../../src/filesystem/litefs-file-system.ts";
import { Outbox, Retrievals } from "../../../src/filesystem/notifier.ts";
import type { FileSystemStatistics } from "../../../src/fuse/replies.ts";
import { FuseReplies, OUT_HEADER_BYTES } from "../../../src/fuse/replies.ts";
import { ENTRY_OUT_BYTES } from "../../../src/fuse/attributes.ts";
import { FUSE_CREATE, FUSE_OPEN, FUSE_RELEASE } from "../../../src/fuse/constants.ts";
import { dispatchRequest } from "../../../src/fuse/dispatch.ts";
import { systemErrno } from "../../../src/fuse/errno.ts";
import { IN_HEADER_BYTES, RequestBuffer } from "../../../src/fuse/request.ts";
import type { OpenFile } from "../../../src/database/files.ts";
import { silentLogger } from "../../../src/lib/log.ts";
import { FakeDisk, systemError } from "../../unit/database/support/fake-disk.ts";
import { temporaryDirectory } from "../temporary.ts";
import { FuzzHost } from "./engine.ts";

const MAX_READ_BYTES = 64 * 1024;
const STATISTICS: FileSystemStatistics = {
  blocks: 1,
  bfree: 1,
  bavail: 1,
  files: 1,
  ffree: 1,
  bsize: 4096,
  namelen: 247,
  frsize: 4096,
};

/** A database that was copied in is read once in full, so how large one can be is how long it takes. */
const MAX_FILE_BYTES = 16 * 1024 * 1024;

/** A disk on which files do not grow without end. */
class SmallDisk extends FakeDisk {
  override open(
    file: string,
    options: { create?: boolean; readOnly?: boolean } = {},
  ): OpenFile | undefined {
    const opened = super.open(file, options);
    if (opened === undefined) return undefined;
    const check = (sizeBytes: number): void => {
      if (sizeBytes > MAX_FILE_BYTES) throw systemError("ENOSPC", file);
    };
    return {
      ...opened,
      writeAt: (data, start, length, offset) => {
        check(offset + length);
        opened.writeAt(data, start, length, offset);
      },
      truncate: (size) => {
        check(size);
        opened.truncate(size);
      },
    };
  }
}

/** A mount without kernel and disk: requests go in as bytes, and the answer's bytes come out. */
export class FuseWithoutKernel {
  readonly fileSystem: LitefsFileSystem;
  readonly #replies: FuseReplies;
  readonly #request = new RequestBuffer(MAX_READ_BYTES);
  /** Nobody reads the answers: they are looked at in the buffer that they are made in. */
  static readonly #nowhere = fs.openSync("/dev/null", "w");
  /** Ordinary files are real ones. */
  readonly #plainDirectory = path.join(temporaryDirectory(), "files");
  readonly #opened = new Map<bigint, number>();
  #unique = 0;

  constructor(isPrimary: boolean) {
    const engineHost = new FuzzHost(isPrimary);
    const disk = new SmallDisk();
    const outbox: Outbox = new Outbox(({ batch }) => {
      this.#settle = (): void => outbox.confirm(batch);
    });
    const host: Partial<FileSystemHost> = {
      logger: silentLogger,
      isPrimary: () => isPrimary,
      primaryHostname: () => (isPrimary ? undefined : "primary"),
      lagMs: () => 0,
      createDatabase: (name: string): Database => {
        disk.mkdir(`/data/dbs/${name}`);
        return openDatabase(name, engineHost, disk, `/data/dbs/${name}`);
      },
      statistics: () => STATISTICS,
      wake: () => undefined,
      tell: () => undefined,
      closed: (entry) => {
        if (!entry.isBusy) entry.db.files.closeAll();
      },
      storeNow: () => undefined,
      afterReply: () => outbox.flush(),
    };
    this.fileSystem = new LitefsFileSystem(
      host as FileSystemHost,
      outbox,
      new Retrievals(() => false),
      this.#plainDirectory,
    );
    this.#replies = new FuseReplies(FuseWithoutKernel.#nowhere, MAX_READ_BYTES);
    this.fileSystem.init(this.#replies);
  }

  #settle: () => void = () => undefined;

  /** Gives back what no call of the program has: descriptors of ordinary files are real ones. */
  close(): void {
    for (const [fh, nodeId] of this.#opened) {
      const body = Buffer.alloc(24);
      body.writeBigUInt64LE(fh);
      this.send(FUSE_RELEASE, nodeId, body);
    }
    fs.rmSync(this.#plainDirectory, { recursive: true });
  }

  /**
   * Hands one request over. Gives the body of its answer, a negated errno, or undefined when it
   * was not answered. System errors of the handler become answers, as in the session.
   */
  send(opcode: number, nodeId: number, body: Uint8Array): Buffer | number | undefined {
    const { bytes } = this.#request;
    const length = IN_HEADER_BYTES + body.length;
    const unique = ++this.#unique * 2;
    bytes.fill(0xaa, 0, length + 64);
    bytes.writeUInt32LE(length, 0);
    bytes.writeUInt32LE(opcode, 4);
    bytes.writeBigUInt64LE(BigInt(unique), 8);
    bytes.writeBigUInt64LE(BigInt(nodeId), 16);
    bytes.fill(0, 24, IN_HEADER_BYTES);
    bytes.set(body, IN_HEADER_BYTES);
    this.#request.decodeHeader(length);
    const answer = this.#replies.replyBuffer;
    answer.fill(0, 0, OUT_HEADER_BYTES);
    try {
      if (!dispatchRequest(this.#request, this.fileSystem)) return -38;
    } catch (error) {
      const errno = systemErrno(error);
      if (errno === undefined) throw error;
      return -errno;
    } finally {
      this.#settle();
    }
    if (answer.readInt32LE(8) !== unique) return undefined;
    const errno = answer.readInt32LE(4);
    if (errno !== 0) return errno;
    const result = answer.subarray(OUT_HEADER_BYTES, answer.readInt32LE(0));
    this.#noteHandle(opcode, nodeId, body, result);
    return result;
  }

  #noteHandle(opcode: number, nodeId: number, body: Uint8Array, result: Buffer): void {
    if (opcode === FUSE_OPEN) this.#opened.set(result.readBigUInt64LE(0), nodeId);
    if (opcode === FUSE_CREATE) {
      this.#opened.set(result.readBigUInt64LE(ENTRY_OUT_BYTES), Number(result.readBigUInt64LE(0)));
    }
    if (opcode === FUSE_RELEASE) this.#opened.delete(Buffer.from(body).readBigUInt64LE(0));
  }
}
