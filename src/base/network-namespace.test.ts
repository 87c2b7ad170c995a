// Which network this process is in, beside what other programs say of it.
import { execFileSync } from "node:child_process";
import { networkInterfaces } from "node:os";
import { describe, expect, it } from "vitest";
import { outwardAddress, ownNetworkNamespace } from "./network-namespace.ts";

describe("a process's network", () => {
  it("is the one that its children are in, as stat(1) tells it", () => {
    const told = execFileSync("stat", ["-L", "-c", "%d %i", "/proc/self/ns/net"], { encoding: "utf8" }).trim();
    const own = ownNetworkNamespace();
    expect(`${own?.device} ${own?.inode}`).toBe(told);
  });

  it("is left by an address of one of this host's interfaces", async () => {
    const known = Object.values(networkInterfaces()).flatMap((list) => list?.map(({ address }) => address) ?? []);
    for (const family of [4, 6] as const) {
      const found = await outwardAddress(family);
      if (found !== undefined) expect(known).toContain(found);
      expect(found === undefined || found.includes(":") === (family === 6)).toBe(true);
    }
  });

  it("is left by no address where there is no way", async () => {
    // Nobody may send there without asking for it first.
    expect(await outwardAddress(4, "255.255.255.255")).toBeUndefined();
  });
});
