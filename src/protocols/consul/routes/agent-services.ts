// /v1/agent/service*: this host's services: list, one with hash blocking, register, deregister, maintenance.
import { createHash } from "node:crypto";
import { callerOf } from "../../../base/requests.ts";
import { SERVICE_MAINTENANCE_CHECK } from "../../../model/check.ts";
import type { Registration } from "../../../model/instance.ts";
import { type CheckDefinition, decodeService } from "../../../wire/consul-definition/decode.ts";
import { serviceFault } from "../../../wire/consul-definition/faults.ts";
import { registrationOf } from "../../../wire/consul-definition/registration.ts";
import { Waiting } from "../blocking.ts";
import type { Call, Reply, Row } from "../call.ts";
import { detailParser, limitOutput, refuseScripts } from "../checks.ts";
import { FROM, readDefinition } from "../definition.ts";
import { encodeAgentService } from "../encode.ts";
import { Refusal, unknownService } from "../errors.ts";
import { readIndex, readWait, refuseEnterprise } from "../options.ts";
import { parseBool } from "../query.ts";
import { agentServiceShape } from "../shapes.ts";
import { readFilter } from "./choose.ts";

function services(call: Call): Reply {
  refuseEnterprise(call);
  const wanted = readFilter(call, agentServiceShape);
  const { agent, self } = call.ground;
  const json: Record<string, unknown> = Object.create(null);
  for (const id of [...agent.services().keys()].sort()) {
    const held = agent.services().get(id);
    if (held === undefined) continue;
    const row = encodeAgentService(held.instance, self.datacenter);
    if (wanted(row)) json[id] = row;
  }
  return { json };
}

async function service(call: Call): Promise<Reply> {
  const waitMs = readWait(call);
  readIndex(call);
  refuseEnterprise(call);
  const { agent, self } = call.ground;
  const known = call.query.get("hash");
  const waiting = known === "" ? undefined : new Waiting(call, waitMs);
  try {
    for (;;) {
      const version = agent.version();
      const held = agent.services().get(call.suffix);
      if (held === undefined) throw new Refusal(404, `unknown service ID: ${call.suffix}`);
      const json = encodeAgentService(held.instance, self.datacenter);
      const hash = createHash("sha256").update(JSON.stringify(json)).digest("hex").slice(0, 16);
      if (waiting === undefined || waiting.over || hash !== known)
        return { json: { ...json, ContentHash: hash }, headers: { "X-Consul-Contenthash": hash } };
      await waiting.untilAny((signal) => [agent.changed(version, signal)]);
    }
  } finally {
    waiting?.end();
  }
}

async function register(call: Call): Promise<undefined> {
  refuseEnterprise(call);
  const { agent } = call.ground;
  const definition = await readDefinition(call, decodeService);
  const fault = serviceFault(definition);
  if (fault !== undefined) throw new Refusal(400, fault);
  if (definition.port < 0 || definition.port > 65_535)
    throw new Refusal(400, `Invalid service port: ${definition.port} is not between 0 and 65535`);
  refuseSidecar(definition.foreign["Connect"]);
  refuseScripts(call, definition.checks);
  const registration: Registration = registrationOf(definition, detailParser(call.ground));
  const replace = call.query.get("replace-existing-checks");
  await agent.register(
    FROM,
    {
      ...registration,
      words: [wordsOf(call)],
      checks: withTexts(definition.checks, registration, call.config.checkOutputMaxBytes),
    },
    {
      replaceChecks: call.query.has("replace-existing-checks") && (replace === "" || replace === "true"),
    },
  );
  return undefined;
}

/** Who asks, for `why`. */
function wordsOf({ request }: Call): string {
  const address = callerOf(request);
  return `PUT /v1/agent/service/register${address === undefined ? "" : ` from ${address}`}`;
}

/** Within a service, durations that were not given are shown as "". */
function withTexts(
  checks: readonly CheckDefinition[],
  registration: Registration,
  maxBytes: number,
): Registration["checks"] {
  return registration.checks.map((spec, i) => {
    const given = checks[i]?.given ?? {};
    return limitOutput(
      { ...spec, foreign: { ...given, Interval: given["Interval"] ?? "", Timeout: given["Timeout"] ?? "" } },
      maxBytes,
    );
  });
}

function refuseSidecar(connect: unknown): void {
  if (typeof connect !== "object" || connect === null) return;
  for (const [key, value] of Object.entries(connect))
    if (key.replaceAll("_", "").toLowerCase() === "sidecarservice" && value !== null)
      throw new Refusal(
        400,
        "Invalid service: Connect.SidecarService is not supported: Trilith runs no sidecar proxies",
      );
}

async function deregister(call: Call): Promise<undefined> {
  refuseEnterprise(call);
  const { agent } = call.ground;
  const id = call.suffix;
  if (!agent.services().has(id)) throw unknownService(id);
  await agent.deregister(FROM, id, {
    code: "deregistered",
    text: "deregistered over HTTP",
    confirmed: true,
    atMs: call.ground.clock.now(),
  });
  return undefined;
}

/** `?enable=`. @throws Refusal 400 */
export function readEnable(call: Call): boolean {
  if (!call.query.has("enable")) throw new Refusal(400, "Missing value for enable");
  const text = call.query.get("enable");
  const enable = parseBool(text);
  if (enable === undefined) throw new Refusal(400, `Invalid value for enable: ${JSON.stringify(text)}`);
  return enable;
}

async function maintenance(call: Call): Promise<undefined> {
  refuseEnterprise(call);
  const { agent } = call.ground;
  const id = call.suffix;
  if (id === "") throw new Refusal(400, "Missing service ID");
  const enable = readEnable(call);
  if (!agent.services().has(id)) throw unknownService(id);
  // Whoever came first has told the reason.
  if (enable && agent.checks().has(SERVICE_MAINTENANCE_CHECK + id)) return undefined;
  const reason = call.query.get("reason");
  await agent.maintenance(
    id,
    enable,
    reason === ""
      ? "Maintenance mode is enabled for this service, but no reason was provided. This is a default message."
      : reason,
  );
  return undefined;
}

export const agentServiceRows: readonly Row[] = [
  { pattern: "/v1/agent/services", methods: ["GET"], endpoint: services },
  { pattern: "/v1/agent/service/", methods: ["GET"], endpoint: service },
  { pattern: "/v1/agent/service/register", methods: ["PUT"], endpoint: register },
  { pattern: "/v1/agent/service/deregister/", methods: ["PUT"], endpoint: deregister },
  { pattern: "/v1/agent/service/maintenance/", methods: ["PUT"], endpoint: maintenance },
];
