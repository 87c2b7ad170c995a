// Magic addresses: each service name has an IPv4 and an IPv6 address of its own on this host, for good; who connects to one means the service.

/** What a magic address stands for: a service, or its instances with one tag. Compared ignoring case, kept in lower case. */
export interface Subject {
  readonly service: string;
  readonly tag?: string;
}

/** The two addresses of a subject. */
export interface MagicAddress {
  /** "127.128.3.7". */
  readonly v4: string;
  /** "fd12:3456:789a::0:307", in canonical form. */
  readonly v6: string;
  /** 1 … capacity: the address less its range's start, for both families. */
  readonly slot: number;
}

/** Where magic addresses lie. */
export interface MagicRange {
  readonly v4: {
    /** The first address as a number: 0x7f800000. */
    readonly base: number;
    readonly bits: number;
    /** "127.128.0.0/9". */
    readonly text: string;
  };
  readonly v6: {
    /** 16 bytes, of which the first 12 count. */
    readonly prefix: Uint8Array;
    readonly bits: 96;
    /** "fd12:3456:789a::/96". */
    readonly text: string;
  };
  /** How many subjects there is room for. */
  readonly capacity: number;
}

/** What is kept of a service whose address a program without a hook asked for. */
export interface AskedMagic {
  /** In lower case. */
  readonly service: string;
  /** The ports that were open for it, "80/tcp": after a restart these are opened again, and no others before somebody asks anew. */
  readonly ports: readonly string[];
  /** Since when nobody knows the service, Unix ms; absent while somebody does. */
  readonly unknownSinceMs?: number;
}

/** Services whose address programs without a hook asked for, kept in the data folder: such programs keep addresses for ever. */
export interface AskedMagics {
  /** What is kept, in no order. */
  all(): readonly AskedMagic[];
  /** In the place of what was kept of that service. @throws as `Durable.write` */
  keep(asked: AskedMagic): Promise<void>;
  /** @throws as `Durable.write` */
  forget(service: string): Promise<void>;
}

/** Opens listeners at magic addresses, for programs of this host that have no hook; DNS rings before it gives an address away. */
export interface MagicDoors {
  /** False: only the services that somebody asked for are listened for. */
  readonly all: boolean;
  /** True where there is nothing to wait for: what can be opened for the service is open. */
  isOpen(service: string): boolean;
  /** Resolves when what can be opened for the service is open; a service that is not known opens nothing. Never rejects. */
  open(service: string): Promise<void>;
}

/**
 * Gives out magic addresses. A subject keeps its slot for good, also over restarts, and no slot is given to a second one, since programs keep
 * addresses for ever. One per agent; owned by `trilith.ts`.
 */
export interface Magic {
  /**
   * The addresses of a subject; the first time they are made. Ask only for what exists: every subject takes a slot for good.
   * @throws TrilithError `too-large` where the range is full
   */
  of(subject: Subject): MagicAddress;
  /** Whose address it is, IPv4-mapped ones included; undefined for those outside the range and those that nobody has. Makes nothing. */
  subjectAt(address: string): Subject | undefined;
  /** Resolves when everything that was given out so far is kept. Wait for it before others are told. @throws as `Durable.write` */
  kept(): Promise<void>;
  /** True while nothing is waiting to be kept. */
  readonly settled: boolean;
  readonly range: MagicRange;
  readonly asked: AskedMagics;
  /** Who listens at the addresses now; undefined = nobody: only hooked programs can use them. */
  readonly doors: MagicDoors | undefined;
  /** Tells who listens from now on. */
  openBy(doors: MagicDoors | undefined): void;
}

/** A subject as text, one to one: "web", "web/primary"; "%", "/" and control characters inside of names are percent-encoded. */
export function subjectText({ service, tag }: Subject): string {
  const name = encoded(service.toLowerCase());
  return tag === undefined ? name : `${name}/${encoded(tag.toLowerCase())}`;
}

/** The inverse of `subjectText`. */
export function subjectOf(text: string): Subject {
  const [service = "", tag] = text.split("/").map(decoded);
  return tag === undefined ? { service } : { service, tag };
}

function encoded(name: string): string {
  return name.replace(
    /[%/\u0000-\u001f\u007f]/g,
    (found) => `%${found.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`,
  );
}

function decoded(text: string): string {
  return text.replace(/%([0-9A-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)));
}
