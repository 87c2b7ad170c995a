// From server sets to registrations on external nodes, and why what is missing went. Pure.
import { hostPort } from "../../base/net.ts";
import type { View } from "../../contracts/directory.ts";
import { agentIds, firstHandPlaces, nodeAt, placeOf } from "../../contracts/second-hand.ts";
import type { SourceList } from "../../contracts/source.ts";
import { goneKeyOf, type Registration } from "../../model/instance.ts";
import { fromLabels } from "../../model/label-tags.ts";
import type { Labels } from "../../model/node.ts";
import type { Reason } from "../../model/reason.ts";
import type { SetRule } from "./config.ts";
import type { Member, MemberEndpoint } from "./member.ts";
import type { Picture, SetPicture, Unread } from "./sets.ts";
import { weightOf } from "./vector.ts";

export const SOURCE = "zookeeper";
/** The metadata by which Triliths know their own members: the writing node's ID, and which of its instances it is. */
export const MARK = "trilith";
export const MARK_ID = "trilith-id";
/** Labels with which an instance says how it is written; not for others. */
const CONTROL = "zookeeper-";
/** The label that holds the path of the set. */
const SET = "zookeeper-set";
const SHARD = "shard";

/** What of an instance's labels and tags others are told. */
export const isTold = (key: string): boolean => !key.startsWith(CONTROL) && key !== MARK && key !== MARK_ID;

/** One endpoint of a member, as what it is an instance of. */
interface Offer {
  readonly service: string;
  /** "" = the service endpoint. */
  readonly endpoint: string;
  readonly at: MemberEndpoint;
}

/** The name of a set's service. */
function serviceOf({ path, stars, rule }: Pick<SetPicture, "path" | "stars" | "rule">): string {
  if (rule.service === undefined) return path.slice(path.lastIndexOf("/") + 1);
  return rule.service.replace(/\{(\d+)\}/g, (_, digits: string) => stars[Number(digits) - 1] ?? "");
}

function offersOf(service: string, { endpoint, endpoints }: SetRule, member: Member): readonly Offer[] {
  const offers: Offer[] = [];
  const main = endpoint === undefined ? member.serviceEndpoint : member.additionalEndpoints.get(endpoint);
  if (main !== undefined) offers.push({ service, endpoint: endpoint ?? "", at: main });
  if (endpoints === false) return offers;
  for (const [name, at] of member.additionalEndpoints) {
    if (name === endpoint) continue;
    const other = endpoints === true ? `${service}-${name}` : Object.hasOwn(endpoints, name) ? endpoints[name] : "";
    if (other !== undefined && other !== "") offers.push({ service: other, endpoint: name, at });
  }
  return offers;
}

/** What stands for an endpoint over all sets and lives of a member, so that one that joins anew is the same instance. */
function keyOf(path: string, { endpoint, at }: Offer): string {
  return `${path}${endpoint === "" ? "" : `#${endpoint}`}:${at.port}`;
}

function registrationOf(set: SetPicture, name: string, member: Member, offer: Offer, view: View): Registration {
  const { [MARK]: mark, [MARK_ID]: _, ...metadata } = member.metadata;
  const told = mark === undefined ? { labels: metadata as Labels, tags: [] } : fromLabels(metadata as Labels);
  const labels: Record<string, string> = Object.assign(Object.create(null), told.labels);
  if (member.shard !== undefined) labels[SHARD] = String(member.shard);
  labels[SET] = set.path;
  return {
    id: keyOf(set.path, offer),
    name: offer.service,
    tags: [...new Set([...set.rule.tags, ...told.tags])],
    labels,
    address: "",
    port: offer.at.port,
    checks: [],
    foreignId: `${set.path}/${name}${offer.endpoint === "" ? "" : `#${offer.endpoint}`}`,
    text: `${hostPort(offer.at.host, offer.at.port)}, ${name} of the server set ${set.path}`,
    external: { node: nodeAt(offer.at.host, SOURCE, view) },
  };
}

/** What the sets state together. `before`: the registrations of the last list, for the reasons. */
export function sourceListOf(
  { sets, unread }: Picture,
  view: View,
  before: ReadonlyMap<string, Registration>,
  nowMs: number,
): SourceList {
  const list = new Map<string, Registration>();
  const gone = new Map<string, Reason>();
  const complaints: { about: string; text: string }[] = [];
  const reason = (key: string, code: Reason["code"], text: string, confirmed: boolean): void => {
    if (before.has(key)) gone.set(key, { code, text, confirmed, atMs: nowMs });
  };
  const agents = agentIds(view);
  const known = new Map<string, ReadonlySet<string>>();
  const isKnown = (service: string, { host, port }: MemberEndpoint): boolean => {
    const places = known.get(service) ?? firstHandPlaces(view, service);
    known.set(service, places);
    return places.has(placeOf(host, port));
  };
  const owners = new Map<string, SetRule>();
  for (const one of unread) complaints.push({ about: nameOf(one), text: unreadText(one) });
  const weights = new Map<string, number>();
  // Where two rules speak of one set, the one that names it counts before one with "*".
  for (const set of sets.toSorted((a, b) => a.stars.length - b.stars.length)) {
    for (const { name, text } of set.faults) complaints.push({ about: `${set.path}/${name}`, text: faultText(text) });
    const service = serviceOf(set);
    // Of two members with one endpoint, which joined one after the other, the later one counts.
    for (const { name, member } of set.members)
      for (const offer of offersOf(service, set.rule, member)) {
        const r = registrationOf(set, name, member, offer, view);
        const key = goneKeyOf(r);
        const where = hostPort(offer.at.host, offer.at.port);
        const mark = member.metadata[MARK];
        const owner = owners.get(key) ?? set.rule;
        if (owner !== set.rule) continue;
        if (member.status !== "ALIVE") {
          if (!list.has(key)) reason(key, "goodbye", `${name} of ${set.path} says ${member.status}`, true);
        } else if (mark !== undefined && agents.has(mark))
          reason(key, "replaced", `${where} is told by its own agent`, true);
        else if (isKnown(r.name, offer.at)) reason(key, "replaced", `${where} is known at first hand`, true);
        else {
          list.set(key, r);
          weights.set(key, weightOf(set.vectors, { name, member, at: offer.at }));
          owners.set(key, set.rule);
          gone.delete(key);
        }
      }
  }
  for (const [key, r] of before) {
    if (list.has(key) || gone.has(key)) continue;
    const path = setOf(r);
    const set = sets.find((one) => one.path === path);
    reason(key, "missing", `${r.foreignId ?? r.id} is ${set?.there === false ? "gone with its set" : "gone"}`, false);
  }
  return { list: weighed(list, weights), authority: "second-hand", gone, complaints };
}

/** What is wrong with a znode of a set. */
export const faultText = (text: string): string => `is left out: ${text}`;

/** What an `Unread` is about, and what follows from it. */
export const nameOf = ({ rule, path }: Unread): string => path ?? rule.path;
export const unreadText = ({ text }: Unread): string => `cannot be read, what is known stays: ${text}`;

/** Weights are whole numbers here: of a service with others they count a hundredfold. */
const FRACTIONS = 100;
const MOST_WEIGHT = 65_535;

/** With the weights that vectors give; of weight 0 nothing is to be called any more. */
function weighed(
  list: ReadonlyMap<string, Registration>,
  weights: ReadonlyMap<string, number>,
): readonly Registration[] {
  const weightsOf = new Map<string, number[]>();
  for (const [key, { name }] of list) {
    const known = weightsOf.get(name);
    if (known === undefined) weightsOf.set(name, [weights.get(key) ?? 1]);
    else known.push(weights.get(key) ?? 1);
  }
  return [...list].map(([key, r]) => {
    const all = weightsOf.get(r.name) ?? [];
    const weight = weights.get(key) ?? 1;
    if (all.every((each) => each === 1)) return r;
    if (weight === 0) return { ...r, draining: true };
    const factor = all.every(Number.isInteger) ? 1 : FRACTIONS;
    const whole = Math.min(MOST_WEIGHT, Math.max(1, Math.round(weight * factor)));
    return { ...r, weights: { passing: whole, warning: whole } };
  });
}

/** Whether a rule speaks of a set, so that what was last known of it stands until it is read. */
export function isRuled(r: Registration, rules: readonly SetRule[]): boolean {
  const parts = setOf(r).split("/");
  return rules.some(({ path }) => {
    const wanted = path.split("/");
    return wanted.length === parts.length && wanted.every((part, i) => part === "*" || part === parts[i]);
  });
}

/** The path of the set that a registration came from. */
export const setOf = ({ labels }: Registration): string => labels[SET] ?? "";

/** Whether a registration came from what cannot be read now. `sets`: those that are known of the rule. */
export function isUnread(r: Registration, { rule, path }: Unread, sets: readonly SetPicture[]): boolean {
  if (path !== undefined) return setOf(r) === path;
  return isRuled(r, [rule]) && !sets.some((set) => set.rule !== rule && set.path === setOf(r));
}
