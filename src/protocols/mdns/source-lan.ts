// The picture of the LAN that discovery and announcing share: one engine while somebody needs it, what was found, and why something went.
import type { Clock } from "../../base/clock.ts";
import { AGENTS_TYPE } from "../../contracts/nearby.ts";
import { keyOfName } from "./announce-plan.ts";
import type { Following, Found, Gone, Mdns, Place, Resolved } from "./engine.ts";

/** What was found of one instance name and type. */
interface Entry {
  readonly found: Pick<Found, "name" | "type" | "domain">;
  /** Where it is listed or resolved, by place. */
  readonly at: Map<string, { listed: boolean; resolved: Resolved | undefined }>;
  readonly resolving: Following;
}

/** How something left the picture. */
export interface Left {
  readonly why: Gone;
  /** Milliseconds since the epoch. */
  readonly atMs: number;
}

const placeKey = ({ interface: name, family }: Place): string => `${name} ${family}`;
const keyOf = ({ name, type, domain }: Pick<Found, "name" | "type" | "domain">): string =>
  `${keyOfName(name, type)}\u0000${domain.toLowerCase()}`;

/** Who uses the picture. */
export interface Use {
  readonly mdns: Mdns;
  /** Browses these types for this user from now on, in place of those before: what nobody asks for any more ends and is forgotten, what stays runs on. */
  browse(types: "all" | ReadonlySet<string> | readonly string[]): void;
  /** Stops the engine (with goodbyes) for the last one. */
  release(): Promise<void>;
}

/** One per agent. `acquire` before anything else. */
export class Lan {
  readonly #create: () => Mdns;
  readonly #clock: Clock;
  readonly #listeners = new Set<() => void>();
  readonly #entries = new Map<string, Entry>();
  readonly #types = new Map<string, Following>();
  /** Which types each user asks for. */
  readonly #wanted = new Map<object, "all" | readonly string[]>();
  readonly #left = new Map<string, Left>();
  #all: Following | undefined;
  #mdns: Mdns | undefined;
  #users = 0;
  #changing: Promise<void> = Promise.resolve();

  constructor(create: () => Mdns, clock: Clock) {
    this.#create = create;
    this.#clock = clock;
  }

  /** The engine; undefined while nobody has acquired it. */
  get mdns(): Mdns | undefined {
    return this.#mdns;
  }

  /** Where it listens at present. */
  get places(): readonly Place[] {
    return this.#mdns?.places ?? [];
  }

  /** This host's label on the LAN, without ".local". */
  get hostLabel(): string {
    return (this.#mdns?.hostName ?? "").replace(/\.local$/i, "");
  }

  /** Starts the engine for the first one. `changed` is called when the picture changes. */
  async acquire(changed: () => void): Promise<Use> {
    const user = {};
    this.#users++;
    this.#listeners.add(changed);
    this.#changing = this.#changing.then(async () => {
      if (this.#mdns !== undefined || this.#users === 0) return;
      const mdns = this.#create();
      this.#mdns = mdns;
      await mdns.start();
    });
    let released: Promise<void> | undefined;
    const release = (): Promise<void> => {
      if (released !== undefined) return released;
      this.#wanted.delete(user);
      released = this.#release(changed);
      this.#bring();
      return released;
    };
    try {
      await this.#changing;
    } catch (error) {
      this.#changing = Promise.resolve();
      await release();
      throw error;
    }
    return {
      mdns: this.#mdns as Mdns,
      browse: (types) => {
        if (released !== undefined) return;
        this.#wanted.set(user, types === "all" ? types : [...types]);
        this.#bring();
      },
      release,
    };
  }

  #release(changed: () => void): Promise<void> {
    this.#users--;
    this.#listeners.delete(changed);
    this.#changing = this.#changing.then(async () => {
      const mdns = this.#mdns;
      if (this.#users > 0 || mdns === undefined) return;
      this.#mdns = undefined;
      for (const { resolving } of this.#entries.values()) resolving.close();
      for (const following of this.#types.values()) following.close();
      this.#all?.close();
      this.#all = undefined;
      this.#wanted.clear();
      this.#entries.clear();
      this.#types.clear();
      this.#left.clear();
      await mdns.stop();
    });
    return this.#changing;
  }

  /** Brings what is browsed to what the users ask for. */
  #bring(): void {
    const wanted = [...this.#wanted.values()];
    if (wanted.includes("all")) {
      this.#browseAll(wanted);
      return;
    }
    this.#all?.close();
    this.#all = undefined;
    const types = new Map(wanted.flatMap((each) => [...each]).map((type) => [keyOfName("", type), type]));
    for (const [key, following] of this.#types)
      if (!types.has(key)) {
        following.close();
        this.#types.delete(key);
        this.#forget(key);
      }
    for (const type of types.values()) this.#browse(type);
  }

  /** Browses every type that there is, from now on, but that by which agents meet: whom they hear, they tell at first hand. */
  #browseAll(wanted: readonly ("all" | readonly string[])[]): void {
    for (const types of wanted) if (types !== "all") for (const type of types) this.#browse(type);
    this.#all ??= this.#mdns?.browseTypes({}, (event) => {
      if (event.kind === "add" && event.found.type.toLowerCase() !== AGENTS_TYPE) this.#browse(event.found.type);
    });
  }

  /** Nobody asks for a type any more: nothing of it is in the picture. */
  #forget(type: string): void {
    for (const [key, { found, resolving }] of this.#entries)
      if (keyOfName("", found.type) === type) {
        resolving.close();
        this.#entries.delete(key);
        this.#left.delete(key);
      }
  }

  /** Browses a type from now on; twice is once. */
  #browse(type: string): void {
    const key = keyOfName("", type);
    if (this.#types.has(key) || this.#mdns === undefined) return;
    // Told at once of what is known already, before there is something to close.
    this.#types.set(key, { close() {} });
    this.#types.set(
      key,
      this.#mdns.browse({ type }, (event) => {
        if (event.kind === "add") this.#add(event.found);
        else if (event.kind === "remove") this.#remove(event.found, event.why);
      }),
    );
  }

  #add(found: Found): void {
    const key = keyOf(found);
    let entry = this.#entries.get(key);
    if (entry === undefined) {
      const { name, type, domain } = found;
      const at: Entry["at"] = new Map();
      let closed = false;
      let following: Following | undefined;
      const resolving = {
        close() {
          closed = true;
          following?.close();
        },
      };
      entry = { found: { name, type, domain }, at, resolving };
      this.#entries.set(key, entry);
      at.set(placeKey(found), { listed: true, resolved: undefined });
      following = this.#mdns?.resolve({ name, type, domain }, (event) => {
        if (closed) return;
        const place = placeKey(event.found);
        const known = at.get(place);
        if (event.kind === "resolved") {
          at.set(place, { listed: known?.listed === true, resolved: event.found });
          this.#left.delete(key);
        } else if (known?.resolved !== undefined) {
          if (known.listed) known.resolved = undefined;
          else at.delete(place);
          this.#note(key, event.why);
        } else return;
        this.#tell();
      });
      if (closed) following?.close();
      return;
    }
    const place = placeKey(found);
    const known = entry.at.get(place);
    if (known === undefined) entry.at.set(place, { listed: true, resolved: undefined });
    else known.listed = true;
  }

  #remove(found: Found, why: Gone): void {
    const key = keyOf(found);
    const entry = this.#entries.get(key);
    if (entry === undefined || !entry.at.delete(placeKey(found))) return;
    this.#note(key, why);
    if (entry.at.size === 0) {
      entry.resolving.close();
      this.#entries.delete(key);
    }
    this.#tell();
  }

  #note(key: string, why: Gone): void {
    this.#left.set(key, { why, atMs: this.#clock.now() });
  }

  #tell(): void {
    for (const changed of [...this.#listeners]) changed();
  }

  /** Everything that is resolved somewhere, each with all places; in order of names, then of places. */
  *resolved(): Iterable<readonly Resolved[]> {
    for (const [, { at }] of [...this.#entries].sort(([a], [b]) => (a < b ? -1 : 1))) {
      const places = [...at].sort(([a], [b]) => (a < b ? -1 : 1)).flatMap(([, { resolved }]) => resolved ?? []);
      if (places.length > 0) yield places;
    }
  }

  /** Why what is not there any more went last; told once, all of it. */
  takeLeft(): (what: Pick<Found, "name" | "type" | "domain">) => Left | undefined {
    const left = new Map(this.#left);
    this.#left.clear();
    return (what) => left.get(keyOf(what));
  }
}
