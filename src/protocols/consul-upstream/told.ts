// What a Consul tells of one instance, and the registration that becomes of it. Pure.
import type { View } from "../../contracts/directory.ts";
import { agentIds, firstHandPlaces, nodeNameFor, placeOf } from "../../contracts/second-hand.ts";
import type { CheckSpec } from "../../model/check.ts";
import type { Registration } from "../../model/instance.ts";
import type { Labels } from "../../model/node.ts";
import { keyOf } from "../../model/record.ts";
import {
  type CatalogCheck,
  type CatalogService,
  CLIENT_META,
  checkFactsFrom,
  isDrainCheck,
  type Json,
  labelsFrom,
  ORIGIN_META,
  object,
  serviceFrom,
  text,
  WITNESSED_META,
} from "../../wire/consul-catalog.ts";
import type { UpstreamConfig } from "./config.ts";

/** The source's name in the directory. */
export const SOURCE = "consul-upstream";
/** The label of external nodes that came from an upstream: agents that read each other do not hand them back. */
const MARK = "trilith-upstream";

/** One instance as /v1/health/service tells it. */
export interface Told {
  readonly node: { readonly name: string; readonly id: string; readonly address: string; readonly labels: Labels };
  readonly service: CatalogService;
  /** Of the instance and of its node. */
  readonly checks: readonly CatalogCheck[];
  readonly draining: boolean;
}

/** Reads one entry of /v1/health/service; undefined for what is none. */
export function toldFrom(entry: unknown): Told | undefined {
  const { Node, Service, Checks } = object(entry);
  const node = object(Node);
  const service = serviceFrom(object(Service));
  const name = text(node["Node"]);
  if (name === "" || service.id === "" || service.name === "") return undefined;
  const checks = (Array.isArray(Checks) ? Checks : []).map((each) => object(each));
  return {
    node: { name, id: text(node["ID"]), address: text(node["Address"]), labels: labelsFrom(node["Meta"]) },
    service: { ...service, port: Number.isInteger(service.port) ? service.port : 0 },
    checks: checks.filter((each: Json) => !isDrainCheck(each)).map(checkFactsFrom),
    draining: checks.some(isDrainCheck),
  };
}

/** What the labels of a node keep: not what Consul's agents and client hosts write there for themselves. */
function nodeLabels(meta: Labels, upstream: string): Labels {
  const labels: Record<string, string> = Object.create(null);
  for (const [key, label] of Object.entries(meta))
    if (
      !key.startsWith("consul-") &&
      !key.startsWith(WITNESSED_META) &&
      ![CLIENT_META, ORIGIN_META, "external-node"].includes(key)
    )
      labels[key] = label;
  labels[MARK] = upstream;
  return labels;
}

/** A check as it stands there; it never changes by itself. */
function specOf(id: string, { name, status, notes, output, foreign }: CatalogCheck): CheckSpec {
  return {
    ...{ id, name, notes: output === "" ? notes : output, kind: "none", detail: null, intervalMs: 0, timeoutMs: 0 },
    initial: status,
    ...(foreign === undefined ? {} : { foreign }),
  };
}

/** A text without blanks, and back: unlike percent encoding it takes whatever somebody calls a service. */
const coded = (plain: string): string =>
  plain.replace(/[%\s]/g, (sign) => `%${sign.charCodeAt(0).toString(16).padStart(4, "0")}`);
const decoded = (text: string): string =>
  text.replace(/%([0-9a-f]{4})/g, (_, code: string) => String.fromCharCode(Number.parseInt(code, 16)));

/** What an upstream's instance is called here and there: "<upstream> <service, coded> <node>/<id>". */
function foreignIdOf(upstream: string, { node, service }: Told): string {
  return `${upstream} ${coded(service.name)} ${placeOn(node.name, service.id)}`;
}

const placeOn = (node: string, id: string): string => `${node}/${id}`;

/** Where a registration came from: the service's name there, and its node and ID; undefined for other upstreams'. */
export function originOf(
  upstream: string,
  { foreignId = "" }: Pick<Registration, "foreignId">,
): { readonly service: string; readonly place: string } | undefined {
  const [, name, service = "", place = ""] = /^(\S+) (\S+) (.*)$/s.exec(foreignId) ?? [];
  return name === upstream ? { service: decoded(service), place } : undefined;
}

/** Node and ID of what is told, as `originOf` gives them. */
export const placeOfTold = ({ node, service }: Told): string => placeOn(node.name, service.id);

const addressOf = ({ node, service }: Told): string => (service.address === "" ? node.address : service.address);

/** Which of what an upstream tells is news here: neither what hosts of this directory tell themselves, nor what came here from elsewhere before. */
export function isNews(view: View, upstream: UpstreamConfig): (told: Told) => boolean {
  const agents = agentIds(view);
  const places = new Map<string, ReadonlySet<string>>();
  return (told) => {
    const { node, service } = told;
    if (node.labels[MARK] !== undefined || (node.id !== "" && agents.has(node.id))) return false;
    const name = upstream.prefix + service.name;
    const known = places.get(name) ?? firstHandPlaces(view, name);
    places.set(name, known);
    return service.port === 0 || !known.has(placeOf(addressOf(told), service.port));
  };
}

/** One instance on the external node that its node is here. */
export function registrationOf(told: Told, upstream: UpstreamConfig, view: View): Registration {
  const { node, service, checks, draining } = told;
  const { name, prefix, tags, labels } = upstream;
  const own = checks.filter(({ serviceId }) => serviceId !== "");
  // Checks of the node count for each of its instances; while they pass they say nothing.
  const ofNode = checks.filter(({ serviceId, status }) => serviceId === "" && status !== "passing");
  return {
    ...service,
    name: prefix + service.name,
    // Said in so many words: nodes of two upstreams may have one name, and are one node here.
    address: addressOf(told),
    tags: [...service.tags, ...tags.filter((tag) => !service.tags.includes(tag))],
    labels: Object.assign(Object.create(null), labels, service.labels),
    ...(draining ? { draining } : {}),
    checks: [
      ...own.map((check) => specOf(check.id, check)),
      ...ofNode.map((check) => specOf(`${check.id}:${service.id}`, check)),
    ],
    foreignId: foreignIdOf(name, told),
    text: `${service.id} on ${node.name}, from the Consul "${name}"`,
    external: {
      node: {
        name: nodeNameFor(prefix + node.name, SOURCE, view),
        address: node.address,
        labels: nodeLabels(node.labels, name),
      },
    },
  };
}

/** What an earlier life of this agent stated, with the checks as they stood. */
export function withChecks(view: View, registration: Registration): Registration {
  const checks: CheckSpec[] = [];
  for (const check of view.list("check", keyOf.ofNode(registration.external?.node.name ?? "")))
    if (check.serviceId === registration.id && check.origin?.source === SOURCE)
      checks.push(specOf(check.id, { ...check, type: "" }));
  return { ...registration, checks };
}
