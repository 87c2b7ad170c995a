// Files written piece by piece: whole under their name, or not at all.
import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { ownFolder } from "../../test/support/peers.ts";
import { streamFrom, streamTo } from "./file-stream.ts";

let folder: Awaited<ReturnType<typeof ownFolder>>;
beforeEach(async () => {
  folder = await ownFolder("file-stream");
});
afterEach(() => folder.remove());

async function* pieces(end?: Error): AsyncGenerator<Uint8Array> {
  yield Buffer.from("one ");
  yield Buffer.from("two");
  if (end !== undefined) throw end;
}

it("writes all pieces, for the owner only unless told, and reads them back", async () => {
  const path = join(folder.path, "file");
  let seen = "";
  await streamTo(path, pieces(), undefined, async (temporary) => {
    seen = await readFile(temporary, "utf8");
  });
  expect(seen).toBe("one two");
  expect((await stat(path)).mode & 0o777).toBe(0o600);
  let read = "";
  for await (const piece of streamFrom(path)) read += String(piece);
  expect(read).toBe("one two");
});

it.each([
  ["the source fails", new Error("the source"), undefined],
  ["the look at it fails", undefined, new Error("the look")],
])("what stood there stays where %s, and nothing else is left", async (_, source, look) => {
  const path = join(folder.path, "file");
  await writeFile(path, "before");
  const writing = streamTo(path, pieces(source), 0o600, () =>
    look === undefined ? Promise.resolve() : Promise.reject(look),
  );
  await expect(writing).rejects.toBe(source ?? look);
  expect(await readFile(path, "utf8")).toBe("before");
  expect(await readdir(folder.path)).toEqual(["file"]);
});

it("names the file that was meant where it cannot be written", async () => {
  const path = join(folder.path, "missing", "file");
  await expect(streamTo(path, pieces())).rejects.toThrow(`ENOENT: no such file or directory, open '${path}'`);
});
