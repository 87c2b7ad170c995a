// /v1/session: making, ending, renewing and listing sessions.
import { InputError, messageOf } from "../../../base/error.ts";
import { type SessionFault, SessionRefused, type SessionRequest } from "../../../contracts/session.ts";
import { NODE_ALIVE_CHECK } from "../../../model/check.ts";
import { scope } from "../../../model/record.ts";
import { formatGoDuration, parseGoDuration } from "../../../wire/duration.ts";
import { answerQuery, type Manner } from "../blocking.ts";
import { type SessionBody, sessionBody } from "../bodies.ts";
import type { Call, Reply, Row } from "../call.ts";
import { decodeBody } from "../decode.ts";
import { encodeSession } from "../encode.ts";
import { Refusal } from "../errors.ts";
import { ownDatacenterOnly, readDatacenter, readOptions } from "../options.ts";

const MANNER: Manner = { tellConsistency: false, headersOnError: true };
const DEFAULT_LOCK_DELAY_MS = 15_000;
const TTL_MAX_MS = 24 * 3_600_000;

/** What stands behind the pattern. What is wrong with the options comes first, as in Consul. */
function named(call: Call, what: string): string {
  if (call.suffix === "") throw new Refusal(400, `Missing ${what}`);
  return call.suffix;
}

async function create(call: Call): Promise<Reply> {
  const datacenter = readDatacenter(call);
  const bytes = await call.body();
  const body = bytes.length === 0 ? {} : decodeBody(bytes, sessionBody);
  ownDatacenterOnly(datacenter);
  try {
    return { json: { ID: await call.ground.sessions.create(requestOf(body, call)) } };
  } catch (error) {
    if (error instanceof SessionRefused) throw new Refusal(500, `apply failed: ${wordsFor(error.fault)}`);
    throw error;
  }
}

/** @throws Refusal 500 in Consul's words */
function requestOf(body: SessionBody, { ground, config }: Call): SessionRequest {
  if (body.Node === "") throw new Refusal(500, "Must provide Node");
  const behavior = body.Behavior ?? "";
  if (behavior !== "" && behavior !== "release" && behavior !== "delete")
    throw new Refusal(500, `Invalid Behavior setting '${behavior}'`);
  const ttlMs = ttlOf(body.TTL ?? "", config.sessionTtlMinMs);
  const foreign: Record<string, unknown> = {};
  if ((body.TTL ?? "") !== "") foreign["TTL"] = body.TTL;
  if (body.ServiceChecks?.length === 0) foreign["ServiceChecks"] = [];
  const { nodeChecks, checks } = checksOf(body);
  return {
    name: body.Name ?? "",
    node: body.Node ?? ground.self.node,
    lockDelayMs: body.LockDelay ?? DEFAULT_LOCK_DELAY_MS,
    behavior: behavior === "delete" ? "delete" : "release",
    ...(ttlMs === 0 ? {} : { ttlMs }),
    nodeChecks,
    serviceChecks: (body.ServiceChecks ?? []).map(({ ID = "", Namespace = "" }) => ({ id: ID, namespace: Namespace })),
    ...(checks.length === 0 ? {} : { checks }),
    ...(Object.keys(foreign).length === 0 ? {} : { foreign }),
  };
}

/** `Checks` is the older name: an empty list there means none at all, its default leaves the word to `NodeChecks`, others come on top. */
function checksOf(body: SessionBody): { readonly nodeChecks: readonly string[]; readonly checks: readonly string[] } {
  const nodeChecks = body.NodeChecks ?? [NODE_ALIVE_CHECK];
  const checks = body.Checks ?? [NODE_ALIVE_CHECK];
  if (checks.length === 0) return { nodeChecks: [], checks };
  if ((checks.length === 1 && checks[0] === NODE_ALIVE_CHECK) || nodeChecks.length === 0)
    return { nodeChecks, checks: [] };
  return { nodeChecks, checks };
}

/** Milliseconds; 0 = without end. */
function ttlOf(text: string, minMs: number): number {
  if (text === "") return 0;
  let ms: number;
  try {
    ms = parseGoDuration(text);
  } catch (error) {
    if (error instanceof InputError) throw new Refusal(500, `Session TTL '${text}' invalid: ${messageOf(error)}`);
    throw error;
  }
  if (ms !== 0 && (ms < minMs || ms > TTL_MAX_MS))
    throw new Refusal(
      500,
      `Invalid Session TTL '${Math.round(ms * 1e6)}', must be between [${formatGoDuration(minMs)}=24h0m0s]`,
    );
  return ms;
}

function wordsFor(fault: SessionFault): string {
  switch (fault.kind) {
    case "node-missing":
      return "Missing node registration";
    case "check-missing":
      return `Missing check '${fault.check}' registration`;
    case "check-critical":
      return `Check '${fault.check}' is in critical state`;
  }
}

async function destroy(call: Call): Promise<Reply> {
  const datacenter = readDatacenter(call);
  const id = named(call, "session");
  ownDatacenterOnly(datacenter);
  await call.ground.sessions.destroy(id.toLowerCase());
  return { json: true };
}

async function renew(call: Call): Promise<Reply> {
  const { datacenter } = readOptions(call);
  const id = named(call, "session");
  ownDatacenterOnly(datacenter);
  const session = await call.ground.sessions.renew(id.toLowerCase());
  if (session === undefined) throw new Refusal(404, `Session id '${id}' not found`);
  return { json: [encodeSession(session)] };
}

async function info(call: Call): Promise<Reply> {
  readOptions(call);
  const id = named(call, "session").toLowerCase();
  await call.ground.sessions.settled(call.signal);
  return answerQuery(call, MANNER, (view) => {
    const session = view.get("session", id);
    // The index told is that of all sessions, as Consul's; waiters wake only for their own.
    const place = { index: view.at("sessions"), waitOn: [scope.session(id)] };
    if (session === undefined || session.ended === true) return { ...place, missing: true, reply: { json: [] } };
    return { ...place, reply: { json: [encodeSession(session)] } };
  });
}

async function ofNode(call: Call): Promise<Reply> {
  readOptions(call);
  return list(call, named(call, "node name"));
}

async function list(call: Call, node?: string): Promise<Reply> {
  await call.ground.sessions.settled(call.signal);
  return answerQuery(call, MANNER, (view) => ({
    index: view.at("sessions"),
    waitOn: ["sessions"],
    reply: { json: call.ground.sessions.list(view, node).map(encodeSession) },
  }));
}

const GET = ["GET"] as const;
const PUT = ["PUT"] as const;
export const sessionRows: readonly Row[] = [
  { pattern: "/v1/session/create", methods: PUT, endpoint: create },
  { pattern: "/v1/session/destroy/", methods: PUT, endpoint: destroy },
  { pattern: "/v1/session/renew/", methods: PUT, endpoint: renew },
  { pattern: "/v1/session/info/", methods: GET, endpoint: info },
  { pattern: "/v1/session/node/", methods: GET, endpoint: ofNode },
  { pattern: "/v1/session/list", methods: GET, endpoint: (call) => list(call) },
];
