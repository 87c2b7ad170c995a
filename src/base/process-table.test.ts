// What the table of processes says where it cannot look: that nobody is there only where nobody is.
import { afterEach, describe, expect, test, vi } from "vitest";
import { systemProcessTable as table } from "./process-table.ts";
import { Shortage } from "./shortage.ts";

const broken = vi.hoisted(() => ({ code: undefined as string | undefined }));
vi.mock("node:fs", async (original) => {
  const fs = await original<typeof import("node:fs")>();
  const refuse = (): void => {
    if (broken.code !== undefined)
      throw Object.assign(new Error(`${broken.code}: open`), { code: broken.code, syscall: "open" });
  };
  return {
    ...fs,
    openSync: (...given: Parameters<typeof fs.openSync>) => {
      refuse();
      return fs.openSync(...given);
    },
    readdirSync: (path: string) => {
      refuse();
      return fs.readdirSync(path);
    },
  };
});
afterEach(() => {
  broken.code = undefined;
});

describe.skipIf(!table.here())("the table of processes", () => {
  const own = process.pid;

  test("tells of this very process", async () => {
    expect(table.stat(own)?.startTicks).toBeGreaterThan(0);
    expect(await table.sockets(own)).toBeInstanceOf(Set);
    expect(await table.environ(own, 1 << 20)).toBeInstanceOf(Uint8Array);
    expect(await table.table("tcp")).toContain("local_address");
  });

  test("says that who is gone is gone, and who is others' may not be looked at", async () => {
    broken.code = "ENOENT";
    expect([table.stat(own), await table.sockets(own), await table.environ(own, 99)]).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
    broken.code = "EACCES";
    expect([await table.sockets(own), await table.environ(own, 99)]).toEqual(["denied", "denied"]);
  });

  test("says nothing of anybody where no descriptors are left", async () => {
    broken.code = "EMFILE";
    expect(() => table.stat(own)).toThrow(Shortage);
    expect(() => table.pulse()).toThrow(Shortage);
    await expect(table.sockets(own)).rejects.toThrow(Shortage);
    await expect(table.environ(own, 99)).rejects.toThrow(Shortage);
    await expect(table.table("tcp")).rejects.toThrow(Shortage);
  });
});
