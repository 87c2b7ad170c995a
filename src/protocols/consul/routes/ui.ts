// /v1/internal/ui: the summaries that user interfaces are built on.
import type { View } from "../../../contracts/directory.ts";
import { type Status, worst } from "../../../model/check.ts";
import type { Resident } from "../../../model/instance.ts";
import { isNative, proxyOf } from "../../../model/mesh.ts";
import { type Entry, keyOf, scope } from "../../../model/record.ts";
import { answerQuery } from "../blocking.ts";
import type { Call, Reply, Row } from "../call.ts";
import { encodeCheckOf, encodeNode, encodeNodeService, encodeResident } from "../encode.ts";
import { Refusal } from "../errors.ts";
import { nodeShape, residentShape } from "../shapes.ts";
import { readQueryFilter } from "./choose.ts";

const MANNER = { tellConsistency: false } as const;

function services(call: Call): Promise<Reply> {
  const filtered = call.query.get("filter") !== "";
  const wanted = readQueryFilter(call, residentShape, MANNER);
  const residents = (view: View, name: string): readonly Resident[] => {
    const all = view.residents(name);
    return filtered ? all.filter((one) => wanted(encodeResident(one))) : all;
  };
  // Nothing is imported from peers.
  const ofPeer = call.query.get("peer") !== "";
  return answerQuery(call, MANNER, (view) => ({
    index: Math.max(view.at("services"), view.at("nodes"), view.at("checks")),
    waitOn: ["services", "nodes", "checks"],
    reply: { json: ofPeer ? [] : summaries(Array.from(view.serviceNames(), (name) => residents(view, name)).flat()) },
  }));
}

/** What is told of a service as a whole. */
interface Summary {
  kind: string;
  datacenter: string;
  instances: number;
  native: boolean;
  proxied: boolean;
  /** Undefined while no proxy was seen; false once one is not transparent. */
  transparent: boolean | undefined;
  readonly tags: Set<string>;
  /** One for every instance. */
  readonly nodes: string[];
  readonly sources: Set<string>;
  /** By node and ID: a check of a node counts once for a service, however many of its instances are there. */
  readonly checks: Map<string, Status>;
}

/** Every service with its instances, checks and proxies counted; a proxy counts for its destination, too. */
function summaries(residents: readonly Resident[]): readonly unknown[] {
  const byName = new Map<string, Summary>();
  const of = (name: string): Summary => {
    let found = byName.get(name);
    if (found === undefined) {
      found = {
        ...{ kind: "", datacenter: "", instances: 0, native: false, proxied: false, transparent: undefined },
        ...{ tags: new Set(), nodes: [], sources: new Set(), checks: new Map() },
      };
      byName.set(name, found);
    }
    return found;
  };
  for (const { instance, node, checks } of residents) {
    const summary = of(instance.name);
    const { foreign, tags, labels } = instance;
    summary.kind = typeof foreign?.["Kind"] === "string" ? foreign["Kind"] : "";
    summary.datacenter = node.datacenter;
    summary.instances++;
    summary.native = isNative(instance);
    summary.nodes.push(node.name);
    for (const tag of tags) summary.tags.add(tag);
    const source = labels["external-source"] ?? "";
    if (source !== "") summary.sources.add(source);
    const counted = [summary];
    const proxy = proxyOf(instance);
    if (proxy !== undefined) {
      const destination = of(proxy.destination);
      destination.proxied = true;
      destination.transparent = proxy.transparent && destination.transparent !== false;
      counted.push(destination);
    }
    for (const check of checks)
      for (const one of counted) one.checks.set(keyOf.check(node.name, check.id), check.status);
  }
  return [...byName].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, summary]) => shown(name, summary));
}

function shown(name: string, summary: Summary): unknown {
  const count = (status: Status): number => [...summary.checks.values()].filter((one) => one === status).length;
  const { kind, tags, nodes, sources } = summary;
  return {
    ...(kind === "" ? {} : { Kind: kind }),
    Name: name,
    Datacenter: summary.datacenter,
    Tags: tags.size === 0 ? null : [...tags].sort(),
    Nodes: nodes.length === 0 ? null : nodes.sort(),
    ExternalSources: sources.size === 0 ? null : [...sources],
    InstanceCount: summary.instances,
    ChecksPassing: count("passing"),
    ChecksWarning: count("warning"),
    ChecksCritical: count("critical"),
    GatewayConfig: {},
    TransparentProxy: summary.transparent === true,
    ConnectNative: summary.native,
    ConnectedWithProxy: summary.proxied,
    ConnectedWithGateway: false,
  };
}

/** A node with what is on it. Unlike everywhere else, tags that were not given are null here. */
function encode(view: View, node: Entry<"node">): Record<string, unknown> {
  const { Datacenter: _, CreateIndex: __, ModifyIndex: ___, ...facts } = encodeNode(node);
  const ofNode = keyOf.ofNode(node.name);
  return {
    ...facts,
    Services: Array.from(view.list("service", ofNode), (instance) => ({
      ...encodeNodeService(instance),
      Tags: instance.tags.length === 0 ? null : instance.tags,
    })),
    Checks: Array.from(view.list("check", ofNode), (check) => {
      const row = encodeCheckOf(view, check);
      return {
        ...row,
        ServiceTags: (row["ServiceTags"] as readonly string[]).length === 0 ? null : row["ServiceTags"],
      };
    }),
  };
}

function nodes(call: Call): Promise<Reply> {
  const wanted = readQueryFilter(call, nodeShape, MANNER);
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

/** Exported to peers, or behind a gateway: there is nothing. */
function none(call: Call): Promise<Reply> {
  return answerQuery(call, MANNER, (view) => ({
    index: view.at("services"),
    waitOn: ["services"],
    reply: { json: [] },
  }));
}

function gateway(call: Call): Promise<Reply> {
  if (call.suffix === "") throw new Refusal(400, "Missing gateway name");
  return none(call);
}

/** Who talks to whom is known by a mesh only. */
function topology(call: Call): Promise<Reply> {
  if (call.suffix === "") throw new Refusal(400, "Missing service name");
  if (!call.query.has("kind")) throw new Refusal(400, "Missing service kind");
  const kind = call.query.get("kind");
  if (kind !== "" && kind !== "ingress-gateway")
    throw new Refusal(400, `Unsupported service kind ${JSON.stringify(kind)}`);
  return answerQuery(call, MANNER, (view) => ({
    index: view.at(scope.service(call.suffix)),
    waitOn: [scope.service(call.suffix)],
    reply: {
      json: { Protocol: "tcp", TransparentProxy: false, Upstreams: [], Downstreams: [], FilteredByACLs: false },
    },
  }));
}

function metricsProxy(): never {
  throw new Refusal(404, "Metrics proxy is not enabled");
}

const GET = ["GET"] as const;
export const uiRows: readonly Row[] = [
  { pattern: "/v1/internal/ui/services", methods: GET, endpoint: services },
  { pattern: "/v1/internal/ui/nodes", methods: GET, endpoint: nodes },
  { pattern: "/v1/internal/ui/node/", methods: GET, endpoint: node },
  { pattern: "/v1/internal/ui/catalog-overview", methods: GET, endpoint: overview },
  { pattern: "/v1/internal/ui/exported-services", methods: GET, endpoint: none },
  { pattern: "/v1/internal/ui/gateway-services-nodes/", methods: GET, endpoint: gateway },
  { pattern: "/v1/internal/ui/gateway-intentions/", methods: GET, endpoint: gateway },
  { pattern: "/v1/internal/ui/service-topology/", methods: GET, endpoint: topology },
  { pattern: "/v1/internal/ui/metrics-proxy/", methods: GET, endpoint: metricsProxy },
];
