// Writing straight into the catalog: nodes, services and checks that no agent of ours looks after. The rules of Consul's state store.
import { TrilithError } from "../../base/error.ts";
import type { View } from "../../contracts/directory.ts";
import type { Records } from "../../contracts/kv.ts";
import { type Check, NODE_ALIVE_CHECK, type Status } from "../../model/check.ts";
import type { Instance, Origin } from "../../model/instance.ts";
import type { Node } from "../../model/node.ts";
import { type Change, type Entry, type Expect, keyOf } from "../../model/record.ts";
import { metaFault } from "../../wire/consul-definition/faults.ts";
import { kindFaults, multiError } from "../../wire/consul-definition/kind-faults.ts";
import { formatGoDuration } from "../../wire/duration.ts";
import type { CheckDefinitionBody, DeregisterBody, HealthCheckBody, NodeServiceBody, RegisterBody } from "./bodies.ts";
import type { Call } from "./call.ts";
import { CATALOG_SOURCE } from "./encode.ts";
import { Refusal } from "./errors.ts";
import { ownDatacenterOnly, readDatacenter } from "./options.ts";

/** Others may write the same node in between; each try looks at a new view. */
const MAX_TRIES = 50;
const ORIGIN: Origin = { source: CATALOG_SOURCE, authority: "first-hand", text: "written into the catalog over HTTP" };

/** Enters a node with at most one service and any number of checks: all of it or nothing. @throws Refusal with Consul's words */
export async function register(call: Call, body: RegisterBody): Promise<void> {
  if ([body, body.Service, body.Check, ...(body.Checks ?? [])].some((one) => (one?.PeerName ?? "") !== ""))
    throw new Refusal(500, "cannot register requests with PeerName in them");
  ownDatacenterOnly(readDatacenter(call));
  const name = body.Node ?? "";
  if (name === "") throw new Refusal(500, "Must provide node");
  if (body.ID !== undefined && body.ID !== "") checkUuid(body.ID);
  if ((body.Address ?? "") === "" && body.SkipNodeUpdate !== true)
    throw new Refusal(500, "Must provide address if SkipNodeUpdate is not set");
  const service = body.Service === undefined ? undefined : checkService(body.Service);
  const checks = [...(body.Checks ?? []), ...(body.Check === undefined ? [] : [body.Check])].map((check) => ({
    ...check,
    CheckID: (check.CheckID ?? "") === "" ? (check.Name ?? "") : (check.CheckID as string),
  }));
  for (const text of [name, service?.ID, service?.Service, ...checks.map((check) => check.CheckID)])
    if (text?.includes("\u0000") === true) throw new Refusal(400, `${JSON.stringify(text)}: a name may not hold NUL`);
  for (const check of checks) {
    if (check.CheckID === "") throw new Refusal(500, "Must provide check ID or name");
    if ((check.Node ?? "") !== "" && check.Node?.toLowerCase() !== name.toLowerCase())
      throw new Refusal(
        500,
        `Node '${check.Node}' for check '${check.CheckID}' doesn't match register request node '${name}'`,
      );
  }
  await retry(call, (view) => {
    const changes: Change[] = [];
    const expect: Expect[] = [];
    const existing = view.get("node", keyOf.node(name));
    if (existing !== undefined && body.SkipNodeUpdate === true) {
      // What is put on a node that is not put itself must find it there. Otherwise the last writer wins, without any contention.
      expect.push({ table: "node", key: keyOf.node(name), at: existing.modifyIndex });
    } else {
      const renamed = renamedFrom(view, body, name);
      if (renamed !== undefined) {
        changes.push({
          op: "delete",
          table: "node",
          key: keyOf.node(renamed.name),
          why: { code: "replaced", text: `renamed to ${name}`, confirmed: true, atMs: call.ground.clock.now() },
        });
        expect.push({ table: "node", key: keyOf.node(renamed.name), at: renamed.modifyIndex });
      }
      changes.push({ op: "put", table: "node", key: keyOf.node(name), value: nodeOf(call, body, existing, renamed) });
    }
    if (service !== undefined) {
      const key = keyOf.service(name, service.ID);
      changes.push({ op: "put", table: "service", key, value: instanceOf(service, name, view.get("service", key)) });
    }
    for (const check of checks) {
      const about = check.ServiceID ?? "";
      if (about !== "" && about !== service?.ID) {
        const held = view.get("service", keyOf.service(name, about));
        if (held === undefined) throw new Refusal(500, `Unknown service ID '${about}' for check ID '${check.CheckID}'`);
        expect.push({ table: "service", key: keyOf.service(name, about), at: held.modifyIndex });
      }
      const key = keyOf.check(name, check.CheckID);
      const at = changes.findIndex((change) => change.table === "check" && change.key === key);
      const change: Change = { op: "put", table: "check", key, value: checkOf(check, name, view.get("check", key)) };
      // The same check twice: the later one counts.
      if (at === -1) changes.push(change);
      else changes[at] = change;
    }
    refuseMeta(call, name, service);
    return { changes, expect };
  });
}

/** Consul takes services of others with such metadata only as its agents may have; here any is taken unless somebody asked for its behaviour. @throws Refusal 500 */
function refuseMeta(call: Call, node: string, service: CheckedService | undefined): void {
  if (service?.Meta === undefined || call.ground.self.compat !== "consul") return;
  const fault = metaFault(service.Meta);
  if (fault !== undefined)
    throw new Refusal(
      500,
      `failed inserting service: Invalid Service Meta for node ${node} and serviceID ${service.ID}: ${fault}`,
    );
}

/** Takes out a service, a check, or a node with everything on it. What is not there counts as taken out. */
export async function deregister(call: Call, body: DeregisterBody): Promise<void> {
  ownDatacenterOnly(readDatacenter(call));
  const node = body.Node ?? "";
  if (node === "") throw new Refusal(500, "Must provide node");
  const why = {
    code: "deregistered",
    text: "taken out of the catalog over HTTP",
    confirmed: true,
    atMs: call.ground.clock.now(),
  } as const;
  const change: Change =
    (body.ServiceID ?? "") !== ""
      ? { op: "delete", table: "service", key: keyOf.service(node, body.ServiceID as string), why }
      : (body.CheckID ?? "") !== ""
        ? { op: "delete", table: "check", key: keyOf.check(node, body.CheckID as string), why }
        : { op: "delete", table: "node", key: keyOf.node(node), why };
  await retry(call, () => ({ changes: [change], expect: [] }));
}

/** Works changes out on a view and writes them; again with a new view where somebody else was faster. */
async function retry(
  { ground, signal }: Call,
  plan: (view: View) => { readonly changes: readonly Change[]; readonly expect: readonly Expect[] },
): Promise<void> {
  for (let tries = 0; tries < MAX_TRIES; tries++) {
    const { changes, expect } = plan(ground.directory.view());
    const written = await ground.directory.write(changes, expect, signal);
    if (written.result === "written") return;
    if (written.result === "unknown")
      throw new TrilithError("unavailable", `the write's outcome is unknown: ${written.cause.message}`, written.cause);
    // A store shared with others may be ahead of this view.
    await ground.clock.yield();
  }
  throw new TrilithError("unavailable", `others wrote the same node ${MAX_TRIES} times in between`);
}

/** Whether a node ID is a UUID. @throws Refusal 500 in Go's words */
export function checkUuid(id: string): void {
  if (id.length !== 36) throw new Refusal(500, "Bad node ID: uuid string is wrong length");
  if (!/^.{8}-.{4}-.{4}-.{4}-.{12}$/.test(id)) throw new Refusal(500, "Bad node ID: uuid is improperly formatted");
  const wrong = /[^0-9a-fA-F-]/.exec(id);
  if (wrong !== null) {
    const char = wrong[0];
    const code = (char.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0");
    throw new Refusal(500, `Bad node ID: encoding/hex: invalid byte: U+${code} '${char}'`);
  }
}

export type CheckedService = NodeServiceBody & { readonly ID: string; readonly Service: string };

/** A service that may be entered: with ID and name. @throws Refusal */
export function checkService(service: NodeServiceBody): CheckedService {
  const { Service: name = "", ID: id = "", Kind: kind = "", Port: port = 0, SocketPath: socketPath = "" } = service;
  const { Proxy: proxy, Connect: connect, Locality: locality } = service;
  const ofKind = multiError(kindFaults({ kind, port, socketPath, proxy, connect, locality }));
  if (ofKind !== undefined) throw new Refusal(500, ofKind);
  if (name === "")
    throw new Refusal(
      500,
      id === ""
        ? "Must provide service name (Service.Service)"
        : "Must provide service name (Service.Service) when service ID is provided",
    );
  if (/^(0\.0\.0\.0|\[?::\]?)$/.test(service.Address ?? "")) throw new Refusal(500, "Invalid service address");
  if (port < 0 || port > 65_535) throw new Refusal(400, `Invalid service port: ${port} is not between 0 and 65535`);
  return { ...service, ID: id === "" ? name : id, Service: name };
}

/** The node of another name that carries the request's ID and is therefore meant by it. @throws Refusal where a living node has the name */
export function renamedFrom(view: Records, body: RegisterBody, name: string): Entry<"node"> | undefined {
  const id = body.ID ?? "";
  if (id === "") return undefined;
  let byId: Entry<"node"> | undefined;
  for (const node of view.list("node")) if (node.id.toLowerCase() === id.toLowerCase()) byId = node;
  const holder = view.get("node", keyOf.node(name));
  if (holder !== undefined && holder.id.toLowerCase() !== id.toLowerCase()) {
    const serf = view.get("check", keyOf.check(holder.name, NODE_ALIVE_CHECK));
    const mayLack = byId === undefined && holder.id === "";
    if (!mayLack && serf !== undefined && serf.status !== "critical") {
      const doing = byId === undefined ? `"${id}"` : `"${id}" (${body.Address ?? ""})`;
      throw new Refusal(
        500,
        `failed inserting node: Error while renaming Node ID: ${doing}: Node name ${name} is reserved by node ${holder.id} with name ${holder.name} (${holder.address})`,
      );
    }
  }
  return byId === undefined || byId.name.toLowerCase() === name.toLowerCase() ? undefined : byId;
}

/** The record of a node as it was asked for. */
export function nodeOf(
  call: Call,
  body: RegisterBody,
  existing: Entry<"node"> | undefined,
  renamed: Entry<"node"> | undefined,
): Node {
  const enteredAt = renamed === undefined ? existing?.enteredAt : (renamed.enteredAt ?? renamed.createIndex);
  return {
    id: body.ID ?? "",
    name: body.Node as string,
    address: body.Address ?? "",
    datacenter: call.ground.self.datacenter,
    taggedAddresses: body.TaggedAddresses ?? Object.create(null),
    labels: body.NodeMeta ?? Object.create(null),
    // A node with an agent of ours stays one, whoever corrects its entry.
    ...(existing !== undefined && existing.external !== true ? {} : { external: true }),
    ...(enteredAt === undefined ? {} : { enteredAt }),
  };
}

/** The record of a service as it was asked for; what an agent of ours registered stays its own. */
export function instanceOf(service: CheckedService, node: string, existing: Instance | undefined): Instance {
  const foreign: Record<string, unknown> = Object.create(null);
  for (const name of ["Kind", "Proxy", "Connect", "Locality"] as const) {
    const value = service[name];
    if (value !== undefined && value !== "") foreign[name] = value;
  }
  return {
    node: existing?.node ?? node,
    id: service.ID,
    name: service.Service,
    tags: service.Tags ?? [],
    labels: service.Meta ?? Object.create(null),
    address: service.Address ?? "",
    port: service.Port ?? 0,
    ...(service.TaggedAddresses === undefined
      ? {}
      : {
          taggedAddresses: Object.fromEntries(
            Object.entries(service.TaggedAddresses).map(([role, { Address = "", Port = 0 }]) => [
              role,
              { address: Address, port: Port },
            ]),
          ),
        }),
    ...weightsOf(service),
    ...((service.SocketPath ?? "") === "" ? {} : { socketPath: service.SocketPath as string }),
    ...(service.EnableTagOverride === true ? { enableTagOverride: true } : {}),
    ...(Object.keys(foreign).length > 0 ? { foreign } : {}),
    origin: existing?.origin ?? ORIGIN,
  };
}

/** Weights that are none are as good as not given. */
function weightsOf({ Weights: given }: NodeServiceBody): Pick<Instance, "weights"> {
  const { Passing: passing = 0, Warning: warning = 0 } = given ?? {};
  const valid = passing >= 1 && passing <= 65_535 && warning >= 0 && warning <= 65_535;
  return valid ? { weights: { passing, warning } } : {};
}

const STATUSES: ReadonlySet<string> = new Set<Status>(["passing", "warning", "critical"]);

/** The record of a check as it was asked for. */
export function checkOf(
  check: HealthCheckBody & { readonly CheckID: string },
  node: string,
  existing: Check | undefined,
): Check {
  const status = (check.Status ?? "") === "" ? "critical" : (check.Status as string);
  const definition = check.Definition === undefined ? {} : definitionOf(check.Definition);
  const foreign: Record<string, unknown> = { Definition: definition };
  if ((check.Interval ?? "") !== "") foreign["Interval"] = check.Interval;
  if ((check.Timeout ?? "") !== "") foreign["Timeout"] = check.Timeout;
  if ((check.ExposedPort ?? 0) !== 0) foreign["ExposedPort"] = check.ExposedPort;
  // A status that nobody knows routes nothing, but is shown as it was given.
  if (!STATUSES.has(status)) foreign["ShownStatus"] = status;
  return {
    id: check.CheckID,
    node: existing?.node ?? node,
    name: check.Name ?? "",
    status: STATUSES.has(status) ? (status as Status) : "critical",
    notes: check.Notes ?? "",
    output: check.Output ?? "",
    serviceId: check.ServiceID ?? "",
    type: (check.Type ?? "") === "" ? typeOf(check.Definition ?? {}) : (check.Type as string),
    origin: ORIGIN,
    foreign,
  };
}

/** A definition as it is shown: what is empty is left out, durations are texts. */
function definitionOf(body: CheckDefinitionBody): Record<string, unknown> {
  const result: Record<string, unknown> = {};
  const isZero = (value: unknown): boolean =>
    value === "" || value === 0 || value === false || (Array.isArray(value) && value.length === 0);
  for (const [key, value] of Object.entries(body)) {
    if (isZero(value)) continue;
    const name = key.replace(/Duration$/, "");
    const isDuration = name !== key || DURATIONS.has(key);
    if (name !== key && name in result) continue;
    // The one duration that Consul writes as a number.
    if (name === "TTL") result[name] = Math.round((value as number) * 1e6);
    else result[name] = isDuration ? formatGoDuration(value as number) : value;
  }
  return result;
}
const DURATIONS: ReadonlySet<string> = new Set(["Interval", "Timeout", "DeregisterCriticalServiceAfter"]);

/** Consul's word for the kind of a check, from its definition. */
function typeOf(body: CheckDefinitionBody): string {
  const given = (text: string | undefined): boolean => (text ?? "") !== "";
  const runs = (body.Interval ?? body.IntervalDuration ?? 0) > 0;
  if (given(body.GRPC) && runs) return "grpc";
  if (given(body.HTTP) && runs) return "http";
  if ((body.TTL ?? 0) > 0) return "ttl";
  if (given(body.TCP) && runs) return "tcp";
  if (given(body.UDP) && runs) return "udp";
  if (given(body.AliasNode) || given(body.AliasService)) return "alias";
  if ((body.ScriptArgs ?? []).length > 0 && runs) return given(body.DockerContainerID) ? "docker" : "script";
  if (given(body.H2PING) && runs) return "h2ping";
  if (given(body.OSService) && runs) return "os_service";
  return "";
}
