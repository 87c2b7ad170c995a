// The JSON that this API answers, and how it is made from the lookup's, the agent's and the directory's answers.
import type { HeldCheck, HeldOverride } from "../../contracts/agent.ts";
import { newestOutput, type Status, worst } from "../../model/check.ts";
import type { Address, Resident } from "../../model/instance.ts";
import { tierOf } from "../../model/near.ts";
import type { Labels, Node } from "../../model/node.ts";
import type { Override } from "../../model/override.ts";
import type { Answer, Endpoint, Verdict } from "../../model/query.ts";
import type { Authority, Reason } from "../../model/reason.ts";
import type { Index } from "../../model/record.ts";

/** Where to connect. */
export interface EndpointJson {
  readonly address: string;
  readonly port: number;
  readonly weight: number;
  readonly node: string;
  readonly id: string;
  readonly status: Status;
  readonly tags: readonly string[];
  readonly labels: Labels;
  /** How near it is to the agent's own host: 0 on it, 1 in its zone, 2 elsewhere. Absent where no agent says. */
  readonly tier?: 0 | 1 | 2;
  /** Present while the guard keeps it in answers although its source no longer lists it. */
  readonly held?: true;
}

/** The answer of `find`, and each line of `follow`. */
export interface FindJson {
  readonly service: string;
  /** False: nothing of that name is known at all. */
  readonly known: boolean;
  /** False: the last one known good, `ageMs` old. */
  readonly fresh: boolean;
  readonly ageMs: number;
  readonly index: Index;
  readonly held?: { readonly since: string; readonly text: string };
  readonly panic?: true;
  readonly endpoints: readonly EndpointJson[];
}

/** One service of `list`. Every instance counts once: in maintenance, else draining, else by its checks. */
export interface ListedJson {
  readonly name: string;
  readonly instances: number;
  readonly passing: number;
  readonly warning: number;
  readonly critical: number;
  readonly draining: number;
  readonly maintenance: number;
  /** Kept in answers by the guard. */
  readonly held: number;
  readonly tags: readonly string[];
}

/** The answer of `list`. */
export interface ListJson {
  readonly index: Index;
  readonly fresh: boolean;
  readonly ageMs: number;
  readonly services: readonly ListedJson[];
}

/** A check that counts for an instance. */
interface CheckJson {
  readonly id: string;
  readonly name: string;
  readonly about: "service" | "node";
  readonly status: Status;
  readonly output: string;
  readonly notes: string;
  readonly type: string;
  readonly intervalMs?: number;
  readonly timeoutMs?: number;
  /** The last results, newest first; only for checks that this agent runs. */
  readonly history?: readonly { readonly at: string; readonly status: Status; readonly output: string }[];
}

/** One instance as `why` tells it. */
export interface InstanceJson {
  readonly id: string;
  readonly node: string;
  readonly nodeAddress: string;
  readonly address: string;
  readonly port: number;
  readonly addresses?: readonly Address[];
  readonly tags: readonly string[];
  readonly labels: Labels;
  readonly status: Status;
  readonly draining: boolean;
  /** Whether it is in the answer, and the sentence that says why. */
  readonly included: boolean;
  readonly why: string;
  /** Where it is only the last known good: how old, and who does not answer, and why. */
  readonly lastKnown?: { readonly ageMs: number; readonly text: string };
  readonly registeredBy: {
    readonly source: string;
    readonly authority: Authority;
    readonly foreignId?: string;
    readonly text?: string;
    /** What it was made from, as its author wrote it; known on its own host only. */
    readonly words?: readonly string[];
  };
  /** True on a node without an agent. */
  readonly external?: true;
  /** For an instance on an external node: the agents that see it. */
  readonly witnesses?: readonly string[];
  /** What operators said in place of its source, and what it was before. */
  readonly overridden?: { readonly by: readonly SaidJson[]; readonly original: Readonly<Record<string, unknown>> };
  readonly createIndex: Index;
  readonly modifyIndex: Index;
  readonly checks: readonly CheckJson[];
}

/** What an operator said in place of a source. */
export interface SaidJson {
  readonly for: string;
  readonly set: readonly string[];
  readonly by: string;
  /** When; absent for what stands in a file. */
  readonly at?: string;
}

/** An override with what it changes at present. */
export interface OverrideJson extends SaidJson {
  /** The source whose list states it; absent where somebody set it at run time. */
  readonly from?: string;
  readonly matches: HeldOverride["matches"];
  /** Something to know: that it is about nothing that is there. */
  readonly note?: string;
}

/** What was removed lately, as the directory remembers it. */
export interface GoneJson {
  readonly node?: string;
  readonly id?: string;
  readonly index: Index;
  readonly at?: string;
  readonly code?: Reason["code"];
  readonly text?: string;
  readonly confirmed?: boolean;
}

/** The answer of `why`. */
export interface WhyJson {
  readonly service: string;
  /** The node whose agent answers. */
  readonly node: string;
  readonly known: boolean;
  readonly fresh: boolean;
  readonly ageMs: number;
  readonly held?: { readonly since: string; readonly text: string };
  readonly panic?: true;
  readonly instances: readonly InstanceJson[];
  /** What came and went on this host, newest first. */
  readonly recent: readonly { readonly at: string; readonly id: string; readonly text: string }[];
  /** What was removed from the directory, newest first. */
  readonly gone: readonly GoneJson[];
  /** What sources could not take over and that has to do with the name. */
  readonly complaints: readonly { readonly from: string; readonly about: string; readonly text: string }[];
  /** What operators said about the name, about what bears it or about what its source calls so. */
  readonly overrides: readonly OverrideJson[];
  /** What each dialect would answer now, and to whom. */
  readonly answers: readonly { readonly protocol: string; readonly to: string; readonly text: string }[];
  /** Other names like it, or in which the asked one occurs, or which occur in it, where it is not known. */
  readonly similar: readonly string[];
}

/** The answer of `doctor`. */
export interface DoctorJson {
  readonly self: {
    readonly version: string;
    readonly node: string;
    readonly nodeId: string;
    readonly datacenter: string;
    readonly domain: string;
    readonly advertiseAddress: string;
    readonly bindAddress: string;
    readonly startedAt: string;
    readonly upMs: number;
    readonly dev: boolean;
    readonly compat: string;
    readonly scripts: { readonly fromApi: boolean; readonly fromFiles: boolean };
  };
  readonly listening: Readonly<Record<string, string>>;
  readonly sources: readonly {
    readonly name: string;
    readonly ok: boolean;
    readonly text: string;
    /** Of what it reads (names, files, paths …) what is not well, so that only the last known good of it is answered. */
    readonly unwell?: readonly { readonly name: string; readonly text: string }[];
  }[];
  readonly store: {
    readonly reachable: boolean;
    /** How long a linearizable read took. */
    readonly roundTripMs?: number;
    /** Why it could not be reached. */
    readonly error?: string;
    /** False while registrations and other writes are refused: the store is away, the disk is full, the data folder is gone. */
    readonly writable: boolean;
    readonly fresh: boolean;
    readonly asOf: string;
    readonly index: Index;
    readonly counts: Readonly<Record<string, number>>;
  };
  readonly held: readonly {
    readonly service: string;
    readonly since: string;
    readonly text: string;
    readonly instances: number;
  }[];
  readonly complaints: readonly { readonly from: string; readonly about: string; readonly text: string }[];
  readonly overrides: readonly OverrideJson[];
  /** Sentences about what is broken, or answered otherwise than it is; empty = all is well. */
  readonly warnings: readonly string[];
  /** Sentences about what is as somebody wanted it, and might be forgotten: a listener that other hosts reach, an override that changes nothing, nothing kept on disk. */
  readonly notes: readonly string[];
}

/** Milliseconds since the epoch as ISO 8601. */
export function time(atMs: number): string {
  return new Date(atMs).toISOString();
}

/** What the sharp-drop guard holds, as a field to spread; none where it holds nothing. */
export function heldJson(held: Answer["held"]): { held?: { since: string; text: string } } {
  return held === undefined ? {} : { held: { since: time(held.sinceMs), text: held.text } };
}

/** The agent's host: its node, and whether an IP address is the host's own (`ownAddresses`). */
export interface OwnHost {
  readonly node: Node;
  readonly isOwn: (address: string) => boolean;
}

/** `own`: the agent's host, where the answer is of its own datacenter. */
export function findJson(service: string, answer: Answer, own: OwnHost | undefined): FindJson {
  return {
    service,
    known: answer.known,
    fresh: answer.fresh,
    ageMs: Math.round(answer.ageMs),
    index: answer.index,
    ...heldJson(answer.held),
    ...(answer.panic === true ? { panic: true } : {}),
    endpoints: answer.endpoints.map((each) => endpointJson(each, own)),
  };
}

function endpointJson({ address, port, weight, resident, held }: Endpoint, own: OwnHost | undefined): EndpointJson {
  const { instance, checks } = resident;
  return {
    address,
    port,
    weight,
    node: instance.node,
    id: instance.id,
    status: worst(checks),
    tags: instance.tags,
    labels: instance.labels,
    tier: own === undefined ? 2 : tierOf(resident, own.node, address, own.isOwn),
    ...(held === true ? { held } : {}),
  };
}

/** What only an instance's own host, or a witness of it, knows. */
export interface KnownHere {
  readonly checks: ReadonlyMap<string, HeldCheck>;
  readonly words?: readonly string[] | undefined;
}

function saidJson({ for: target, set, by, atMs }: Override): SaidJson {
  return { for: target, set, by, ...(atMs === undefined ? {} : { at: time(atMs) }) };
}

/** An override, with what it changes at present. */
export function overrideJson(held: HeldOverride): OverrideJson {
  return {
    ...saidJson(held),
    ...(held.from === undefined ? {} : { from: held.from }),
    matches: held.matches,
    ...(held.matches.length > 0
      ? {}
      : { note: `nothing here is called "${held.for}" at present: it holds as soon as something is` }),
  };
}

/** An instance with the verdict on it. `here`: what only its own host knows. */
export function instanceJson(verdict: Verdict, here: KnownHere | undefined): InstanceJson {
  const { resident, included, text, stale } = verdict;
  const { instance, node, checks } = resident;
  const { source, authority, foreignId, text: words, overridden } = instance.origin;
  const witnesses = node.witnessed?.find(({ service }) => service === instance.id)?.by;
  return {
    id: instance.id,
    node: instance.node,
    nodeAddress: node.address,
    address: instance.address === "" ? node.address : instance.address,
    port: instance.port,
    ...(instance.addresses === undefined ? {} : { addresses: instance.addresses }),
    tags: instance.tags,
    labels: instance.labels,
    status: worst(checks),
    draining: instance.draining === true,
    included,
    why: text,
    ...(stale === undefined ? {} : { lastKnown: { ageMs: Math.round(stale.ageMs), text: stale.text } }),
    registeredBy: {
      source,
      authority,
      ...(foreignId === undefined ? {} : { foreignId }),
      ...(words === undefined ? {} : { text: words }),
      ...(here?.words === undefined ? {} : { words: here.words }),
    },
    ...(node.external === true ? { external: true } : {}),
    ...(witnesses === undefined ? {} : { witnesses }),
    ...(overridden === undefined
      ? {}
      : { overridden: { by: overridden.by.map(saidJson), original: { ...overridden.original } } }),
    createIndex: instance.createIndex,
    modifyIndex: instance.modifyIndex,
    checks: checks.map((check) => checkJson(check, here?.checks.get(check.id))),
  };
}

function checkJson(check: Resident["checks"][number], held: HeldCheck | undefined): CheckJson {
  return {
    id: check.id,
    name: check.name,
    about: check.serviceId === "" ? "node" : "service",
    status: check.status,
    output: newestOutput(check, held?.check),
    notes: check.notes,
    type: check.type,
    ...(check.intervalMs === undefined ? {} : { intervalMs: check.intervalMs }),
    ...(check.timeoutMs === undefined ? {} : { timeoutMs: check.timeoutMs }),
    ...(held === undefined
      ? {}
      : { history: held.history.map(({ atMs, status, output }) => ({ at: time(atMs), status, output })) }),
  };
}
