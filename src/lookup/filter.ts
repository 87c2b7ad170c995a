// The filter: from all residents of a service to the endpoints that a query may have, worked out once per list of residents.
import type { Check, Status } from "../model/check.ts";
import { NODE_MAINTENANCE_CHECK, SERVICE_MAINTENANCE_CHECK, worst } from "../model/check.ts";
import { addressOf, type Resident } from "../model/instance.ts";
import type { Endpoint, Query } from "../model/query.ts";
import { keyOf } from "../model/record.ts";
import { connectWishes } from "../wire/connect-labels.ts";
import { type Asker, chooseAddress, type Here, isAddressed } from "./address.ts";

/** A resident with what its checks come to. The node's checks count for all its instances (Consul's rule). */
export interface Facts {
  readonly resident: Resident;
  readonly status: Status;
  readonly draining: boolean;
  /** Set while the instance or its node is in maintenance. */
  readonly maintenance?: Check;
  /** `keyOf.service` of the instance. */
  readonly key: string;
}

/** Filtered lists by the kind of query; thrown away as a whole when it grows. */
export type ListCache = Map<string, readonly Endpoint[]>;

const CACHED_LISTS = 32;

/** Everything worked out about one list of residents, which never changes. */
export interface Picture {
  readonly facts: readonly Facts[];
  /** All facts by key; worked out when first asked for. */
  byKey(): ReadonlyMap<string, Facts>;
  /** What may be given to callers: not critical, not draining, not in maintenance; by key; worked out when first asked for. */
  routable(): ReadonlyMap<string, Facts>;
  /** How many instances are neither draining nor in maintenance; worked out when first asked for. */
  meant(): number;
  /** The panic threshold that the instances' own labels ask for; worked out when first asked for. */
  panicPercent(complain: (text: string) => void): number | undefined;
  /** True where hearsay could take an instance away: it came second-hand, or lives on another agent's node. */
  readonly guarded: boolean;
  /** True where the answer depends on who asks. */
  readonly addressed: boolean;
  /** Sources at this host or outside any host that brought instances in second-hand. */
  readonly hearsay: readonly string[];
  readonly lists: ListCache;
}

/**
 * The residents' facts. `selfNode` in lower case; `shared`: other agents write the directory too, so that what is known of other hosts
 * hangs on their being heard of.
 */
export function createPicture(residents: readonly Resident[], selfNode: string, shared: boolean): Picture {
  const facts: Facts[] = [];
  const hearsay = new Set<string>();
  let guarded = false;
  let addressed = false;
  for (const resident of residents) {
    const one = factsOf(resident);
    facts.push(one);
    const { instance, node } = resident;
    const elsewhere = instance.node.toLowerCase() !== selfNode;
    if (instance.origin.authority === "second-hand") {
      guarded = true;
      // Other agents watch their own sources; what is brought in on external nodes may be this agent's.
      if (!elsewhere || node.external === true) hearsay.add(instance.origin.source);
    }
    if (shared && elsewhere && node.external !== true) guarded = true;
    if (isAddressed(resident)) addressed = true;
  }
  let byKey: Map<string, Facts> | undefined;
  let routable: Map<string, Facts> | undefined;
  let meant: number | undefined;
  let panic: { readonly percent: number | undefined } | undefined;
  return {
    facts,
    byKey: () => {
      byKey ??= new Map(facts.map((one) => [one.key, one]));
      return byKey;
    },
    routable: () => {
      routable ??= new Map(facts.filter(isRoutable).map((one) => [one.key, one]));
      return routable;
    },
    meant: () => {
      meant ??= facts.filter(isMeant).length;
      return meant;
    },
    panicPercent(complain) {
      panic ??= {
        percent: connectWishes(
          residents.map(({ instance }) => instance.labels),
          complain,
        ).panicPercent,
      };
      return panic.percent;
    },
    guarded,
    addressed,
    hearsay: [...hearsay],
    lists: new Map(),
  };
}

/** One resident's facts. */
function factsOf(resident: Resident): Facts {
  const { instance, checks } = resident;
  const maintenance = checks.find(isMaintenance);
  return {
    resident,
    status: worst(checks),
    draining: instance.draining === true,
    key: keyOf.service(instance.node, instance.id),
    ...(maintenance === undefined ? {} : { maintenance }),
  };
}

function isMaintenance(check: Check): boolean {
  return (
    check.status === "critical" &&
    (check.id === NODE_MAINTENANCE_CHECK || check.id.startsWith(SERVICE_MAINTENANCE_CHECK))
  );
}

/** True where nobody took it out on purpose. */
export function isMeant(facts: Facts): boolean {
  return !facts.draining && facts.maintenance === undefined;
}

/** True where callers may be sent to it. */
function isRoutable(facts: Facts): boolean {
  return facts.status !== "critical" && isMeant(facts);
}

/** What of a query decides which endpoints it may have, as a key; asker and family only where they matter (`addressed`). */
export function kindOf(query: Query, asker: Asker | undefined, addressed: boolean): string {
  let kind: string = query.health ?? "routable";
  if (query.tags !== undefined && query.tags.length > 0) kind += `\u0000t${JSON.stringify(query.tags)}`;
  if (query.labels !== undefined) kind += `\u0000l${JSON.stringify(query.labels)}`;
  if (!addressed) return kind;
  const { family } = query;
  return kind + (family === 4 ? "\u00004" : family === 6 ? "\u00006" : "\u0000a") + (asker?.text ?? "");
}

/** The list under `kind`, made if it is not there. */
export function cached(lists: ListCache, kind: string, make: () => readonly Endpoint[]): readonly Endpoint[] {
  let list = lists.get(kind);
  if (list === undefined) {
    list = make();
    if (lists.size >= CACHED_LISTS) lists.clear();
    lists.set(kind, list);
  }
  return list;
}

/** The first tag of the query that the instance lacks (tags compare ignoring case). */
export function lackingTag(query: Query, resident: Resident): string | undefined {
  return query.tags?.find((wanted) => {
    const lower = wanted.toLowerCase();
    return !resident.instance.tags.some((tag) => tag === wanted || tag.toLowerCase() === lower);
  });
}

/** The first label of the query that the instance lacks or has with another value. */
export function lackingLabel(query: Query, resident: Resident): string | undefined {
  const { labels } = resident.instance;
  return query.labels === undefined
    ? undefined
    : Object.keys(query.labels).find((key) => !Object.hasOwn(labels, key) || labels[key] !== query.labels?.[key]);
}

/** How often the endpoint is to be chosen: the registration's weight for its health; without health none. */
function weightOf(facts: Facts, panic = false): number {
  const weights = facts.resident.instance.weights;
  if (facts.status === "warning") return weights?.warning ?? 1;
  return facts.status === "passing" || panic ? (weights?.passing ?? 1) : 0;
}

/** Makes the endpoint of a resident for an asker; undefined where the query or the network leaves it out. */
export function endpointOf(
  facts: Facts,
  query: Query,
  asker: Asker | undefined,
  here: Here,
  mark: { readonly held?: true; readonly panic?: true } = {},
): Endpoint | undefined {
  const { resident } = facts;
  if (lackingTag(query, resident) !== undefined || lackingLabel(query, resident) !== undefined) return undefined;
  // Listings show everything recorded, wherever it can be reached from.
  const at =
    chooseAddress(resident, asker, here, query.family) ??
    (query.health === "any" ? { host: addressOf(resident), port: resident.instance.port } : undefined);
  if (at === undefined) return undefined;
  return {
    address: at.host,
    port: at.port,
    weight: weightOf(facts, mark.panic),
    resident,
    ...(mark.held === true ? { held: true } : {}),
  };
}

/** True where the query's health mode admits the facts. */
export function admits(health: Query["health"], facts: Facts): boolean {
  if (health === "any") return true;
  return isRoutable(facts) && (health !== "passing" || facts.status === "passing");
}
