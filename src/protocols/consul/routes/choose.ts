// Which records a request wants: tags, node metadata, filter expressions; shared by catalog and health.
import { messageOf, TrilithError } from "../../../base/error.ts";
import { ipFamily } from "../../../base/net.ts";
import { callerOf } from "../../../base/requests.ts";
import type { View } from "../../../contracts/directory.ts";
import type { Resident } from "../../../model/instance.ts";
import { meshNameOf } from "../../../model/mesh.ts";
import type { Labels } from "../../../model/node.ts";
import type { Scope } from "../../../model/record.ts";
import { headersOfNothing, isStreamed, type Manner } from "../blocking.ts";
import type { Call } from "../call.ts";
import { Refusal } from "../errors.ts";
import { type Filter, parseFilter, type Shape } from "../filter.ts";
import { ownDatacenterOnly, readOptions } from "../options.ts";
import type { Query } from "../query.ts";

/** `?node-meta=key:value`, several times; undefined = every node. Without a colon the value is "". */
export function nodeMeta(query: Query): ReadonlyMap<string, string> | undefined {
  if (!query.has("node-meta")) return undefined;
  const wanted = new Map<string, string>();
  for (const pair of query.all("node-meta")) {
    const at = pair.indexOf(":");
    wanted.set(at === -1 ? pair : pair.slice(0, at), at === -1 ? "" : pair.slice(at + 1));
  }
  return wanted;
}

/** True where a node carries all the wanted metadata. */
export function hasMeta(labels: Labels, wanted: ReadonlyMap<string, string> | undefined): boolean {
  if (wanted === undefined) return true;
  for (const [key, value] of wanted) if (labels[key] !== value) return false;
  return true;
}

/** True where an instance carries all the tags, ignoring case. */
function hasTags(tags: readonly string[], wanted: readonly string[]): boolean {
  return wanted.every((tag) => tags.some((own) => own.toLowerCase() === tag.toLowerCase()));
}

/** The residents with the request's `tag` and `node-meta`. */
export function chosen(residents: readonly Resident[], query: Query): readonly Resident[] {
  const tags = query.all("tag");
  const meta = nodeMeta(query);
  if (tags.length === 0 && meta === undefined) return residents;
  return residents.filter(({ instance, node }) => hasTags(instance.tags, tags) && hasMeta(node.labels, meta));
}

/**
 * The instances that the mesh knows under a service's name: proxies that say so, and instances of its own that are connected natively.
 * `waitOn` are the scopes that tell of a change, made by `scopeOf`.
 */
export function meshed(
  view: View,
  name: string,
  scopeOf: (service: string) => Scope,
): { readonly residents: readonly Resident[]; readonly waitOn: readonly Scope[] } {
  const residents: Resident[] = [];
  // A proxy may come under any name.
  const waitOn: Scope[] = ["services", scopeOf(name)];
  const wanted = name.toLowerCase();
  for (const service of view.serviceNames()) {
    const found = view.residents(service).filter(({ instance }) => meshNameOf(instance) === wanted);
    if (found.length === 0) continue;
    residents.push(...found);
    waitOn.push(scopeOf(service));
  }
  return { residents, waitOn };
}

/** `?near=`: a node's name, `_agent` for this one; "" = nobody asked. */
export function nearOf({ query, ground }: Call): string {
  const near = query.get("near");
  return near === "_agent" ? ground.self.node : near;
}

/** The asker's address: what a proxy in front says, else whose connection it is; undefined on a unix socket. */
export function askerOf({ request }: Call): string | undefined {
  const [forwarded = ""] = String(request.headers["x-forwarded-for"] ?? "").split(",");
  return ipFamily(forwarded.trim()) > 0 ? forwarded.trim().replace(/^::ffff:(?=\d+\.)/i, "") : callerOf(request);
}

const NO_FILTER = "Failed to create boolean expression evaluator: ";

/** The request's `?filter=` over records of a shape; without one everything passes. @throws Refusal 500, as Consul answers a bad expression */
export function readFilter(call: Call, shape: Shape, prefix: string = NO_FILTER): Filter {
  return filterOr(call, shape, (why) => {
    throw new Refusal(500, prefix + why);
  });
}

/** As `readFilter` for what reads the directory: wrong options and another datacenter are told first, as Consul looks at them first. @throws Refusal */
export function readQueryFilter(call: Call, shape: Shape, manner: Manner): Filter {
  return filterOr(call, shape, (why) => {
    const options = readOptions(call, manner.enterprise);
    const headers = manner.headersOnError === true ? headersOfNothing() : {};
    ownDatacenterOnly(options.datacenter, headers);
    throw new Refusal(500, (isStreamed(manner, options) ? "" : NO_FILTER) + why, headers);
  });
}

function filterOr({ query }: Call, shape: Shape, refuse: (why: string) => never): Filter {
  try {
    return parseFilter(query.get("filter"), shape) ?? everything;
  } catch (error) {
    if (error instanceof TrilithError && error.code === "invalid") return refuse(messageOf(error));
    throw error;
  }
}

/** What stands behind the route's pattern. @throws Refusal 400 where nothing does; wrong options are told first */
export function namedBy(call: Call, what: string, { enterprise }: Manner): string {
  if (call.suffix !== "") return call.suffix;
  readOptions(call, enterprise);
  throw new Refusal(400, `Missing ${what}`);
}

const everything: Filter = () => true;
