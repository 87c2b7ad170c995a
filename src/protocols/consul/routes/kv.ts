// /v1/kv/: keys with flags, check-and-set, locks, times to live, listings; the key is everything behind the prefix.
import { InputError, messageOf } from "../../../base/error.ts";
import type { View } from "../../../contracts/directory.ts";
import type { KvSet } from "../../../contracts/kv.ts";
import { type Entry, scope } from "../../../model/record.ts";
import { parseGoDuration } from "../../../wire/duration.ts";
import { answerQuery, type Manner, type Seen } from "../blocking.ts";
import type { Call, Reply, Row } from "../call.ts";
import { encodeKv, isExact } from "../encode.ts";
import { Refusal } from "../errors.ts";
import { ownDatacenterOnly, readOptions } from "../options.ts";
import { parseUint, type Query } from "../query.ts";

const MANNER: Manner = { tellConsistency: false };
const LIMIT_PAGE = "https://www.consul.io/docs/agent/config/config-files#kv_max_value_size";

async function keyed(call: Call): Promise<Reply> {
  const { datacenter } = readOptions(call);
  // What was answered before this question may have ended a session: its locks are free by now.
  await call.ground.sessions.settled(call.signal);
  if (call.method === "PUT") return put(call, datacenter);
  if (call.method === "DELETE") return remove(call, datacenter);
  if (call.query.has("keys")) return listKeys(call);
  if (call.query.has("recurse")) return list(call);
  return get(call);
}

/** What is under a prefix, with the index of that tree; of all keys where there never was anything, as Consul counts. */
function below(view: View, prefix: string): { readonly pairs: readonly Entry<"kv">[]; readonly index: number } {
  const pairs = [...view.list("kv", prefix)];
  const index = view.at(scope.tree(prefix));
  return { pairs, index: pairs.length === 0 && index <= 1 ? view.at(scope.tree("")) : index };
}

function get(call: Call): Promise<Reply> {
  const key = call.suffix;
  if (key === "") throw new Refusal(400, "Missing key name");
  const raw = call.query.has("raw");
  return answerQuery(call, MANNER, (view): Seen => {
    const pair = view.get("kv", key);
    const waitOn = [scope.kv(key)];
    if (pair === undefined) return { index: view.at(scope.tree("")), waitOn, missing: true, reply: { status: 404 } };
    if (!raw)
      return { index: pair.modifyIndex, waitOn, reply: { json: [encodeKv(pair)], exact: !isExact(pair.flags) } };
    // What a key holds must never run in a browser.
    const headers = { "X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox" };
    return { index: pair.modifyIndex, waitOn, reply: { bytes: pair.value, type: "text/plain", headers } };
  });
}

function list(call: Call): Promise<Reply> {
  const prefix = call.suffix;
  return answerQuery(call, MANNER, (view): Seen => {
    const { pairs, index } = below(view, prefix);
    const waitOn = [scope.tree(prefix)];
    if (pairs.length === 0) return { index, waitOn, missing: true, reply: { status: 404 } };
    return { index, waitOn, reply: { json: pairs.map(encodeKv), exact: !pairs.every((pair) => isExact(pair.flags)) } };
  });
}

function listKeys(call: Call): Promise<Reply> {
  const prefix = call.suffix;
  // An old spelling that has to be understood for ever.
  const separator = call.query.get(call.query.has("separator") ? "separator" : "seperator");
  return answerQuery(call, MANNER, (view): Seen => {
    const { pairs, index } = below(view, prefix);
    const waitOn = [scope.tree(prefix)];
    if (pairs.length === 0 && prefix !== "") return { index, waitOn, missing: true, reply: { status: 404 } };
    return { index, waitOn, reply: { json: foldKeys(pairs, prefix, separator) } };
  });
}

/** The keys; those with the separator behind the prefix are folded into one name that ends with it. */
function foldKeys(pairs: readonly { readonly key: string }[], prefix: string, separator: string): string[] {
  const keys: string[] = [];
  for (const { key } of pairs) {
    const at = separator === "" ? -1 : key.indexOf(separator, prefix.length);
    const name = at === -1 ? key : key.slice(0, at + separator.length);
    if (at === -1 || keys.at(-1) !== name) keys.push(name);
  }
  return keys;
}

async function put(call: Call, datacenter: string): Promise<Reply> {
  const key = call.suffix;
  const { query, config } = call;
  if (key === "") throw new Refusal(400, "Missing key name");
  refuseTogether(query, ["cas", "acquire", "release"]);
  const flags = query.has("flags") ? uint(query.get("flags")) : undefined;
  const cas = query.has("cas") ? Number(uint(query.get("cas"))) : undefined;
  const ttlMs = query.has("ttl") ? timeToLive(query.get("ttl")) : undefined;
  const holder = query.has("acquire") ? "acquire" : query.has("release") ? "release" : undefined;
  const value = await call.body(
    config.kvMaxValueBytes,
    (bytes) => `Request body(${bytes} bytes) too large, max size: ${config.kvMaxValueBytes} bytes. See ${LIMIT_PAGE}.`,
  );
  ownDatacenterOnly(datacenter);
  let lock: KvSet = {};
  if (holder !== undefined) {
    const session = query.get(holder);
    if (session === "") throw new Refusal(500, "raft apply failed: missing session");
    lock = { [holder]: session };
  }
  try {
    const done = await call.ground.kv.set(key, value, {
      ...(flags === undefined ? {} : { flags }),
      ...(cas === undefined ? {} : { cas }),
      ...(ttlMs === undefined ? {} : { ttlMs }),
      ...lock,
    });
    return { json: done };
  } catch (error) {
    if (error instanceof InputError && error.where === "acquire")
      throw new Refusal(500, `raft apply failed: invalid session ${JSON.stringify(lock.acquire)}`);
    throw error;
  }
}

/** An extension: `?ttl=30s` has the key go by itself, to the second. @throws Refusal 400 */
function timeToLive(text: string): number {
  let ms: number;
  try {
    ms = parseGoDuration(text);
  } catch (error) {
    throw new Refusal(400, `Invalid ttl: ${messageOf(error)}`);
  }
  if (ms <= 0) throw new Refusal(400, `Invalid ttl: ${text} is not more than 0`);
  return ms;
}

async function remove(call: Call, datacenter: string): Promise<Reply> {
  const key = call.suffix;
  const { query } = call;
  refuseTogether(query, ["recurse", "cas"]);
  const recurse = query.has("recurse");
  if (key === "" && !recurse) throw new Refusal(400, "Missing key name");
  const cas = query.has("cas") ? Number(uint(query.get("cas"))) : undefined;
  ownDatacenterOnly(datacenter);
  if (recurse) {
    await call.ground.kv.deleteTree(key);
    return { json: true };
  }
  return { json: await call.ground.kv.delete(key, cas === undefined ? {} : { cas }) };
}

function refuseTogether(query: Query, names: readonly string[]): void {
  if (names.filter((name) => query.has(name)).length > 1)
    throw new Refusal(400, `Conflicting flags: ${query.encode()}\n`);
}

function uint(text: string): bigint {
  const parsed = parseUint(text);
  if (!parsed.ok) throw new Refusal(500, parsed.text);
  return parsed.value;
}

export const kvRows: readonly Row[] = [{ pattern: "/v1/kv/", methods: ["GET", "PUT", "DELETE"], endpoint: keyed }];
