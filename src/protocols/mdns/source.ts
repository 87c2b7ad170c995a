// The source "mdns": what the LAN announces, on external nodes, and what this host's service files say, on this one.
import { Bell } from "../../base/bells.ts";
import type { Clock, Timer } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { Net } from "../../base/net.ts";
import type { Directory, View } from "../../contracts/directory.ts";
import { lastKnown } from "../../contracts/second-hand.ts";
import type { Source, SourceHealth, SourceList } from "../../contracts/source.ts";
import { wholeLists } from "../../contracts/whole-list.ts";
import { addressOf, goneKeyOf, type Registration } from "../../model/instance.ts";
import type { Reason } from "../../model/reason.ts";
import { keyOf } from "../../model/record.ts";
import { fromTxt } from "../../model/txt.ts";
import { keyOfName } from "./announce-plan.ts";
import type { Resolved } from "./engine.ts";
import type { FileGroup } from "./service-file-folder.ts";
import type { Lan, Left, Use } from "./source-lan.ts";
import {
  addressesOf,
  idOf,
  markOf,
  nodeOfHost,
  registrationOf,
  type Sighting,
  serviceOfType,
} from "./source-registration.ts";

/** The source's name in the directory. */
const SOURCE = "mdns";

export interface SourceMachine {
  readonly clock: Clock;
  readonly log: Log;
  readonly net: Pick<Net, "interfaces">;
  readonly directory: Pick<Directory, "view" | "ready" | "changed">;
  /** This host's node and its ID. */
  readonly node: string;
  readonly nodeId: string;
}

/** What the announcing side knows. */
export interface Announced {
  /** True where this agent itself announces the name and type. */
  isMine(name: string, type: string): boolean;
  /** For the state: how many services are announced. */
  readonly count: number;
  /** Services that somebody asked to have announced and that cannot be. */
  readonly complaints: readonly { readonly about: string; readonly text: string }[];
  /** What service files say, where they are read here. */
  readonly files: readonly FileGroup[];
}

/** What was known before the LAN was heard (again) has so long to be heard again. */
const SETTLE_MS = 10_000;
const TICK_MS = 1000;

interface Remembered {
  readonly registration: Registration;
  /** Monotonic. */
  sinceMs: number;
  readonly why: string;
}

export class LanSource implements Source {
  readonly name: string = SOURCE;
  readonly #lan: Lan;
  readonly #machine: SourceMachine;
  readonly #announced: Announced;
  #discover: boolean | readonly string[];
  /** Of the last list, what lives on external nodes, by `goneKeyOf`. */
  #last = new Map<string, Registration>();
  /** Of the last list, what lives on this host. */
  #own: ReadonlySet<string> = new Set();
  /** Not heard in this life, or since the interface it was heard on went. */
  readonly #remembered = new Map<string, Remembered>();
  #places = "";
  readonly #bell = new Bell();
  /** Looks again at what is remembered. */
  #tick: Timer | undefined;
  #restored = false;
  #use: Use | undefined;

  constructor(lan: Lan, announced: Announced, discover: boolean | readonly string[], machine: SourceMachine) {
    this.#lan = lan;
    this.#announced = announced;
    this.#discover = discover;
    this.#machine = machine;
  }

  /** Looks for other types from now on; what was found of those that are not looked for any more goes at once. */
  discover(types: boolean | readonly string[]): void {
    if (JSON.stringify(types) === JSON.stringify(this.#discover)) return;
    this.#discover = types;
    for (const [key, { registration }] of this.#remembered)
      if (!this.#isWanted({ type: registration.labels["mdns-type"] ?? "" })) this.#remembered.delete(key);
    this.#browse();
    this.ring();
  }

  #browse(): void {
    this.#use?.browse(this.#discover === true ? "all" : this.#discover || []);
  }

  /** True of what the configuration asks for; the announcing side has other types browsed, too. */
  #isWanted({ type }: { readonly type: string }): boolean {
    if (typeof this.#discover === "boolean") return this.#discover;
    return this.#discover.some((each) => keyOfName("", each) === keyOfName("", type));
  }

  /** What the announcing side knows has changed. */
  readonly ring = (): void => this.#bell.ring();

  state(): SourceHealth {
    const { places, mdns } = this.#lan;
    const found = this.#last.size;
    const lastKnown = this.#remembered.size > 0 ? ` (${this.#remembered.size} last known, not heard yet)` : "";
    const counts = `${found} found${lastKnown}, ${this.#announced.count} announced`;
    if (places.length === 0)
      return this.#use !== undefined
        ? { ok: false, text: `no interface with multicast is up; ${counts}` }
        : { ok: true, begun: false, text: "not started" };
    const interfaces = [...new Set(places.map((place) => place.interface))].map((name) => {
      const families = places.filter((place) => place.interface === name).map(({ family }) => `IPv${family}`);
      return `${name} (${families.sort().join(", ")})`;
    });
    return { ok: true, text: `as ${mdns?.hostName} on ${interfaces.join(", ")}: ${counts}` };
  }

  async *watch(signal: AbortSignal): AsyncIterable<SourceList> {
    if (signal.aborted) return;
    const { clock, directory } = this.#machine;
    const use = await this.#lan.acquire(this.ring);
    this.#use = use;
    const begin = async (): Promise<void> => {
      this.#restore();
      this.#browse();
    };
    const compose = (view: View): SourceList => {
      const list = this.#compose(view);
      this.#tick?.cancel();
      this.#tick = this.#remembered.size > 0 ? clock.after(TICK_MS, this.ring) : undefined;
      return list;
    };
    try {
      const bell = this.#bell;
      yield* wholeLists({ clock, directory, bell, scopes: ["nodes", "services"], begin, compose }, signal);
    } finally {
      this.#use = undefined;
      this.#tick?.cancel();
      // Where it is begun once more, nothing was heard yet.
      for (const [key, registration] of this.#last)
        if (!this.#remembered.has(key))
          this.#remembered.set(key, { registration, sinceMs: clock.monotonic(), why: "listening began anew" });
      await use.release();
    }
  }

  #compose(view: View): SourceList {
    const { clock, net } = this.#machine;
    const networks = [
      ...new Set(
        net
          .interfaces()
          .filter(({ internal }) => !internal)
          .map(({ cidr }) => cidr),
      ),
    ].sort();
    const outside = new Map<string, Registration>();
    const foreign = new Map<string, Registration>();
    if (this.#discover !== false)
      for (const places of this.#lan.resolved())
        for (const seen of byHost(places)) {
          if (!this.#isWanted(seen[0])) continue;
          const registration = this.#registrationOf(seen, view, networks);
          if (registration === undefined) continue;
          outside.set(goneKeyOf(registration), registration);
          foreign.set(registration.foreignId ?? "", registration);
        }
    const gone = new Map<string, Reason>();
    this.#noteLost(outside, gone);
    this.#settle(outside, foreign, gone);
    this.#last = outside;
    const own = filesOf(this.#announced.files);
    for (const id of this.#own)
      if (!own.has(id))
        gone.set(id, { code: "deregistered", text: "its service file is gone", confirmed: true, atMs: clock.now() });
    this.#own = new Set(own.keys());
    return {
      list: [...own.values(), ...outside.values()],
      authority: "second-hand",
      complaints: this.#announced.complaints,
      ...(gone.size > 0 ? { gone } : {}),
    };
  }

  /** A service of the LAN that is nobody's of this directory already. */
  #registrationOf(seen: Sighting, view: View, networks: readonly string[]): Registration | undefined {
    const { node: self, nodeId } = this.#machine;
    const [first] = seen;
    if (this.#announced.isMine(first.name, first.type)) return undefined;
    for (const { txt } of seen) {
      const mark = markOf(txt);
      if (mark !== undefined && (mark === nodeId || hasAgent(view, mark))) return undefined;
    }
    if (isThere(seen, view, self)) return undefined;
    const name = nodeOfHost(first.host);
    // A host with an agent is that agent's to describe.
    const known = view.get("node", keyOf.node(name));
    return registrationOf(seen, known === undefined || known.external === true ? name : `${name}-${SOURCE}`, networks);
  }

  /** What was in the last list and is not heard now: gone with its reason, or remembered while nobody can know. */
  #noteLost(outside: Map<string, Registration>, gone: Map<string, Reason>): void {
    const { clock } = this.#machine;
    const leftOf = this.#lan.takeLeft();
    for (const [key, registration] of this.#last) {
      if (outside.has(key) || this.#remembered.has(key)) continue;
      const { labels, external } = registration;
      const [name = "", type = ""] = [labels["mdns-instance"], labels["mdns-type"]];
      if (!this.#isWanted({ type })) {
        gone.set(key, {
          ...{ code: "deregistered", text: `the configuration of ${SOURCE} no longer asks for it` },
          ...{ confirmed: true, atMs: clock.now() },
        });
        continue;
      }
      const domain = (registration.foreignId ?? "").slice(`${name}.${type}.`.length) || "local";
      const left = leftOf({ name, type, domain });
      if (left?.why === "interface")
        this.#remembered.set(key, {
          registration,
          sinceMs: clock.monotonic(),
          why: "its interface of this host went away",
        });
      else gone.set(key, reasonOf(left, name, external?.node.name ?? "", clock.now()));
    }
  }

  /** Lists what is remembered, until it is heard again or had its time to be. */
  #settle(outside: Map<string, Registration>, foreign: Map<string, Registration>, gone: Map<string, Reason>): void {
    if (this.#remembered.size === 0) return;
    const { clock } = this.#machine;
    const now = clock.monotonic();
    const places = JSON.stringify(this.#lan.places);
    if (places !== this.#places) {
      this.#places = places;
      for (const one of this.#remembered.values()) one.sinceMs = now;
    }
    for (const [key, { registration, sinceMs, why }] of this.#remembered) {
      const again = foreign.get(registration.foreignId ?? "");
      if (outside.has(key) || again !== undefined) this.#remembered.delete(key);
      else if (this.#lan.places.length > 0 && now - sinceMs >= SETTLE_MS) {
        this.#remembered.delete(key);
        const text = `was not heard on the LAN within ${SETTLE_MS / 1000} s: ${why}`;
        gone.set(key, { code: "missing", text, confirmed: false, atMs: clock.now() });
      } else outside.set(key, registration);
    }
  }

  /** What an earlier life of this agent found stays until it is heard again, or was not for a while. */
  #restore(): void {
    if (this.#restored) return;
    this.#restored = true;
    const { directory, clock, node: self } = this.#machine;
    for (const registration of lastKnown(directory.view(), SOURCE, self))
      if (!this.#isWanted({ type: registration.labels["mdns-type"] ?? "" }))
        this.#last.set(goneKeyOf(registration), registration);
      else
        this.#remembered.set(goneKeyOf(registration), {
          registration,
          sinceMs: clock.monotonic(),
          why: "it was known before this agent started",
        });
  }
}

/** One name may be several things on several LANs: by host and port. */
function byHost(places: readonly Resolved[]): readonly Sighting[] {
  const groups = new Map<string, [Resolved, ...Resolved[]]>();
  for (const place of places) {
    const key = `${place.host.toLowerCase()} ${place.port}`;
    const group = groups.get(key);
    if (group === undefined) groups.set(key, [place]);
    else group.push(place);
  }
  return [...groups.values()];
}

/** True where the ID is that of a host with an agent in this directory. */
function hasAgent(view: View, nodeId: string): boolean {
  for (const node of view.list("node")) if (node.id === nodeId && node.external !== true) return true;
  return false;
}

/** True where an instance of the same service that did not come from mDNS is at the same address and port. */
function isThere(seen: Sighting, view: View, self: string): boolean {
  const [{ type, port }] = seen;
  const addresses = new Set(addressesOf(seen));
  const local = seen.some((place) => place.local);
  for (const resident of view.residents(serviceOfType(type) ?? "")) {
    const { instance } = resident;
    if (instance.origin.source === SOURCE) {
      // Another agent's service file.
      if (resident.node.external !== true && instance.id === idOf(seen[0])) return true;
      continue;
    }
    if (instance.port !== port) continue;
    if (addresses.has(addressOf(resident))) return true;
    // Listening on all of this host's addresses, whatever its node's address says.
    if (local && instance.address === "" && instance.node.toLowerCase() === self.toLowerCase()) return true;
  }
  return false;
}

function reasonOf(left: Left | undefined, name: string, node: string, nowMs: number): Reason {
  const atMs = left?.atMs ?? nowMs;
  const who = `"${name}" at ${node}`;
  switch (left?.why) {
    case "goodbye":
      return { code: "goodbye", text: `${who} said goodbye on the LAN`, confirmed: true, atMs };
    case "expired":
      return { code: "expired", text: `${who} is not heard on the LAN any more`, confirmed: false, atMs };
    case undefined:
      return {
        code: "replaced",
        text: `${who} is known by another way, or at another host now`,
        confirmed: true,
        atMs,
      };
    default:
      return { code: "replaced", text: `${who} announces other data now`, confirmed: true, atMs };
  }
}

/** What service files say, as this host's own services, by id. */
function filesOf(files: readonly FileGroup[]): Map<string, Registration> {
  const own = new Map<string, Registration>();
  for (const { path, group } of files)
    for (const { type, port, txt = [], host } of group.services) {
      const service = serviceOfType(type);
      const id = idOf({ name: group.name, type, domain: "local" });
      if (service === undefined || own.has(id)) continue;
      const { labels, tags } = fromTxt(txt.map((bytes) => Buffer.from(bytes).toString("utf8")));
      const all: Record<string, string> = Object.assign(Object.create(null), labels);
      all["mdns-instance"] = group.name;
      all["mdns-type"] = type;
      own.set(id, {
        ...{ id, name: service, tags, labels: all, address: host ?? "", port, checks: [] },
        // A file of this host is its own word, unlike what the LAN says.
        authority: "first-hand",
        foreignId: `${path}:${id}`,
        text: `"${group.name}" (${type}), from ${path}`,
      });
    }
  return own;
}
