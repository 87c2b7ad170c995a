// What is known, as Go templates see it: fields with capitals, as consul-template calls them, and Tags with methods.
import { asText, fail, kindOf, type Value } from "../wire/go-template/values.ts";
import type { Known, NodeValue, ServiceInstance } from "./needs.ts";

/** A map, whose keys may be anything; what it does not have is "". Other objects have the fields they have. */
export function mapValue(entries: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.assign(Object.create(null) as Record<string, unknown>, entries);
}

/** What a map gives for a key that it does not have: the empty value where all others are texts, as in Go. */
export function missingIn(map: Readonly<Record<string, unknown>>): Value {
  return Object.values(map).every((value) => typeof value === "string") ? "" : undefined;
}

const hasAll = (tags: readonly unknown[], wanted: readonly unknown[]): boolean =>
  wanted.every((tag) => tags.includes(tag));
const LIST_METHODS: Readonly<Record<string, (tags: readonly unknown[], wanted: readonly unknown[]) => boolean>> = {
  Contains: hasAll,
  ContainsAll: (tags, [wanted]) => hasAll(tags, Array.isArray(wanted) ? wanted : [wanted]),
  ContainsAny: (tags, [wanted]) => (Array.isArray(wanted) ? wanted : [wanted]).some((tag) => tags.includes(tag)),
};

/** A field or method of a value. @throws TemplateFault naming the fields that there are */
export function fieldOf(value: Value, name: string): Value {
  if (Array.isArray(value)) {
    const method = Object.hasOwn(LIST_METHODS, name) ? LIST_METHODS[name] : undefined;
    if (method !== undefined) return (...wanted: readonly unknown[]) => method(value, wanted);
  }
  if (value === null || value === undefined) return fail(`nothing is there to have a field ${name}`);
  if (typeof value !== "object" || Array.isArray(value))
    return fail(`can't evaluate field ${name} in type ${kindOf(value)}`);
  const from = value as Readonly<Record<string, unknown>>;
  if (Object.hasOwn(from, name)) return from[name];
  if (Object.getPrototypeOf(from) === null) return missingIn(from);
  return fail(`can't evaluate field ${name}: there are ${Object.keys(from).join(", ")}`);
}

/** An instance as a template sees it. */
export function instanceValue(one: ServiceInstance): Value {
  return {
    Node: one.node,
    NodeID: one.nodeId,
    NodeAddress: one.nodeAddress,
    NodeDatacenter: one.datacenter,
    NodeTaggedAddresses: mapValue(one.nodeTaggedAddresses),
    NodeMeta: mapValue(one.nodeMeta),
    ID: one.id,
    Name: one.name,
    Address: one.address,
    Port: one.port,
    Tags: [...one.tags].sort(),
    ServiceMeta: mapValue(one.meta),
    Status: one.status,
    Checks: one.checks.map(({ id, name, status, output, notes }) => ({
      CheckID: id,
      Name: name,
      Status: status,
      Output: output,
      Notes: notes,
    })),
    Weights: { Passing: one.weights.passing, Warning: one.weights.warning },
    Draining: one.draining,
    Held: one.held,
  };
}

/** A node as a template sees it. */
export function nodeValue(node: NodeValue): Value {
  return {
    ID: node.id,
    Node: node.node,
    Address: node.address,
    Datacenter: node.datacenter,
    TaggedAddresses: mapValue(node.taggedAddresses),
    Meta: mapValue(node.meta),
  };
}

/** A node with its services. */
export function nodeWithServices(known: NonNullable<Known["node"]>): Value {
  return {
    Node: nodeValue(known.node),
    Services: known.services.map(({ id, name, address, port, tags, meta }) => ({
      ID: id,
      Service: name,
      Address: address,
      Port: port,
      Tags: [...tags].sort(),
      Meta: mapValue(meta),
    })),
  };
}

/** JSON as templates see it: all of its objects are maps. */
export function jsonValue(text: string): Value {
  try {
    return JSON.parse(text, (_, value) =>
      typeof value === "object" && value !== null && !Array.isArray(value) ? mapValue(value) : value,
    );
  } catch {
    return fail(`parseJSON: ${JSON.stringify(asText(text, "parseJSON").slice(0, 40))} is not JSON`);
  }
}
