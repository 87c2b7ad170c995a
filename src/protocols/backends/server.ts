// POST /proxy/backend/ID registers its caller, DELETE takes it back, GET /proxy/backends is the list.
import type { Clock } from "../../base/clock.ts";
import { codeOf, InputError, messageOf, TrilithError } from "../../base/error.ts";
import type { Handler, IncomingMessage, ServerResponse } from "../../base/http.ts";
import type { Log } from "../../base/log.ts";
import { bodyOf, callerOf, decodeName, STATUS_OF } from "../../base/requests.ts";
import type { Agent } from "../../contracts/agent.ts";
import type { Lookup } from "../../contracts/lookup.ts";
import type { Probe } from "../../contracts/probe.ts";
import type { CheckSpec } from "../../model/check.ts";
import type { Registration } from "../../model/instance.ts";
import { type BackendsConfig, portOf } from "./config.ts";
import { backendsOf, FORMATS, type Format, listText, TYPES } from "./lists.ts";

export interface ServerParts {
  readonly config: BackendsConfig;
  readonly agent: Pick<Agent, "register" | "deregister" | "report" | "services">;
  readonly lookup: Pick<Lookup, "resolveNow">;
  readonly log: Log;
  readonly clock: Pick<Clock, "now" | "after">;
  /** The way to ask by TCP; undefined where this agent has none. */
  readonly tcp: Probe | undefined;
  /** Whether an address may ask. */
  readonly allowed: (address: string) => boolean;
}

const FROM = "backends";
const ID = /^\/proxy\/backend\/([^/]+)$/;
const LIST = /^\/proxy\/backends(?:\.([a-z]+))?$/;
const LARGEST_BODY = 4096;
const LONGEST_ID = 128;

/** Answers back ends that POST themselves, and front ends that fetch the list. */
export function createBackendsHandler(parts: ServerParts): Handler {
  return async (request, response) => {
    const reply = (status: number, body = "", type = "text/plain; charset=utf-8"): void => {
      const bytes = Buffer.from(body);
      response.writeHead(status, { "content-length": bytes.length, ...(body === "" ? {} : { "content-type": type }) });
      response.end(request.method === "HEAD" ? undefined : bytes);
    };
    try {
      await answer(parts, request, response, reply);
    } catch (error) {
      const status = STATUS_OF[codeOf(error)];
      if (status === 500) parts.log.error(`${request.method} ${request.url}: ${messageOf(error)}`);
      if (response.headersSent) response.destroy();
      else reply(status, `${messageOf(error)}\n`);
    } finally {
      request.resume();
    }
  };
}

type Reply = (status: number, body?: string, type?: string) => void;

async function answer(
  parts: ServerParts,
  request: IncomingMessage,
  response: ServerResponse,
  reply: Reply,
): Promise<void> {
  const caller = callerOf(request) ?? "";
  if (!parts.allowed(caller))
    throw new TrilithError("not-allowed", `${caller} is in none of the networks that may ask here (backends.networks)`);
  // A web page that some browser of the network shows must not put its reader into the list.
  if (request.headers.origin !== undefined && request.method !== "GET")
    throw new TrilithError("not-allowed", `a web page of ${request.headers.origin} may not change the list`);
  const url = new URL(request.url ?? "/", "http://list");
  const method = request.method === "HEAD" ? "GET" : request.method;
  const list = LIST.exec(url.pathname);
  if (list !== null) {
    if (method !== "GET") return refuse(response, reply, "GET");
    const format = formatOf(list[1], request.headers.accept ?? "");
    return reply(200, backendList(parts, format), TYPES[format]);
  }
  const [, coded] = ID.exec(url.pathname) ?? [];
  if (coded === undefined)
    throw new TrilithError(
      "not-found",
      `nothing is at ${url.pathname}: there are POST and DELETE /proxy/backend/ID and GET /proxy/backends`,
    );
  if (method !== "POST" && method !== "DELETE") return refuse(response, reply, "POST, DELETE");
  const id = decodeId(coded);
  if (method === "POST")
    return reply((await join(parts, id, caller, url.searchParams, await portIn(request, parts.clock))) ? 201 : 200);
  const serviceId = prefix(parts.config) + id;
  if (!parts.agent.services().has(serviceId))
    throw new TrilithError("not-found", `${JSON.stringify(id)} is not in the list of ${parts.config.service}`);
  await parts.agent.deregister(FROM, serviceId, {
    code: "goodbye",
    text: `${caller} took it back`,
    confirmed: true,
    atMs: parts.clock.now(),
  });
  reply(204);
}

/** The routable backends in a format. */
export function backendList({ config, lookup }: Pick<ServerParts, "config" | "lookup">, format: Format): string {
  const { endpoints } = lookup.resolveNow({ service: config.service, order: "stable" });
  const own = prefix(config);
  const backends = backendsOf(endpoints, (id) => (id.startsWith(own) ? id.slice(own.length) : id));
  return listText(backends, format, config.scheme);
}

const prefix = ({ service }: BackendsConfig): string => `${service}-`;

function refuse(response: ServerResponse, reply: Reply, allow: string): void {
  response.setHeader("allow", allow);
  reply(405, `use ${allow}\n`);
}

function decodeId(coded: string): string {
  const id = decodeName(coded);
  if (id.length > LONGEST_ID || !/^[\w.:@+-]+$/.test(id))
    throw new InputError(
      `id ${JSON.stringify(id)}`,
      `expected letters, digits and . : @ + - _ (at most ${LONGEST_ID}), such as the host's name or MAC address`,
    );
  return id;
}

function formatOf(suffix: string | undefined, accept: string): Format {
  if (suffix === undefined) {
    const plain = /text\/plain/i.exec(accept)?.index ?? Number.POSITIVE_INFINITY;
    const json = /application\/json/i.exec(accept)?.index ?? Number.POSITIVE_INFINITY;
    return plain < json ? "txt" : "json";
  }
  const format = FORMATS.find((each) => each === suffix);
  if (format === undefined)
    throw new TrilithError(
      "not-found",
      `there is no list .${suffix}: there are ${FORMATS.map((each) => `.${each}`).join(", ")}`,
    );
  return format;
}

/** Port: query before body. True if it was not in the list. */
async function join(
  parts: ServerParts,
  id: string,
  address: string,
  query: URLSearchParams,
  body: string,
): Promise<boolean> {
  const port = portOf(query.get("port") ?? (body || parts.config.backendPort), "port", 0);
  return await register(parts, { id, address, port, text: `${address} by POST /proxy/backend/${id}` });
}

/** What is in the list from when it was another service's is this one's now: many a back end POSTs itself once in its life. */
export async function takeOver(parts: RegisterParts & Pick<ServerParts, "clock">): Promise<void> {
  const { config, agent, clock } = parts;
  for (const { instance, asked } of [...agent.services().values()]) {
    const { id, name, address, port } = asked ?? instance;
    const { source, foreignId, text } = instance.origin;
    if (source !== FROM || name === config.service || foreignId === undefined) continue;
    // One that has POSTed itself meanwhile knows better where it is.
    if (!agent.services().has(prefix(config) + foreignId))
      await register(parts, { id: foreignId, address, port, text: text ?? "" });
    await agent.deregister(FROM, id, {
      code: "deregistered",
      text: `the list is of ${config.service} now`,
      confirmed: true,
      atMs: clock.now(),
    });
  }
}

type RegisterParts = Pick<ServerParts, "config" | "agent" | "tcp">;
type Told = Required<Pick<Registration, "id" | "address" | "port" | "text">>;

/** True if it was not in the list. */
async function register({ config, agent, tcp }: RegisterParts, { id, address, port, text }: Told): Promise<boolean> {
  const { expireMs } = config;
  const serviceId = prefix(config) + id;
  const known = agent.services().get(serviceId);
  const before = known?.instance;
  const checks: CheckSpec[] = [];
  const common = { notes: "", timeoutMs: 0, intervalMs: 10_000 };
  const heartbeat = `${serviceId}:heartbeat`;
  if (expireMs !== undefined)
    checks.push({
      ...common,
      id: heartbeat,
      name: "POSTed again in time",
      kind: "ttl",
      detail: {},
      ttlMs: expireMs,
      initial: "passing",
      deregisterAfterMs: expireMs,
    });
  if (config.check && tcp !== undefined && port > 0)
    checks.push({
      ...common,
      id: `${serviceId}:tcp`,
      name: "accepts connections",
      kind: "tcp",
      detail: tcp.parse({}),
      // It has just spoken: it is in the list at once, and asked from now on.
      initial: "passing",
    });
  const registration: Registration = {
    id: serviceId,
    name: config.service,
    tags: [],
    labels: {},
    address,
    port,
    checks,
    foreignId: id,
    text,
  };
  const same = before?.address === address && before.port === port && known?.checks.length === checks.length;
  if (!same) await agent.register(FROM, registration, { replaceChecks: true });
  if (expireMs !== undefined) await agent.report(heartbeat, { status: "passing", output: "" });
  return before === undefined;
}

/** Nothing, or a port in digits. */
async function portIn(request: IncomingMessage, clock: ServerParts["clock"]): Promise<string> {
  const body = await bodyOf(request, clock, LARGEST_BODY, "the body is nothing or a port in digits");
  const text = body.toString("latin1").trim();
  if (text !== "" && !/^\d{1,5}$/.test(text))
    throw new InputError("body", `expected nothing or a port in digits, but got ${JSON.stringify(text.slice(0, 40))}`);
  return text;
}
