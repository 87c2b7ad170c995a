// Announcing static hosts on a simulated LAN and clock: who is heard, when goodbye is said, whose name stays whose.
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, expect, it } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import { type AgentScene, scene } from "../../../test/support/mdns-agents.ts";
import { eventually, ownFolder } from "../../../test/support/peers.ts";
import { type Disk, systemDisk } from "../../base/disk.ts";
import { callbackLog, silentLog } from "../../base/log.ts";
import { TYPE, textOfName } from "../../wire/dns/index.ts";
import { HostsAnnouncer } from "./announce-hosts.ts";
import type { Mdns } from "./engine.ts";

const folders: { remove(): Promise<void> }[] = [];
afterEach(async () => {
  for (const folder of folders.splice(0)) await folder.remove();
});
async function hostsFile(text: string): Promise<string> {
  const folder = await ownFolder("mdns-hosts");
  folders.push(folder);
  const path = join(folder.path, "hosts");
  await writeFile(path, text);
  return path;
}

/** Every address and reverse name that somebody hears, at present: "router.local A 10.0.0.50". */
function hearing(mdns: Mdns, ...names: readonly (readonly [name: string, type: "A" | "AAAA" | "PTR"])[]): Set<string> {
  const heard = new Set<string>();
  for (const [name, type] of names)
    mdns.query({ name: name.split("."), type: TYPE[type] }, (event) => {
      if (!("found" in event)) return;
      const { data } = event.found;
      const said = data.kind === "PTR" ? textOfName(data.target) : "address" in data ? data.address : "?";
      if (event.kind === "add") heard.add(`${name} ${type} ${said}`);
      else heard.delete(`${name} ${type} ${said}`);
    });
  return heard;
}
const complaintsOf = (agent: AgentScene): readonly string[] => agent.trilith.agent.complaints().map(({ text }) => text);

it("names of the file are heard with their reverse names, follow it, and say goodbye with it", async () => {
  const { clock, agent, host } = scene();
  const path = await hostsFile(
    "10.0.0.50 router.local\nfd00::50 router.local\n10.0.0.51 nas.local # a box\n10.0.0.1 alias.local\n",
  );
  const alpha = await agent("alpha", ["10.0.0.1/24"], { hosts: path });
  const heard = hearing(
    await host("other", ["10.0.0.9/24"]),
    ...([
      ["router.local", "A"],
      ["router.local", "AAAA"],
      ["nas.local", "A"],
      ["alias.local", "A"],
      ["new.local", "A"],
    ] as const),
    ...([
      ["50.0.0.10.in-addr.arpa", "PTR"],
      ["1.0.0.10.in-addr.arpa", "PTR"],
    ] as const),
  );
  await clock.advance(3000);
  const rest = [
    "50.0.0.10.in-addr.arpa PTR router.local.",
    "alias.local A 10.0.0.1",
    "router.local A 10.0.0.50",
    "router.local AAAA fd00::50",
  ];
  expect([...heard].sort()).toEqual([...rest, "nas.local A 10.0.0.51"].sort());
  // A further name of this host takes nothing from its first one.
  expect([...heard].join()).not.toContain("1.0.0.10.in-addr.arpa PTR");

  await writeFile(
    path,
    "10.0.0.50 router.local\nfd00::50 router.local\n10.0.0.52 new.local\n10.0.0.1 alias.local\nnonsense\n",
  );
  await clock.advance(8000);
  expect([...heard].sort()).toEqual([...rest, "new.local A 10.0.0.52"].sort());
  expect(complaintsOf(alpha)).toEqual([expect.stringContaining('line 5: "nonsense" is no IP address')]);

  await rm(path);
  await clock.advance(8000);
  expect([...heard]).toEqual([]);
  expect(complaintsOf(alpha)).toEqual(["there is no such file"]);
  await writeFile(path, "10.0.0.50 router.local\n");
  await clock.advance(8000);
  expect([...heard].sort()).toEqual(["50.0.0.10.in-addr.arpa PTR router.local.", "router.local A 10.0.0.50"]);
  await alpha.stop();
  await clock.advance(1500);
  expect([...heard]).toEqual([]);
});

it("a name that another host has stays that host's, and is told", async () => {
  const { clock, agent, host } = scene();
  const other = await host("other", ["10.0.0.9/24"]);
  other.publishAddress({ name: "router.local", address: "10.0.0.77" });
  await clock.advance(3000);
  const path = await hostsFile("10.0.0.50 router.local\n10.0.0.51 nas.local\n");
  const alpha = await agent("alpha", ["10.0.0.1/24"], { hosts: path });
  const heard = hearing(other, ["router.local", "A"], ["router-2.local", "A"], ["nas.local", "A"]);
  await clock.advance(5000);
  expect([...heard].sort()).toEqual(["nas.local A 10.0.0.51", "router.local A 10.0.0.77"]);
  expect(complaintsOf(alpha)).toEqual([
    "router.local is not announced for 10.0.0.50: another host of the LAN has that name",
  ]);
  await writeFile(path, "10.0.0.51 nas.local\n");
  await clock.advance(8000);
  expect(complaintsOf(alpha)).toEqual([]);
});

it("a file that is being written keeps what stands; a reload takes another without a goodbye to what stands in both", async () => {
  const { clock, agent, host } = scene();
  const path = await hostsFile("10.0.0.50 router.local\n");
  const next = await hostsFile("10.0.0.50 router.local\n10.0.0.51 nas.local\n");
  let mdns: object = { files: false, hosts: path };
  const told = () => ({
    ...{ node: "alpha", httpPort: -1, advertiseAddress: "10.0.0.1" },
    protocols: { consul: false, dns: false, mdns },
  });
  const alpha = await agent("alpha", ["10.0.0.1/24"], mdns, {}, { reread: async () => told() });
  const other = await host("other", ["10.0.0.9/24"]);
  const said: string[] = [];
  for (const name of ["router", "nas"])
    other.query({ name: [name, "local"], type: TYPE.A }, (event) => {
      if ("found" in event) said.push(`${event.kind} ${name}`);
    });
  await clock.advance(3000);
  expect(said.splice(0)).toEqual(["add router"]);
  await writeFile(path, "");
  await clock.advance(100);
  await writeFile(path, "10.0.0.50 router.local\n# written\n");
  await clock.advance(8000);
  expect(said).toEqual([]);
  const become = async (now: object): Promise<readonly string[]> => {
    mdns = now;
    let over = false;
    const done = alpha.trilith.reload().finally(() => {
      over = true;
    });
    for (let i = 0; !over && i < 200; i++) await clock.advance(50);
    await done;
    await clock.advance(3000);
    return said.splice(0);
  };
  expect(await become({ files: false, hosts: next })).toEqual(["add nas"]);
  expect(await become({ files: false })).toEqual(expect.arrayContaining(["remove nas", "remove router"]));
});

it("Avahi's own file is left to its daemon while that runs", async () => {
  const clock = fakeClock();
  let runs = true;
  const disk = {
    readText: async (path: string) => (path === "/run/avahi-daemon/pid" ? "77\n" : "10.0.0.50 router.local\n"),
    info: async () => ({ isFile: true, isDirectory: false, size: 23 }),
  } as unknown as Disk;
  const told: string[] = [];
  const mdns = {
    publishAddress({ name }: { readonly name: string }) {
      told.push(`hello ${name}`);
      return { name, withdraw: async () => void told.push(`goodbye ${name}`) };
    },
  } as unknown as Mdns;
  const processes = { exists: (pid: number) => pid === 77 && runs };
  const hosts = new HostsAnnouncer(
    { path: "/etc/avahi/hosts", leftToAvahi: true },
    { clock, log: silentLog, disk, processes },
  );
  const stop = new AbortController();
  const over = hosts.follow(mdns, stop.signal, () => {});
  await clock.advance(11_000);
  expect(told).toEqual([]);
  runs = false;
  await clock.advance(11_000);
  expect(told).toEqual(["hello router.local"]);
  runs = true;
  await clock.advance(11_000);
  expect(told).toEqual(["hello router.local", "goodbye router.local"]);
  stop.abort();
  await over;
  expect(clock.timers).toBe(0);
  expect(hosts.complaints).toEqual([]);
});

it("a lost name whose goodbye cannot be sent is told, and the agent goes on", async () => {
  const clock = fakeClock();
  const path = await hostsFile("10.0.0.50 router.local\n10.0.0.51 nas.local\n");
  const told: string[] = [];
  const lose: (() => void)[] = [];
  const mdns = {
    publishAddress({ name }: { readonly name: string }, { changed }: { changed(event: { kind: "renamed" }): void }) {
      lose.push(() => changed({ kind: "renamed" }));
      return { name, withdraw: () => Promise.reject(new Error("the network is down")) };
    },
  } as unknown as Mdns;
  const log = callbackLog((_level, _part, text) => void told.push(text));
  const hosts = new HostsAnnouncer(
    { path, leftToAvahi: false },
    { clock, log, disk: systemDisk, processes: { exists: () => false } },
  );
  const stop = new AbortController();
  const over = hosts.follow(mdns, stop.signal, () => {});
  await eventually("both are announced", () => lose.length === 2);
  lose[0]?.();
  await eventually("it is told", () => told.length === 2);
  expect(told).toEqual([
    "router.local is not announced for 10.0.0.50: another host of the LAN has that name",
    'goodbye of "router.local 10.0.0.50" was not sent',
  ]);
  expect(hosts.complaints.map(({ text }) => text)).toEqual(told.slice(0, 1));
  stop.abort();
  await over;
});
