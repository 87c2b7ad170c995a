// Multicast DNS and DNS-SD without a daemon: what a responder and browser offers, and how one is made.
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { Net } from "../../base/net.ts";
import type { Random } from "../../base/random.ts";
import type { Name, RecordData } from "../../wire/dns/index.ts";
import { Engine } from "./engine/engine.ts";

/** IPv4 or IPv6. */
export type Family = 4 | 6;

/** Where something is heard or said: one network interface and one address family, which are apart from each other in mDNS [RFC 6762 §14]. */
export interface Place {
  /** The interface's name: "eth0". */
  readonly interface: string;
  readonly family: Family;
}

/** Narrows a browse, a resolve or a publication to some places; what is left out means every one, those that appear later included. */
export interface Within {
  readonly interface?: string;
  readonly family?: Family;
}

/** Why something is gone: its owner said so, its time ran out in silence, its owner announced other data instead, or the interface went. */
export type Gone = "goodbye" | "expired" | "replaced" | "interface";

export interface MdnsOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly net: Pick<Net, "interfaces" | "multicast" | "isUdpPortFree">;
  /**
   * The host's label, one, without ".local" (what follows a dot is dropped): `processes.hostname()`. Claimed on the LAN with the interfaces' addresses as soon as
   * something is published; where another host has it, "name-2", "name-3" … are tried. An mDNS stack on this very host may have the same name: the same addresses are no conflict.
   */
  readonly hostName: string;
  /** Which interfaces take part, by name; every one that is up and not loopback unless told. */
  readonly interfaces?: (name: string) => boolean;
  /** Both unless told. */
  readonly families?: readonly Family[];
  /** True speaks on loopback, too (for the programs of this host where there is no network); default false. */
  readonly loopback?: boolean;
  /**
   * True for a program that looks once and ends: its first questions ask for answers to this host alone, where they are heard, because what others have just heard is not said
   * to all again within a second [RFC 6762 §5.4, §6]. Default false: who stays hears the rest, and answers to all show conflicts.
   */
  readonly brief?: boolean;
  /** How often interfaces that come and go are looked for, milliseconds; 2000 unless told. */
  readonly interfacesEveryMs?: number;
}

/** An instance of a service in a list [RFC 6763 §4.1]. Names are text in UTF-8, as people read them, without escapes. */
export interface Found extends Place {
  /** The instance: "Living Room. Printer". */
  readonly name: string;
  /** "_http._tcp", also when a subtype was browsed. */
  readonly type: string;
  /** "local" */
  readonly domain: string;
  /** True where this engine or another program of this host says it. */
  readonly local: boolean;
}

/**
 * What a browse tells. `cacheExhausted` comes once, in the same turn, after everything that was known already; `allForNow` once, a second later, when who is there has answered;
 * changes go on coming until `close`. An instance that is seen at several places comes once for each.
 */
export type BrowseEvent<T> =
  | { readonly kind: "add"; readonly found: T }
  | { readonly kind: "remove"; readonly found: T; readonly why: Gone }
  | { readonly kind: "cacheExhausted" }
  | { readonly kind: "allForNow" };

/** A type of service that somebody on the LAN has. */
export type FoundType = Omit<Found, "name">;

/** A domain that is recommended for browsing on the LAN. */
export interface FoundDomain extends Place {
  readonly domain: string;
  readonly local: boolean;
}

/** Everything about one instance at one place; addresses are those heard at that place, of either family. */
export interface Resolved extends Found {
  /** The host, absolute without the dot at its end: "host-a.local". */
  readonly host: string;
  readonly port: number;
  readonly priority: number;
  readonly weight: number;
  /** Strings in the order of the wire; a record with nothing in it has one of no bytes. */
  readonly txt: readonly Uint8Array[];
  /** In the order in which they came; never empty. Link-local IPv6 addresses carry no zone: it is `interface`. */
  readonly addresses: readonly Address[];
}

export interface Address {
  readonly address: string;
  readonly family: Family;
}

/** What a resolve tells: the whole state of a place each time it changes, `lost` when SRV, TXT or the last address is gone there. */
export type ResolveEvent =
  | { readonly kind: "resolved"; readonly found: Resolved }
  | { readonly kind: "lost"; readonly found: Found; readonly why: Gone };

/** A record in a query's result. `data` of SRV, PTR and so on holds names as labels of bytes (`wire/dns`). */
export interface Heard extends Place {
  readonly name: Name;
  readonly data: RecordData;
  readonly local: boolean;
}

/** Something that goes on until it is closed; closing twice does nothing. */
export interface Following {
  close(): void;
}

/** What to browse: instances of a type, or of one of its subtypes. */
export interface BrowseFor extends Within {
  /** "_http._tcp" */
  readonly type: string;
  /** "_printer": only instances that have this subtype. */
  readonly subtype?: string;
  /** "local" unless told. */
  readonly domain?: string;
}

/** Which instance to resolve. */
export interface ResolveFor extends Within {
  readonly name: string;
  readonly type: string;
  readonly domain?: string;
}

/** One service of a group. */
export interface Service {
  /** "_http._tcp": a name of up to 15 letters, digits and hyphens, then _tcp or _udp. */
  readonly type: string;
  /** "_printer" each. */
  readonly subtypes?: readonly string[];
  /** 0 to 65 535. */
  readonly port: number;
  /** Strings of up to 255 bytes each in their order; none = one empty string. */
  readonly txt?: readonly Uint8Array[];
  /** The SRV target, absolute ("db.example.com", a dot at the end is optional); this host's own name unless told. */
  readonly host?: string;
  /** Only with this family; both unless told. */
  readonly family?: Family;
  /** Only on this interface; all unless told. */
  readonly interface?: string;
  /** "local" unless told. */
  readonly domain?: string;
}

/** Services under one instance name: they are renamed together. */
export interface Group {
  /** UTF-8, one label of up to 63 bytes; dots and spaces are letters like any other. */
  readonly name: string;
  readonly services: readonly Service[];
}

/**
 * probing: the name is being asked for (also again, after a conflict). established: announced at every place there is at present.
 * withdrawn: said goodbye.
 */
export type PublishState = "probing" | "established" | "withdrawn";

/** A group that was published. */
export interface Published {
  /** The name at present: "web", after a conflict "web #2". */
  readonly name: string;
  readonly state: PublishState;
  /**
   * Resolves with the name that the group has, as soon as it is established; with the present one where it is already.
   * @throws TrilithError `stopped` when it is withdrawn before
   */
  established(): Promise<string>;
  /**
   * Other services (ports, texts, types) under the same name: what is new is announced, what went says goodbye; probed again only where a name is new.
   * @throws InputError as `publish`
   */
  update(services: readonly Service[]): void;
  /** Says goodbye; resolves when it is sent. */
  withdraw(): Promise<void>;
}

/** What happens to a published group. */
export type PublishEvent =
  | { readonly kind: "established"; readonly name: string }
  /** Somebody else has the name: from now on this one is tried. */
  | { readonly kind: "renamed"; readonly from: string; readonly to: string };

export interface PublishOptions {
  readonly changed?: (event: PublishEvent) => void;
  /** False gives up on a conflict instead of trying "name #2": `collision` is called and the group is withdrawn. */
  readonly rename?: boolean;
  readonly collision?: (name: string) => void;
}

/** An address under a host's name. */
export interface HostAddress {
  /** Absolute ("printer.local", a dot at the end is optional). */
  readonly name: string;
  /** IPv4 or IPv6, without a zone. */
  readonly address: string;
  /** False leaves the reverse name (address → name) out. */
  readonly reverse?: boolean;
}

/** A multicast DNS responder and browser in this process. Shares port 5353 with other stacks on this host. */
export interface Mdns {
  /** The host's name at present, absolute without the dot at its end: "host-a.local". */
  readonly hostName: string;
  /** Where it listens at present. */
  readonly places: readonly Place[];
  /** Opens the sockets of every interface there is; more follow as interfaces come. Where none can be opened, that is logged and tried again. */
  start(): Promise<void>;
  /** Goodbye for everything published, then nothing is left: no socket, no timer. Twice is once. */
  stop(): Promise<void>;
  browse(what: BrowseFor, listener: (event: BrowseEvent<Found>) => void): Following;
  /** Every type that is there [RFC 6763 §9]. */
  browseTypes(
    what: Within & { readonly domain?: string },
    listener: (event: BrowseEvent<FoundType>) => void,
  ): Following;
  /** Domains recommended for browsing [RFC 6763 §11]. */
  browseDomains(
    what: Within & { readonly domain?: string },
    listener: (event: BrowseEvent<FoundDomain>) => void,
  ): Following;
  resolve(what: ResolveFor, listener: (event: ResolveEvent) => void): Following;
  /** Any question: names as labels of bytes, the type's number (`TYPE`; 255 = any). */
  query(
    what: Within & { readonly name: Name; readonly type: number },
    listener: (event: BrowseEvent<Heard>) => void,
  ): Following;
  /**
   * Claims a name and announces services under it.
   * @throws InputError for a name, type, subtype, port, text or domain that DNS-SD does not allow
   */
  publish(group: Group, options?: PublishOptions): Published;
  /**
   * Claims a host's name for an address and announces both; after a conflict under another name ("printer-2.local"), or without the reverse name where that is somebody else's.
   * @throws InputError for a name or an address that is none; TrilithError `conflict` for an address of this host with its reverse name, which is the host's own
   */
  publishAddress(what: HostAddress, options?: Pick<PublishOptions, "changed">): Pick<Published, "name" | "withdraw">;
  /** Packets and bytes sent since the start, and the heard packets that could not be read. */
  readonly traffic: {
    readonly packetsSent: number;
    readonly bytesSent: number;
    readonly packetsHeard: number;
    readonly badPackets: number;
  };
}

/** Makes an engine; `start` opens its sockets. Listeners are called in the order of events and never after `close`. */
export function createMdns(options: MdnsOptions): Mdns {
  return new Engine(options);
}
