// Agents with mDNS on a simulated LAN and clock, and plain engines beside them, as other people's responders.
import { afterEach } from "vitest";
import { type Disk, systemDisk } from "../../src/base/disk.ts";
import { silentLog } from "../../src/base/log.ts";
import { systemNet } from "../../src/base/net.ts";
import { systemProcesses } from "../../src/base/process.ts";
import type { Settings } from "../../src/contracts/settings.ts";
import type { Instance } from "../../src/model/instance.ts";
import { createMdns, type Mdns } from "../../src/protocols/mdns/engine.ts";
import type { TrilithOptions } from "../../src/trilith.ts";
import { type FakeClock, fakeClock } from "../simulated/clock.ts";
import { Lan, seeded } from "../simulated/lan.ts";
import { type RunningAgent, startAgent } from "./ground.ts";

export interface AgentScene extends RunningAgent {
  /** Of a service, those that came from the LAN. */
  found(service: string): readonly Instance[];
}

export interface Scene {
  readonly clock: FakeClock;
  readonly lan: Lan;
  /** An agent on the host "name" with these addresses. */
  agent(
    name: string,
    addresses: readonly string[],
    mdns?: object,
    settings?: Partial<Settings>,
    options?: TrilithOptions,
  ): Promise<AgentScene>;
  /** Somebody else's responder and browser. */
  host(name: string, addresses: readonly string[], on?: string): Promise<Mdns>;
  /** What a responder browses: names at present, by type. */
  browse(mdns: Mdns, type: string): ReadonlySet<string>;
}

const ends: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

/** The real disk, on which no simulated time passes: how long it takes is up to the machine. */
export function timelessDisk(clock: FakeClock): Disk {
  const disk = systemDisk;
  return {
    readBytes: (path) => clock.during(disk.readBytes(path)),
    readText: (path) => clock.during(disk.readText(path)),
    list: (path) => clock.during(disk.list(path)),
    info: (path) => clock.during(disk.info(path)),
    realPath: (path) => clock.during(disk.realPath(path)),
    makeFolder: (path) => clock.during(disk.makeFolder(path)),
    replace: (path, ...content) => clock.during(disk.replace(path, ...content)),
    overwrite: (path, ...contents) => clock.during(disk.overwrite(path, ...contents)),
    remove: (path) => clock.during(disk.remove(path)),
    bell: (path, ring) => clock.during(disk.bell(path, ring)),
  };
}

export function scene(seed = 1): Scene {
  const clock = fakeClock();
  const lan = new Lan(clock, seeded(seed));
  let count = 0;
  /** Stopping says goodbye, which takes time that nobody else moves on. */
  const passing = (stop: () => Promise<void>) => async (): Promise<void> => {
    let over = false;
    const done = stop().finally(() => {
      over = true;
    });
    for (let i = 0; !over && i < 200; i++) await clock.advance(50);
    await done;
  };
  return {
    clock,
    lan,
    async agent(name, addresses, mdns = {}, settings = {}, options = {}) {
      count++;
      const net = { ...systemNet, ...lan.host(name, ...addresses) };
      const own = addresses[0]?.split("=").at(-1)?.split("/")[0] ?? "127.0.0.1";
      const starting = startAgent(
        {
          ...{ node: name, httpPort: -1, advertiseAddress: own },
          ...settings,
          protocols: { consul: false, dns: false, mdns: { files: false, ...mdns }, ...settings.protocols },
        },
        {
          ...{ clock, net, random: seeded(seed * 100 + count), disk: timelessDisk(clock) },
          processes: { ...systemProcesses, hostname: () => name },
          ...options,
        },
      );
      const running = await starting;
      const { trilith } = running;
      const stop = passing(() => trilith.stop());
      ends.push(stop);
      return {
        ...running,
        stop,
        found: (service) =>
          trilith.directory
            .view()
            .residents(service)
            .map(({ instance }) => instance)
            .filter(({ origin }) => origin.source === "mdns"),
      };
    },
    async host(name, addresses, on = name) {
      count++;
      const net = lan.host(on, ...addresses);
      const mdns = createMdns({ clock, random: seeded(seed * 100 + count), log: silentLog, net, hostName: name });
      await mdns.start();
      ends.push(passing(() => mdns.stop()));
      return mdns;
    },
    browse(mdns, type) {
      const names = new Set<string>();
      mdns.browse({ type }, (event) => {
        if (event.kind === "add") names.add(event.found.name);
        if (event.kind === "remove") names.delete(event.found.name);
      });
      return names;
    },
  };
}
