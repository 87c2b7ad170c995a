// /v1/agent/health/service: what this host itself says about a service, as status code, text or JSON.
import type { HeldCheck } from "../../../contracts/agent.ts";
import {
  NODE_ALIVE_CHECK,
  NODE_MAINTENANCE_CHECK,
  SERVICE_MAINTENANCE_CHECK,
  type Status,
  worse,
} from "../../../model/check.ts";
import type { Instance } from "../../../model/instance.ts";
import type { Call, Reply, Row } from "../call.ts";
import { encodeAgentHealthCheck, encodeAgentService } from "../encode.ts";
import { Refusal } from "../errors.ts";
import { refuseEnterprise } from "../options.ts";

type Aggregate = Status | "maintenance";
const HTTP_STATUS: Readonly<Record<Aggregate, number>> = {
  passing: 200,
  warning: 429,
  critical: 503,
  maintenance: 503,
};

interface Health {
  readonly status: Aggregate;
  readonly json: Record<string, unknown>;
}

/** A service with its checks and those of the node; maintenance outweighs everything. */
function healthOf(call: Call, instance: Instance): Health {
  const { agent, self } = call.ground;
  let status: Aggregate = "passing";
  let maintained = false;
  const counted: HeldCheck[] = [];
  for (const held of agent.checks().values()) {
    const { check } = held;
    if ((check.serviceId !== "" && check.serviceId !== instance.id) || check.id === NODE_ALIVE_CHECK) continue;
    counted.push(held);
    if (check.id === NODE_MAINTENANCE_CHECK || check.id.startsWith(SERVICE_MAINTENANCE_CHECK)) maintained = true;
    else status = worse(status, check.status);
  }
  if (maintained) status = "maintenance";
  return {
    status,
    json: {
      AggregatedStatus: status,
      Service: encodeAgentService(instance, self.datacenter),
      Checks: counted.map((held) => encodeAgentHealthCheck(held, instance)),
    },
  };
}

function answer(call: Call, status: number, reason: string, json: unknown): Reply {
  const headers = { "X-Consul-Reason": reason.replace(/[^\x20-\x7e]/g, (char) => encodeURIComponent(char)) };
  const format = call.query.get("format");
  const wantsText = String(call.request.headers.accept ?? "").startsWith("text/plain") || format === "text";
  return wantsText ? { status, headers, text: reason, type: "text/plain" } : { status, headers, json };
}

function byId(call: Call): Reply {
  refuseEnterprise(call);
  const id = call.suffix;
  if (id === "") throw new Refusal(500, "Missing serviceID");
  const held = call.ground.agent.services().get(id);
  if (held === undefined)
    return answer(call, 404, `ServiceId ${id} not found`, {
      AggregatedStatus: "critical",
      Service: null,
      Checks: null,
    });
  const { status, json } = healthOf(call, held.instance);
  return answer(call, HTTP_STATUS[status], status, json);
}

function byName(call: Call): Reply {
  refuseEnterprise(call);
  const name = call.suffix;
  if (name === "") throw new Refusal(500, "Missing service Name");
  const found: Health[] = [];
  for (const { instance } of call.ground.agent.services().values())
    if (instance.name === name) found.push(healthOf(call, instance));
  const [first, ...others] = found;
  if (first === undefined) return answer(call, 404, `ServiceName ${name} Not Found`, []);
  const worst = others.reduce((a, b) => (HTTP_STATUS[b.status] > HTTP_STATUS[a.status] ? b : a), first);
  return answer(
    call,
    HTTP_STATUS[worst.status],
    worst.status,
    found.map(({ json }) => json),
  );
}

export const agentHealthRows: readonly Row[] = [
  { pattern: "/v1/agent/health/service/id/", methods: ["GET"], endpoint: byId },
  { pattern: "/v1/agent/health/service/name/", methods: ["GET"], endpoint: byName },
];
