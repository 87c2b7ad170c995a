// /v1/catalog: what the directory holds, and writing into it directly.
import type { View } from "../../../contracts/directory.ts";
import { type Entry, keyOf, type Scope, scope } from "../../../model/record.ts";
import { onlyWithId } from "../../../wire/consul-catalog.ts";
import { answerQuery, type Manner } from "../blocking.ts";
import { deregisterBody, registerBody } from "../bodies.ts";
import { cacheHeaders } from "../cache.ts";
import type { Call, Reply, Row } from "../call.ts";
import { deregister, register } from "../catalog-write.ts";
import { nearestFirst } from "../coordinates.ts";
import { type Decoder, decodeBody } from "../decode.ts";
import { encodeCatalogService, encodeNode, encodeNodeService } from "../encode.ts";
import { Refusal } from "../errors.ts";
import type { Filter } from "../filter.ts";
import { handOn } from "../hand-on.ts";
import { readOptions, refuseEnterprise } from "../options.ts";
import { catalogServiceShape, nodeServiceShape, nodeShape } from "../shapes.ts";
import * as index from "../told-index.ts";
import { chosen, hasMeta, meshed, namedBy, nearOf, nodeMeta, readQueryFilter } from "./choose.ts";

const MANNER: Manner = { tellConsistency: true, headersOnError: true };
/** Nodes belong to partitions, not to namespaces. */
const OF_NODES: Manner = { ...MANNER, enterprise: "partition" };
/** What Consul's agents keep in their cache for `?cached`. */
const CACHED: Manner = { ...MANNER, cacheable: true };

async function put(call: Call): Promise<Reply> {
  refuseEnterprise(call);
  const bytes = await call.body();
  const body = decodeRewording(bytes, registerBody);
  const elsewhere = await handOn(call, body.Datacenter, bytes);
  if (elsewhere !== undefined) return elsewhere;
  await register(call, body);
  return { json: true };
}

async function remove(call: Call): Promise<Reply> {
  refuseEnterprise(call);
  const bytes = await call.body();
  const body = decodeRewording(bytes, deregisterBody);
  const elsewhere = await handOn(call, body.Datacenter, bytes);
  if (elsewhere !== undefined) return elsewhere;
  await deregister(call, body);
  return { json: true };
}

/** A namespace in the body is unknown, and told to be of another edition. */
function decodeRewording<T>(bytes: Uint8Array, decoder: Decoder<T>): T {
  try {
    return decodeBody(bytes, decoder);
  } catch (error) {
    if (error instanceof Refusal && error.message.endsWith('json: unknown field "Namespace"'))
      throw new Refusal(error.status, `${error.message} - Namespaces are a Consul Enterprise feature`);
    throw error;
  }
}

async function datacenters(call: Call): Promise<Reply> {
  const json = [call.ground.self.datacenter];
  const { cached, cacheControl } = readOptions(call, "none");
  if (!cached) return { json };
  const headers = await cacheHeaders(call, cacheControl, false);
  return { json, headers: headers(call.ground.directory.view()) };
}

function nodes(call: Call): Promise<Reply> {
  const wanted = readQueryFilter(call, nodeShape, OF_NODES);
  const meta = nodeMeta(call.query);
  const near = nearOf(call);
  return answerQuery(call, OF_NODES, (view) => {
    const found = Array.from(view.list("node")).filter(({ labels }) => hasMeta(labels, meta));
    const rows = nearestFirst(view, near, found, ({ name }) => name)
      .map(encodeNode)
      .filter(wanted);
    return { index: index.nodes(call, view), waitOn: ["nodes"], reply: { json: rows } };
  });
}

function services(call: Call): Promise<Reply> {
  const wanted = call.query.get("filter") === "" ? undefined : readQueryFilter(call, catalogServiceShape, CACHED);
  const meta = nodeMeta(call.query);
  const waitOn: readonly Scope[] = meta === undefined ? ["services"] : ["services", "nodes"];
  return answerQuery(call, CACHED, (view) => ({
    index: Math.max(...waitOn.map((one) => view.at(one))),
    waitOn,
    reply: { json: namesWithTags(view, meta, wanted) },
  }));
}

/** Every service's name with all tags of its instances. */
function namesWithTags(
  view: View,
  meta: ReadonlyMap<string, string> | undefined,
  wanted: Filter | undefined,
): Record<string, readonly string[]> {
  const tags = new Map<string, Set<string>>();
  for (const instance of view.list("service")) {
    if (meta !== undefined || wanted !== undefined) {
      const node = view.get("node", keyOf.node(instance.node));
      if (node === undefined || !hasMeta(node.labels, meta)) continue;
      if (wanted !== undefined && !wanted(encodeCatalogService({ instance, node, checks: [] }))) continue;
    }
    let set = tags.get(instance.name);
    if (set === undefined) {
      set = new Set();
      tags.set(instance.name, set);
    }
    for (const tag of instance.tags) set.add(tag);
  }
  const result: Record<string, readonly string[]> = Object.create(null);
  for (const name of [...tags.keys()].sort()) result[name] = [...(tags.get(name) as Set<string>)].sort();
  return result;
}

function service(call: Call): Promise<Reply> {
  const name = namedBy(call, "service name", CACHED);
  const wanted = readQueryFilter(call, catalogServiceShape, CACHED);
  const near = nearOf(call);
  return answerQuery(call, CACHED, (view) => ({
    index: index.instances(call, view, name),
    waitOn: [scope.instances(name)],
    reply: {
      json: nearestFirst(view, near, chosen(view.residents(name), call.query), ({ node }) => node.name)
        .map(encodeCatalogService)
        .filter(wanted),
    },
  }));
}

/** A node by its name; else the only one whose ID begins so. */
function nodeCalled(view: View, text: string): Entry<"node"> | undefined {
  return view.get("node", keyOf.node(text)) ?? onlyWithId(view.list("node"), text);
}

function node(call: Call): Promise<Reply> {
  const name = namedBy(call, "node name", MANNER);
  const wanted = readQueryFilter(call, nodeServiceShape, MANNER);
  return answerQuery(call, MANNER, (view) => {
    const found = nodeCalled(view, name);
    let json: unknown = null;
    if (found !== undefined) {
      const held: Record<string, unknown> = Object.create(null);
      for (const instance of view.list("service", keyOf.ofNode(found.name))) {
        const row = encodeNodeService(instance);
        if (wanted(row)) held[instance.id] = row;
      }
      json = { Node: encodeNode(found), Services: held };
    }
    const place = scope.node(found?.name ?? name);
    return { index: view.at(place), waitOn: [place], reply: { json } };
  });
}

function nodeServices(call: Call): Promise<Reply> {
  const name = namedBy(call, "node name", MANNER);
  const wanted = readQueryFilter(call, nodeServiceShape, MANNER);
  return answerQuery(call, MANNER, (view) => {
    const found = nodeCalled(view, name);
    const place = scope.node(found?.name ?? name);
    const rows = Array.from(view.list("service", keyOf.ofNode(found?.name ?? name)), encodeNodeService).filter(wanted);
    return {
      index: view.at(place),
      waitOn: [place],
      reply: {
        json: { Node: found === undefined ? null : encodeNode(found), Services: rows.length === 0 ? null : rows },
      },
    };
  });
}

/** Who can be reached by the mesh under a service's name: its proxies, and instances that speak the mesh's language themselves. */
function connect(call: Call): Promise<Reply> {
  const name = namedBy(call, "service name", CACHED);
  const wanted = readQueryFilter(call, catalogServiceShape, CACHED);
  const near = nearOf(call);
  return answerQuery(call, CACHED, (view) => {
    const { residents, waitOn } = meshed(view, name, scope.instances);
    return {
      index: Math.max(...waitOn.map((one) => view.at(one))),
      waitOn,
      reply: {
        json: nearestFirst(view, near, chosen(residents, call.query), ({ node }) => node.name)
          .map(encodeCatalogService)
          .filter(wanted),
      },
    };
  });
}

/** What a gateway serves: gateways are not configured here, and of one that is not there Consul says nothing. */
function gateway(call: Call): Promise<Reply> {
  const name = namedBy(call, "gateway name", MANNER);
  return answerQuery(call, MANNER, () => ({ index: 1, waitOn: [scope.instances(name)], reply: { json: [] } }));
}

const GET = ["GET"] as const;
const PUT = ["PUT"] as const;
export const catalogRows: readonly Row[] = [
  { pattern: "/v1/catalog/register", methods: PUT, endpoint: put },
  { pattern: "/v1/catalog/deregister", methods: PUT, endpoint: remove },
  {
    pattern: "/v1/catalog/datacenters",
    methods: GET,
    endpoint: datacenters,
  },
  { pattern: "/v1/catalog/nodes", methods: GET, endpoint: nodes },
  { pattern: "/v1/catalog/services", methods: GET, endpoint: services },
  { pattern: "/v1/catalog/service/", methods: GET, endpoint: service },
  { pattern: "/v1/catalog/node/", methods: GET, endpoint: node },
  { pattern: "/v1/catalog/node-services/", methods: GET, endpoint: nodeServices },
  { pattern: "/v1/catalog/connect/", methods: GET, endpoint: connect },
  { pattern: "/v1/catalog/gateway-services/", methods: GET, endpoint: gateway },
];
