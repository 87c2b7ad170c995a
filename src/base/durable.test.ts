// Tests of the durable map: what was written is there after reopening, keys of every kind, one sync for many, one process per folder.
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { ownFolder } from "../../test/support/peers.ts";
import { systemDisk } from "./disk.ts";
import { type Durable, memoryDurable, openDurable } from "./durable.ts";
import { durableFile } from "./durable-file.ts";

let folder: Awaited<ReturnType<typeof ownFolder>>;
beforeEach(async () => {
  folder = await ownFolder("durable");
});
afterEach(() => folder.remove());

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
async function content(durable: Durable, table: string): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for await (const [key, value] of durable.entries(table)) found.set(key, Buffer.from(value).toString());
  return found;
}

const kinds: readonly (readonly [string, () => Promise<Durable>])[] = [
  ["memory", async () => memoryDurable()],
  ["lmdb", () => openDurable(folder.path)],
];
for (const [kind, open] of kinds)
  describe(kind, () => {
    test("tables are apart, undefined removes, a missing table is empty", async () => {
      const durable = await open();
      await durable.write([
        { table: "a", key: "x", value: bytes("1") },
        { table: "ab", key: "x", value: bytes("2") },
        { table: "a", key: "y", value: bytes("") },
      ]);
      await durable.write([
        { table: "a", key: "x", value: undefined },
        { table: "a", key: "none", value: undefined },
      ]);
      expect(await content(durable, "a")).toEqual(new Map([["y", ""]]));
      expect(await content(durable, "ab")).toEqual(new Map([["x", "2"]]));
      expect(await content(durable, "none")).toEqual(new Map());
      expect(durable.get("a", "x")).toBeUndefined();
      await durable.close();
      await durable.close();
      await expect(durable.write([{ table: "a", key: "x", value: bytes("1") }])).rejects.toMatchObject({
        code: "stopped",
      });
    });

    test("any key, short or long, comes back as it was", async () => {
      const durable = await open();
      const key = fc.oneof(
        fc.string({ unit: "binary" }),
        fc.string({ unit: fc.constantFrom("\ud800", "\udc00", "\u0000", "a") }),
        fc.nat(3000).map((n) => "é".repeat(n)),
        fc.nat(3000).map((n) => "\ud800".repeat(n)),
      );
      await fc.assert(
        fc.asyncProperty(
          fc.dictionary(key, fc.string({ unit: "binary" }), { maxKeys: 5, noNullPrototype: true }),
          async (pairs) => {
            const put = Object.entries(pairs).map(([k, v]) => ({ table: "t", key: k, value: bytes(v) }));
            await durable.write(put);
            expect(await content(durable, "t")).toEqual(new Map(Object.entries(pairs)));
            for (const [k, v] of Object.entries(pairs))
              expect(Buffer.from(durable.get("t", k) ?? []).toString()).toBe(v);
            await durable.write(put.map((each) => ({ ...each, value: undefined })));
            expect(await content(durable, "t")).toEqual(new Map());
          },
        ),
        { numRuns: 40 },
      );
      await durable.close();
    });
  });

describe("the data folder", () => {
  test("what was written is there after reopening", async () => {
    const long = "k".repeat(5000);
    const first = await openDurable(folder.path);
    await Promise.all(
      Array.from({ length: 500 }, (_, i) => first.write([{ table: "t", key: `${i}`, value: bytes(`${i}`) }])),
    );
    await first.write([{ table: "t", key: long, value: bytes("long") }]);
    await first.close();
    const again = await openDurable(folder.path);
    expect((await content(again, "t")).size).toBe(501);
    expect(Buffer.from(again.get("t", long) ?? []).toString()).toBe("long");
    await again.close();
  });

  test("a second holder is told who holds it; the lock of a closed or dead one is free", async () => {
    const first = await openDurable(folder.path);
    await expect(openDurable(folder.path)).rejects.toMatchObject({
      code: "locked",
      message: expect.stringContaining(`in use by this process already (pid ${process.pid})`),
    });
    await first.write([{ table: "t", key: "k", value: bytes("v") }]);
    await first.close();
    const second = await openDurable(folder.path);
    expect(second.get("t", "k")).toBeDefined();
    await second.close();
  });

  test("of many that want it at once exactly one gets it, also over a dead one's lock", async () => {
    for (let round = 0; round < 5; round++) {
      if (round % 2 === 1) await writeFile(join(folder.path, "trilith.lock"), "what a dead process left behind");
      const tries = await Promise.allSettled(Array.from({ length: 8 }, () => openDurable(folder.path)));
      const got = tries.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []));
      for (const each of tries) if (each.status === "rejected") expect(each.reason).toMatchObject({ code: "locked" });
      expect(got).toHaveLength(1);
      await got[0]?.close();
    }
  });

  test("a folder with a long name", async () => {
    const deep = join(folder.path, "a".repeat(100), "b".repeat(100));
    const durable = await openDurable(deep);
    await expect(openDurable(deep)).rejects.toMatchObject({ code: "locked" });
    await durable.close();
  });

  test("newer data is refused and left as it is", async () => {
    const durable = await openDurable(folder.path);
    await durable.write([{ table: "meta", key: "format", value: bytes("7") }]);
    await durable.close();
    const hash = async (): Promise<string> =>
      createHash("sha256")
        .update(await readFile(durableFile(folder.path)))
        .digest("hex");
    const before = await hash();
    for (let i = 0; i < 2; i++)
      await expect(openDurable(folder.path)).rejects.toMatchObject({
        code: "newer-data",
        message: expect.stringContaining("data format 7, this version knows up to 1"),
      });
    expect(await hash()).toBe(before);
  });

  test("a file that is no database is called damaged and left as it is", async () => {
    await mkdir(folder.path, { recursive: true });
    const garbage = Buffer.alloc(20_000, "garbage ");
    await writeFile(durableFile(folder.path), garbage);
    await expect(openDurable(folder.path)).rejects.toMatchObject({ code: "damaged" });
    expect((await readFile(durableFile(folder.path))).equals(garbage)).toBe(true);
  });

  test("an empty file is called damaged: nothing starts empty over lost content without a word", async () => {
    const durable = await openDurable(folder.path);
    await durable.write([{ table: "t", key: "k", value: bytes("v") }]);
    await durable.close();
    await writeFile(durableFile(folder.path), "");
    for (let i = 0; i < 2; i++)
      await expect(openDurable(folder.path)).rejects.toMatchObject({
        code: "damaged",
        message: `${durableFile(folder.path)} cannot be read as a database (it is empty: its content is lost); restore it from a backup, or move it away to start empty`,
      });
    await rm(durableFile(folder.path));
    await (await openDurable(folder.path)).close();
  });

  test.each([0, 4096])("a first start that was interrupted after %i bytes is taken up again", async (size) => {
    // As the crash leaves it: the mark is there before the database is.
    await writeFile(`${durableFile(folder.path)}-making`, "");
    await writeFile(durableFile(folder.path), Buffer.alloc(size));
    const durable = await openDurable(folder.path);
    await durable.write([{ table: "t", key: "k", value: bytes("v") }]);
    await durable.close();
    expect((await readdir(folder.path)).sort()).toEqual(["trilith.mdb", "trilith.mdb-lock"]);
    const again = await openDurable(folder.path);
    expect(again.get("t", "k")).toBeDefined();
    await again.close();
  });

  test.each([
    ["/proc/trilith", "not-allowed", "takes no folders"],
    ["/proc/trilith/deeper", "not-allowed", "takes no folders"],
    ["/dev/null", "conflict", "not a folder"],
    ["/dev/null/data", "conflict", "not a folder"],
  ])("%s cannot be a data folder, and that is said at once", async (path, code, says) => {
    await expect(openDurable(path)).rejects.toMatchObject({ code, message: expect.stringContaining(says) });
    await expect(systemDisk.makeFolder(path)).rejects.toThrow(/ENOENT|EEXIST|ENOTDIR/);
  });

  test("folders above are made; one that is there is no error", async () => {
    const deep = join(folder.path, "a", "b", "c");
    await Promise.all([systemDisk.makeFolder(deep), systemDisk.makeFolder(`${deep}/`)]);
    await systemDisk.makeFolder(deep);
    expect((await systemDisk.info(deep))?.isDirectory).toBe(true);
  });

  test("tells why writing does not work as long as it does not", async () => {
    const durable = await openDurable(folder.path);
    try {
      const write = (): Promise<void> => durable.write([{ table: "t", key: "a", value: bytes("1") }]);
      await write();
      expect(await durable.trouble()).toBeUndefined();
      await rename(folder.path, `${folder.path}-away`);
      // Before and after somebody's write failed of it.
      expect(await durable.trouble()).toMatchObject({ code: "damaged" });
      await expect(write()).rejects.toMatchObject({ code: "damaged" });
      expect(await durable.trouble()).toMatchObject({ code: "damaged" });
      await rename(`${folder.path}-away`, folder.path);
      expect(await durable.trouble()).toBeUndefined();
      await write();
    } finally {
      await durable.close();
    }
    expect(await durable.trouble()).toBeUndefined();
  });

  test("a folder that is taken away while it is in use is an error, not a silent loss", async () => {
    const durable = await openDurable(folder.path);
    try {
      await durable.write([{ table: "t", key: "a", value: Buffer.from("1") }]);
      await rename(folder.path, `${folder.path}-away`);
      const lost = { code: "damaged", message: expect.stringContaining("removed or replaced") };
      const later = [{ table: "t", key: "b", value: Buffer.from("2") }];
      await expect(durable.write(later)).rejects.toMatchObject(lost);
      await mkdir(folder.path);
      await writeFile(durableFile(folder.path), "another one");
      await expect(durable.write(later)).rejects.toMatchObject(lost);
      await rm(folder.path, { recursive: true });
      await rename(`${folder.path}-away`, folder.path);
      await durable.write(later);
      expect(durable.get("t", "b")).toEqual(Buffer.from("2"));
    } finally {
      await durable.close();
    }
  });
});
