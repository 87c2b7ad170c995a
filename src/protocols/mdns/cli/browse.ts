// `trilith browse`, a stand-in for avahi-browse 0.8: its flags, lines, order of things and exit codes, without a daemon.
import type { BrowseEvent, Following, Found, FoundDomain, FoundType, Mdns, Place } from "../engine.ts";
import { columnsOf, domainLine, escapeDomain, resolvedText, type Sign, type Style, serviceLine } from "../format.ts";
import { domainName, serviceType } from "../service-file-values.ts";
import { namedTypes, typeName } from "../types.ts";
import { type Flag, getopt } from "./getopt.ts";
import { Ending, type Machine, quitting, RESOLVE_MS, type Shell, withEngine } from "./machine.ts";

const FLAGS: Readonly<Record<string, Flag>> = {
  help: { letter: "h" },
  version: { letter: "V" },
  "browse-domains": { letter: "D" },
  domain: { letter: "d", value: true },
  all: { letter: "a" },
  verbose: { letter: "v" },
  terminate: { letter: "t" },
  cache: { letter: "c" },
  "ignore-local": { letter: "l" },
  resolve: { letter: "r" },
  "no-fail": { letter: "f" },
  parsable: { letter: "p" },
  "no-db-lookup": { letter: "k" },
  "dump-db": { letter: "b" },
};

const HELP = `    -h --help            Show this help
    -V --version         Show version
    -D --browse-domains  Browse for browsing domains instead of services
    -a --all             Show all services, regardless of the type
    -d --domain=DOMAIN   The domain to browse in
    -v --verbose         Enable verbose mode
    -t --terminate       Terminate after dumping a more or less complete list
    -c --cache           Terminate after dumping all entries from the cache
    -l --ignore-local    Ignore local services
    -r --resolve         Resolve services found
    -f --no-fail         Don't fail if the daemon is not available
    -p --parsable        Output in parsable format
    -k --no-db-lookup    Don't lookup service types
    -b --dump-db         Dump service type database
`;

/** When a list counts as complete, as in Avahi. */
const ALL_FOR_NOW_MS = 1000;
/**
 * Beside another mDNS stack the answers come to all or not at all, and nobody says the same to all twice within a second [RFC 6762 §6]: who has just said it is heard after the
 * second question, which comes a second after the first.
 */
const SECOND_QUESTION_MS = 400;

/** What the command line asks for. */
interface Asked {
  readonly what: "help" | "version" | "types" | "service" | "all" | "domains";
  readonly type: string;
  readonly domain: string;
  readonly has: (name: string) => boolean;
}

/** Runs the command line. @returns the exit code: 0 for nearly everything, as Avahi has it; 1 for a wrong command line and where nothing can be heard */
export async function browse(words: readonly string[], shell: Shell, machine: Machine): Promise<number> {
  const asked = read(words, shell);
  if (asked === undefined) return 1;
  const { program } = shell;
  switch (asked.what) {
    case "help":
      shell.out(
        `${program.includes("domain") ? `${program} [options] \n` : ["<service type>", "-a", "-D", "-b"].map((rest) => `${program} [options] ${rest}\n`).join("")}\n${HELP}`,
      );
      return 0;
    case "version":
      shell.out(`${program} 0.8\n`);
      return 0;
    case "types":
      for (const [type, name] of namedTypes()) shell.out(`${asked.has("no-db-lookup") ? type : name}\n`);
      return 0;
    default:
      return await withEngine(machine, (mdns, crowded) => new Browsing(asked, shell, machine, mdns, crowded).run());
  }
}

function read(words: readonly string[], shell: Shell): Asked | undefined {
  const parsed = getopt(words, FLAGS);
  if (typeof parsed === "string") {
    shell.err(`${shell.program}: ${parsed}\n`);
    return undefined;
  }
  // The last one that says what to do counts.
  let what: Asked["what"] = shell.program.includes("domain") ? "domains" : "service";
  let domain = "local";
  const given = new Set<string>();
  for (const { name, value } of parsed.flags) {
    given.add(name);
    if (name === "domain") domain = value === "" ? "local" : value.replace(/\.$/, "");
    if (name === "help" || name === "version" || name === "all") what = name;
    if (name === "browse-domains") what = "domains";
    if (name === "dump-db") what = "types";
  }
  const rest = [...parsed.words];
  const type = what === "service" ? rest.shift() : "";
  if (type === undefined || rest.length > 0) {
    shell.err(type === undefined ? "Too few arguments\n" : "Too many arguments\n");
    return undefined;
  }
  return { what, type: type.replace(/\.$/, ""), domain, has: (name) => given.has(name) };
}

/** True for what Avahi browses: every label begins with "_" and has two bytes more. */
const isBrowsable = (type: string): boolean =>
  type.split(".").every((label) => {
    const bytes = Buffer.byteLength(label);
    return label.startsWith("_") && bytes >= 3 && bytes <= 63;
  });

/** Under this name there are types in the place of instances [RFC 6763 §9]. */
const TYPES_TYPE = "_services._dns-sd._udp";
/** How Avahi's library calls what begins a list. */
const BROWSERS: Readonly<Record<string, string>> = {
  service: "service",
  all: "service_type",
  domains: "domain",
};

class Browsing {
  private readonly asked: Asked;
  private readonly shell: Shell;
  private readonly machine: Machine;
  private readonly mdns: Mdns;
  private readonly crowded: boolean;
  private readonly style: Style;
  private readonly ending: Ending;
  private readonly terminates: boolean;
  private readonly following: Following[] = [];
  /** Instances that were printed, with their resolution while it lasts. */
  private readonly known = new Map<string, Following | undefined>();
  private readonly browsed = new Set<string>();
  /** Browsers that have not told yet that this is all. */
  private awaited = { cacheExhausted: 0, allForNow: 0 };
  private told = { cacheExhausted: false, allForNow: false };
  private resolving = 0;

  constructor(asked: Asked, shell: Shell, machine: Machine, mdns: Mdns, crowded: boolean) {
    this.crowded = crowded;
    this.asked = asked;
    this.shell = shell;
    this.machine = machine;
    this.mdns = mdns;
    this.style = { parsable: asked.has("parsable"), columns: columnsOf(shell.env("COLUMNS")) };
    this.ending = new Ending(shell.signal);
    // There is no daemon whose cache could be dumped: -c, too, waits for those that answer.
    this.terminates = asked.has("terminate") || asked.has("cache");
  }

  async run(): Promise<number> {
    const { asked, shell, mdns } = this;
    if (mdns.places.length === 0 && !asked.has("no-fail")) {
      shell.err("No network interface can be used for multicast DNS\n");
      return 1;
    }
    if (asked.has("verbose") && !this.style.parsable) this.headings();
    const wrong =
      domainName(asked.domain) === undefined
        ? "domain name"
        : asked.what === "service" && !isBrowsable(asked.type)
          ? "service type"
          : undefined;
    if (wrong !== undefined) {
      shell.err(`avahi_${BROWSERS[asked.what]}_browser_new() failed: Invalid ${wrong}\n`);
      return 0;
    }
    this.browse();
    await this.ending.reached;
    for (const each of this.following) each.close();
    for (const each of this.known.values()) each?.close();
    if (shell.signal.aborted) quitting(shell);
    return 0;
  }

  private headings(): void {
    const { shell, mdns, asked, style } = this;
    shell.err(`Server version: ${shell.program}; Host name: ${mdns.hostName}\n`);
    shell.err(
      asked.what === "domains"
        ? "E Ifce Prot Domain\n"
        : `E Ifce Prot ${"Name".padEnd(style.columns - 35)} ${"Type".padEnd(20)} Domain\n`,
    );
  }

  private browse(): void {
    const { asked, mdns } = this;
    const { domain } = asked;
    if (asked.what === "service") this.browseType(asked.type);
    // Other domains are not the LAN's: nothing is there, and the wait is the same.
    else if (domain.toLowerCase() !== "local") this.nothing();
    else if (asked.what === "domains")
      this.follow<FoundDomain>((listener) => mdns.browseDomains({ domain }, listener), {
        add: (found) => this.domain("+", found),
        remove: (found) => this.domain("-", found),
      });
    else
      this.follow<FoundType>((listener) => mdns.browseTypes({ domain }, listener), {
        add: ({ type }) => this.browseType(type),
        remove: () => {},
      });
  }

  private browseType(written: string): void {
    const { asked, mdns } = this;
    // The same type at several places is one list.
    if (this.browsed.has(written.toLowerCase())) return;
    this.browsed.add(written.toLowerCase());
    const [, subtype, ofType] = /^(.*)\._sub\.(.*)$/i.exec(written) ?? [];
    const type = ofType ?? written;
    if (asked.domain.toLowerCase() === "local" && written.toLowerCase() === TYPES_TYPE) {
      this.browseTypesAsInstances();
      return;
    }
    if (asked.domain.toLowerCase() !== "local" || serviceType(type) === undefined) {
      this.nothing();
      return;
    }
    const what = { type, domain: asked.domain, ...(subtype === undefined ? {} : { subtype }) };
    this.follow<Found>((listener) => mdns.browse(what, listener), {
      add: (found) => this.add(found),
      remove: (found) => this.remove(found),
    });
  }

  /** The first label of each type is shown as an instance's name, the rest as its type. */
  private browseTypesAsInstances(): void {
    const { mdns, asked } = this;
    const shown = (found: FoundType): Found => {
      const [name = "", ...rest] = found.type.split(".");
      return { ...found, name, type: rest.join(".") };
    };
    this.follow<FoundType>((listener) => mdns.browseTypes({ domain: asked.domain }, listener), {
      add: (found) => this.add(shown(found)),
      remove: (found) => this.remove(shown(found)),
    });
  }

  /** Follows a list, and takes part in the count of those that have to say that this is all. */
  private follow<T extends Place>(
    begin: (listener: (event: BrowseEvent<T>) => void) => Following,
    { add, remove }: { readonly add: (found: T) => void; readonly remove: (found: T) => void },
  ): void {
    this.awaited.cacheExhausted++;
    this.awaited.allForNow++;
    const silent = new Set(this.mdns.places.map(placeOf));
    const complete = (): void => {
      this.awaited.allForNow--;
      // Not asked again, with all that is known, just before the end: Avahi takes whoever asks next from this host for one who knows it, and does not answer.
      if (this.terminates) following.close();
      this.check();
    };
    const following = begin((event) => {
      if (event.kind === "remove") remove(event.found);
      else if (event.kind === "add") {
        silent.delete(placeOf(event.found));
        add(event.found);
      } else if (event.kind === "cacheExhausted") {
        this.awaited.cacheExhausted--;
        this.check();
      } else if (!this.terminates || !this.crowded || silent.size === 0) complete();
      else this.later(SECOND_QUESTION_MS, complete);
    });
    this.following.push(following);
  }

  private nothing(): void {
    this.awaited.cacheExhausted++;
    this.awaited.allForNow++;
    this.later(ALL_FOR_NOW_MS, () => {
      this.awaited.cacheExhausted--;
      this.awaited.allForNow--;
      this.check();
    });
  }

  private later(ms: number, callback: () => void): void {
    const timer = this.machine.clock.after(ms, callback, true);
    this.following.push({ close: () => timer.cancel() });
  }

  private check(): void {
    if (this.resolving > 0) return;
    const spoken = this.asked.has("verbose") && !this.style.parsable;
    const say = (what: "cacheExhausted" | "allForNow", text: string): void => {
      if (this.awaited[what] > 0 || this.told[what]) return;
      this.told[what] = true;
      if (spoken) this.shell.out(`: ${text}\n`);
    };
    say("cacheExhausted", "Cache exhausted");
    say("allForNow", "All for now");
    if (this.awaited.allForNow === 0 && this.terminates) this.ending.end();
  }

  private add(found: Found): void {
    if (this.asked.has("ignore-local") && found.local) return;
    const key = keyOf(found);
    if (this.known.has(key)) return;
    this.known.set(key, undefined);
    this.print("+", found);
    if (!this.asked.has("resolve")) return;
    if (serviceType(found.type) === undefined) this.unresolved(found, "Invalid service type");
    else this.known.set(key, this.resolve(key, found));
  }

  private remove(found: Found): void {
    const key = keyOf(found);
    if (!this.known.has(key)) return;
    this.known.get(key)?.close();
    this.known.delete(key);
    this.print("-", found);
    this.check();
  }

  private shown(type: string): string {
    const escaped = escapeDomain(type);
    return this.asked.has("no-db-lookup") ? escaped : typeName(escaped);
  }

  private print(sign: Sign, found: Found): void {
    this.shell.out(`${serviceLine(sign, { ...found, type: this.shown(found.type) }, this.style)}\n`);
  }

  /** Prints what is known of an instance as soon as all of it is, once. */
  private resolve(key: string, found: Found): Following {
    const { mdns, shell } = this;
    const { name, type, domain, family } = found;
    this.resolving++;
    let open = true;
    const close = (): void => {
      if (!open) return;
      open = false;
      timer.cancel();
      following?.close();
      this.resolving--;
      if (this.known.has(key)) this.known.set(key, undefined);
    };
    const timer = this.machine.clock.after(
      RESOLVE_MS,
      () => {
        this.unresolved(found, "Timeout reached");
        close();
        this.check();
      },
      true,
    );
    let following: Following | undefined;
    following = mdns.resolve({ name, type, domain, interface: found.interface, family }, (event) => {
      if (!open || event.kind !== "resolved") return;
      shell.out(resolvedText(event.found, this.shown(event.found.type), this.style));
      close();
      this.check();
    });
    // It may have come at once, from what was known.
    if (!open) following.close();
    return { close };
  }

  private unresolved({ name, type, domain }: Found, why: string): void {
    this.shell.err(`Failed to resolve service '${name}' of type '${type}' in domain '${domain}': ${why}\n`);
  }

  private domain(sign: Sign, found: FoundDomain): void {
    this.shell.out(domainLine(sign, found, found.domain, this.style));
  }
}

function placeOf({ interface: at, family }: Place): string {
  return `${at}/${family}`;
}

function keyOf({ interface: at, family, name, type, domain }: Found): string {
  return JSON.stringify([at, family, name, type, domain]).toLowerCase();
}
