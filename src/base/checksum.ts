// The checksum of bytes, by Node's own zlib, which is loaded when the first one is asked for.

/** CRC-32 (IEEE 802.3). */
export function crc32(bytes: Uint8Array): number {
  return process.getBuiltinModule("node:zlib").crc32(bytes);
}
