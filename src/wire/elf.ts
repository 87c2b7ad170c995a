// What an ELF file says of the program in it: its machine, and who loads it; enough to know whether a library can be loaded with it.
import { InputError } from "../base/error.ts";

/** What matters of a program's file. */
export interface Elf {
  /** "x64", "arm64", "ia32", "arm", "riscv64" as Node calls them; else the number in the file. */
  readonly arch: string;
  /** The dynamic loader's path: "/lib64/ld-linux-x86-64.so.2". Absent = statically linked, nobody loads libraries with it. */
  readonly loader?: string;
  /** True for Go programs, which speak to the kernel without libc. */
  readonly go: boolean;
}

/** [gABI "ELF Header", "Program Header"] */
const PT_INTERP = 3;
const PT_NOTE = 4;
const MACHINES: Readonly<Record<number, string>> = { 3: "ia32", 40: "arm", 62: "x64", 183: "arm64", 243: "riscv64" };
const LONGEST_LOADER = 4096;
const MOST_HEADERS = 512;

/** True where the bytes begin as an ELF file does. */
export function isElf(start: Uint8Array): boolean {
  return start[0] === 0x7f && start[1] === 0x45 && start[2] === 0x4c && start[3] === 0x46;
}

/**
 * Reads an ELF file of which `read` gives pieces; a piece may be shorter than asked for where the file ends.
 * @throws InputError where it is none, or is cut off
 */
export async function readElf(read: (at: number, bytes: number) => Promise<Uint8Array>): Promise<Elf> {
  const wrong = (what: string): InputError => new InputError("", `this is not a program that can be read: ${what}`);
  const part = async (at: number, bytes: number): Promise<DataView> => {
    if (!Number.isSafeInteger(at)) throw wrong("it points outside of itself");
    const piece = await read(at, bytes);
    if (piece.length < bytes) throw wrong("it is cut off");
    return new DataView(piece.buffer, piece.byteOffset, piece.byteLength);
  };
  const header = await part(0, 64).catch(() => part(0, 52));
  if (!isElf(new Uint8Array(header.buffer, header.byteOffset, 4))) throw wrong("it does not begin as an ELF file");
  const wide = header.getUint8(4) === 2;
  const little = header.getUint8(5) !== 2;
  if (wide && header.byteLength < 64) throw wrong("it is cut off");
  const offset = (view: DataView, at: number): number =>
    wide ? Number(view.getBigUint64(at, little)) : view.getUint32(at, little);
  const machine = header.getUint16(18, little);
  const headersAt = offset(header, wide ? 32 : 28);
  const size = header.getUint16(wide ? 54 : 42, little);
  const count = header.getUint16(wide ? 56 : 44, little);
  if (size < (wide ? 56 : 32) || count > MOST_HEADERS) throw wrong("its program headers make no sense");
  let loader: string | undefined;
  let go = false;
  for (let i = 0; i < count; i++) {
    const each = await part(headersAt + i * size, size);
    const type = each.getUint32(0, little);
    if (type !== PT_INTERP && type !== PT_NOTE) continue;
    const at = offset(each, wide ? 8 : 4);
    const bytes = offset(each, wide ? 32 : 16);
    if (type === PT_INTERP) {
      if (bytes > LONGEST_LOADER) throw wrong("its loader's name is too long");
      const text = await part(at, bytes);
      loader = Buffer.from(text.buffer, text.byteOffset, text.byteLength).toString("latin1").replace(/\0.*$/s, "");
    } else if (bytes >= 16) {
      // Note name "Go", type 4: the build ID of Go's linker.
      const note = await part(at, 16);
      if (
        note.getUint32(0, little) === 4 &&
        note.getUint32(8, little) === 4 &&
        note.getUint32(12, false) === 0x476f0000
      )
        go = true;
    }
  }
  return {
    arch: MACHINES[machine] ?? String(machine),
    ...(loader === undefined || loader === "" ? {} : { loader }),
    go,
  };
}
