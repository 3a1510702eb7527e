/*
 * LZ4 frame, the part of the specification that LTX files use:
 *   magic 04 22 4d 18 | FLG | BD | [content size, u64 LE] | header check (second byte of xxHash32)
 *   blocks: u32 LE size (bit 31: stored as it is), data
 *   end mark 00 00 00 00 | [content checksum: xxHash32 of the uncompressed data, u32 LE]
 */
export const LZ4_FRAME_MAGIC = 0x184d2204;
/** FLG: version 01 in the top bits. */
export const FLG_VERSION_MASK = 0xc0;
export const FLG_VERSION_1 = 0x40;
export const FLG_BLOCK_INDEPENDENT = 0x20;
export const FLG_BLOCK_CHECKSUM = 0x10;
export const FLG_CONTENT_SIZE = 0x08;
export const FLG_CONTENT_CHECKSUM = 0x04;
export const FLG_RESERVED = 0x02;
export const FLG_DICTIONARY = 0x01;
/** A block that did not shrink is stored as it is. */
export const BLOCK_STORED = 0x80000000;
/** LiteFS writes blocks of 64 KiB (code 4), and so do we. */
export const WRITE_BLOCK_BYTES = 65536;
/** What LiteFS writes: independent blocks, content checksum, 64 KiB blocks. */
export const WRITE_FRAME_HEADER: Uint8Array = Uint8Array.of(4, 0x22, 0x4d, 0x18, 0x64, 0x40, 0xa7);
