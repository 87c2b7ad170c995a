// The whole: places, the host's claim and those of groups, followers, and the doors to them.
import { TrilithError } from "../../../base/error.ts";
import { labelFromText, TYPE } from "../../../wire/dns/index.ts";
import type {
  BrowseEvent,
  BrowseFor,
  Following,
  Found,
  FoundDomain,
  FoundType,
  Group,
  Heard,
  HostAddress,
  Mdns,
  MdnsOptions,
  Place,
  Published,
  PublishOptions,
  ResolveEvent,
  ResolveFor,
  Within,
} from "../engine.ts";
import { PublishedAddress } from "./address.ts";
import { list, readDomain, readHeard, readInstance, readType } from "./browse.ts";
import { Claim } from "./claim.ts";
import { Followers } from "./follow.ts";
import { PublishedGroup } from "./group.ts";
import { Host } from "./host.ts";
import { domainOf, listName, plainText, typeLabels } from "./names.ts";
import { Places } from "./places.ts";
import { resolve } from "./resolve.ts";

export class Engine implements Mdns {
  readonly traffic = { packetsSent: 0, bytesSent: 0, packetsHeard: 0, badPackets: 0 };
  readonly #options: MdnsOptions;
  readonly #places: Places;
  readonly #followers: Followers;
  readonly #host: Host;
  readonly #hostClaim: Claim;
  /** True once something was published, which needs the host's name. */
  #hostWanted = false;
  readonly #groups = new Map<PublishedGroup, Claim>();
  readonly #addresses = new Map<PublishedAddress, Claim>();

  constructor(options: MdnsOptions) {
    this.#options = options;
    const { clock, log } = options;
    this.#host = new Host(
      options.hostName,
      log,
      () => {
        this.#hostClaim.sync();
        for (const claim of this.#groups.values()) claim.sync();
      },
      () => {
        for (const group of this.#groups.keys()) group.changed();
      },
    );
    this.#hostClaim = new Claim(clock, this.#host);
    this.#places = new Places(options, this.traffic, {
      claims: () => this.#claims(),
      came: (link) => {
        this.#followers.came(link);
        for (const claim of this.#claims()) claim.add(link);
      },
      went: (link) => {
        for (const claim of this.#claims()) claim.remove(link);
      },
      readdressed: (link) => this.#hostClaim.at(link)?.sync(),
      added: (link, entry) => this.#followers.added(link, entry),
      removed: (link, entry, why) => this.#followers.removed(link, entry, why),
    });
    this.#followers = new Followers(clock, () => this.#places.links());
  }

  get hostName(): string {
    return plainText(this.#host.name);
  }

  get places(): readonly Place[] {
    return [...this.#places.links()].map(({ interface: name, family }) => ({ interface: name, family }));
  }

  start(): Promise<void> {
    return this.#places.start();
  }

  stop(): Promise<void> {
    return this.#places.stop(() => {
      this.#followers.clear();
      for (const published of [...this.#groups.keys(), ...this.#addresses.keys()]) void published.withdraw();
    });
  }

  browse(what: BrowseFor, listener: (event: BrowseEvent<Found>) => void): Following {
    this.#places.mustRun();
    const name = listName(what.type, what.subtype, domainOf(what.domain, "domain"));
    return list(this.#followers, { ...within(what), name, type: TYPE.PTR }, readInstance, listener);
  }

  browseTypes(
    what: Within & { readonly domain?: string },
    listener: (event: BrowseEvent<FoundType>) => void,
  ): Following {
    this.#places.mustRun();
    const name = ["_services", "_dns-sd", "_udp", ...domainOf(what.domain, "domain")];
    return list(this.#followers, { ...within(what), name, type: TYPE.PTR }, readType, listener);
  }

  browseDomains(
    what: Within & { readonly domain?: string },
    listener: (event: BrowseEvent<FoundDomain>) => void,
  ): Following {
    this.#places.mustRun();
    const name = ["b", "_dns-sd", "_udp", ...domainOf(what.domain, "domain")];
    return list(this.#followers, { ...within(what), name, type: TYPE.PTR }, readDomain, listener);
  }

  resolve(what: ResolveFor, listener: (event: ResolveEvent) => void): Following {
    this.#places.mustRun();
    const name = [labelFromText(what.name), ...typeLabels(what.type), ...domainOf(what.domain, "domain")];
    return resolve(this.#followers, { ...within(what), name }, listener);
  }

  query(
    what: Within & { readonly name: readonly string[]; readonly type: number },
    listener: (event: BrowseEvent<Heard>) => void,
  ): Following {
    this.#places.mustRun();
    return list(this.#followers, { ...within(what), name: what.name, type: what.type }, readHeard, listener);
  }

  publish(group: Group, options: PublishOptions = {}): Published {
    this.#places.mustRun();
    const published: PublishedGroup = new PublishedGroup(group, options, {
      hostName: () => this.#host.name,
      hostSettled: () => this.#hostClaim.settled,
      isTaken: (key, by) => [...this.#groups.keys()].some((other) => other !== by && other.keys().includes(key)),
      sync: (of) => this.#groups.get(of)?.sync(),
      isSettled: (of) => this.#groups.get(of)?.settled === true,
      withdraw: (of) => this.#withdraw(this.#groups, of),
    });
    const claim = new Claim(this.#options.clock, published);
    this.#groups.set(published, claim);
    const links = [...this.#places.links()];
    if (!this.#hostWanted) {
      this.#hostWanted = true;
      for (const link of links) this.#hostClaim.add(link);
    }
    for (const link of links) claim.add(link);
    return published;
  }

  publishAddress(
    what: HostAddress,
    { changed }: Pick<PublishOptions, "changed"> = {},
  ): Pick<Published, "name" | "withdraw"> {
    this.#places.mustRun();
    const published: PublishedAddress = new PublishedAddress(what, {
      changed,
      sync: () => this.#addresses.get(published)?.sync(),
      isSettled: () => this.#addresses.get(published)?.settled === true,
      withdraw: () => this.#withdraw(this.#addresses, published),
    });
    const links = [...this.#places.links()];
    if (what.reverse !== false && links.some(({ addresses }) => addresses.some((own) => published.isAt(own.address))))
      throw new TrilithError("conflict", `${what.address} is this host's own: its reverse name is ${this.hostName}`);
    const claim = new Claim(this.#options.clock, published);
    this.#addresses.set(published, claim);
    for (const link of links) claim.add(link);
    return published;
  }

  async #withdraw<T>(from: Map<T, Claim>, published: T): Promise<void> {
    const claim = from.get(published);
    from.delete(published);
    claim?.close();
    // Sockets send in the order in which they were told; a turn later it is out of our hands.
    await this.#options.clock.yield();
  }

  *#claims(): Iterable<Claim> {
    if (this.#hostWanted) yield this.#hostClaim;
    yield* [...this.#groups.values(), ...this.#addresses.values()];
  }
}

function within({ interface: name, family }: Within): Within {
  return { ...(name === undefined ? {} : { interface: name }), ...(family === undefined ? {} : { family }) };
}
