// Interfaces that come and go, each with a socket for each address family, and what all of them share.
import type { Timer } from "../../../base/clock.ts";
import { messageOf, TrilithError } from "../../../base/error.ts";
import type { Interface } from "../../../base/net.ts";
import type { Family, Gone, MdnsOptions } from "../engine.ts";
import type { Entry } from "./cache.ts";
import type { Claim } from "./claim.ts";
import { Echoes } from "./echoes.ts";
import { type Hub, Link } from "./link.ts";
import { PORT } from "./names.ts";

const LOOK_EVERY_MS = 2000;

export interface PlacesHub {
  claims(): Iterable<Claim>;
  came(link: Link): void;
  went(link: Link): void;
  /** The interface has other addresses. */
  readdressed(link: Link): void;
  added(link: Link, entry: Entry): void;
  removed(link: Link, entry: Entry, why: Gone): void;
}

export interface Traffic {
  packetsSent: number;
  bytesSent: number;
  packetsHeard: number;
  badPackets: number;
}

export class Places {
  readonly #options: MdnsOptions;
  readonly #hub: Hub;
  readonly #owner: PlacesHub;
  readonly #links = new Map<string, Link>();
  /** Addresses of this host. */
  #own = new Set<string>();
  /** True while no other mDNS stack is known on this host: what is sent to it alone may be taken then. */
  #alone = false;
  #timer: Timer | undefined;
  #state: "new" | "running" | "stopped" = "new";
  /** Sockets are opened and closed one after the other. */
  #work: Promise<void> = Promise.resolve();
  #stopping: Promise<void> | undefined;
  /** Why a place could not be opened, so that it is told once. */
  readonly #failures = new Map<string, string>();

  constructor(options: MdnsOptions, traffic: Traffic, owner: PlacesHub) {
    this.#options = options;
    this.#owner = owner;
    const echoes = new Echoes(options.clock);
    this.#hub = {
      clock: options.clock,
      random: options.random,
      log: options.log,
      net: options.net,
      claims: owner.claims,
      brief: options.brief === true,
      isOwn: (address) => this.#own.has(address),
      sent(link, bytes) {
        traffic.packetsSent++;
        traffic.bytesSent += bytes.length;
        echoes.sent(link, bytes);
      },
      isEcho: (link, bytes) => echoes.has(link, bytes),
      heard(good) {
        traffic.packetsHeard++;
        if (!good) traffic.badPackets++;
      },
      neighbour: () => this.#neighbour(),
      added: owner.added,
      removed: owner.removed,
    };
  }

  /** Places that are open. */
  links(): Link[] {
    return [...this.#links.values()].filter(({ isOpen }) => isOpen);
  }

  /** @throws TrilithError `stopped` */
  mustRun(): void {
    if (this.#state === "stopped") throw new TrilithError("stopped", "mDNS was stopped");
  }

  async start(): Promise<void> {
    this.mustRun();
    if (this.#state === "running") return this.#work;
    this.#state = "running";
    this.#alone = await this.#options.net.isUdpPortFree(PORT);
    await this.#look();
    if (this.#links.size === 0) this.#options.log.warn("no network interface takes part in mDNS at present");
  }

  /** Nothing is left. `farewell` says what is to be said before. */
  stop(farewell: () => void): Promise<void> {
    this.#stopping ??= (async () => {
      this.#state = "stopped";
      this.#timer?.cancel();
      await this.#work;
      // Everything in as few packets as can be, before each claim would say it on its own.
      for (const link of this.links()) {
        const said = [...link.responder.all()].filter((record) => !link.isSaidByOthers(record));
        link.goodbye(said);
        link.isLeaving = true;
      }
      farewell();
      for (const claim of this.#owner.claims()) for (const link of this.links()) claim.remove(link);
      await Promise.all([...this.#links.values()].map((link) => link.close()));
      this.#links.clear();
    })();
    return this.#stopping;
  }

  /** Brings the places into line with the interfaces, again and again. */
  #look(): Promise<void> {
    this.#timer?.cancel();
    this.#work = this.#work
      .then(() => this.#adapt())
      .catch((error: unknown) => {
        this.#options.log.error(`looking at the network interfaces failed: ${messageOf(error)}`);
      });
    return this.#work.then(() => {
      if (this.#state === "running")
        this.#timer = this.#options.clock.after(
          this.#options.interfacesEveryMs ?? LOOK_EVERY_MS,
          () => void this.#look(),
        );
    });
  }

  async #adapt(): Promise<void> {
    if (this.#state !== "running") return;
    const all = this.#options.net.interfaces();
    this.#own = new Set(all.map(({ address }) => address.replace(/%.*$/, "")));
    const wanted = new Map<string, { name: string; family: Family }>();
    for (const { name, family, internal } of all)
      if (this.#takesPart(name, family, internal)) wanted.set(`${name}/${family}`, { name, family });
    for (const [key, link] of this.#links)
      if (!wanted.has(key)) {
        this.#links.delete(key);
        await this.#lose(link);
      }
    for (const key of this.#failures.keys()) if (!wanted.has(key)) this.#failures.delete(key);
    for (const [key, { name, family }] of wanted) {
      const addresses = all.filter((address) => address.name === name);
      const link = this.#links.get(key);
      if (link === undefined) await this.#gain(key, name, family, addresses);
      else await this.#readdress(key, link, addresses);
    }
  }

  #takesPart(name: string, family: Family, internal: boolean): boolean {
    const { interfaces, families, loopback } = this.#options;
    if (internal && loopback !== true) return false;
    return (families === undefined || families.includes(family)) && (interfaces === undefined || interfaces(name));
  }

  async #gain(key: string, name: string, family: Family, addresses: readonly Interface[]): Promise<void> {
    const link = new Link(this.#hub, name, family);
    link.setAddresses(addresses);
    if (!(await this.#open(key, link))) return;
    this.#links.set(key, link);
    this.#owner.came(link);
  }

  async #readdress(key: string, link: Link, addresses: readonly Interface[]): Promise<void> {
    const text = (list: readonly Interface[]): string =>
      list
        .map(({ cidr }) => cidr)
        .sort()
        .join();
    if (text(link.addresses) === text(addresses)) return;
    link.setAddresses(addresses);
    // What was joined by an address that is gone, or on an interface that was made anew under its old name, is deaf.
    if (!(await this.#open(key, link))) {
      this.#links.delete(key);
      await this.#lose(link);
      return;
    }
    this.#owner.readdressed(link);
  }

  async #lose(link: Link): Promise<void> {
    this.#owner.went(link);
    await link.close();
  }

  async #open(key: string, link: Link): Promise<boolean> {
    try {
      await link.open(this.#alone);
      this.#failures.delete(key);
      return true;
    } catch (error) {
      const text = messageOf(error);
      if (this.#failures.get(key) !== text)
        this.#options.log.warn(`${link.interface} takes no part in mDNS over IPv${link.family}: ${text}`);
      this.#failures.set(key, text);
      return false;
    }
  }

  /** Another stack is there: what is sent to this host alone is for it from now on, as it may know of no sharing. */
  #neighbour(): void {
    if (!this.#alone) return;
    this.#alone = false;
    this.#work = this.#work.then(async () => {
      for (const [key, link] of this.#links)
        if (link.direct && this.#state === "running" && !(await this.#open(key, link))) {
          this.#links.delete(key);
          await this.#lose(link);
        }
    });
  }
}
