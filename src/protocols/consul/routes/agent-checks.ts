// /v1/agent/check*: this host's checks: list, register, deregister, pushed results.
import type { HeldCheck } from "../../../contracts/agent.ts";
import { NODE_ALIVE_CHECK, type Status } from "../../../model/check.ts";
import { decodeCheck } from "../../../wire/consul-definition/decode.ts";
import { checkFault, nameFault, statusKnown } from "../../../wire/consul-definition/faults.ts";
import { checkSpecOf } from "../../../wire/consul-definition/registration.ts";
import { checkUpdateBody } from "../bodies.ts";
import type { Call, Reply, Row } from "../call.ts";
import { allowsMore, detailParser, limitOutput, refuseScripts } from "../checks.ts";
import { decodeBody } from "../decode.ts";
import { FROM, readDefinition } from "../definition.ts";
import { encodeCheck } from "../encode.ts";
import { Refusal, unknownCheck } from "../errors.ts";
import { refuseEnterprise } from "../options.ts";
import { checkShape } from "../shapes.ts";
import { readFilter } from "./choose.ts";

function checks(call: Call): Reply {
  refuseEnterprise(call);
  // The one place where Consul leaves out the words in front of what is wrong.
  const wanted = readFilter(call, checkShape, "");
  const { agent } = call.ground;
  const services = agent.services();
  const json: Record<string, unknown> = Object.create(null);
  for (const id of [...agent.checks().keys()].sort()) {
    const held = agent.checks().get(id);
    if (held === undefined || id === NODE_ALIVE_CHECK) continue;
    const row = encodeCheck(withoutIndexes(held), services.get(held.check.serviceId)?.instance);
    if (wanted(row)) json[id] = row;
  }
  return { json };
}

/** The agent's checks have no place on the line of changes, even where their record has been carried over. */
function withoutIndexes({ check }: HeldCheck): HeldCheck["check"] {
  if (!("createIndex" in check)) return check;
  const { createIndex: _, modifyIndex: __, ...rest } = check as HeldCheck["check"] & Record<string, unknown>;
  return rest as HeldCheck["check"];
}

async function register(call: Call): Promise<undefined> {
  refuseEnterprise(call);
  const { agent } = call.ground;
  const definition = await readDefinition(call, decodeCheck);
  if (definition.name === "") throw new Refusal(400, "Missing check name");
  if (!statusKnown(definition)) throw new Refusal(400, "Bad check status");
  const fault = checkFault(definition);
  if (fault !== undefined) throw new Refusal(400, `Invalid check: ${fault}`);
  const id = definition.id === "" ? definition.name : definition.id;
  const named = nameFault("check ID", id);
  if (named !== undefined) throw new Refusal(400, named);
  if (definition.serviceId !== "" && !agent.services().has(definition.serviceId))
    throw new Refusal(404, `ServiceID ${JSON.stringify(definition.serviceId)} does not exist`);
  refuseScripts(call, [definition]);
  const spec = limitOutput(checkSpecOf(definition, detailParser(call.ground)), call.config.checkOutputMaxBytes);
  await agent.registerCheck(FROM, {
    ...spec,
    id,
    serviceId: definition.serviceId,
    // A check of its own shows durations that were not given as "0s".
    foreign: {
      ...definition.given,
      Interval: definition.given["Interval"] ?? "0s",
      Timeout: definition.given["Timeout"] ?? "0s",
    },
  });
  return undefined;
}

function held(call: Call): HeldCheck {
  const found = call.ground.agent.checks().get(call.suffix);
  if (found === undefined || call.suffix === NODE_ALIVE_CHECK) throw unknownCheck(call.suffix);
  return found;
}

async function deregister(call: Call): Promise<undefined> {
  refuseEnterprise(call);
  const { check } = held(call);
  await call.ground.agent.deregisterCheck(FROM, check.id);
  return undefined;
}

async function report(call: Call, status: Status, output: string): Promise<undefined> {
  const { check, spec } = held(call);
  if (spec.kind !== "ttl") throw new Refusal(500, `CheckID ${JSON.stringify(check.id)} does not have associated TTL`);
  // The agent cuts to what the check allows; a check that was not registered here may allow more than the agent does.
  const { checkOutputMaxBytes } = call.config;
  const text = allowsMore(spec, checkOutputMaxBytes) ? cutOutput(output, checkOutputMaxBytes) : output;
  await call.ground.agent.report(check.id, { status, output: text });
  return undefined;
}

/** The head of an output, with a note on what was cut. */
function cutOutput(output: string, maxBytes: number): string {
  const bytes = Buffer.from(output);
  if (bytes.length <= maxBytes) return output;
  // A character cut in the middle is left out, as it would not be text.
  let end = maxBytes;
  while (end > 0 && ((bytes[end] as number) & 0xc0) === 0x80) end--;
  return `${bytes.toString("utf8", 0, end)} ... (captured ${maxBytes} of ${bytes.length} bytes)`;
}

const reporting =
  (status: Status) =>
  (call: Call): Promise<undefined> => {
    refuseEnterprise(call);
    return report(call, status, call.query.get("note"));
  };

async function update(call: Call): Promise<undefined> {
  refuseEnterprise(call);
  const { Status: status = "", Output: output = "" } = decodeBody(await call.body(), checkUpdateBody);
  if (status !== "passing" && status !== "warning" && status !== "critical")
    throw new Refusal(400, `Invalid check status: '${status}'`);
  return report(call, status, output);
}

const PUT = ["PUT"] as const;
export const agentCheckRows: readonly Row[] = [
  { pattern: "/v1/agent/checks", methods: ["GET"], endpoint: checks },
  { pattern: "/v1/agent/check/register", methods: PUT, endpoint: register },
  { pattern: "/v1/agent/check/deregister/", methods: PUT, endpoint: deregister },
  { pattern: "/v1/agent/check/pass/", methods: PUT, endpoint: reporting("passing") },
  { pattern: "/v1/agent/check/warn/", methods: PUT, endpoint: reporting("warning") },
  { pattern: "/v1/agent/check/fail/", methods: PUT, endpoint: reporting("critical") },
  { pattern: "/v1/agent/check/update/", methods: PUT, endpoint: update },
];
