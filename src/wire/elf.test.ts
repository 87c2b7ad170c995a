// ELF files: the loader, the machine and Go are found in files of both widths and byte orders; whatever the bytes, they are read or told to be none.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { InputError } from "../base/error.ts";
import { isElf, readElf } from "./elf.ts";

interface Made {
  readonly wide: boolean;
  readonly little: boolean;
  readonly machine: number;
  readonly loader?: string;
  readonly go?: boolean;
  /** Further program headers in front. */
  readonly others?: number;
}

/** A file with these program headers, laid out as linkers do. */
function elf({ wide, little, machine, loader, go = false, others = 0 }: Made): Buffer {
  const bytes = Buffer.alloc(4096);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const u16 = (at: number, value: number): void => view.setUint16(at, value, little);
  const word = (at: number, value: number): void =>
    wide ? view.setBigUint64(at, BigInt(value), little) : view.setUint32(at, value, little);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, wide ? 2 : 1, little ? 1 : 2, 1]);
  u16(18, machine);
  const start = wide ? 64 : 52;
  const size = wide ? 56 : 32;
  word(wide ? 32 : 28, start);
  u16(wide ? 54 : 42, size);
  let count = 0;
  const add = (type: number, content: Uint8Array): void => {
    const at = start + count * size;
    const where = 2048 + count * 128;
    view.setUint32(at, type, little);
    word(at + (wide ? 8 : 4), where);
    word(at + (wide ? 32 : 16), content.length);
    bytes.set(content, where);
    count++;
  };
  for (let i = 0; i < others; i++) add(1, new Uint8Array(4));
  if (loader !== undefined) add(3, Buffer.from(`${loader}\0`));
  const note = (name: string, type: number): Uint8Array => {
    const content = Buffer.alloc(32);
    const inner = new DataView(content.buffer, content.byteOffset, content.length);
    inner.setUint32(0, name.length, little);
    inner.setUint32(4, 8, little);
    inner.setUint32(8, type, little);
    content.write(name, 12, "latin1");
    return content;
  };
  add(4, note("GNU\0", 3));
  if (go) add(4, note("Go\0\0", 4));
  u16(wide ? 56 : 44, count);
  return bytes;
}

const reading =
  (bytes: Uint8Array) =>
  async (at: number, length: number): Promise<Uint8Array> =>
    bytes.subarray(at, at + length);

describe("programs", () => {
  test("tell their machine, loader and language", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          wide: fc.boolean(),
          little: fc.boolean(),
          machine: fc.constantFrom(3, 40, 62, 183, 243),
          go: fc.boolean(),
          others: fc.nat(5),
        }),
        fc.option(fc.constantFrom("/lib64/ld-linux-x86-64.so.2", "/lib/ld-musl-aarch64.so.1"), { nil: undefined }),
        async (made, loader) => {
          const bytes = elf(loader === undefined ? made : { ...made, loader });
          expect(isElf(bytes)).toBe(true);
          expect(await readElf(reading(bytes))).toEqual({
            arch: { 3: "ia32", 40: "arm", 62: "x64", 183: "arm64", 243: "riscv64" }[made.machine],
            ...(loader === undefined ? {} : { loader }),
            go: made.go,
          });
        },
      ),
    );
    expect((await readElf(reading(elf({ wide: true, little: true, machine: 8 })))).arch).toBe("8");
  });
});

describe("what is no program", () => {
  const readable = async (bytes: Uint8Array): Promise<void> => {
    try {
      await readElf(reading(bytes));
    } catch (error) {
      expect(error).toBeInstanceOf(InputError);
    }
  };

  test("is told to be none, however it is made", async () => {
    await fc.assert(fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), readable));
    await expect(readElf(reading(Buffer.from("#!/bin/sh\n".repeat(20))))).rejects.toThrow(
      /does not begin as an ELF file/,
    );
    const whole = elf({ wide: true, little: true, machine: 62, loader: "/lib64/ld-linux-x86-64.so.2" });
    for (const length of [0, 10, 60, 100, 2050])
      await expect(readElf(reading(whole.subarray(0, length)))).rejects.toThrow(InputError);
  });

  test("does no harm with a sound beginning", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.boolean(),
        fc.array(fc.tuple(fc.integer({ min: 16, max: 400 }), fc.nat(255)), { minLength: 1, maxLength: 30 }),
        async (wide, changes) => {
          const bytes = elf({ wide, little: true, machine: 62, loader: "/lib/x", go: true });
          for (const [at, value] of changes) bytes[at] = value;
          await readable(bytes);
        },
      ),
    );
  });
});
