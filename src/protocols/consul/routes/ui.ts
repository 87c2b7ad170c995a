// /v1/internal/ui: the summaries that user interfaces are built on.
import type { View } from "../../../contracts/directory.ts";
import { type Status, worst } from "../../../model/check.ts";
import type { Resident } from "../../../model/instance.ts";
import { type Entry, keyOf, scope } from "../../../model/record.ts";
import { answerQuery } from "../blocking.ts";
import type { Call, Reply, Row } from "../call.ts";
import { encodeCheckOf, encodeNodeService, encodeResident } from "../encode.ts";
import { Refusal } from "../errors.ts";
import { nodeShape, residentShape } from "../shapes.ts";
import { readFilter } from "./choose.ts";

const MANNER = { tellConsistency: false } as const;

function services(call: Call): Promise<Reply> {
  const filtered = call.query.get("filter") !== "";
  const wanted = readFilter(call, residentShape);
  const residents = (view: View, name: string): readonly Resident[] => {
    const all = view.residents(name);
    return filtered ? all.filter((one) => wanted(encodeResident(one))) : all;
  };
  return answerQuery(call, MANNER, (view) => ({
    index: Math.max(view.at("services"), view.at("nodes"), view.at("checks")),
    waitOn: ["services", "nodes", "checks"],
    reply: {
      json: Array.from(view.serviceNames(), (name) => residents(view, name))
        .filter(({ length }) => length > 0)
        .map((found) => summary(call, found)),
    },
  }));
}

function summary(call: Call, residents: readonly Resident[]): unknown {
  const tags = new Set<string>();
  const nodes = new Set<string>();
  const sources = new Set<string>();
  const counted = new Set<string>();
  const by: Record<Status, number> = { passing: 0, warning: 0, critical: 0 };
  for (const { instance, node, checks } of residents) {
    for (const tag of instance.tags) tags.add(tag);
    nodes.add(node.name);
    const source = instance.labels["external-source"] ?? node.labels["external-source"];
    if (source !== undefined) sources.add(source);
    for (const check of checks) {
      const id = keyOf.check(node.name, check.id);
      if (counted.has(id)) continue;
      counted.add(id);
      by[check.status]++;
    }
  }
  const kind = residents[0]?.instance.foreign?.["Kind"];
  return {
    ...(kind === undefined ? {} : { Kind: kind }),
    Name: residents[0]?.instance.name ?? "",
    Datacenter: call.ground.self.datacenter,
    Tags: tags.size === 0 ? null : [...tags].sort(),
    Nodes: [...nodes],
    ExternalSources: sources.size === 0 ? null : [...sources].sort(),
    InstanceCount: residents.length,
    ChecksPassing: by.passing,
    ChecksWarning: by.warning,
    ChecksCritical: by.critical,
    GatewayConfig: {},
    TransparentProxy: false,
    ConnectNative: false,
    ConnectedWithProxy: false,
    ConnectedWithGateway: false,
  };
}

function encode(view: View, node: Entry<"node">): Record<string, unknown> {
  return {
    ID: node.id,
    Node: node.name,
    Address: node.address,
    Datacenter: node.datacenter,
    TaggedAddresses: node.taggedAddresses,
    Meta: node.labels,
    Services: Array.from(view.list("service", keyOf.ofNode(node.name)), encodeNodeService),
    Checks: Array.from(view.list("check", keyOf.ofNode(node.name)), (check) => encodeCheckOf(view, check)),
  };
}

function nodes(call: Call): Promise<Reply> {
  const wanted = readFilter(call, nodeShape);
  return answerQuery(call, MANNER, (view) => ({
    index: Math.max(view.at("services"), view.at("nodes"), view.at("checks")),
    waitOn: ["services", "nodes", "checks"],
    reply: { json: Array.from(view.list("node"), (node) => encode(view, node)).filter(wanted) },
  }));
}

async function node(call: Call): Promise<Reply> {
  const name = call.suffix;
  if (name === "") throw new Refusal(400, "Missing node name");
  // As Consul does, a node that is not there is a bare 404 that nobody waits for.
  if (call.ground.directory.view().get("node", keyOf.node(name)) === undefined) return { status: 404 };
  return answerQuery(call, MANNER, (view) => {
    const found = view.get("node", keyOf.node(name));
    return {
      index: view.at(scope.node(name)),
      waitOn: [scope.node(name)],
      missing: found === undefined,
      reply: found === undefined ? { status: 404 } : { json: encode(view, found) },
    };
  });
}

/** How many nodes, services and checks are well. A node is as its own checks say, a service as its worst instance. */
function overview(call: Call): Promise<Reply> {
  return answerQuery(call, MANNER, (view) => {
    const count = (name: string, statuses: readonly Status[]): unknown => ({
      Name: name,
      Total: statuses.length,
      Passing: statuses.filter((status) => status === "passing").length,
      Warning: statuses.filter((status) => status === "warning").length,
      Critical: statuses.filter((status) => status === "critical").length,
    });
    const checks = Array.from(view.list("check"));
    const ofNode = (name: string): Status =>
      worst(Array.from(view.list("check", keyOf.ofNode(name))).filter(({ serviceId }) => serviceId === ""));
    const byName = new Map<string, Status[]>();
    for (const { name, status } of checks) byName.set(name, [...(byName.get(name) ?? []), status]);
    return {
      index: Math.max(view.at("services"), view.at("nodes"), view.at("checks")),
      waitOn: ["services", "nodes", "checks"],
      reply: {
        json: {
          Nodes: [
            count(
              "",
              Array.from(view.list("node"), ({ name }) => ofNode(name)),
            ),
          ],
          Services: Array.from(view.serviceNames(), (name) =>
            count(
              name,
              view.residents(name).map(({ checks }) => worst(checks)),
            ),
          ),
          Checks: [...byName].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, statuses]) => count(name, statuses)),
        },
      },
    };
  });
}

/** Exported to peers: there are none. */
function none(call: Call): Promise<Reply> {
  return answerQuery(call, MANNER, (view) => ({
    index: view.at("services"),
    waitOn: ["services"],
    reply: { json: [] },
  }));
}

const GET = ["GET"] as const;
export const uiRows: readonly Row[] = [
  { pattern: "/v1/internal/ui/services", methods: GET, endpoint: services },
  { pattern: "/v1/internal/ui/nodes", methods: GET, endpoint: nodes },
  { pattern: "/v1/internal/ui/node/", methods: GET, endpoint: node },
  { pattern: "/v1/internal/ui/catalog-overview", methods: GET, endpoint: overview },
  { pattern: "/v1/internal/ui/exported-services", methods: GET, endpoint: none },
];
