// Query parameters → a query for the lookup.
import { InputError } from "../../base/error.ts";
import { ipFamily } from "../../base/net.ts";
import type { Query } from "../../model/query.ts";

const FIND = ["tag", "label", "asker", "passing", "health", "order", "limit"] as const;
/** Understood on every path. */
const EVERYWHERE = ["dc", "pretty", "token"] as const;
const HEALTH = ["routable", "passing", "any"] as const;
const ORDER = ["random", "stable", "near"] as const;

/** @throws InputError naming a parameter that is neither in `known` nor understood everywhere */
export function onlyKnown(parameters: URLSearchParams, known: readonly string[]): void {
  const all = [...known, ...EVERYWHERE];
  for (const key of parameters.keys())
    if (!all.includes(key)) throw new InputError(`parameter "${key}"`, `unknown; known here are ${all.join(", ")}`);
}

/** True for `?key`, `?key=true` and `?key=1`. @throws InputError for anything but true and false */
export function flag(parameters: URLSearchParams, key: string): boolean {
  const given = parameters.get(key);
  if (given === null || given === "false" || given === "0") return false;
  if (given === "" || given === "true" || given === "1") return true;
  throw new InputError(`parameter "${key}"`, `expected nothing, true or false, but got "${given}"`);
}

/**
 * The parameters of `find`, `follow` and `why`: `tag` (repeatable), `label=key=value` (repeatable), `asker` (an IP address; the
 * caller's own when absent), `passing`, `health`, `order`, `limit`, `dc`. @throws InputError
 */
export function queryOf(service: string, parameters: URLSearchParams, caller: string | undefined): Query {
  onlyKnown(parameters, FIND);
  const labels: Record<string, string> = Object.create(null);
  for (const pair of parameters.getAll("label")) {
    const at = pair.indexOf("=");
    if (at < 1) throw new InputError('parameter "label"', `expected key=value, but got "${pair}"`);
    labels[pair.slice(0, at)] = pair.slice(at + 1);
  }
  const asker = parameters.get("asker") ?? caller;
  if (asker !== undefined && ipFamily(asker) === 0)
    throw new InputError('parameter "asker"', `expected an IP address, but got "${asker}"`);
  const health = flag(parameters, "passing") ? "passing" : oneOf(parameters, "health", HEALTH);
  const order = oneOf(parameters, "order", ORDER);
  const limit = parameters.get("limit");
  if (limit !== null && !/^[1-9]\d{0,8}$/.test(limit))
    throw new InputError('parameter "limit"', `expected a whole number from 1, but got "${limit}"`);
  const datacenter = parameters.get("dc");
  const tags = parameters.getAll("tag");
  return {
    service,
    ...(tags.length === 0 ? {} : { tags }),
    ...(Object.keys(labels).length === 0 ? {} : { labels }),
    ...(asker === undefined ? {} : { asker }),
    ...(health === undefined ? {} : { health }),
    ...(order === undefined ? {} : { order }),
    ...(limit === null ? {} : { limit: Number(limit) }),
    ...(datacenter === null ? {} : { datacenter }),
  };
}

function oneOf<const T extends string>(parameters: URLSearchParams, key: string, allowed: readonly T[]): T | undefined {
  const given = parameters.get(key);
  if (given === null) return undefined;
  const found = allowed.find((each) => each === given);
  if (found === undefined)
    throw new InputError(`parameter "${key}"`, `expected ${allowed.join(", ")}, but got "${given}"`);
  return found;
}
