// Eureka's REST operations over HTTP, in JSON and XML [the wiki of Netflix/eureka, "Eureka REST operations"; eureka-core's resources for what it leaves out].
import { createHash, timingSafeEqual } from "node:crypto";
import { gzip } from "node:zlib";
import type { Clock } from "../../base/clock.ts";
import { codeOf, InputError, messageOf, TrilithError } from "../../base/error.ts";
import type { Handler, IncomingMessage, ServerResponse } from "../../base/http.ts";
import type { Log } from "../../base/log.ts";
import { bodyOf, callerOf, decodeName, foreignPageOf, isFromHere, STATUS_OF } from "../../base/requests.ts";
import { parseXml } from "../../wire/xml.ts";
import type { Registry } from "./applications.ts";
import { type Encoded, encodeApplication, encodeApplications, encodeInstance } from "./encode.ts";
import { type EurekaStatus, instanceFromJson, instanceFromXml, statusOf } from "./instance.ts";
import type { Leases } from "./leases.ts";

export interface ServerParts {
  readonly clock: Clock;
  readonly leases: Leases;
  readonly registry: Registry;
  readonly log: Log;
  /** Where set, every request needs it: as the password of Basic authentication, which clients take from their URL, or as a bearer. */
  readonly token: string | undefined;
  /** True on the agent's own HTTP listener: without a token, who is not on this host may look and not register. */
  readonly shared: boolean;
}

/** A registration is small; metadata may be long. */
const LARGEST_BODY = 1 << 20;
/** Shorter answers are not worth packing. */
const PACK_FROM = 1024;

interface Call {
  readonly parts: ServerParts;
  readonly request: IncomingMessage;
  readonly query: URLSearchParams;
  /** What the pattern's variables stand for, decoded. */
  readonly at: readonly string[];
  readonly json: boolean;
}

/** A status without a body, or a body with 200. */
type Reply = number | Encoded;
type Operation = (call: Call) => Reply | Promise<Reply>;

/** `*` is one segment. The first that fits counts. */
const OPERATIONS: readonly (readonly [method: string, path: string, run: Operation])[] = [
  ["GET", "apps", ({ parts, json }) => encodeApplications(parts.registry.all(), json)],
  ["GET", "apps/delta", ({ parts, json }) => encodeApplications(parts.registry.delta(), json)],
  ["GET", "apps/*", application],
  ["POST", "apps/*", register],
  ["GET", "apps/*/*", ({ parts, at, json }) => instance(parts, json, at[1] ?? "", at[0])],
  ["PUT", "apps/*/*", renew],
  ["DELETE", "apps/*/*", cancel],
  ["PUT", "apps/*/*/status", setStatus],
  ["DELETE", "apps/*/*/status", dropStatus],
  ["PUT", "apps/*/*/metadata", addMetadata],
  ["GET", "instances/*", ({ parts, at, json }) => instance(parts, json, at[0] ?? "")],
  ["GET", "vips/*", (call) => vip(call, false)],
  ["GET", "svips/*", (call) => vip(call, true)],
];

/** The handler of everything below `prefix` ("/eureka/"), with Netflix's version segment ("v2/") or without. */
export function createEurekaHandler(prefix: string, parts: ServerParts): Handler {
  return async (request, response) => {
    try {
      authorize(request, parts);
      const url = request.url ?? "";
      const mark = url.indexOf("?");
      const path = (mark === -1 ? url : url.slice(0, mark)).slice(prefix.length).replace(/^v2\//, "");
      const segments = path.replace(/\/$/, "").split("/").map(decodeName);
      const { run, at } = operation(request.method ?? "", segments, url, response);
      const query = new URLSearchParams(mark === -1 ? "" : url.slice(mark + 1));
      // Without a word about JSON the answer is XML, as Eureka's.
      const json = /json/i.test(request.headers.accept ?? "");
      const reply = await run({ parts, request, query, at, json });
      if (typeof reply === "number") response.writeHead(reply, { "content-length": 0 }).end();
      else await send(request, response, reply);
    } catch (error) {
      const status = response.statusCode === 405 ? 405 : STATUS_OF[codeOf(error)];
      if (status === 500) parts.log.error(`${request.method} ${request.url}: ${messageOf(error)}`);
      const body = status === 404 ? "" : `${messageOf(error)}\n`;
      if (!response.headersSent) response.writeHead(status, { "content-type": "text/plain; charset=utf-8" }).end(body);
      else response.destroy();
    } finally {
      // What was not read must not stand before the connection's next request.
      request.resume();
    }
  };
}

/**
 * From web pages of elsewhere nothing; where a token is set, whoever brings it. A listener of its own is for whom it listens; the agent's is there for
 * other reasons, and is no leave to register from other hosts. @throws TrilithError `not-allowed`
 */
function authorize(request: IncomingMessage, { token, shared }: Pick<ServerParts, "token" | "shared">): void {
  const page = foreignPageOf(request);
  if (page !== undefined) throw new TrilithError("not-allowed", `a web page of ${page} may not use this registry`);
  if (token === undefined) {
    if (!shared || request.method === "GET" || request.method === "HEAD" || isFromHere(request)) return;
    throw new TrilithError(
      "not-allowed",
      `registering from other hosts (${callerOf(request)}) needs a token (protocols.eureka.token) or a listener of its own (protocols.eureka: {"address": …, "port": 8761})`,
    );
  }
  const { authorization = "" } = request.headers;
  const basic = /^Basic\s+(\S+)\s*$/i.exec(authorization)?.[1];
  const given =
    basic === undefined
      ? /^Bearer\s+(\S+)\s*$/i.exec(authorization)?.[1]
      : Buffer.from(basic, "base64")
          .toString("utf8")
          .replace(/^[^:]*:/, "");
  const digest = (text: string): Uint8Array => createHash("sha256").update(text).digest();
  if (given === undefined || !timingSafeEqual(digest(given), digest(token)))
    throw new TrilithError(
      "not-allowed",
      "this registry needs its token: as the password in the client's URL (http://any:TOKEN@host:port/eureka/) or as Authorization: Bearer",
    );
}

function operation(
  method: string,
  segments: readonly string[],
  url: string,
  response: ServerResponse,
): { readonly run: Operation; readonly at: readonly string[] } {
  const allowed: string[] = [];
  for (const [verb, pattern, run] of OPERATIONS) {
    const parts = pattern.split("/");
    if (parts.length !== segments.length) continue;
    if (!parts.every((part, i) => (part === "*" ? segments[i] !== "" : part === segments[i]))) continue;
    if (verb === method || (verb === "GET" && method === "HEAD"))
      return { run, at: segments.filter((_, i) => parts[i] === "*") };
    allowed.push(verb);
  }
  if (allowed.length === 0) throw new TrilithError("not-found", `nothing is at ${url}`);
  response.statusCode = 405;
  response.setHeader("allow", allowed.join(", "));
  throw new InputError("", `${method} is not for ${url}: use ${allowed.join(" or ")}`);
}

function application({ parts, at, json }: Call): Reply {
  const found = parts.registry.application(at[0] ?? "");
  return found === undefined ? 404 : encodeApplication(found, json);
}

function instance(parts: ServerParts, json: boolean, id: string, app?: string): Reply {
  const found = parts.registry.instance(id, app);
  return found === undefined ? 404 : encodeInstance(found.json, json);
}

function vip({ parts, at, json }: Call, secure: boolean): Reply {
  const found = parts.registry.vip(at[0] ?? "", secure);
  return found === undefined ? 404 : encodeApplications(found, json);
}

async function register({ parts, at, request }: Call): Promise<Reply> {
  const app = at[0] ?? "";
  const text = await textOf(request, parts.clock);
  const asXml = /xml/i.test(request.headers["content-type"] ?? "") || text.trimStart().startsWith("<");
  parts.leases.register(asXml ? instanceFromXml(parseXml(text, "body"), app) : instanceFromJson(text, app));
  return 204;
}

function renew({ parts, at, query }: Call): Reply {
  const [app = "", id = ""] = at;
  const status = query.get("status");
  parts.leases.renew(
    app,
    id,
    status === null ? undefined : statusOf(status, "status"),
    Number(query.get("lastDirtyTimestamp") ?? 0) || 0,
  );
  return 200;
}

function cancel({ parts, at: [app = "", id = ""] }: Call): Reply {
  parts.leases.cancel(app, id);
  return 200;
}

function setStatus({ parts, at: [app = "", id = ""], query }: Call): Reply {
  const value = query.get("value");
  if (value === null) throw new InputError("value", "expected a status, as in ?value=OUT_OF_SERVICE");
  parts.leases.setOverride(app, id, statusOf(value, "value"));
  return 200;
}

function dropStatus({ parts, at: [app = "", id = ""], query }: Call): Reply {
  const value = query.get("value");
  const fallback: EurekaStatus | undefined = value === null ? undefined : statusOf(value, "value");
  parts.leases.setOverride(app, id, undefined, fallback);
  return 200;
}

function addMetadata({ parts, at: [app = "", id = ""], query }: Call): Reply {
  const pairs: Record<string, string> = Object.create(null) as Record<string, string>;
  for (const [key, value] of query) if (key !== "replicate") pairs[key] = value;
  parts.leases.addMetadata(app, id, pairs);
  return 200;
}

async function textOf(request: IncomingMessage, clock: Clock): Promise<string> {
  const bytes = await bodyOf(request, clock, LARGEST_BODY);
  const packed = /gzip/i.test(request.headers["content-encoding"] ?? "");
  if (!packed) return bytes.toString("utf8");
  const { gunzipSync } = await import("node:zlib");
  try {
    return gunzipSync(bytes, { maxOutputLength: LARGEST_BODY }).toString("utf8");
  } catch (error) {
    throw new InputError("body", `expected gzip: ${messageOf(error)}`, error);
  }
}

async function send(request: IncomingMessage, response: ServerResponse, { type, body }: Encoded): Promise<void> {
  const bytes = Buffer.from(body);
  const packed = bytes.length >= PACK_FROM && /\bgzip\b/i.test(String(request.headers["accept-encoding"] ?? ""));
  const out = packed
    ? await new Promise<Uint8Array>((resolve, reject) => {
        gzip(bytes, (error, result) => (error === null ? resolve(result) : reject(error)));
      })
    : bytes;
  response
    .writeHead(200, {
      "content-type": type,
      "content-length": out.length,
      ...(packed ? { "content-encoding": "gzip" } : {}),
      "cache-control": "no-store",
      vary: "Accept, Accept-Encoding",
    })
    .end(request.method === "HEAD" ? undefined : out);
}
