// The routes of the API: a table of verbs, one handler in front of them.

import { drained } from "../../base/drained.ts";
import { InputError, messageOf, TrilithError } from "../../base/error.ts";
import type { Handler, IncomingMessage, ServerResponse } from "../../base/http.ts";
import { ownAddresses } from "../../base/networks.ts";
import { callerOf, decodeName, sendJson } from "../../base/requests.ts";
import type { Ground } from "../../contracts/ground.ts";
import { NODE_MAINTENANCE_CHECK, SERVICE_MAINTENANCE_CHECK, type Status, worst } from "../../model/check.ts";
import type { Query } from "../../model/query.ts";
import { authorizeWrite } from "./authorize.ts";
import { diagnose } from "./doctor.ts";
import { errorReply, MethodError } from "./errors.ts";
import { overrideOf, overridesOf, undoOf } from "./override.ts";
import { flag, onlyKnown, queryOf } from "./query.ts";
import { findJson, type ListedJson, type ListJson, type OwnHost } from "./shapes.ts";
import { whyOf } from "./why.ts";

/** What this protocol is handed. */
export const NEEDS = [
  "clock",
  "log",
  "directory",
  "agent",
  "net",
  "lookup",
  "self",
  "sources",
  "answers",
  "dataTrouble",
] as const;
export type ApiGround = Pick<Ground, (typeof NEEDS)[number]>;

/** One request to one verb. */
interface Call {
  readonly ground: ApiGround;
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** What follows the verb in the path, decoded; "" = nothing. */
  readonly name: string;
  readonly parameters: URLSearchParams;
  /** Aborted when the client goes away. */
  readonly signal: AbortSignal;
}

interface Verb {
  readonly method: "GET" | "POST" | "PUT" | "DELETE";
  /** What the path names behind the verb; absent = nothing may follow. */
  readonly names?: "a service" | "a service's ID" | "an instance, service or container";
  /** Resolves to the JSON of the answer; undefined = it has answered by itself. */
  run(call: Call): Promise<unknown> | unknown;
}

/** A caller of `find` waits at most so long for others to be asked. */
const RESOLVE_MS = 10_000;
const SERVICES_PER_TURN = 500;
const OVERRIDDEN = "an instance, service or container";

/** The verbs, each with what its methods do. */
const VERBS: ReadonlyMap<string, readonly Verb[]> = new Map<string, readonly Verb[]>([
  ["find", [{ method: "GET", names: "a service", run: find }]],
  ["follow", [{ method: "GET", names: "a service", run: follow }]],
  ["list", [{ method: "GET", run: list }]],
  ["why", [{ method: "GET", names: "a service", run: why }]],
  ["doctor", [{ method: "GET", run: doctor }]],
  ["release", [{ method: "POST", names: "a service", run: release }]],
  ["drain", [{ method: "POST", names: "a service's ID", run: drain }]],
  ["overrides", [{ method: "GET", run: ({ ground }) => overridesOf(ground) }]],
  [
    "override",
    [
      { method: "PUT", names: OVERRIDDEN, run: ({ ground, request, name }) => overrideOf(ground, request, name) },
      { method: "DELETE", names: OVERRIDDEN, run: ({ ground, name }) => undoOf(ground, name) },
    ],
  ],
]);

/** The handler of everything below `prefix`. */
export function createHandler(prefix: string, token: () => string | undefined, ground: ApiGround): Handler {
  const log = ground.log.part("api");
  return async (request, response) => {
    const gone = new AbortController();
    response.once("close", () => gone.abort(new TrilithError("stopped", "the caller has gone away")));
    let pretty = false;
    try {
      const { verb, call } = route(prefix, request, response, ground, gone.signal);
      pretty = call.parameters.has("pretty");
      if (verb.method !== "GET") authorizeWrite(request, token());
      // Of bodies that nobody reads what comes is let through, so that the connection can be used again.
      if (verb.method !== "PUT") request.resume();
      const json = await verb.run(call);
      if (json !== undefined) sendJson(response, 200, json, pretty);
    } catch (error) {
      request.resume();
      if (gone.signal.aborted) return;
      const { status, body } = errorReply(error);
      if (status === 500) log.error(`${request.method} ${request.url}: ${messageOf(error)}`);
      if (response.headersSent) {
        response.destroy();
        return;
      }
      if (error instanceof MethodError) response.setHeader("allow", error.allow);
      sendJson(response, status, body, pretty);
    }
  };
}

function route(
  prefix: string,
  request: IncomingMessage,
  response: ServerResponse,
  ground: ApiGround,
  signal: AbortSignal,
): { readonly verb: Verb; readonly call: Call } {
  const url = request.url ?? "";
  const mark = url.indexOf("?");
  const path = mark === -1 ? url : url.slice(0, mark);
  const below = path.slice(prefix.length);
  const slash = below.indexOf("/");
  const word = slash === -1 ? below : below.slice(0, slash);
  const verbs = VERBS.get(word);
  if (verbs === undefined)
    throw new TrilithError(
      "not-found",
      `nothing is at ${path}: there are ${[...VERBS.keys()].map((each) => prefix + each).join(", ")}`,
    );
  const verb = verbs.find(({ method }) => method === request.method);
  if (verb === undefined)
    throw new MethodError(request.method ?? "?", prefix + word, verbs.map(({ method }) => method).join(", "));
  const name = slash === -1 ? "" : decodeName(below.slice(slash + 1));
  if (verb.names !== undefined && name === "")
    throw new InputError(path, `expected the name of ${verb.names} behind it: ${prefix}${word}/NAME`);
  if (verb.names === undefined && name !== "") throw new InputError(path, `expected nothing behind ${prefix}${word}`);
  const parameters = new URLSearchParams(mark === -1 ? "" : url.slice(mark + 1));
  return { verb, call: { ground, request, response, name, parameters, signal } };
}

/** The query of a call; who does not say who asks is the caller. */
function queryFor({ name, parameters, request }: Call): Query {
  return queryOf(name, parameters, callerOf(request));
}

/** This host, where the query is about its own datacenter: another one may have a node of the same name. */
function ownHost({ ground: { agent, self, net } }: Call, { datacenter }: Query): OwnHost | undefined {
  if ((datacenter ?? self.datacenter).toLowerCase() !== self.datacenter.toLowerCase()) return undefined;
  return { node: agent.node, isOwn: ownAddresses(() => net.interfaces()) };
}

async function find(call: Call): Promise<unknown> {
  const query = queryFor(call);
  const limit = new AbortController();
  const timer = call.ground.clock.after(RESOLVE_MS, () =>
    limit.abort(new TrilithError("timeout", "asking others took too long")),
  );
  try {
    mustBeKnown(call.ground.self, query.datacenter);
    const answer = await call.ground.lookup.resolve(query, AbortSignal.any([call.signal, limit.signal]));
    return findJson(query.service, answer, ownHost(call, query));
  } finally {
    timer.cancel();
  }
}

/** @throws TrilithError `not-found` for a datacenter that nobody can be asked about: "no such service" would be something else */
function mustBeKnown({ datacenter, datacenters = [], joined }: ApiGround["self"], asked = ""): void {
  const name = asked.toLowerCase();
  const known = [datacenter, ...datacenters];
  if (name === "" || joined === true || known.some((one) => one.toLowerCase() === name)) return;
  throw new TrilithError(
    "not-found",
    `datacenter "${asked}" is not known here; known ${known.length === 1 ? "is" : "are"} ${known.map((one) => `"${one}"`).join(", ")}`,
  );
}

/** One line of JSON per change (or one event, for `Accept: text/event-stream`), until the caller goes away. */
async function follow(call: Call): Promise<undefined> {
  const { response, signal, request } = call;
  const query = queryFor(call);
  mustBeKnown(call.ground.self, query.datacenter);
  const events = /\btext\/event-stream\b/.test(request.headers.accept ?? "");
  response.writeHead(200, {
    "content-type": events ? "text/event-stream; charset=utf-8" : "application/x-ndjson; charset=utf-8",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
  });
  response.flushHeaders();
  for await (const answer of call.ground.lookup.follow(query, signal)) {
    const line = JSON.stringify(findJson(query.service, answer, ownHost(call, query)));
    // A reader that does not keep up gets the latest state when it is ready again, not every state in between.
    if (!response.write(events ? `data: ${line}\n\n` : `${line}\n`)) await drained(response, signal);
    if (signal.aborted) return undefined;
  }
  response.end();
  return undefined;
}

async function list({ ground, parameters, signal }: Call): Promise<ListJson> {
  onlyKnown(parameters, []);
  ownDatacenter(ground, parameters);
  const view = ground.directory.view();
  const held = new Map(
    ground.lookup.held().map(({ service, instances }) => [service.toLowerCase(), { service, instances }]),
  );
  const services: ListedJson[] = [];
  const add = (name: string): void => {
    const counts: Record<Status | "draining" | "maintenance", number> = {
      passing: 0,
      warning: 0,
      critical: 0,
      draining: 0,
      maintenance: 0,
    };
    const tags = new Set<string>();
    const residents = view.residents(name);
    for (const { instance, checks } of residents) {
      for (const tag of instance.tags) tags.add(tag);
      if (checks.some(isMaintenance)) counts.maintenance++;
      else if (instance.draining === true) counts.draining++;
      else counts[worst(checks)]++;
    }
    services.push({
      name,
      instances: residents.length,
      ...counts,
      held: held.get(name.toLowerCase())?.instances ?? 0,
      tags: [...tags].sort(),
    });
    held.delete(name.toLowerCase());
  };
  for (const name of view.serviceNames()) {
    add(name);
    if (services.length % SERVICES_PER_TURN === 0) {
      await ground.clock.yield();
      signal.throwIfAborted();
    }
  }
  // Services of which the guard alone still knows.
  for (const { service } of [...held.values()]) add(service);
  return {
    index: view.index,
    fresh: view.fresh,
    ageMs: view.fresh ? 0 : Math.max(0, Math.round(ground.clock.now() - view.asOfMs)),
    services,
  };
}

function isMaintenance({ id, status }: { readonly id: string; readonly status: Status }): boolean {
  return status === "critical" && (id === NODE_MAINTENANCE_CHECK || id.startsWith(SERVICE_MAINTENANCE_CHECK));
}

function why(call: Call): Promise<unknown> {
  const query = queryFor(call);
  ownDatacenter(call.ground, call.parameters);
  return whyOf(call.ground, query, call.signal);
}

function doctor({ ground, parameters, signal }: Call): Promise<unknown> {
  onlyKnown(parameters, []);
  ownDatacenter(ground, parameters);
  return diagnose(ground, signal);
}

function release({ ground, name, parameters }: Call): unknown {
  onlyKnown(parameters, []);
  return { service: name, released: ground.lookup.release(name) };
}

async function drain({ ground, name, parameters }: Call): Promise<unknown> {
  onlyKnown(parameters, ["off", "reason"]);
  const draining = !flag(parameters, "off");
  const reason = parameters.get("reason");
  await ground.agent.drain(name, draining, {
    code: "draining",
    text: reason === null || reason === "" ? "asked for through the API" : reason,
    confirmed: true,
    atMs: ground.clock.now(),
  });
  return { id: name, draining };
}

/** @throws TrilithError `not-found` for another datacenter: this agent tells only of its own */
function ownDatacenter({ self }: ApiGround, parameters: URLSearchParams): void {
  const asked = parameters.get("dc");
  if (asked !== null && asked !== "" && asked.toLowerCase() !== self.datacenter.toLowerCase())
    throw new TrilithError(
      "not-found",
      `datacenter "${asked}" is not known here; this agent is in "${self.datacenter}"`,
    );
}
