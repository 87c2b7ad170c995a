// The directory as Eureka's applications: all of it, and what changed lately.
import type { Clock } from "../../base/clock.ts";
import type { Directory, View } from "../../contracts/directory.ts";
import type { Lookup } from "../../contracts/lookup.ts";
import { NODE_MAINTENANCE_CHECK, SERVICE_MAINTENANCE_CHECK, worst } from "../../model/check.ts";
import { addressOf, type Resident } from "../../model/instance.ts";
import { type Index, scope } from "../../model/record.ts";
import type { Application, Applications } from "./encode.ts";
import type { EurekaStatus, ToldObject } from "./instance.ts";
import { FOREIGN, type Kept, type Lease } from "./leases.ts";

/** One instance as clients are shown it. */
export interface Shown {
  readonly app: string;
  readonly id: string;
  readonly vip: string;
  readonly secureVip: string;
  readonly status: EurekaStatus;
  readonly json: ToldObject;
}

interface ShownService {
  readonly at: Index;
  /** As text: while the guard holds instances their service is looked at anew. */
  readonly held: string;
  readonly instances: readonly Shown[];
}

interface Changed {
  readonly atMs: number;
  readonly shown: Shown;
  readonly action: "ADDED" | "MODIFIED" | "DELETED";
}

/** A delta tells the changes of so long, as Eureka's retentionTimeInMSInDeltaQueue. */
const DELTA_MS = 180_000;

export interface ApplicationsMachine {
  readonly clock: Clock;
  readonly directory: Pick<Directory, "view">;
  readonly lookup: Pick<Lookup, "resolveNow" | "held">;
  /** The lease of an instance that was registered here, for its times. */
  readonly lease: (app: string, id: string) => Lease | undefined;
}

export class Registry {
  readonly #machine: ApplicationsMachine;
  #services = new Map<string, ShownService>();
  #at: Index = 0;
  #heldText = "";
  /** By instance, the newest change last. */
  readonly #recent = new Map<string, Changed>();
  #deltas = 0;
  /** When an instance that tells no time of its own was first seen as it is, by what it is. */
  readonly #seen = new Map<string, { readonly text: string; readonly atMs: number }>();

  constructor(machine: ApplicationsMachine) {
    this.#machine = machine;
  }

  /** Every application, in the order of names. */
  all(): Applications {
    const shown = this.#look();
    return { version: "1", hash: hashOf(shown), applications: grouped(shown) };
  }

  /** What came, changed and went in the last three minutes; the hash is that of all. */
  delta(): Applications {
    const shown = this.#look();
    return {
      version: String(++this.#deltas),
      hash: hashOf(shown),
      applications: grouped([...this.#recent.values()].map(changedOf)),
    };
  }

  application(app: string): Application | undefined {
    return grouped(this.#look().filter((each) => each.app === app.toUpperCase()))[0];
  }

  instance(id: string, app?: string): Shown | undefined {
    return this.#look().find((each) => each.id === id && (app === undefined || each.app === app.toUpperCase()));
  }

  /** Instances under a VIP address; one may name several, with commas between. */
  vip(address: string, secure: boolean): Applications | undefined {
    const shown = this.#look().filter(({ vip, secureVip }) =>
      (secure ? secureVip : vip).split(",").some((each) => each.trim().toLowerCase() === address.toLowerCase()),
    );
    if (shown.length === 0) return undefined;
    return { version: "-1", hash: hashOf(shown), applications: grouped(shown) };
  }

  /** Looks at the services that changed since the last time, and remembers what became of their instances. */
  #look(): readonly Shown[] {
    const { directory, lookup, clock } = this.#machine;
    const view = directory.view();
    const held = new Map(lookup.held().map((each) => [each.service.toLowerCase(), JSON.stringify(each)]));
    const heldText = [...held.values()].join();
    const now = clock.now();
    if (view.index !== this.#at || heldText !== this.#heldText) {
      const services = new Map<string, ShownService>();
      for (const name of view.serviceNames()) {
        const key = name.toLowerCase();
        const at = view.at(scope.service(name));
        const text = held.get(key) ?? "";
        const known = this.#services.get(key);
        services.set(
          key,
          known?.at === at && known.held === text
            ? known
            : { at, held: text, instances: this.#instancesOf(view, name, text !== "", now) },
        );
      }
      if (this.#at !== 0) this.#note(this.#services, services, now);
      this.#services = services;
      this.#at = view.index;
      this.#heldText = heldText;
    }
    for (const [key, { atMs }] of this.#recent) if (now - atMs >= DELTA_MS) this.#recent.delete(key);
    return [...this.#services.values()].flatMap(({ instances }) => instances);
  }

  #instancesOf(view: View, name: string, held: boolean, now: number): readonly Shown[] {
    const residents = view.residents(name);
    const shown = residents.map((resident) => this.#shown(resident, statusOf(resident), now));
    if (!held) return shown;
    // What the guard keeps in answers is kept here, too.
    const { endpoints } = this.#machine.lookup.resolveNow({ service: name });
    for (const { held: kept, resident } of endpoints) {
      if (kept !== true) continue;
      const one = this.#shown(resident, "UP", now);
      const at = shown.findIndex(({ app, id }) => app === one.app && id === one.id);
      if (at === -1) shown.push(one);
      else shown[at] = one;
    }
    return shown;
  }

  #shown(resident: Resident, status: EurekaStatus, now: number): Shown {
    const { instance } = resident;
    const kept = instance.foreign?.[FOREIGN] as Kept | undefined;
    if (kept === undefined) return this.#ofOthers(resident, status, now);
    const told = kept.instance;
    const app = String(told["app"] ?? instance.name).toUpperCase();
    const id = String(told["instanceId"] ?? told["hostName"]);
    const lease = this.#machine.lease(app, id);
    const leaseInfo = (told["leaseInfo"] ?? {}) as ToldObject;
    const own = kept.override ?? String(told["status"] ?? "UP").toUpperCase();
    return {
      app,
      id,
      vip: String(told["vipAddress"] ?? ""),
      secureVip: String(told["secureVipAddress"] ?? ""),
      status,
      json: {
        ...told,
        instanceId: id,
        app,
        // What somebody else's check or maintenance says wins over what the client says of itself.
        status: status === "UP" || own !== "UP" ? (own as EurekaStatus) : status,
        overriddenstatus: kept.override ?? "UNKNOWN",
        leaseInfo: {
          renewalIntervalInSecs: 30,
          durationInSecs: 90,
          ...leaseInfo,
          registrationTimestamp: kept.registeredAtMs,
          lastRenewalTimestamp: lease?.renewedAtMs ?? kept.changedAtMs,
          evictionTimestamp: 0,
          serviceUpTimestamp: kept.registeredAtMs,
        },
        metadata: { ...instance.labels },
        isCoordinatingDiscoveryServer: "false",
        lastUpdatedTimestamp: String(kept.changedAtMs),
        lastDirtyTimestamp: String(told["lastDirtyTimestamp"] ?? kept.changedAtMs),
        actionType: "ADDED",
      },
    };
  }

  /** An instance that came in through another dialect. */
  #ofOthers(resident: Resident, status: EurekaStatus, now: number): Shown {
    const { instance } = resident;
    const id = `${instance.node}:${instance.id}`;
    const app = instance.name.toUpperCase();
    const address = addressOf(resident);
    const text = JSON.stringify([address, instance.port, status, instance.labels, instance.tags]);
    const seen = this.#seen.get(`${app}/${id}`);
    const atMs = seen?.text === text ? seen.atMs : now;
    this.#seen.set(`${app}/${id}`, { text, atMs });
    return {
      app,
      id,
      vip: instance.name,
      secureVip: "",
      status,
      json: {
        instanceId: id,
        // Clients connect to the host name.
        hostName: address,
        app,
        ipAddr: address,
        status,
        overriddenstatus: "UNKNOWN",
        port: { $: instance.port, "@enabled": String(instance.port > 0) },
        securePort: { $: 443, "@enabled": "false" },
        countryId: 1,
        dataCenterInfo: { "@class": "com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo", name: "MyOwn" },
        leaseInfo: {
          renewalIntervalInSecs: 30,
          durationInSecs: 90,
          registrationTimestamp: atMs,
          lastRenewalTimestamp: atMs,
          evictionTimestamp: 0,
          serviceUpTimestamp: atMs,
        },
        metadata: { ...instance.labels, ...(instance.tags.length === 0 ? {} : { tags: instance.tags.join(",") }) },
        homePageUrl: "",
        vipAddress: instance.name,
        isCoordinatingDiscoveryServer: "false",
        lastUpdatedTimestamp: String(atMs),
        lastDirtyTimestamp: String(atMs),
        actionType: "ADDED",
      },
    };
  }

  #note(before: ReadonlyMap<string, ShownService>, after: ReadonlyMap<string, ShownService>, atMs: number): void {
    const keyed = (all: readonly Shown[]): ReadonlyMap<string, Shown> =>
      new Map(all.map((each) => [keyOf(each), each]));
    for (const name of new Set([...before.keys(), ...after.keys()])) {
      const old = before.get(name)?.instances ?? [];
      const young = after.get(name)?.instances ?? [];
      if (old === young) continue;
      const was = keyed(old);
      const is = keyed(young);
      for (const [key, shown] of is) {
        const known = was.get(key);
        if (known === undefined) this.#remember({ atMs, shown, action: "ADDED" });
        else if (differs(known, shown)) this.#remember({ atMs, shown, action: "MODIFIED" });
      }
      for (const [key, shown] of was)
        if (!is.has(key)) {
          this.#seen.delete(key);
          this.#remember({ atMs, shown, action: "DELETED" });
        }
    }
  }

  /** The last word about an instance is the one that counts. */
  #remember(change: Changed): void {
    const key = keyOf(change.shown);
    this.#recent.delete(key);
    this.#recent.set(key, change);
  }
}

const keyOf = ({ app, id }: Shown): string => `${app}/${id}`;

/** Heartbeats move only the time of the last renewal, which is no news. */
function differs(a: Shown, b: Shown): boolean {
  const text = ({ json }: Shown): string => {
    const lease = json["leaseInfo"] as ToldObject;
    return JSON.stringify({ ...json, leaseInfo: { ...lease, lastRenewalTimestamp: 0 } });
  };
  return text(a) !== text(b);
}

function changedOf({ shown, action }: Changed): Shown {
  return { ...shown, json: { ...shown.json, actionType: action } };
}

/** Health as every dialect sees it, in Eureka's words. */
function statusOf({ instance, checks }: Resident): EurekaStatus {
  const maintained = checks.some(
    ({ id, status }) =>
      status === "critical" && (id === NODE_MAINTENANCE_CHECK || id.startsWith(SERVICE_MAINTENANCE_CHECK)),
  );
  if (maintained || instance.draining === true) return "OUT_OF_SERVICE";
  return worst(checks) === "critical" ? "DOWN" : "UP";
}

/** "DOWN_1_UP_2_" [Applications.getReconcileHashCode] */
function hashOf(shown: readonly Shown[]): string {
  const counts = new Map<string, number>();
  for (const { json } of shown) {
    const status = String(json["status"]);
    counts.set(status, (counts.get(status) ?? 0) + 1);
  }
  return [...counts]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([status, count]) => `${status}_${count}_`)
    .join("");
}

function grouped(shown: readonly Shown[]): Application[] {
  const apps = new Map<string, ToldObject[]>();
  for (const { app, json } of shown) {
    const known = apps.get(app);
    if (known === undefined) apps.set(app, [json]);
    else known.push(json);
  }
  return [...apps].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, instances]) => ({ name, instances }));
}
