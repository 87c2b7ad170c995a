// Keys and sessions of a client host: they are its servers', and are asked for there by Consul's API.
import { InputError, TrilithError } from "../../base/error.ts";
import type { HttpResponse } from "../../base/http.ts";
import type { Ask, Servers } from "../../base/servers.ts";
import type { Kv, KvSet } from "../../contracts/kv.ts";
import { SessionRefused, type SessionRequest } from "../../contracts/session.ts";
import type { Entry } from "../../model/record.ts";
import { parseGoDuration } from "../../wire/duration.ts";
import type { RunningSessions } from "../session.ts";

interface PairJson {
  readonly Key: string;
  readonly Value: string | null;
  /** Its digits where it is beyond 2^53. */
  readonly Flags: number | string;
  readonly LockIndex: number;
  readonly Session?: string;
  readonly CreateIndex: number;
  readonly ModifyIndex: number;
}
interface SessionJson {
  readonly ID: string;
  readonly Name: string;
  readonly Node: string;
  /** Nanoseconds. */
  readonly LockDelay: number;
  readonly Behavior: string;
  readonly TTL: string;
  readonly NodeChecks: readonly string[] | null;
  readonly ServiceChecks: readonly { readonly ID: string; readonly Namespace?: string }[] | null;
  readonly CreateIndex: number;
  readonly ModifyIndex: number;
}

/** An answer with its text. @throws TrilithError `unavailable` where nobody answers */
async function told(
  servers: Servers,
  ask: Ask,
  once = false,
): Promise<{ readonly status: number; readonly text: string }> {
  const answer: HttpResponse = await servers.ask(ask, once);
  return { status: answer.status, text: await answer.text() };
}

/** What a server's refusal means here. */
function refusal(
  servers: Servers,
  what: string,
  { status, text }: { readonly status: number; readonly text: string },
): TrilithError {
  const said = `${what} at ${servers.current}: ${text.slice(0, 300) || `status ${status}`}`;
  if (status === 413) return new TrilithError("too-large", said);
  if (status === 400) return new TrilithError("invalid", said);
  if (status === 403) return new TrilithError("not-allowed", said);
  return new TrilithError("unavailable", said);
}

function parsed<T>(servers: Servers, what: string, text: string): T {
  try {
    return JSON.parse(text) as T;
  } catch (error) {
    throw new TrilithError("unavailable", `${what} at ${servers.current}: the answer is not JSON`, error);
  }
}

/** Keys at these servers. `ofConsul`: whether they are real Consul agents, which know no times to live. */
export function kvAt(servers: Servers, ofConsul: () => boolean): Kv {
  const pathOf = (key: string): string => {
    if (key === "") throw new InputError("key", "must not be empty");
    // With its slashes escaped nobody takes it for a path that is to be cleaned.
    return `/v1/kv/${encodeURIComponent(key)}`;
  };
  const yes = async (what: string, ask: Ask): Promise<boolean> => {
    const answer = await told(servers, ask, true);
    if (answer.status === 200) return answer.text.trim() === "true";
    if (/invalid session|missing session/.test(answer.text)) throw new InputError("acquire", answer.text);
    throw refusal(servers, what, answer);
  };
  const here = (what: string): never => {
    throw new TrilithError(
      "unsupported",
      `this host is only a client and holds no keys: ${what} works at ${servers.current} alone; read, set and delete ask there`,
    );
  };
  return {
    get: () => here("get"),
    planSet: () => here("planSet"),
    planDelete: () => here("planDelete"),
    async read(key, signal) {
      const what = `key ${JSON.stringify(key)}`;
      const answer = await told(servers, { path: pathOf(key), ...(signal === undefined ? {} : { signal }) });
      if (answer.status === 404) return undefined;
      if (answer.status !== 200) throw refusal(servers, what, answer);
      const [pair] = parsed<PairJson[]>(servers, what, answer.text.replace(/("Flags":\s*)(\d{16,})/g, '$1"$2"'));
      return pair === undefined ? undefined : pairOf(pair);
    },
    async set(key, value, { flags, cas, acquire, release, ttlMs }: KvSet = {}) {
      if (ttlMs !== undefined && ofConsul())
        throw new TrilithError("unsupported", `${servers.current} is a Consul agent: its keys know no time to live`);
      const query = new URLSearchParams();
      for (const [name, given] of Object.entries({ flags, cas, acquire, release }))
        if (given !== undefined) query.set(name, String(given));
      if (ttlMs !== undefined) query.set("ttl", `${ttlMs}ms`);
      return yes(`key ${JSON.stringify(key)}`, { method: "PUT", path: `${pathOf(key)}?${query}`, body: value });
    },
    async delete(key, { cas } = {}) {
      const query = cas === undefined ? "" : `?cas=${cas}`;
      return yes(`key ${JSON.stringify(key)}`, { method: "DELETE", path: pathOf(key) + query });
    },
    async deleteTree(prefix) {
      const path = prefix === "" ? "/v1/kv/" : pathOf(prefix);
      await yes(`keys below ${JSON.stringify(prefix)}`, { method: "DELETE", path: `${path}?recurse` });
    },
  };
}

function pairOf(pair: PairJson): Entry<"kv"> {
  return {
    key: pair.Key,
    value: Buffer.from(pair.Value ?? "", "base64"),
    flags: BigInt(pair.Flags),
    lockIndex: pair.LockIndex,
    ...(pair.Session === undefined ? {} : { session: pair.Session }),
    createIndex: pair.CreateIndex,
    modifyIndex: pair.ModifyIndex,
  };
}

/** Sessions made, renewed and ended at these servers; `own` answers the rest. */
export function sessionsAt(servers: Servers, own: RunningSessions): RunningSessions {
  const bare = {
    start: () => own.start(),
    stop: () => own.stop(),
    living: own.living.bind(own),
    list: own.list.bind(own),
    settled: own.settled.bind(own),
  };
  return {
    ...bare,
    async create(request) {
      const answer = await told(
        servers,
        { method: "PUT", path: "/v1/session/create", body: JSON.stringify(bodyOf(request)) },
        true,
      );
      if (answer.status === 200) return parsed<{ ID: string }>(servers, "the session", answer.text).ID;
      if (/Missing node registration/.test(answer.text))
        throw new SessionRefused({ kind: "node-missing", node: request.node });
      const check = /Missing check '(.*)' registration/.exec(answer.text)?.[1];
      if (check !== undefined) throw new SessionRefused({ kind: "check-missing", check });
      const critical = /Check '(.*)' is in critical state/.exec(answer.text)?.[1];
      if (critical !== undefined) throw new SessionRefused({ kind: "check-critical", check: critical });
      throw refusal(servers, "the session", answer);
    },
    async destroy(id) {
      const answer = await told(servers, { method: "PUT", path: `/v1/session/destroy/${encodeURIComponent(id)}` });
      if (answer.status !== 200) throw refusal(servers, `session ${id}`, answer);
    },
    async renew(id) {
      const answer = await told(servers, { method: "PUT", path: `/v1/session/renew/${encodeURIComponent(id)}` });
      if (answer.status === 404) return undefined;
      if (answer.status !== 200) throw refusal(servers, `session ${id}`, answer);
      const [session] = parsed<SessionJson[]>(servers, `session ${id}`, answer.text);
      return session === undefined ? undefined : sessionOf(session);
    },
  };
}

function bodyOf(request: SessionRequest): object {
  return {
    Name: request.name,
    Node: request.node,
    LockDelay: `${request.lockDelayMs}ms`,
    Behavior: request.behavior,
    ...(request.ttlMs === undefined ? {} : { TTL: `${request.ttlMs}ms` }),
    NodeChecks: request.nodeChecks,
    ...(request.serviceChecks.length === 0
      ? {}
      : { ServiceChecks: request.serviceChecks.map(({ id, namespace }) => ({ ID: id, Namespace: namespace })) }),
    ...((request.checks?.length ?? 0) === 0 ? {} : { Checks: request.checks }),
  };
}

function sessionOf(session: SessionJson): Entry<"session"> {
  return {
    id: session.ID,
    name: session.Name,
    node: session.Node,
    lockDelayMs: session.LockDelay / 1e6,
    behavior: session.Behavior === "delete" ? "delete" : "release",
    ...(session.TTL === "" ? {} : { ttlMs: parseGoDuration(session.TTL) }),
    nodeChecks: session.NodeChecks ?? [],
    serviceChecks: (session.ServiceChecks ?? []).map(({ ID, Namespace = "" }) => ({ id: ID, namespace: Namespace })),
    createIndex: session.CreateIndex,
    modifyIndex: session.ModifyIndex,
  };
}
