// Engines on a simulated LAN, and what they see, for the tests of multicast DNS.
import { silentLog } from "../../src/base/log.ts";
import {
  type BrowseEvent,
  createMdns,
  type Found,
  type Mdns,
  type MdnsOptions,
} from "../../src/protocols/mdns/engine.ts";
import { type FakeClock, fakeClock } from "./clock.ts";
import { Lan, type LanOptions, seeded } from "./lan.ts";

export interface World {
  readonly clock: FakeClock;
  readonly lan: Lan;
  /** A running engine on a host of its own: 10.0.0.1, 10.0.0.2 … unless told. */
  host(name: string, addresses?: readonly string[], options?: Partial<MdnsOptions>): Promise<Mdns>;
  /** A host's name on the LAN, for `split` and `readdress`: the first one is "1". */
  stopAll(): Promise<void>;
}

export function world(seed = 1, conditions: LanOptions = {}): World {
  const clock = fakeClock();
  const lan = new Lan(clock, seeded(seed), conditions);
  const engines: Mdns[] = [];
  return {
    clock,
    lan,
    async host(name, addresses, options = {}) {
      const number = engines.length + 1;
      const net = lan.host(`${number}`, ...(addresses ?? [`10.0.0.${number}/24`]));
      const random = seeded(seed * 1000 + number);
      const mdns = createMdns({ clock, random, log: silentLog, net, hostName: name, ...options });
      engines.push(mdns);
      await mdns.start();
      return mdns;
    },
    async stopAll() {
      for (const engine of engines) await engine.stop();
      await clock.advance(100);
    },
  };
}

/** The instances that a browse sees at present, by name, with every event in `log`. */
export function seen(mdns: Mdns, type = "_http._tcp", log: BrowseEvent<Found>[] = []): Map<string, Found> {
  const now = new Map<string, Found>();
  mdns.browse({ type }, (event) => {
    log.push(event);
    if (event.kind === "add") now.set(event.found.name, event.found);
    if (event.kind === "remove") now.delete(event.found.name);
  });
  return now;
}

export const txt = (...texts: string[]): Uint8Array[] => texts.map((text) => Buffer.from(text));
