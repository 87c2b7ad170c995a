// The table of this moment: found, replaced, taken away, damaged, late; and what all of that costs who asks for something else.
import { crc32 } from "node:zlib";
import { describe, expect, it } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import { type SomeService, tableBytes } from "../../../test/support/hook-table-bytes.ts";
import type { SharedFile } from "../../base/shared-file.ts";
import { createCurrentTable, type TableParts } from "./table.ts";

/** A disk with files that can be replaced. */
function disk() {
  const files = new Map<string, { bytes: Uint8Array; superseded: boolean }>();
  const self = {
    opened: 0,
    looked: 0,
    open: 0,
    put(path: string, bytes: Uint8Array, tell = true): void {
      const before = files.get(path);
      if (before !== undefined) before.superseded = tell;
      files.set(path, { bytes, superseded: false });
    },
    take(path: string, tell = false): void {
      const before = files.get(path);
      if (before !== undefined) before.superseded = tell;
      files.delete(path);
    },
    openShared(path: string): SharedFile | undefined {
      self.opened++;
      const file = files.get(path);
      if (file === undefined) return undefined;
      self.open++;
      return {
        bytes: file.bytes,
        u32At() {
          self.looked++;
          return file.superseded ? 1 : 0;
        },
        isReplaced: () => files.get(path) !== file,
        close() {
          self.open--;
        },
      };
    },
  };
  return self;
}

const web = (port: number): Record<string, SomeService> => ({ web: { backends: [{ address: "10.0.0.1", port }] } });

function setUp(more: Partial<TableParts> = {}) {
  const clock = fakeClock();
  const files = disk();
  const table = createCurrentTable({ clock, open: files.openShared, path: "/table", ...more });
  const port = (): number | undefined => {
    const found = table.named("web.service.consul");
    return found instanceof Promise ? -1 : found?.backends[0]?.port;
  };
  return { clock, files, table, port };
}

describe("the table of this moment", () => {
  it("is the next one a millisecond after the one before is superseded, and nothing stays open", () => {
    const { clock, files, table, port } = setUp();
    files.put("/table", tableBytes(web(1)));
    expect(port()).toBe(1);
    for (let next = 2; next < 10; next++) {
      files.put("/table", tableBytes(web(next)));
      clock.advanceNow(1);
      expect(port()).toBe(next);
      expect(table.at("127.128.0.1")?.backends[0]?.port).toBe(next);
    }
    expect(files.open).toBe(1);
    table.close();
    expect(files.open).toBe(0);
  });

  it("stays what it was where the next one is missing, damaged or of another version, until that is mended", () => {
    const { clock, files, port } = setUp();
    files.put("/table", tableBytes(web(1)));
    expect(port()).toBe(1);
    files.take("/table", true);
    clock.advanceNow(1);
    expect(port()).toBe(1);
    const { opened } = files;
    for (let i = 0; i < 100; i++) {
      clock.advanceNow(1);
      port();
    }
    expect(files.opened).toBe(opened);
    const damaged = tableBytes(web(2));
    damaged[damaged.length - 1] = (damaged[damaged.length - 1] as number) ^ 1;
    files.put("/table", damaged);
    clock.advanceNow(1_000);
    expect(port()).toBe(1);
    files.put("/table", tableBytes(web(3)));
    clock.advanceNow(1_000);
    expect(port()).toBe(3);
    expect(files.open).toBe(1);
  });

  it("is seen within a second where it was replaced without a word", () => {
    const { clock, files, port } = setUp();
    files.put("/table", tableBytes(web(1)));
    expect(port()).toBe(1);
    files.put("/table", tableBytes(web(2)), false);
    clock.advanceNow(1_000);
    expect(port()).toBe(2);
    files.take("/table");
    clock.advanceNow(1_000);
    expect(port()).toBe(2);
  });

  it("is looked for once a second where there is none, and only for what may be a service", () => {
    const { clock, files, table, port } = setUp();
    for (const host of ["example.org", "consul", "service.consul", "localhost", "myservice.consul"])
      expect(table.named(host)).toBeUndefined();
    for (const address of ["127.0.0.1", "127.127.0.1", "10.128.0.1", "::1", "fd00::1"])
      expect(table.at(address)).toBeUndefined();
    expect(files.opened).toBe(0);
    expect(port()).toBeUndefined();
    files.put("/table", tableBytes(web(1)));
    expect(port()).toBeUndefined();
    expect(table.at("127.128.0.1")).toBeUndefined();
    expect(files.opened).toBe(1);
    clock.advanceNow(1_000);
    expect(table.at("::ffff:127.128.0.1")?.subject).toBe("web");
    expect(port()).toBe(1);
  });

  it("is not touched for names and addresses of others", () => {
    const { clock, files, table, port } = setUp();
    files.put("/table", tableBytes(web(1)));
    expect(port()).toBe(1);
    clock.advanceNow(1);
    const { looked } = files;
    for (const text of ["example.org", "127.0.0.1", "10.0.0.1", "2001:db8::1"]) {
      expect(table.named(text)).toBeUndefined();
      expect(table.at(text)).toBeUndefined();
    }
    expect(files.looked).toBe(looked);
    expect(table.at("127.128.0.2")).toBeUndefined();
    expect(files.looked).toBe(looked + 1);
  });

  it("is asked for where it is not in its place; who asks for something else does not wait, and nobody asks too often", async () => {
    const asked: ((path: string | undefined) => void)[] = [];
    const { clock, files, table, port } = setUp({ locate: () => new Promise((resolve) => void asked.push(resolve)) });
    expect(table.named("example.org")).toBeUndefined();
    expect(asked).toHaveLength(0);
    const first = table.named("web.service.consul");
    const second = table.named("db.service.consul");
    expect([first, second].map((each) => each instanceof Promise)).toEqual([true, true]);
    expect(asked).toHaveLength(1);
    asked[0]?.(undefined);
    expect(await first).toBeUndefined();
    expect(port()).toBeUndefined();
    expect(asked).toHaveLength(1);
    clock.advanceNow(5_000);
    const third = table.named("web.service.consul");
    files.put("/elsewhere", tableBytes(web(7)));
    asked[1]?.("/elsewhere");
    expect((await third)?.backends[0]?.port).toBe(7);
    expect(port()).toBe(7);
    expect(asked).toHaveLength(2);
  });

  it("is asked for again where it has gone, while the old one serves", async () => {
    let told = "/table";
    let asked = 0;
    const { clock, files, port } = setUp({
      path: "/nowhere",
      async locate() {
        asked++;
        return told;
      },
    });
    files.put("/table", tableBytes(web(1)));
    expect(port()).toBe(-1);
    await clock.settle();
    expect(port()).toBe(1);
    await clock.advance(5_000);
    expect([port(), asked]).toEqual([1, 1]);
    files.take("/table");
    files.put("/next", tableBytes(web(2)));
    told = "/next";
    await clock.advance(1_000);
    expect([port(), asked]).toEqual([1, 2]);
    await clock.settle();
    expect([port(), asked]).toEqual([2, 2]);
    // Left behind by an agent that was killed.
    files.put("/third", tableBytes(web(3)));
    told = "/third";
    await clock.advance(9_000);
    expect([port(), asked]).toEqual([2, 2]);
    await clock.advance(1_000);
    expect([port(), asked]).toEqual([2, 3]);
    await clock.settle();
    expect([port(), asked]).toEqual([3, 3]);
  });

  it("says for each table from where this program reaches it", () => {
    const network = { device: 4n, inode: 1n };
    let here = { ...network };
    const { clock, files, table } = setUp({ network: () => here });
    const address = (): string | undefined => {
      const found = table.named("web.service.consul");
      return found instanceof Promise ? undefined : found?.backends[0]?.address;
    };
    const put = (): void =>
      files.put(
        "/table",
        tableBytes({ web: { backends: [{ address: "127.0.0.1", port: 1 }] } }, 1, { network, v4: "192.0.2.7" }),
      );
    put();
    expect(address()).toBe("127.0.0.1");
    here = { ...network, inode: 2n };
    put();
    clock.advanceNow(1);
    expect(address()).toBe("192.0.2.7");
  });

  it("lacks a service that is written in a way of later", () => {
    const { files, table, port } = setUp();
    const bytes = Buffer.from(tableBytes(web(1)));
    // Its policy: the twelfth byte of the first service.
    bytes[bytes.readUInt32LE(112) + 12] = 77;
    bytes.writeUInt32LE(crc32(bytes.subarray(64)), 24);
    files.put("/table", bytes);
    expect(port()).toBeUndefined();
    expect(table.at("127.128.0.1")).toBeUndefined();
  });

  it("is missing where whoever is asked fails", async () => {
    const { table } = setUp({ locate: () => Promise.reject(new Error("nobody")) });
    expect(await table.named("web.service.consul")).toBeUndefined();
  });
});
