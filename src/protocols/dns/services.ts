// Names of services: who is behind them, here or elsewhere, and whether they exist where nobody is.
import { TrilithError } from "../../base/error.ts";
import { shuffle } from "../../base/random.ts";
import type { View } from "../../contracts/directory.ts";
import type { MagicDoors } from "../../contracts/magic.ts";
import { meshNameOf } from "../../model/mesh.ts";
import type { Answer, Endpoint, Query } from "../../model/query.ts";
import { ipBytes, type Name, RCODE, TYPE } from "../../wire/dns/index.ts";
import { type Asking, isLoopback, type Reply, reply } from "./asking.ts";
import { readBrowsed } from "./browse.ts";
import { serviceTtlMs } from "./config.ts";
import { type AskedService, type InZone, serviceOf } from "./names.ts";
import { addressRecord } from "./records.ts";
import type { Subjects } from "./subjects.ts";
import { hasLabels, hasTag, isSeveralWords, wordsOf } from "./words.ts";

/** What nobody knew is not asked of others again for so long: as long as askers keep our "no". */
const UNKNOWN_MS = 1_000;
const MOST_UNKNOWN = 4_096;
/** Listeners at a magic address are waited for so long before the address is told. */
const MOST_OPENING_MS = 200;

/** What an answer of the lookup is to a name. */
type Found = Pick<Answer, "endpoints" | "known">;

/** Answers for services. */
export class Services {
  readonly #all: Subjects;
  /** Until when others need not be asked again for what none of them knew. */
  readonly #unknown = new Map<string, number>();

  constructor(all: Subjects) {
    this.#all = all;
  }

  /** `[words.]name.service[.dc].D`, `_name._tag[.service][.dc].D`. */
  service(asking: Asking, asked: InZone): Reply {
    const { compat } = this.#all.policy;
    const datacenter = this.#all.zone.datacenterOf(asked);
    if (datacenter === false || (asked.short && compat && asking.type !== TYPE.SRV))
      return this.#all.zone.no(asking, RCODE.NXDOMAIN);
    if (asked.short && !compat && asking.type !== TYPE.SRV) {
      const browsed = this.#all.zone.isOwnDatacenter(datacenter) ? readBrowsed(asked.parts) : undefined;
      if (browsed !== undefined) return this.#all.browsing.browse(asking, asked, browsed);
    }
    const wanted = serviceOf(asked.parts);
    if (wanted === undefined) return this.#all.zone.empty(asking, () => this.#all.zone.isDatacenter(datacenter));
    // Three labels are no name of RFC 2782: an instance of DNS-SD is asked for its port.
    if (asked.short && !compat && asked.parts.length > 2 && this.#all.zone.isOwnDatacenter(datacenter)) {
      const browsed = readBrowsed(asked.parts);
      if (browsed !== undefined) return this.#all.browsing.browse(asking, asked, browsed);
    }
    const { endpoints, known } = this.#endpoints(asking, wanted, datacenter);
    if (endpoints.length === 0)
      return this.#all.zone.empty(
        asking,
        () =>
          known ||
          (this.#all.zone.isOwnDatacenter(datacenter) &&
            (this.serviceExists(asking.view, wanted, asked.parts) ||
              this.#all.browsing.isBrowsable(asking.view, asked))),
      );
    const ttlS = Math.floor(serviceTtlMs(this.#all.policy.serviceTtlMs, wanted.service) / 1000);
    const where = datacenter ?? this.#all.parts.self.datacenter;
    if (!asked.short || asking.type === TYPE.SRV) this.#learn(asking, wanted, datacenter, ttlS, asked.zone);
    // `_name._tag.D` exists for SRV alone.
    if (asked.short && asking.type !== TYPE.SRV) return this.#all.zone.no(asking, RCODE.NOERROR);
    return this.#all.endpoints.told(asking, asked, endpoints, ttlS, where);
  }

  /**
   * `name.connect.D`, for programs on this host while somebody opens listeners at magic addresses: the service's own one, which it keeps for good. IPv4
   * alone, since this host's own IPv6 has no range to listen on. Undefined where that is not so, for what is not known, and for members
   * of the mesh, unless all services are listened for.
   */
  #magical(asking: Asking, asked: InZone): Reply | undefined {
    const { zone, policy, existence } = this.#all;
    const { magic } = this.#all.parts;
    const doors = magic?.doors;
    const [service, more] = asked.parts;
    if (magic === undefined || doors === undefined || policy.compat || service === undefined || more !== undefined)
      return undefined;
    if (asked.suffix.length > 0 || !isLoopback(asking.from.address)) return undefined;
    if (!doors.all && [...existence(asking.view).meshed(service)].length > 0) return undefined;
    if (!this.resolve({ service }, asking).known || asking.errands?.waiting === true) return undefined;
    if (asking.type !== TYPE.A && asking.type !== TYPE.ANY) return zone.no(asking, RCODE.NOERROR);
    const address = ipBytes(magic.of({ service }).v4) as Uint8Array;
    // Nobody is told what this host could forget.
    if (!magic.settled) {
      if (asking.errands === undefined) throw new TrilithError("unavailable", "the address is not yet written down");
      asking.errands.get("magic", () => magic.kept());
    }
    if (!doors.isOpen(service)) asking.errands?.get("doors", () => this.#open(doors, service));
    const ttlS = Math.floor(serviceTtlMs(policy.serviceTtlMs, service) / 1000);
    return reply([addressRecord(asking.owner, ttlS, address)]);
  }

  /** Who asked may connect at once; a listener that takes long is not waited for. */
  async #open(doors: MagicDoors, service: string): Promise<void> {
    const { clock } = this.#all.parts;
    await new Promise<void>((done) => {
      const timer = clock.after(MOST_OPENING_MS, done);
      void doors.open(service).then(() => {
        timer.cancel();
        done();
      });
    });
  }

  /** `name.connect[.dc].D`: who speaks for a service in the mesh, its proxies or itself; known here only. */
  meshed(asking: Asking, asked: InZone): Reply {
    const { zone, existence, policy, endpoints } = this.#all;
    const magical = this.#magical(asking, asked);
    if (magical !== undefined) return magical;
    const service = asked.parts.at(-1);
    const datacenter = zone.datacenterOf(asked);
    if (service === undefined || datacenter === false || !zone.isOwnDatacenter(datacenter))
      return zone.no(asking, RCODE.NXDOMAIN);
    const found: Endpoint[] = [];
    for (const name of existence(asking.view).meshed(service))
      for (const endpoint of this.resolve({ service: name }, asking).endpoints)
        if (meshNameOf(endpoint.resident.instance) === service) found.push(endpoint);
    if (found.length === 0) return zone.empty(asking, () => [...existence(asking.view).meshed(service)].length > 0);
    const ttlS = Math.floor(serviceTtlMs(policy.serviceTtlMs, service) / 1000);
    return endpoints.told(asking, asked, this.shuffled(found), ttlS, this.#all.parts.self.datacenter);
  }

  /** Names whose meaning does not hang on what is registered are answered the short way from now on. */
  #learn(
    asking: Asking,
    { service, tag, rfc2782 }: AskedService,
    datacenter: string | undefined,
    ttlS: number,
    zone: Name,
  ): void {
    const { compat, onlyPassing } = this.#all.policy;
    if (!this.#all.zone.isOwnDatacenter(datacenter) || (!compat && !rfc2782 && isSeveralWords(tag))) return;
    const { name, type } = asking.question;
    const query: Query = {
      service,
      ...(tag === "" ? {} : { tags: [tag] }),
      ...(datacenter === undefined ? {} : { datacenter }),
      ...(onlyPassing ? { health: "passing" as const } : {}),
      ...(asking.family === undefined ? {} : { family: asking.family }),
    };
    this.#all.learn({ name, type, query, ttlS, datacenter: datacenter ?? this.#all.parts.self.datacenter, zone });
  }

  /** The endpoints behind a name, in the order of the answer; `known` = the service is, though perhaps not here. */
  #endpoints(
    asking: Asking,
    { service, tag, rfc2782 }: AskedService,
    datacenter: string | undefined,
  ): { readonly endpoints: Endpoint[]; readonly known: boolean } {
    const query: Query = { service, ...(datacenter === undefined ? {} : { datacenter }) };
    const elsewhere = !this.#all.zone.isOwnDatacenter(datacenter);
    const told = ({ endpoints, known }: Found): { endpoints: Endpoint[]; known: boolean } => ({
      endpoints: this.shuffled(endpoints),
      known: known && (elsewhere || tag === ""),
    });
    if (tag === "") return told(this.resolve(query, asking));
    const literal = this.resolve({ ...query, tags: [tag] }, asking);
    if (literal.endpoints.length > 0 || rfc2782 || this.#all.policy.compat) return told(literal);
    const words = wordsOf(tag, asking.view.residents(service));
    if (words === undefined) return told(literal);
    const all = this.resolve({ ...query, tags: words.tags }, asking);
    return told({ ...all, endpoints: all.endpoints.filter(({ resident }) => hasLabels(resident, words.labels)) });
  }

  /** True where a name of a service exists although it has no endpoint to give: known, with that tag; or above such a name. */
  serviceExists(view: View, { service, tag, rfc2782 }: AskedService, parts: readonly string[]): boolean {
    const residents = view.residents(service);
    if (residents.length > 0) {
      if (tag === "") return true;
      const words = rfc2782 ? undefined : wordsOf(tag, residents);
      for (const resident of residents) {
        const { instance } = resident;
        if (hasTag(instance.tags, tag)) return true;
        if (rfc2782) continue;
        if (words?.tags.every((one) => hasTag(instance.tags, one)) && hasLabels(resident, words.labels)) return true;
        // `b.web` exists where an instance has the tag "a.b".
        if (instance.tags.some((one) => one.toLowerCase().endsWith(`.${tag}`))) return true;
      }
    }
    const first = parts[0] as string;
    if (parts.length !== 1 || !first.startsWith("_")) return false;
    return this.#all.existence(view).tag(first.slice(1));
  }

  /** From what is known here; for what is not, others are asked where somebody waits for it. */
  resolve(query: Query, { from, errands, family }: Asking): Found {
    const { compat, onlyPassing } = this.#all.policy;
    const { lookup } = this.#all.parts;
    const full: Query = {
      ...query,
      ...(onlyPassing ? { health: "passing" as const } : {}),
      asker: from.address,
      order: compat ? "stable" : "random",
    };
    const now = lookup.resolveNow(family === undefined ? full : { ...full, family });
    if (now.known || errands === undefined) return now;
    const key = `lookup ${JSON.stringify(full)}`;
    if ((this.#unknown.get(key) ?? Number.NEGATIVE_INFINITY) > this.#all.parts.clock.monotonic()) return now;
    return errands.get(key, () => this.#resolveElsewhere(full, key))?.value ?? now;
  }

  /** @throws TrilithError `timeout`, `unavailable` where nobody said that there is no such service */
  #resolveElsewhere(query: Query, key: string): Promise<Found> {
    return this.within(query.service, async (limit) => {
      const found = await this.#all.parts.lookup.resolve(query, limit);
      if (found.known) return found;
      limit.throwIfAborted();
      if (!found.fresh && query.datacenter !== undefined)
        throw new TrilithError("unavailable", `nobody could be asked about "${query.service}"`);
      if (this.#unknown.size >= MOST_UNKNOWN) this.#unknown.clear();
      this.#unknown.set(key, this.#all.parts.clock.monotonic() + UNKNOWN_MS);
      return found;
    });
  }

  /** Asks others about something for as long as is allowed, or until everything stops. */
  within<T>(what: string, work: (limit: AbortSignal) => Promise<T>): Promise<T> {
    const { upstreamTimeoutMs } = this.#all.policy;
    const late = (): Error => new TrilithError("timeout", `"${what}" was not found out within ${upstreamTimeoutMs} ms`);
    return this.#all.limits.within(upstreamTimeoutMs, late, work);
  }

  /** Consul shuffles evenly, whatever the weights; ours comes shuffled from the lookup, by weight. */
  shuffled(endpoints: readonly Endpoint[]): Endpoint[] {
    const list = endpoints.slice();
    return this.#all.policy.compat ? shuffle(list, this.#all.parts.random) : list;
  }
}
