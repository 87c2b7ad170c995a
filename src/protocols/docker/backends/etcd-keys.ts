// Keys in etcd: by the v2 API that Registrator knows, or, where that is switched off, by v3 (its JSON gateway) under the same names.
import { messageOf, TrilithError } from "../../../base/error.ts";
import type { BackendGround } from "./backend.ts";
import { type Answer, ask, unexpected } from "./http.ts";

/** Keys with values and a time to live. Keys begin with "/". */
export interface EtcdKeys {
  /** Asks for the version, as Registrator's ping does. */
  ping(signal: AbortSignal): Promise<void>;
  get(key: string, signal: AbortSignal): Promise<string | undefined>;
  /** All keys below a prefix, which ends with "/". */
  list(prefix: string, signal: AbortSignal): Promise<readonly string[]>;
  put(key: string, value: string, signal: AbortSignal): Promise<void>;
  /** Another full time to live; written anew where it ran out. */
  refresh(key: string, value: string, signal: AbortSignal): Promise<void>;
  remove(key: string, signal: AbortSignal): Promise<void>;
}

type Json = Readonly<Record<string, unknown>>;
type Send = (method: string, path: string, signal: AbortSignal, body?: string, type?: string) => Promise<Answer>;

const DEFAULT_HOST = "127.0.0.1:2379";
const KEY_NOT_FOUND = 100;

function parse(answer: Answer): Json {
  try {
    const value: unknown = JSON.parse(answer.text);
    if (typeof value === "object" && value !== null) return value as Json;
  } catch (error) {
    throw new TrilithError("unavailable", `etcd: the answer is not JSON (${messageOf(error)})`, error);
  }
  throw new TrilithError("unavailable", "etcd: the answer is not an object");
}

/** etcd at "a:2379,b:2379", asked in that order, the one that answered last first. */
export function etcdKeys(hosts: string, ground: BackendGround): EtcdKeys {
  const members = (hosts || DEFAULT_HOST).split(",").map((host) => `http://${host}`);
  const send: Send = async (method, path, signal, body, type) => {
    let failure: unknown;
    for (const member of [...members]) {
      try {
        const headers = type === undefined ? {} : { headers: { "content-type": type } };
        const answer = await ask(
          ground,
          { url: member + path, method, ...headers, ...(body === undefined ? {} : { body }) },
          signal,
        );
        // A member without a leader, or one that is about to stop: another one may know more.
        if (answer.status < 500) return answer;
        failure = unexpected("etcd: ", answer);
      } catch (error) {
        if (signal.aborted) throw error;
        failure = error;
      }
      members.push(...members.splice(members.indexOf(member), 1));
    }
    throw failure;
  };
  let speaking: Spoken | undefined;
  const speak = async (signal: AbortSignal): Promise<Spoken> => {
    if (speaking === undefined) {
      const probe = await send("GET", "/v2/keys/", signal);
      // Where v2 is off there is a bare 404 page; v2's own refusals are JSON with an errorCode.
      const v2 = probe.status === 200 || probe.text.includes('"errorCode"');
      speaking = v2 ? version2(send, ground.ttlSeconds) : await version3(send, ground.ttlSeconds, signal);
    }
    return speaking;
  };
  return {
    async ping(signal) {
      const answer = await send("GET", "/version", signal);
      if (answer.status !== 200) throw unexpected("", answer);
      await speak(signal);
    },
    get: async (key, signal) => (await speak(signal)).get(key, signal),
    list: async (prefix, signal) => (await speak(signal)).list(prefix, signal),
    put: async (key, value, signal) => (await speak(signal)).put(key, value, signal),
    refresh: async (key, value, signal) => (await speak(signal)).refresh(key, value, signal),
    remove: async (key, signal) => (await speak(signal)).remove(key, signal),
  };
}

type Spoken = Omit<EtcdKeys, "ping">;

function version2(send: Send, ttlSeconds: number): Spoken {
  const url = (key: string): string => `/v2/keys${key.split("/").map(encodeURIComponent).join("/")}`;
  const put = async (key: string, value: string, signal: AbortSignal): Promise<void> => {
    const body = `${ttlSeconds > 0 ? `ttl=${ttlSeconds}&` : ""}value=${encodeURIComponent(value)}`;
    const answer = await send("PUT", url(key), signal, body, "application/x-www-form-urlencoded");
    if (answer.status !== 200 && answer.status !== 201) throw unexpected(`etcd: ${key}: `, answer);
  };
  const missing = (answer: Answer): boolean => answer.status === 404 && parse(answer)["errorCode"] === KEY_NOT_FOUND;
  const leaves = (node: Json): string[] =>
    node["dir"] === true ? ((node["nodes"] ?? []) as readonly Json[]).flatMap(leaves) : [String(node["key"])];
  return {
    async get(key, signal) {
      const answer = await send("GET", `${url(key)}?quorum=true`, signal);
      if (missing(answer)) return undefined;
      if (answer.status !== 200) throw unexpected(`etcd: ${key}: `, answer);
      const node = parse(answer)["node"] as Json;
      return node["dir"] === true ? undefined : String(node["value"]);
    },
    async list(prefix, signal) {
      const answer = await send("GET", `${url(prefix)}?recursive=true`, signal);
      if (missing(answer)) return [];
      if (answer.status !== 200) throw unexpected(`etcd: ${prefix}: `, answer);
      return leaves(parse(answer)["node"] as Json);
    },
    put,
    refresh: put,
    async remove(key, signal) {
      const answer = await send("DELETE", `${url(key)}?dir=false&recursive=false`, signal);
      if (answer.status !== 200 && !missing(answer)) throw unexpected(`etcd: ${key}: `, answer);
    },
  };
}

const base64 = (text: string): string => Buffer.from(text).toString("base64");
const text = (encoded: unknown): string => Buffer.from(String(encoded ?? ""), "base64").toString();

async function version3(send: Send, ttlSeconds: number, signal: AbortSignal): Promise<Spoken> {
  /** etcd 3.4 on, and 3.3 before. */
  let root = "/v3";
  const call = async (what: string, body: Json, until: AbortSignal): Promise<Json> => {
    const answer = await send("POST", `${root}/${what}`, until, JSON.stringify(body), "application/json");
    if (answer.status !== 200) throw unexpected(`etcd: ${what}: `, answer);
    return parse(answer);
  };
  const first = await send("POST", "/v3/kv/range", signal, JSON.stringify({ key: base64("/") }), "application/json");
  if (first.status === 404) root = "/v3beta";
  const leases = new Map<string, string>();
  const put = async (key: string, value: string, until: AbortSignal): Promise<void> => {
    const given = { key: base64(key), value: base64(value) };
    if (ttlSeconds <= 0) {
      await call("kv/put", given, until);
      return;
    }
    const lease = String((await call("lease/grant", { TTL: ttlSeconds }, until))["ID"]);
    await call("kv/put", { ...given, lease }, until);
    leases.set(key, lease);
  };
  const get = async (key: string, until: AbortSignal): Promise<string | undefined> => {
    const found = (await call("kv/range", { key: base64(key) }, until))["kvs"] as readonly Json[] | undefined;
    return found?.[0] === undefined ? undefined : text(found[0]["value"]);
  };
  return {
    get,
    async list(prefix, until) {
      // The key behind the last one that begins with the prefix: "/" becomes "0".
      const end = `${prefix.slice(0, -1)}0`;
      const range = { key: base64(prefix), range_end: base64(end), keys_only: true };
      const found = (await call("kv/range", range, until))["kvs"] as readonly Json[] | undefined;
      return (found ?? []).map((one) => text(one["key"]));
    },
    put,
    async refresh(key, value, until) {
      const lease = leases.get(key);
      if (lease === undefined) return await put(key, value, until);
      const answer = (await call("lease/keepalive", { ID: lease }, until))["result"] as Json | undefined;
      // A lease that ran out, or lives on while somebody deleted its key, is answered all the same.
      if (Number(answer?.["TTL"] ?? 0) <= 0 || (await get(key, until)) !== value) await put(key, value, until);
    },
    async remove(key, until) {
      await call("kv/deleterange", { key: base64(key) }, until);
      const lease = leases.get(key);
      leases.delete(key);
      if (lease !== undefined) await call("lease/revoke", { ID: lease }, until).catch(() => undefined);
    },
  };
}
