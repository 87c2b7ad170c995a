// Templates of prepared queries: read once, then made into a query for every name that fits.
import { messageOf, TrilithError } from "../base/error.ts";
import type { PreparedRequest, PreparedService } from "../model/prepared.ts";
import { type HilScope, parseHil } from "../wire/hil.ts";
import { compile, type Pattern } from "../wire/regexp.ts";

/** A template, ready to be rendered. */
export interface Template {
  /** What is asked for under a name. @throws TrilithError `invalid` in Consul's words */
  render(name: string): PreparedService;
}

/** The only kind of template there is. */
const PREFIX_MATCH = "name_prefix_match";
/** Longer names than any that DNS knows are not held against patterns. */
const NAME_MAX_CHARACTERS = 1000;

/** Consul's names of the fields, for error messages. */
const FIELD: Readonly<Record<string, string>> = {
  service: "Service",
  tags: "Tags",
  ignoreChecks: "IgnoreCheckIDs",
  near: "Near",
  nodeLabels: "NodeMeta",
  labels: "ServiceMeta",
  failover: "Failover",
  datacenters: "Datacenters",
  targets: "Targets",
  datacenter: "Datacenter",
  peer: "Peer",
};

/** Reads a request's template and tries it on its own name. @throws TrilithError `invalid` in Consul's words */
export function compileTemplate(request: PreparedRequest & Required<Pick<PreparedRequest, "template">>): Template {
  const { name: prefix, template } = request;
  if (template.type !== PREFIX_MATCH) throw new TrilithError("invalid", `Bad Template.Type '${template.type}'`);
  const service = compileTexts(request.service, "", FIELD);
  let pattern: Pattern | undefined;
  try {
    if (template.pattern !== "") pattern = compile(template.pattern);
  } catch (error) {
    throw new TrilithError("invalid", `Bad Regexp: ${messageOf(error)}`, error);
  }
  const render = (name: string): PreparedService => {
    const groups = name.length > NAME_MAX_CHARACTERS ? undefined : pattern?.groups(name);
    const made = service({
      variables: {
        "name.full": name,
        "name.prefix": prefix,
        "name.suffix": name.startsWith(prefix) ? name.slice(prefix.length) : name,
        "agent.segment": "",
      },
      functions: { match: (n) => groups?.[n] ?? "" },
    }) as PreparedService;
    if (!template.removeEmptyTags) return made;
    return { ...made, tags: (made.tags ?? []).filter((tag) => tag !== "") };
  };
  // What fails for the shortest name that there can be should not wait for the first one who asks.
  render(prefix);
  return { render };
}

type Rendering = (scope: HilScope) => unknown;

/** Every text within a value is read; names are known at the top level only, below them they are the user's. */
function compileTexts(value: unknown, path: string, names: Readonly<Record<string, string>> | undefined): Rendering {
  if (typeof value === "string") return compileText(value, path);
  if (Array.isArray(value)) {
    const items = value.map((item, i) => compileTexts(item, `${path}[${i}]`, names));
    return (scope) => items.map((item) => item(scope));
  }
  if (typeof value !== "object" || value === null) return () => value;
  const fields = Object.entries(value).map(([key, item]) => {
    const where = names === undefined ? `${path}[${key}]` : `${path}.${names[key] ?? key}`;
    const below = key === "nodeLabels" || key === "labels" ? undefined : names;
    return [key, compileTexts(item, where, below)] as const;
  });
  return (scope) => {
    const made: Record<string, unknown> = Object.create(null);
    for (const [key, item] of fields) made[key] = item(scope);
    return made;
  };
}

function compileText(text: string, path: string): Rendering {
  let evaluate: (scope: HilScope) => unknown;
  try {
    ({ evaluate } = parseHil(text));
  } catch (error) {
    throw new TrilithError("invalid", `Bad format '${text}' in Service${path}: ${messageOf(error)}`, error);
  }
  return (scope) => {
    let made: unknown;
    try {
      made = evaluate(scope);
    } catch (error) {
      throw new TrilithError("invalid", `Bad evaluation for '${text}' in Service${path}: ${messageOf(error)}`, error);
    }
    if (typeof made === "string") return made;
    throw new TrilithError("invalid", `Expected Service${path} field to be a string, got TypeInt`);
  };
}
