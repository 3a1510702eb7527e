import { IN_HEADER_BYTES, RequestBuffer } from "../../../src/fuse/request.ts";

export interface RequestToEncode {
  readonly opcode: number;
  readonly unique?: bigint;
  readonly nodeId?: number;
  readonly uid?: number;
  readonly gid?: number;
  readonly pid?: number;
  readonly body?: Uint8Array;
}

/** A request as the kernel would have written it, with garbage behind its end. */
export function encodeRequest(input: RequestToEncode): RequestBuffer {
  const request = new RequestBuffer(1 << 16);
  const { bytes } = request;
  const body = input.body ?? new Uint8Array(0);
  bytes.fill(0xaa);
  bytes.writeUInt32LE(IN_HEADER_BYTES + body.length, 0);
  bytes.writeUInt32LE(input.opcode, 4);
  bytes.writeBigUInt64LE(input.unique ?? 2n, 8);
  bytes.writeBigUInt64LE(BigInt(input.nodeId ?? 1), 16);
  bytes.writeUInt32LE(input.uid ?? 0, 24);
  bytes.writeUInt32LE(input.gid ?? 0, 28);
  bytes.writeUInt32LE(input.pid ?? 0, 32);
  bytes.writeUInt32LE(0, 36);
  bytes.set(body, IN_HEADER_BYTES);
  request.decodeHeader(IN_HEADER_BYTES + body.length);
  return request;
}

type Field =
  | readonly ["u32", number]
  | readonly ["u64", number | bigint]
  | readonly ["text", string];

/** Concatenates the fields of a C struct. */
export function struct(...fields: readonly Field[]): Buffer {
  return Buffer.concat(
    fields.map(([kind, value]) => {
      if (kind === "text") return Buffer.from(value);
      const bytes = Buffer.alloc(kind === "u32" ? 4 : 8);
      if (kind === "u32") bytes.writeUInt32LE(value);
      else bytes.writeBigUInt64LE(BigInt(value));
      return bytes;
    }),
  );
}
