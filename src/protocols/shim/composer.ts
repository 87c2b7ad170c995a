// What stands in the hook's table: every service and tag with its backends as a caller on this host would be answered; only what changed is looked at again.
import type { Clock } from "../../base/clock.ts";
import { messageOf } from "../../base/error.ts";
import type { View } from "../../contracts/directory.ts";
import type { Lookup } from "../../contracts/lookup.ts";
import { type Magic, type Subject, subjectText } from "../../contracts/magic.ts";
import type { Instance } from "../../model/instance.ts";
import { tierOf, transportOf } from "../../model/near.ts";
import type { Node } from "../../model/node.ts";
import type { Answer, Endpoint } from "../../model/query.ts";
import { type Index, scope } from "../../model/record.ts";
import { type ConnectWishes, connectWishes } from "../../wire/connect-labels.ts";
import { ipBytes, ipText } from "../../wire/dns/index.ts";
import type { Policy, TableBackend, TableService } from "../../wire/hook-table.ts";
import { isNameable, namedTags, namesOf, type Zone } from "./names.ts";

/** What services get that ask for nothing in their labels. */
export interface Defaults {
  readonly policy: Policy;
  /** 0 = no connections are opened ahead. */
  readonly prefetch: number;
  readonly prefetchIdleMs: number;
  readonly tryMs: number;
  readonly locality: boolean;
}

export interface ComposerParts {
  readonly clock: Pick<Clock, "yield">;
  readonly lookup: Pick<Lookup, "resolveNow">;
  readonly magic: Magic;
  /** This host's node. */
  readonly own: () => Pick<Node, "name" | "labels">;
  /** Whether an IP address is this host's own (`ownAddresses`), as it is now. */
  readonly ownAddresses: () => (address: string) => boolean;
  /** Another object where names lie elsewhere from now on. */
  readonly zone: () => Zone;
  readonly defaults: () => Defaults;
  /** True where the agent itself found that the backend refuses. */
  readonly isSuspect: (address: string, port: number) => boolean;
  /** The IP addresses of a host name, as far as they are known; asks for them otherwise. */
  readonly addressesOf: (hostname: string) => readonly string[];
}

/** Somebody asks from this host. */
const ASKER = "127.0.0.1";
const SERVICES_PER_TURN = 200;
const MOST_WEIGHT = 0xffff;
const MOST_COMPLAINTS = 100;

/** One service with its subjects. */
interface Composed {
  readonly subjects: readonly Entry[];
  readonly fresh: boolean;
  readonly held: boolean;
  /** The host names among its instances' addresses. */
  readonly hostnames: readonly string[];
  /** What its instances say that cannot be understood, and the like. */
  readonly complaints: readonly string[];
}

/** A subject as it stands in the table. */
export interface Entry {
  readonly table: TableService;
  /** Where its names lie. */
  readonly zone: Zone;
  /** False until its address is written down for good: until then nobody may be told. */
  kept: boolean;
}

/** All services as they stand in the table. One writer at a time calls `look`. */
export class Composer {
  readonly #parts: ComposerParts;
  readonly #services = new Map<string, Composed>();
  /** What is written down for good, by its slot, and the slots in order; the table made of them last. */
  readonly #bySlot = new Map<number, TableService>();
  #slots: readonly number[] | undefined;
  #table: readonly TableService[] | undefined;
  readonly #unkept = new Set<Entry>();
  /** Whose name it is: where two services could have one, the first keeps it. */
  readonly #owners = new Map<string, string>();
  #isOwn: (address: string) => boolean = () => false;

  constructor(parts: ComposerParts) {
    this.#parts = parts;
  }

  /** The services that may stand differently since, those that are gone included. */
  moved(view: View, after: Index): Set<string> {
    const names = new Set<string>();
    const gone = new Set(this.#services.keys());
    for (const name of view.serviceNames()) {
      gone.delete(name.toLowerCase());
      if (after === 0 || view.at(scope.service(name)) > after) names.add(name.toLowerCase());
    }
    for (const name of gone) if (after === 0 || view.at(scope.service(name)) > after) names.add(name);
    return names;
  }

  /** Looks at services again. True where something is to be written. */
  async look(names: Iterable<string>, view: () => View, signal: AbortSignal): Promise<boolean> {
    let changed = false;
    let work = 0;
    this.#isOwn = this.#parts.ownAddresses();
    for (const name of names) {
      if (++work % SERVICES_PER_TURN === 0) {
        await this.#parts.clock.yield();
        if (signal.aborted) return changed;
      }
      if (this.#lookAt(name, view())) changed = true;
    }
    return changed;
  }

  #lookAt(name: string, view: View): boolean {
    const { lookup } = this.#parts;
    const before = this.#services.get(name);
    const answer = isNameable(name) ? lookup.resolveNow({ service: name, asker: ASKER, order: "stable" }) : undefined;
    if (answer?.known !== true) {
      this.#services.delete(name);
      for (const entry of before?.subjects ?? []) this.#replace(entry, undefined);
      return before !== undefined && before.subjects.length > 0;
    }
    const now = this.#compose(name, answer, view, before);
    this.#services.set(name, now);
    const same =
      before !== undefined &&
      before.subjects.length === now.subjects.length &&
      before.subjects.every((entry, i) => entry === now.subjects[i]);
    return !same;
  }

  /** A subject has another record from now on, or none. */
  #replace(before: Entry | undefined, now: Entry | undefined): void {
    if (before === now) return;
    if (before !== undefined) this.#unkept.delete(before);
    if (now !== undefined && !now.kept) this.#unkept.add(now);
    else if (now !== undefined) this.#put(now.table);
    if (before === undefined) return;
    const { names, subject, slot } = before.table;
    if (names !== now?.table.names) {
      const kept = new Set(now?.table.names);
      for (const name of names) if (!kept.has(name) && this.#owners.get(name) === subject) this.#owners.delete(name);
    }
    if (now !== undefined) return;
    if (this.#bySlot.delete(slot)) this.#slots = undefined;
    this.#table = undefined;
  }

  #put(table: TableService): void {
    if (!this.#bySlot.has(table.slot)) this.#slots = undefined;
    this.#bySlot.set(table.slot, table);
    this.#table = undefined;
  }

  #compose(service: string, answer: Answer, view: View, before: Composed | undefined): Composed {
    const residents = view.residents(service);
    const complaints: string[] = [];
    const hostnames = new Set<string>();
    const instances = new Set(
      [...residents, ...answer.endpoints.map(({ resident }) => resident)].map((each) => each.instance),
    );
    const { tags, left } = namedTags(instances);
    if (left > 0)
      complaints.push(`${left} of its tags are not in the table: at most ${tags.length} tags of a service are`);
    const known = new Map((before?.subjects ?? []).map((entry) => [entry.table.subject, entry]));
    const subjects: Entry[] = [];
    const zone = this.#parts.zone();
    const whole: readonly Subject[] = [{ service }, ...tags.map((tag) => ({ service, tag }))];
    for (const subject of whole) {
      const { tag } = subject;
      const has = ({ tags: own }: { readonly tags: readonly string[] }): boolean =>
        tag === undefined || own.some((each) => each.toLowerCase() === tag);
      const text = subjectText(subject);
      const last = known.get(text);
      known.delete(text);
      const wishes = connectWishes(
        [...instances].filter(has).map(({ labels }) => labels),
        // Said once is enough.
        tag === undefined ? (complaint) => complaints.push(complaint) : undefined,
      );
      let slot: number;
      try {
        slot = last?.table.slot ?? this.#parts.magic.of(subject).slot;
      } catch (error) {
        complaints.push(messageOf(error));
        continue;
      }
      const names = last?.zone === zone ? last.table.names : this.#own(subject, text, zone);
      const table = this.#tableOf(
        { slot, subject: text, names },
        answer.endpoints.filter(({ resident }) => has(resident.instance)),
        answer,
        wishes,
        hostnames,
      );
      const entry =
        last !== undefined && sameService(last.table, table) ? last : { table, zone, kept: last?.kept ?? false };
      this.#replace(last, entry);
      subjects.push(entry);
    }
    for (const entry of known.values()) this.#replace(entry, undefined);
    return {
      subjects,
      fresh: answer.fresh,
      held: answer.held !== undefined,
      hostnames: [...hostnames],
      complaints: complaints.slice(0, MOST_COMPLAINTS),
    };
  }

  #own(subject: Subject, text: string, zone: Zone): readonly string[] {
    return namesOf(subject, zone).filter((name) => {
      if ((this.#owners.get(name) ?? text) !== text) return false;
      this.#owners.set(name, text);
      return true;
    });
  }

  #tableOf(
    identity: Pick<TableService, "slot" | "subject" | "names">,
    endpoints: readonly Endpoint[],
    answer: Answer,
    wishes: ConnectWishes,
    hostnames: Set<string>,
  ): TableService {
    const { isSuspect, addressesOf } = this.#parts;
    const defaults = this.#parts.defaults();
    const own = this.#parts.own();
    const near = wishes.locality ?? defaults.locality;
    const most = wishes.prefetch ?? defaults.prefetch;
    const backends: TableBackend[] = [];
    for (const { address, port: told, weight, resident } of endpoints) {
      const port = isConsulServer(resident.instance) ? 0 : told;
      const only = transportOf(resident);
      let addresses: readonly string[] = [address];
      if (ipBytes(address) === undefined) {
        if (address === "") continue;
        hostnames.add(address);
        addresses = addressesOf(address);
      }
      for (const text of addresses) {
        const bytes = ipBytes(text);
        if (bytes === undefined) continue;
        const each = ipText(bytes);
        backends.push({
          address: each,
          port,
          weight: Math.min(MOST_WEIGHT, Math.max(0, Math.round(weight))),
          tier: near ? tierOf(resident, own, each, this.#isOwn) : 2,
          suspect: isSuspect(each, port),
          ...(only === undefined ? {} : { only }),
        });
      }
    }
    return {
      ...identity,
      policy: wishes.policy ?? defaults.policy,
      ...(most === 0 ? {} : { prefetch: { most, idleMs: wishes.prefetchIdleMs ?? defaults.prefetchIdleMs } }),
      panic: answer.panic === true,
      held: answer.held !== undefined,
      tryMs: wishes.tryMs ?? defaults.tryMs,
      backends,
    };
  }

  /** Everything whose address is written down for good, in the order of the slots; the same list until something changes. */
  table(): readonly TableService[] {
    if (this.#table === undefined) {
      this.#slots ??= [...this.#bySlot.keys()].sort((a, b) => a - b);
      this.#table = this.#slots.map((slot) => this.#bySlot.get(slot) as TableService);
    }
    return this.#table;
  }

  /** Those of which `table` tells nothing yet. */
  unkept(): readonly Entry[] {
    return [...this.#unkept];
  }

  /** Their addresses are written down for good. */
  keep(entries: readonly Entry[]): void {
    for (const entry of entries) {
      entry.kept = true;
      if (this.#unkept.delete(entry)) this.#put(entry.table);
    }
  }

  /** The services with this backend. */
  servicesAt(address: string, port: number): readonly string[] {
    return this.#names(({ subjects }) =>
      subjects.some(({ table }) => table.backends.some((each) => each.port === port && each.address === address)),
    );
  }

  /** The services with this host name among their addresses. */
  servicesWith(hostname: string): readonly string[] {
    return this.#names(({ hostnames }) => hostnames.includes(hostname));
  }

  /** All host names among the addresses. */
  hostnames(): ReadonlySet<string> {
    return new Set([...this.#services.values()].flatMap(({ hostnames }) => hostnames));
  }

  /** Those that the guard holds, and those that were answered from the last known good. */
  held(): readonly string[] {
    return this.#names(({ held }) => held);
  }
  stale(): readonly string[] {
    return this.#names(({ fresh }) => !fresh);
  }
  names(): readonly string[] {
    return [...this.#services.keys()];
  }

  #names(which: (service: Composed) => boolean): readonly string[] {
    const names: string[] = [];
    for (const [name, service] of this.#services) if (which(service)) names.push(name);
    return names;
  }

  /** What stands in the table about a service: the service itself, then its tags. */
  subjectsOf(service: string): readonly TableService[] {
    return (this.#services.get(service.toLowerCase())?.subjects ?? []).map(({ table }) => table);
  }

  /** What is wrong with what a service's instances say of themselves. */
  complaintsAbout(service: string): readonly string[] {
    return this.#services.get(service.toLowerCase())?.complaints ?? [];
  }

  /** What people should look at, with the service in front. */
  complaints(): readonly string[] {
    const all: string[] = [];
    for (const [name, { complaints }] of this.#services) for (const text of complaints) all.push(`${name}: ${text}`);
    return all;
  }
}

/** Servers of Consul stand in the catalog with the port of their own protocol, which no program means by consul.service.consul: it says the port that it means. */
function isConsulServer({ name, labels }: Pick<Instance, "name" | "labels">): boolean {
  return name === "consul" && labels["raft_version"] !== undefined;
}

/** True where nothing would be written differently. */
function sameService(a: TableService, b: TableService): boolean {
  return (
    a.names === b.names &&
    a.policy === b.policy &&
    a.panic === b.panic &&
    a.held === b.held &&
    a.tryMs === b.tryMs &&
    a.prefetch?.most === b.prefetch?.most &&
    a.prefetch?.idleMs === b.prefetch?.idleMs &&
    a.backends.length === b.backends.length &&
    a.backends.every((each, i) => {
      const other = b.backends[i] as TableBackend;
      return (
        each.address === other.address &&
        each.port === other.port &&
        each.weight === other.weight &&
        each.tier === other.tier &&
        each.suspect === other.suspect &&
        each.only === other.only
      );
    })
  );
}
