// Wiring a system's resolvers: what is written keeps what was there, an undo restores it byte for byte, and nothing of others is overwritten.
import { mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ownFolder } from "../../../test/support/peers.ts";
import { systemDisk } from "../../base/disk.ts";
import { applySetup, applyUndo, planSetup, planUndo, type SetupTarget, setupTarget } from "./cli.ts";

const machine = { disk: systemDisk, net: { interfaces: () => [] } };
let folder: Awaited<ReturnType<typeof ownFolder>>;
let root: string;
beforeEach(async () => {
  folder = await ownFolder("dns-setup");
  root = folder.path;
});
afterEach(() => folder.remove());

const put = async (path: string, content: string | Uint8Array, mode = 0o644): Promise<void> => {
  await mkdir(dirname(join(root, path)), { recursive: true });
  await writeFile(join(root, path), content, { mode });
};
const read = (path: string): Promise<string> => readFile(join(root, path), "utf8");
const setup = async (target: SetupTarget, options: object = {}): ReturnType<typeof planSetup> => {
  const plan = await planSetup({ target, domain: "consul", port: 8600, root, ...options }, machine);
  await applySetup(plan, machine);
  return plan;
};
const undo = async (target: SetupTarget): Promise<void> =>
  applyUndo(await planUndo({ target, root }, machine), machine);
const DAEMON = "/etc/docker/daemon.json";

describe("docker", () => {
  it("adds server and search domain and keeps everything else, its order and its indentation", async () => {
    const before = `{\n\t"debug": true,\n\t"dns-search": ["corp.example"],\n\t"log-opts": {"max-size": "10m"},\n\t"__proto__": 1\n}`;
    await put(DAEMON, before, 0o600);
    const plan = await setup("docker", { address: "172.17.0.1" });
    expect(await read(DAEMON)).toBe(
      '{\n\t"debug": true,\n\t"log-opts": {\n\t\t"max-size": "10m"\n\t},\n\t"__proto__": 1,\n\t"dns": [\n\t\t"172.17.0.1"\n\t],\n\t"dns-search": [\n\t\t"service.consul",\n\t\t"corp.example"\n\t]\n}\n',
    );
    expect((await stat(join(root, DAEMON))).mode & 0o777).toBe(0o600);
    expect(plan.next).toContain("systemctl restart docker");
    await undo("docker");
    expect(await read(DAEMON)).toBe(before);
    expect((await stat(join(root, DAEMON))).mode & 0o777).toBe(0o600);
    expect(await readdir(join(root, "etc/docker"))).toEqual(["daemon.json"]);
  });

  it("hands former servers to the agent, and takes the bridge's address from daemon.json", async () => {
    await put(DAEMON, '{"dns": ["10.0.0.2", "10.0.0.3"], "bip": "10.200.0.1/24"}');
    const plan = await setup("docker", { domain: ".Trilith." });
    expect(JSON.parse(await read(DAEMON))).toEqual({
      bip: "10.200.0.1/24",
      dns: ["10.200.0.1"],
      "dns-search": ["service.trilith"],
    });
    expect(plan.next[0]).toContain("--recursor 10.0.0.2 --recursor 10.0.0.3");
  });

  it("refuses what it cannot merge, and leaves it alone", async () => {
    for (const text of ["{", "[]", '"x"', "// comment\n{}"]) {
      await put(DAEMON, text);
      await expect(setup("docker")).rejects.toThrow(`${root}${DAEMON}: `);
      expect(await read(DAEMON)).toBe(text);
      expect(await readdir(join(root, "etc/docker"))).toEqual(["daemon.json"]);
    }
  });
});

describe("every target", () => {
  it("is made where nothing is, and leaves nothing when it is undone", async () => {
    for (const target of ["docker", "resolved", "dnsmasq"] as const) {
      const plan = await setup(target);
      expect(await readFile(plan.file.path, "utf8")).not.toBe("");
      await undo(target);
      await expect(stat(plan.file.path)).rejects.toThrow("ENOENT");
      expect(await readdir(dirname(plan.file.path))).toEqual([]);
      await expect(planUndo({ target, root }, machine)).rejects.toMatchObject({ code: "not-found" });
    }
  });

  it("says what it writes for resolved and dnsmasq", async () => {
    await setup("resolved", { port: 8653, address: "::1" });
    expect(await read("/etc/systemd/resolved.conf.d/trilith.conf")).toContain(
      "[Resolve]\nDNS=[::1]:8653\nDomains=~consul\n",
    );
    await setup("dnsmasq", { domain: "svc.example" });
    expect(await read("/etc/dnsmasq.d/trilith.conf")).toContain(
      "server=/svc.example/127.0.0.1#8600\nrebind-domain-ok=/svc.example/\n",
    );
  });

  it("may be set up again with other options: an undo still leads back to the beginning", async () => {
    await put(DAEMON, '{"debug":true}');
    await setup("docker", { address: "172.17.0.1" });
    await setup("docker", { address: "172.30.0.1", domain: "other" });
    expect(JSON.parse(await read(DAEMON))).toEqual({
      debug: true,
      dns: ["172.30.0.1"],
      "dns-search": ["service.other"],
    });
    expect(
      await applySetup(
        await planSetup({ target: "docker", domain: "other", port: 1, root, address: "172.30.0.1" }, machine),
      ),
    ).toBe(false);
    await undo("docker");
    expect(await read(DAEMON)).toBe('{"debug":true}');
  });

  it("does not overwrite what others changed meanwhile", async () => {
    await setup("docker");
    await put(DAEMON, '{"mine": 1}');
    await expect(setup("docker")).rejects.toMatchObject({ code: "conflict" });
    await expect(undo("docker")).rejects.toMatchObject({ code: "conflict" });
    expect(await read(DAEMON)).toBe('{"mine": 1}');
  });

  it("refuses what is no target, address or domain", async () => {
    expect(() => setupTarget("bind")).toThrow("known are docker, resolved, dnsmasq");
    await expect(setup("dnsmasq", { address: "localhost" })).rejects.toThrow(
      '--address: "localhost" is not an IP address',
    );
    for (const domain of ["", ".", "a b", "x/y", "a..b", "x\ny"])
      await expect(setup("dnsmasq", { domain }), domain).rejects.toMatchObject({ code: "invalid" });
  });

  it("restores any file of Docker's byte for byte", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.dictionary(fc.string(), fc.jsonValue()),
        fc.constantFrom(0, 1, 2, 4, "\t"),
        fc.constantFrom("", "\n", " \n\n"),
        async (config, indent, end) => {
          const before = JSON.stringify(config, null, indent) + end;
          await put(DAEMON, before);
          await setup("docker", { address: "172.17.0.1" });
          const now = JSON.parse(await read(DAEMON)) as Record<string, unknown>;
          expect(now["dns"]).toEqual(["172.17.0.1"]);
          for (const [key, value] of Object.entries(JSON.parse(before) as object))
            if (!key.startsWith("dns")) expect(now[key]).toEqual(value);
          await undo("docker");
          expect(await read(DAEMON)).toBe(before);
        },
      ),
      { numRuns: 40 },
    );
  });
});
