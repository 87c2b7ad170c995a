// Why an instance is, or is not, in an answer: one sentence for people.
import { type Check, NODE_ALIVE_CHECK, NODE_MAINTENANCE_CHECK } from "../model/check.ts";
import type { Resident } from "../model/instance.ts";
import type { Query, Verdict } from "../model/query.ts";
import { type Asker, chooseAddress, type Here } from "./address.ts";
import { admits, type Facts, isMeant, lackingLabel, lackingTag } from "./filter.ts";
import type { Hold } from "./guard.ts";
import type { Stale } from "./hearsay.ts";

/** The word by which the agent's history tells a drain. */
const DRAINING = "draining";

/** What the sentences are made from, besides the instance. */
export interface Standing {
  readonly query: Query;
  readonly asker: Asker | undefined;
  readonly here: Here;
  readonly hold: Hold | undefined;
  readonly panic: boolean;
  /** The agent's history of the service, newest first. */
  readonly history: readonly { readonly atMs: number; readonly id: string; readonly text: string }[];
  /** What a check of this host said last. */
  readonly outputOf: (check: Check) => string;
  /** Where an instance is only the last known good: how old, and who does not answer. */
  readonly staleAs: (resident: Resident) => Stale | undefined;
}

const OUTPUT_CHARACTERS = 200;

/** The verdict on one instance. `gone`: only the guard still knows it. */
export function explainOne(facts: Facts, standing: Standing, gone: boolean): Verdict {
  const stale = gone ? undefined : standing.staleAs(facts.resident);
  const verdict = verdictOn(facts, standing, gone, stale);
  return stale === undefined ? verdict : { ...verdict, stale };
}

function verdictOn(facts: Facts, standing: Standing, gone: boolean, stale: Stale | undefined): Verdict {
  const { resident } = facts;
  const { query } = standing;
  const out = (text: string): Verdict => ({ resident, included: false, text });
  const left = leftOut(facts, standing);
  if (left !== undefined) return out(left);
  const age = stale === undefined ? "" : ` (last known ${seconds(stale.ageMs)} ago: ${stale.text})`;
  const held = standing.hold?.members.get(facts.key);
  if (query.health !== "any" && held !== undefined) {
    const what = gone ? "no longer in the directory" : deciding(facts);
    const since = `held by the sharp-drop guard since ${time(standing.hold?.sinceMs ?? 0)}, at the latest until ${time(standing.hold?.untilMs ?? 0)}: ${standing.hold?.text}`;
    return admits(query.health, held) || standing.panic
      ? { resident, included: true, text: `${what}; ${since}` }
      : out(`${what}, and it was not passing before; ${since}`);
  }
  if (admits(query.health, facts)) return { resident, included: true, text: deciding(facts) + age };
  if (standing.panic && isMeant(facts))
    return {
      resident,
      included: true,
      text: `${deciding(facts)}; answered all the same, because too few instances are healthy (panic threshold)${age}`,
    };
  const asked = query.health === "passing" && facts.status === "warning" && isMeant(facts);
  return out(`${asked ? "only passing was asked for: " : ""}${deciding(facts, standing)}${age}`);
}

/** Why tags, labels or the network leave the instance out; undefined where they do not. */
function leftOut(facts: Facts, { query, asker, here }: Standing): string | undefined {
  const { instance } = facts.resident;
  const tag = lackingTag(query, facts.resident);
  if (tag !== undefined)
    return `lacks the tag "${tag}" (it has ${instance.tags.length === 0 ? "none" : instance.tags.map((t) => `"${t}"`).join(", ")})`;
  const label = lackingLabel(query, facts.resident);
  if (label !== undefined) {
    const wanted = `"${label}=${query.labels?.[label]}"`;
    return Object.hasOwn(instance.labels, label)
      ? `its label is "${label}=${instance.labels[label]}", asked for was ${wanted}`
      : `lacks the label ${wanted}`;
  }
  if (query.health === "any" || chooseAddress(facts.resident, asker, here, query.family) !== undefined)
    return undefined;
  return `listens only where ${asker === undefined ? "this host" : `the asker ${asker.text}`} cannot reach it (loopback or a bridge of node "${instance.node}")`;
}

/** The check, maintenance or drain that decides about the instance. */
function deciding(facts: Facts, standing?: Standing): string {
  const { instance, checks } = facts.resident;
  if (facts.maintenance !== undefined) {
    const { id, notes } = facts.maintenance;
    return `in maintenance${id === NODE_MAINTENANCE_CHECK ? ` with its node "${instance.node}"` : ""}${notes === "" ? "" : `: ${notes}`}`;
  }
  if (facts.draining) {
    const entry = standing?.history.find(({ id, text }) => id === instance.id && text.includes(DRAINING));
    return entry === undefined
      ? DRAINING
      : `${DRAINING} since ${time(entry.atMs)}: ${entry.text.replace(`is ${DRAINING}: `, "")}`;
  }
  if (facts.status === "passing")
    return checks.length === 0 ? "passing: it has no checks" : `passing: ${count(checks.length, "check")} passing`;
  const culprit = checks.find(({ status }) => status === facts.status);
  if (culprit === undefined) return facts.status;
  const output = (standing?.outputOf(culprit) ?? culprit.output).trim();
  const says =
    output === ""
      ? silence(culprit)
      : `says: ${output.length > OUTPUT_CHARACTERS ? `${output.slice(0, OUTPUT_CHARACTERS)}…` : output}`;
  const whose =
    culprit.serviceId === ""
      ? culprit.id === NODE_ALIVE_CHECK
        ? `the liveness check of node "${culprit.node}"`
        : `check "${culprit.id}" of node "${culprit.node}"`
      : `check "${culprit.id}"`;
  return `${facts.status}: ${whose} ${says}`;
}

/** The results of these have a text at all times. */
const SPEAKING: ReadonlySet<string> = new Set(["http", "tcp", "udp", "grpc", "h2ping"]);

/** Why a check says nothing. */
function silence({ id, type, intervalMs = 0 }: Check): string {
  if (type === "ttl")
    return `has no output: a TTL check is what its program says of it, by PUT /v1/agent/check/pass/${id}`;
  if (intervalMs > 0 && SPEAKING.has(type))
    return `has no result yet: the first comes within its interval (${seconds(intervalMs)})`;
  return "has no output";
}

function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

function seconds(ms: number): string {
  return `${Math.round(ms / 1000)} s`;
}

function time(atMs: number): string {
  return new Date(atMs).toISOString();
}
