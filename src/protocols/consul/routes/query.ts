// /v1/query: prepared queries are made, shown, changed, explained and carried out.
import { codeOf, messageOf } from "../../../base/error.ts";
import { answerOnce, answerQuery, headersOfNothing, type Manner, type Seen } from "../blocking.ts";
import type { Call, Reply, Row } from "../call.ts";
import { decodeBody } from "../decode.ts";
import { Refusal } from "../errors.ts";
import { ownDatacenterOnly, readDatacenter, readOptions } from "../options.ts";
import { encodeAnswer, encodeQuery, type QueryBody, queryBody, requestOf } from "../prepared.ts";
import { parseBool } from "../query.ts";
import { askerOf } from "./choose.ts";

const MANNER: Manner = { tellConsistency: true, headersOnError: true, enterprise: "none" };
const EXECUTED: Manner = { ...MANNER, cacheable: true };

const VERBS: readonly (readonly [verb: string, work: (call: Call, idOrName: string) => Promise<Reply>])[] = [
  ["/execute", execute],
  ["/explain", explain],
];

const METHODS = ["GET", "PUT", "DELETE"] as const;

function general(call: Call): Promise<Reply> {
  return call.method === "POST" ? create(call) : list(call);
}

async function specific(call: Call): Promise<Reply> {
  const { suffix, method, path } = call;
  // By the whole path, as Consul looks at it: a query called "execute" is carried out by "/v1/query/execute".
  const verb = VERBS.find(([name]) => path.endsWith(name));
  const methods: readonly string[] = verb === undefined ? METHODS : ["GET"];
  if (method === "OPTIONS") return { headers: { Allow: `OPTIONS,${methods.join(",")}` } };
  // Consul's own list here, without OPTIONS.
  if (!methods.includes(method)) throw new Refusal(405, `method ${method} not allowed`, { Allow: methods.join(",") });
  if (verb !== undefined) {
    const [name, work] = verb;
    return work(call, suffix.endsWith(name) ? suffix.slice(0, -name.length) : suffix);
  }
  return method === "GET" ? get(call) : method === "PUT" ? update(call) : remove(call);
}

async function create(call: Call): Promise<Reply> {
  const body = decodeBody(await call.body(), queryBody);
  ownDatacenterOnly(readDatacenter(call, "none"));
  if ((body.ID ?? "") !== "") throw new Refusal(500, "ID must be empty when creating a new prepared query");
  return { json: { ID: await refusing(() => call.ground.prepared.create(requestOf(body))) } };
}

async function update(call: Call): Promise<Reply> {
  const bytes = await call.body();
  const body: QueryBody = bytes.length === 0 ? {} : decodeBody(bytes, queryBody);
  ownDatacenterOnly(readDatacenter(call, "none"));
  mustBeUuid(call.suffix, "Prepared Query lookup failed: failed");
  await refusing(() => call.ground.prepared.update(call.suffix, requestOf(body)));
  return {};
}

async function remove(call: Call): Promise<Reply> {
  ownDatacenterOnly(readDatacenter(call, "none"));
  mustBeUuid(call.suffix, "Prepared Query lookup failed: failed");
  await refusing(() => call.ground.prepared.delete(call.suffix));
  return {};
}

/** Refusals of the queries' own rules in Consul's frame, which is 500 for all. */
async function refusing<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const frame = { invalid: "Invalid prepared query: ", conflict: "raft apply failed: ", "not-found": "" };
    const code = codeOf(error);
    if (code !== "invalid" && code !== "conflict" && code !== "not-found") throw error;
    throw new Refusal(500, frame[code] + messageOf(error));
  }
}

function list(call: Call): Promise<Reply> {
  const { prepared } = call.ground;
  return answerQuery(call, MANNER, (view) => ({
    index: view.at(prepared.scope),
    waitOn: [prepared.scope],
    reply: { json: prepared.list(view).map(encodeQuery) },
  }));
}

function get(call: Call): Promise<Reply> {
  const { prepared } = call.ground;
  return answerQuery(call, MANNER, (view, { minIndex }): Seen => {
    mustBeUuid(call.suffix, "failed", headersOfNothing());
    const query = prepared.get(view, call.suffix);
    if (query === undefined) throw notFound();
    // The index told is that of all queries, as Consul's is, but a waiter is woken for its own query only.
    const all = view.at(prepared.scope);
    const index = query.modifyIndex > minIndex || minIndex === 0 ? all : Math.min(all, minIndex);
    return { index, waitOn: [prepared.scope], reply: { json: [encodeQuery(query)] } };
  });
}

function execute(call: Call, idOrName: string): Promise<Reply> {
  readOptions(call, "none");
  const limit = limitOf(call);
  const raw = call.query.get("connect");
  const connect = raw === "" ? false : parseBool(raw);
  if (connect === undefined)
    throw new Refusal(
      500,
      `Error parsing 'connect' value: strconv.ParseBool: parsing ${JSON.stringify(raw)}: invalid syntax`,
    );
  const { prepared } = call.ground;
  return answerOnce(call, EXECUTED, async (view, meta) => {
    const near = call.query.get("near");
    const asker = askerOf(call);
    const options = { limit, near, connect, ...(asker === undefined ? {} : { asker }) };
    const answer = await resolving(() => prepared.execute(idOrName, options, call.signal));
    return { json: { ...encodeAnswer(answer), ...meta(view) } };
  });
}

function explain(call: Call, idOrName: string): Promise<Reply> {
  readOptions(call, "none");
  limitOf(call);
  const { prepared } = call.ground;
  return answerOnce(call, MANNER, async (view, meta) => {
    const query = await resolving(async () => prepared.resolve(view, idOrName));
    return { json: { Query: encodeQuery(query), ...meta(view) } };
  });
}

/** A query that is found, or Consul's answer where there is none. */
async function resolving<T>(work: () => Promise<T | undefined>): Promise<T> {
  let found: T | undefined;
  try {
    found = await work();
  } catch (error) {
    if (codeOf(error) !== "invalid") throw error;
    throw new Refusal(500, messageOf(error), headersOfNothing());
  }
  if (found === undefined) throw notFound();
  return found;
}

const notFound = (): Refusal => new Refusal(404, "Query not found", headersOfNothing());

/** `?limit=` as Go's strconv.Atoi reads it. */
function limitOf({ query }: Call): number {
  const text = query.get("limit");
  if (text === "") return 0;
  const refuse = (why: string): never => {
    throw new Refusal(500, `Bad limit: strconv.Atoi: parsing ${JSON.stringify(text)}: ${why}`);
  };
  if (!/^[+-]?\d+$/.test(text)) return refuse("invalid syntax");
  const value = text.length > 40 ? undefined : BigInt(text.replace(/^\+/, ""));
  if (value === undefined || value !== BigInt.asIntN(64, value)) return refuse("value out of range");
  return Number(value);
}

/** What Consul's index of UUIDs has against a text. */
function mustBeUuid(text: string, prefix: string, headers: Readonly<Record<string, string>> = {}): void {
  const fault = uuidFault(text);
  if (fault !== undefined) throw new Refusal(500, `${prefix} prepared query lookup: index error: ${fault}`, headers);
}

function uuidFault(text: string): string | undefined {
  if (Buffer.byteLength(text) !== 36) return "UUID must be 36 characters";
  const hyphens = text.split("-").length - 1;
  if (hyphens > 4) return `UUID should have maximum of 4 "-"; got ${hyphens}`;
  const digits = text.replaceAll("-", "");
  if (digits.length % 2 !== 0) return "UUID (without hyphens) must be even length";
  const wrong = /[^0-9a-fA-F]/u.exec(digits)?.[0];
  if (wrong === undefined) return undefined;
  const code = (wrong.codePointAt(0) as number).toString(16).toUpperCase().padStart(4, "0");
  return `Invalid UUID: encoding/hex: invalid byte: U+${code} '${wrong}'`;
}

export const queryRows: readonly Row[] = [
  { pattern: "/v1/query", methods: ["GET", "POST"], endpoint: general },
  { pattern: "/v1/query/", methods: METHODS, ownMethods: true, endpoint: specific },
];
