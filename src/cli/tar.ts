// A tar archive (ustar, POSIX.1-1988) of a few small files.

/** One file. */
export interface TarFile {
  /** Its path in the archive, at most 100 bytes. */
  readonly name: string;
  readonly bytes: Uint8Array;
}

const BLOCK = 512;

function field(text: string, bytes: number): Buffer {
  const out = Buffer.alloc(bytes);
  out.write(text, "utf8");
  return out;
}
const octal = (value: number, digits: number): string => value.toString(8).padStart(digits, "0");

function header({ name, bytes }: TarFile, atMs: number): Buffer {
  if (Buffer.byteLength(name) > 100) throw new RangeError(`"${name}" is too long for a tar archive`);
  const parts = (checksum: string): Buffer[] => [
    field(name, 100),
    field(octal(0o600, 7), 8),
    field(octal(0, 7), 8),
    field(octal(0, 7), 8),
    field(octal(bytes.length, 11), 12),
    field(octal(Math.floor(atMs / 1000), 11), 12),
    field(checksum, 8),
    field("0", 1),
    field("", 100),
    field("ustar", 6),
    field("00", 2),
  ];
  // The sum is taken with blanks in its own place.
  const sum = Buffer.concat(parts(" ".repeat(8))).reduce((total, byte) => total + byte, 0);
  return Buffer.concat([...parts(`${octal(sum, 6)}\0 `), Buffer.alloc(BLOCK)]).subarray(0, BLOCK);
}

/** The files as one archive, all of them written at one moment. @throws RangeError for a name that is too long */
export function tarOf(files: readonly TarFile[], atMs: number): Buffer {
  const pieces: Uint8Array[] = [];
  for (const file of files) {
    const rest = file.bytes.length % BLOCK;
    pieces.push(header(file, atMs), file.bytes, Buffer.alloc(rest === 0 ? 0 : BLOCK - rest));
  }
  return Buffer.concat([...pieces, Buffer.alloc(2 * BLOCK)]);
}
