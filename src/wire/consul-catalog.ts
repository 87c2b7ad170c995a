// What Consul's catalog and health endpoints tell of nodes, services and checks, as plain facts: for client hosts and for sources alike. Pure.
//
// The results fit the model's Instance, Check and Node (wire may not import model, so the types are structural).

export type Json = Readonly<Record<string, unknown>>;
type Labels = Readonly<Record<string, string>>;
type Status = "passing" | "warning" | "critical";

/** A service without the node it is on, and without where it comes from. */
export interface CatalogService {
  readonly id: string;
  readonly name: string;
  readonly tags: readonly string[];
  readonly labels: Labels;
  /** "" = the node's. */
  readonly address: string;
  readonly port: number;
  readonly taggedAddresses?: Readonly<Record<string, { readonly address: string; readonly port: number }>>;
  readonly weights?: { readonly passing: number; readonly warning: number };
  readonly socketPath?: string;
  readonly enableTagOverride?: boolean;
  /** What only Consul understands and must get back unchanged. */
  readonly foreign?: Readonly<Record<string, unknown>>;
}

export interface CatalogCheck {
  readonly id: string;
  readonly node: string;
  readonly name: string;
  readonly status: Status;
  readonly notes: string;
  readonly output: string;
  /** "" = it is about the whole node. */
  readonly serviceId: string;
  readonly type: string;
  readonly foreign?: Readonly<Record<string, unknown>>;
}

/** Text, "" for anything else. */
export const text = (value: unknown): string => (typeof value === "string" ? value : "");
export const object = (value: unknown): Json => (typeof value === "object" && value !== null ? (value as Json) : {});

/** An object of texts; without a prototype. */
export function labelsFrom(value: unknown): Labels {
  const result: Record<string, string> = Object.create(null);
  for (const [key, item] of Object.entries(object(value))) result[key] = text(item);
  return result;
}

/** In front of a service's ID: the check that keeps a service on its way out from being routed to, as Consul knows no other way to say it. */
export const DRAIN_CHECK = "trilith-draining:";

/** True for what says that an instance is draining: no check of its own on this side. */
export const isDrainCheck = (raw: Json): boolean => text(raw["CheckID"]) === DRAIN_CHECK + text(raw["ServiceID"]);

/** In the metadata of nodes on which a client host lives: its sign of life is looked after by the other client hosts. */
export const CLIENT_META = "trilith-client";
/** In the metadata of external nodes that sources of client hosts brought in: who, and which agents see what there, in pieces. */
export const ORIGIN_META = "trilith-origin";
export const WITNESSED_META = "trilith-witnessed-";

/** What of a service only Consul understands and must get back unchanged. */
export const FOREIGN = ["Kind", "Proxy", "Connect", "Locality", "Ports"] as const;

function foreignOf(raw: Json): Record<string, unknown> | undefined {
  const foreign: Record<string, unknown> = {};
  for (const name of FOREIGN) {
    const value = raw[name];
    if (value === undefined || value === null || value === "") continue;
    const empty =
      JSON.stringify(value) === "{}" || JSON.stringify(value) === '{"Mode":"","MeshGateway":{},"Expose":{}}';
    if (!empty) foreign[name] = value;
  }
  return Object.keys(foreign).length === 0 ? undefined : foreign;
}

/** A service of /v1/health/service. */
export function serviceFrom(raw: Json): CatalogService {
  const tagged: Record<string, { address: string; port: number }> = Object.create(null);
  for (const [role, at] of Object.entries(object(raw["TaggedAddresses"])))
    tagged[role] = { address: text(object(at)["Address"]), port: Number(object(at)["Port"] ?? 0) };
  const weights = object(raw["Weights"]);
  const foreign = foreignOf(raw);
  return {
    id: text(raw["ID"]),
    name: text(raw["Service"]),
    tags: Array.isArray(raw["Tags"]) ? raw["Tags"].map(text) : [],
    labels: labelsFrom(raw["Meta"]),
    address: text(raw["Address"]),
    port: Number(raw["Port"] ?? 0),
    ...(Object.keys(tagged).length === 0 ? {} : { taggedAddresses: tagged }),
    ...(raw["Weights"] === undefined || raw["Weights"] === null
      ? {}
      : { weights: { passing: Number(weights["Passing"] ?? 1), warning: Number(weights["Warning"] ?? 1) } }),
    ...(text(raw["SocketPath"]) === "" ? {} : { socketPath: text(raw["SocketPath"]) }),
    ...(raw["EnableTagOverride"] === true ? { enableTagOverride: true } : {}),
    ...(foreign === undefined ? {} : { foreign }),
  };
}

const STATUSES: ReadonlySet<string> = new Set<Status>(["passing", "warning", "critical"]);

/** A check of /v1/health. */
export function checkFactsFrom(raw: Json): CatalogCheck {
  const status = text(raw["Status"]);
  const foreign: Record<string, unknown> = {};
  for (const name of ["Interval", "Timeout"]) if (text(raw[name]) !== "") foreign[name] = raw[name];
  if (Object.keys(object(raw["Definition"])).length > 0) foreign["Definition"] = raw["Definition"];
  if (!STATUSES.has(status)) foreign["ShownStatus"] = status;
  return {
    id: text(raw["CheckID"]),
    node: text(raw["Node"]),
    name: text(raw["Name"]),
    status: STATUSES.has(status) ? (status as Status) : "critical",
    notes: text(raw["Notes"]),
    output: text(raw["Output"]),
    serviceId: text(raw["ServiceID"]),
    type: text(raw["Type"]),
    ...(Object.keys(foreign).length === 0 ? {} : { foreign }),
  };
}

/** The one whose ID, a UUID, begins with a text: hexadecimal digits and hyphens, an odd last character not counted; an even number of digits must be left [consul agent/consul/state/catalog.go, nodeServices]. Undefined where none or several do. */
export function onlyWithId<T extends { readonly id: string }>(all: Iterable<T>, text: string): T | undefined {
  const even = text.length % 2 === 0 ? text : text.slice(0, -1);
  const digits = even.replaceAll("-", "").toLowerCase();
  if (even.length > 36 || even.length - digits.length > 4 || !/^(?:[0-9a-f]{2})+$/.test(digits)) return undefined;
  let found: T | undefined;
  for (const one of all) {
    if (!one.id.replaceAll("-", "").toLowerCase().startsWith(digits)) continue;
    if (found !== undefined) return undefined;
    found = one;
  }
  return found;
}
