// Requests of Consul's HTTP API that others answer: keys, sessions, transactions … of a client host by its servers, `?dc=` by that datacenter's.
import { Readable } from "node:stream";
import type { Clock } from "../../base/clock.ts";
import { messageOf, TrilithError } from "../../base/error.ts";
import type { Handler, HttpResponse, IncomingMessage, ServerResponse } from "../../base/http.ts";
import type { Log } from "../../base/log.ts";
import type { Servers } from "../../base/servers.ts";
import { parseGoDuration } from "../../wire/duration.ts";

export interface ProxyOptions {
  /** This agent's own datacenter. */
  readonly datacenter: string;
  /** The servers of a client host; absent = this agent has a directory of its own. */
  readonly joined?: Servers;
  /** The servers of other datacenters, by name in lower case. */
  readonly datacenters: ReadonlyMap<string, Servers>;
  /** What a session is bound to that names no node; undefined = to whatever the server binds it. */
  readonly sessionNode: () => Readonly<Record<string, unknown>> | undefined;
  /** Resolves when this host's copy holds what was written at the servers before; given up when aborted. */
  readonly caughtUp: (signal: AbortSignal) => Promise<unknown>;
  readonly clock: Clock;
  readonly log: Log;
}

/** Of a client host everything that is not its copy of the catalog is its servers' business. */
const OF_SERVERS =
  /^\/v1\/(kv\/|session\/|txn$|event\/|query(\/|$)|snapshot$|catalog\/(register|deregister|datacenters)$|status\/|coordinate\/|operator\/|config(\/|$)|acl\/)/;
/** The agent's own affairs know no datacenter, nor does what is not Consul's. */
const OWN = /^\/v1\/(agent|trilith)\//;
const HOP: ReadonlySet<string> = new Set([
  "connection",
  "keep-alive",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
  "host",
  "content-length",
  "expect",
]);
/** Writes to what this host has a copy of: who asks here afterwards is to see them. */
const COPIED = /^\/v1\/(catalog\/(register|deregister)|txn)$/;
const CATCH_UP_MS = 2000;
const PLAIN_MS = 5000;
const DEFAULT_WAIT_MS = 300_000;
const MAX_WAIT_MS = 600_000;
const MAX_BODY_BYTES = 64 << 20;
const BODY_IDLE_MS = 30_000;

/** Puts itself in front of a handler: what others are to answer never reaches it. */
export function createProxy(options: ProxyOptions, own: Handler): Handler {
  const log = options.log.part("proxy");
  return (request, response) => {
    // The target may be a whole URL [RFC9112-3.2.2].
    const url = (request.url ?? "/").replace(/^https?:\/\/[^/?]*/i, "") || "/";
    const mark = url.indexOf("?");
    const path = mark === -1 ? url : url.slice(0, mark);
    const query = new URLSearchParams(mark === -1 ? "" : url.slice(mark + 1));
    // Paths that are not clean are sent elsewhere by the handler itself, in Consul's way.
    if (!path.startsWith("/v1/") || OWN.test(path) || /\/\/|\/\.{1,2}(\/|$)/.test(path)) return own(request, response);
    const named = (query.get("dc") || query.get("datacenter") || "").toLowerCase();
    const elsewhere = named !== "" && named !== options.datacenter.toLowerCase();
    const theirs = elsewhere ? options.datacenters.get(named) : undefined;
    if (theirs !== undefined)
      return forward(theirs, "No path to datacenter", request, response, url, path, query, options, log);
    if (options.joined !== undefined && (elsewhere || OF_SERVERS.test(path)))
      return forward(options.joined, "No cluster leader", request, response, url, path, query, options, log);
    if (path === "/v1/catalog/datacenters" && options.datacenters.size > 0 && request.method === "GET") {
      request.resume();
      const names = [...new Set([options.datacenter, ...options.datacenters.keys()])].sort();
      return reply(response, 200, JSON.stringify(names), "application/json");
    }
    return own(request, response);
  };
}

function reply(response: ServerResponse, status: number, text: string, type = "text/plain; charset=utf-8"): void {
  const body = Buffer.from(text);
  response
    .writeHead(status, {
      Vary: "Accept-Encoding",
      "X-Consul-Default-Acl-Policy": "allow",
      "Content-Type": type,
      "Content-Length": body.length,
    })
    .end(body);
}

/** How long the head of the answer may take. */
function patienceMs(query: URLSearchParams, path: string): number {
  if (path === "/v1/snapshot") return 120_000;
  const index = query.get("index") ?? "";
  if (index === "" || index === "0") return PLAIN_MS;
  let waitMs = DEFAULT_WAIT_MS;
  try {
    const asked = parseGoDuration(query.get("wait") || "0s");
    if (asked > 0) waitMs = Math.min(asked, MAX_WAIT_MS);
  } catch {
    // The server says what is wrong with it, at once.
    return PLAIN_MS;
  }
  return (waitMs * 17) / 16 + PLAIN_MS;
}

async function forward(
  servers: Servers,
  failure: string,
  request: IncomingMessage,
  response: ServerResponse,
  target: string,
  path: string,
  query: URLSearchParams,
  options: ProxyOptions,
  log: Log,
): Promise<void> {
  const gone = new AbortController();
  response.once("close", () => gone.abort(new TrilithError("stopped", "the client went away")));
  const method = request.method ?? "GET";
  const headers: Record<string, string | readonly string[]> = {};
  for (const [name, value] of Object.entries(request.headers))
    if (!HOP.has(name) && value !== undefined) headers[name] = value;
  const reads = method === "GET" || method === "HEAD";
  const streamed = path === "/v1/snapshot" && !reads;
  let answer: HttpResponse;
  try {
    let body: Uint8Array | Readable | undefined;
    if (streamed) body = request;
    else if (!reads) body = await bodyOf(request, options.clock, gone.signal);
    else request.resume();
    if (path === "/v1/session/create" && body instanceof Uint8Array) body = boundTo(body, options.sessionNode());
    answer = await servers.ask(
      {
        path: target,
        method,
        headers,
        ...(body === undefined ? {} : { body }),
        signal: gone.signal,
        headTimeoutMs: patienceMs(query, path),
        bodyTimeoutMs: 60_000,
      },
      !reads,
    );
  } catch (error) {
    if (gone.signal.aborted) return;
    if (error instanceof TrilithError && error.code === "too-large") return reply(response, 413, error.message);
    log.warn(`${method} ${path}: ${messageOf(error)}`);
    return reply(response, 500, failure === "No cluster leader" ? failure : `${failure}: ${messageOf(error)}`);
  }
  if (servers === options.joined && COPIED.test(path) && answer.status === 200) {
    const late = new AbortController();
    const timer = options.clock.after(CATCH_UP_MS, () => late.abort(new TrilithError("timeout", "late")));
    // The write is done whether or not this host hears of it in time.
    await options.caughtUp(late.signal).catch((error: unknown) => log.debug(`catching up: ${messageOf(error)}`));
    timer.cancel();
    if (gone.signal.aborted) return;
  }
  const out: Record<string, string | string[]> = {};
  for (const [name, value] of Object.entries(answer.headers))
    if (value !== undefined && (!HOP.has(name) || name === "content-length")) out[spelled(name)] = value;
  const ended = new Promise<void>((resolve) => response.once("close", resolve));
  response.writeHead(answer.status, out);
  if (answer.body instanceof Readable && !answer.body.readableEnded) {
    answer.body.on("error", () => response.destroy());
    answer.body.pipe(response);
  } else response.end(await answer.text());
  await ended;
  answer.body.destroy();
}

/** Clients look for Consul's headers in its own spelling. */
function spelled(name: string): string {
  return name.replace(/(^|-)([a-z])/g, (_, before: string, letter: string) => before + letter.toUpperCase());
}

/** A session that names no node is bound to this host's, so that its locks are free when this host dies. */
function boundTo(body: Uint8Array, node: Readonly<Record<string, unknown>> | undefined): Uint8Array {
  if (node === undefined) return body;
  let parsed: unknown;
  try {
    parsed = body.length === 0 ? {} : JSON.parse(Buffer.from(body).toString("utf8"));
  } catch {
    // The server refuses it in its own words.
    return body;
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) return body;
  const given = new Set(Object.keys(parsed).map((key) => key.toLowerCase()));
  if (given.has("node")) return body;
  const missing = Object.entries(node).filter(([key]) => !given.has(key.toLowerCase()));
  return Buffer.from(JSON.stringify({ ...parsed, ...Object.fromEntries(missing) }));
}

function bodyOf(request: IncomingMessage, clock: Clock, signal: AbortSignal): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let size = 0;
    const late = (): void => {
      fail(new TrilithError("timeout", "the request's body does not come"));
    };
    let timer = clock.after(BODY_IDLE_MS, late);
    const end = (): void => {
      timer.cancel();
      request.off("data", onData);
      signal.removeEventListener("abort", onGone);
    };
    const fail = (error: unknown): void => {
      end();
      reject(error);
    };
    const onGone = (): void => fail(signal.reason);
    const onData = (chunk: Buffer): void => {
      size += chunk.length;
      if (size > MAX_BODY_BYTES) {
        request.resume();
        fail(
          new TrilithError("too-large", `Request body(${size} bytes) too large, max size: ${MAX_BODY_BYTES} bytes.`),
        );
        return;
      }
      chunks.push(chunk);
      timer.cancel();
      timer = clock.after(BODY_IDLE_MS, late);
    };
    signal.addEventListener("abort", onGone, { once: true });
    request.on("data", onData);
    request.once("end", () => {
      end();
      resolve(Buffer.concat(chunks));
    });
    request.once("error", fail);
  });
}
