// Engines on a simulated LAN, and what they see, for the tests of multicast DNS.
import { silentLog } from "../../src/base/log.ts";
import {
  type BrowseEvent,
  createMdns,
  type Found,
  type Mdns,
  type MdnsOptions,
} from "../../src/protocols/mdns/engine.ts";
import { type DnsRecord, encodeMessage, type Message, nameFromText } from "../../src/wire/dns/index.ts";
import { type FakeClock, fakeClock } from "./clock.ts";
import { Lan, type LanOptions, type Packet, seeded } from "./lan.ts";

export interface World {
  readonly clock: FakeClock;
  readonly lan: Lan;
  /** A running engine on a host of its own: 10.0.0.1, 10.0.0.2 … unless told. For `Lan.split` and `readdress` the hosts are called "1", "2" … */
  host(name: string, addresses?: readonly string[], options?: Partial<MdnsOptions>): Promise<Mdns>;
  /** Ends every engine, and lets what is under way arrive. */
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

/** One web service. */
export const web = (port = 80, ...texts: string[]) => [{ type: "_http._tcp", port, txt: txt(...texts) }];
export const queries = (packets: readonly Packet[]): Packet[] =>
  packets.filter(({ message }) => !message.response && message.authorities.length === 0);
export const responses = (packets: readonly Packet[]): Packet[] => packets.filter(({ message }) => message.response);

/** A message of another host, as bytes. */
export function packet(part: Partial<Message>): Uint8Array {
  return encodeMessage({
    id: 0,
    response: true,
    opcode: 0,
    authoritative: true,
    truncated: false,
    recursionDesired: false,
    recursionAvailable: false,
    authenticData: false,
    checkingDisabled: false,
    rcode: 0,
    questions: [],
    answers: [],
    authorities: [],
    additionals: [],
    ...part,
  });
}

/** What lists a web service. */
export const ptr = (name: string, ttlS: number): DnsRecord => ({
  name: nameFromText("_http._tcp.local"),
  class: 1,
  ttlS,
  data: { kind: "PTR", target: [name, "_http", "_tcp", "local"] },
});
export const address = (host: string, ip: string, ttlS = 120): DnsRecord => ({
  name: [host, "local"],
  class: 0x8001,
  ttlS,
  data: { kind: "A", address: ip },
});
export const asks = (type: number, ...labels: string[]) => ({ name: labels, type, class: 1 });
export const HTTP = ["_http", "_tcp", "local"];
