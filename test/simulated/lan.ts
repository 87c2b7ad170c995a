// A LAN on the simulated clock: multicast packets between hosts with delay, loss, duplication and partitions, every one recorded.
import type { Clock } from "../../src/base/clock.ts";
import type { Interface, MulticastFrom, Net } from "../../src/base/net.ts";
import type { Random } from "../../src/base/random.ts";
import { decodeMessage, type Message } from "../../src/wire/dns/index.ts";

/** The part of the network that multicast DNS needs. */
export type LanNet = Pick<Net, "interfaces" | "multicast" | "isUdpPortFree">;

/** One packet as it was put on the LAN. */
export interface Packet {
  readonly atMs: number;
  readonly from: string;
  readonly fromPort: number;
  /** The group, or one host. */
  readonly to: string;
  readonly bytes: Uint8Array;
  readonly message: Message;
}

interface Port {
  readonly host: string;
  readonly interface: string;
  readonly family: 4 | 6;
  readonly address: string;
  readonly group: string;
  readonly deliver: (bytes: Uint8Array, from: MulticastFrom) => void;
}

export interface LanOptions {
  /** Share of deliveries that are lost, and that come twice. */
  readonly loss?: number;
  readonly duplication?: number;
  /** Longest time on the way, milliseconds; 1 unless told. */
  readonly delayMs?: number;
}

/** A repeatable source of chance (mulberry32). */
export function seeded(seed: number): Random {
  let state = seed >>> 0;
  const fraction = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const below = (limit: number): number => Math.floor(fraction() * limit);
  return {
    fraction,
    below,
    uuid: () => `00000000-0000-4000-8000-${String(below(1e12)).padStart(12, "0")}`,
    bytes: (count) => Uint8Array.from({ length: count }, () => below(256)),
  };
}

/** A LAN whose hosts have one interface "eth0" each, or those they are given. */
export class Lan {
  readonly packets: Packet[] = [];
  /** While it is there, sockets open only when it resolves. */
  gate: Promise<void> | undefined;
  readonly #clock: Clock;
  readonly #random: Random;
  #options: LanOptions;
  readonly #ports = new Set<Port>();
  readonly #interfaces = new Map<string, Interface[]>();
  /** Which island a host is on; hosts of different islands do not hear each other. */
  readonly #islands = new Map<string, number>();

  constructor(clock: Clock, random: Random, options: LanOptions = {}) {
    this.#clock = clock;
    this.#random = random;
    this.#options = options;
  }

  /** Other conditions from now on. */
  set conditions(options: LanOptions) {
    this.#options = options;
  }

  /** Hosts of one island hear each other; without islands all do. */
  split(...islands: readonly (readonly string[])[]): void {
    this.#islands.clear();
    for (const [index, hosts] of islands.entries()) for (const host of hosts) this.#islands.set(host, index + 1);
  }

  /** A host's network. `addresses` as `10.0.0.1/24` or `eth1=fd00::1/64`. */
  host(name: string, ...addresses: readonly string[]): LanNet {
    this.readdress(name, ...addresses);
    return {
      interfaces: () => this.#interfaces.get(name) ?? [],
      isUdpPortFree: async () => ![...this.#ports].some(({ host }) => host === name),
      multicast: async (on, message) => {
        await this.gate;
        const port: Port = {
          host: name,
          interface: on.interface,
          family: on.group.includes(":") ? 6 : 4,
          address: on.address,
          group: on.group,
          deliver: message,
        };
        this.#ports.add(port);
        return {
          send: (bytes, to) => {
            if (this.#ports.has(port)) this.#send(port, new Uint8Array(bytes), on.port, to);
          },
          close: async () => void this.#ports.delete(port),
        };
      },
    };
  }

  /** The host's interfaces have these addresses from now on. */
  readdress(name: string, ...addresses: readonly string[]): void {
    this.#interfaces.set(
      name,
      addresses.map((text) => {
        const [iface, cidr] = text.includes("=") ? (text.split("=") as [string, string]) : ["eth0", text];
        const address = cidr.split("/")[0] as string;
        return { name: iface, address, family: address.includes(":") ? 6 : 4, cidr, internal: false };
      }),
    );
  }

  /** Puts a packet on the LAN that no engine sent, to the group or (`to`) to one host. `host` has no sockets here. */
  inject(host: string, address: string, bytes: Uint8Array, port = 5353, to?: string): void {
    const group = address.includes(":") ? "ff02::fb" : "224.0.0.251";
    const family = address.includes(":") ? 6 : 4;
    this.#send(
      { host, interface: "eth0", family, address, group, deliver: () => {} },
      bytes,
      port,
      to === undefined ? undefined : { address: to, port: 5353 },
    );
  }

  /** Packets that a host's address sent, from a moment on. */
  from(address: string, sinceMs = 0): Packet[] {
    return this.packets.filter((packet) => packet.from === address && packet.atMs >= sinceMs);
  }

  #send(
    port: Port,
    bytes: Uint8Array,
    fromPort: number,
    to?: { readonly address: string; readonly port: number },
  ): void {
    const from = { address: port.address, port: fromPort, direct: false };
    const atMs = this.#clock.monotonic();
    this.packets.push({
      atMs,
      from: port.address,
      fromPort,
      to: to?.address ?? port.group,
      bytes,
      get message() {
        return decodeMessage(bytes);
      },
    });
    for (const other of this.#ports) {
      if (other.family !== port.family || other.interface !== port.interface) continue;
      if (to !== undefined && (other.address !== to.address || to.port !== 5353)) continue;
      const home = other.host === port.host;
      if (!home && (this.#islands.get(other.host) ?? 0) !== (this.#islands.get(port.host) ?? 0)) continue;
      const { loss = 0, duplication = 0, delayMs = 1 } = this.#options;
      if (!home && this.#random.fraction() < loss) continue;
      const times = !home && this.#random.fraction() < duplication ? 2 : 1;
      for (let i = 0; i < times; i++)
        this.#clock.after(home ? 0 : this.#random.fraction() * delayMs, () => {
          if (this.#ports.has(other)) other.deliver(bytes, { ...from, direct: to !== undefined });
        });
    }
  }
}
