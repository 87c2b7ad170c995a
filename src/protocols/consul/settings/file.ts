// One configuration file, read key by key: what is known does its part, what is not is refused with the nearest name.
import { InputError } from "../../../base/error.ts";
import { nearestName } from "../../../base/nearest-name.ts";
import { readWatches } from "../watch-config.ts";
import { CONSUL_KEYS } from "./consul-keys.ts";
import type { Draft, Known } from "./draft.ts";
import { IGNORED } from "./ignored-keys.ts";
import { BELOW_PROTOCOLS, OWN_KEYS } from "./own-keys.ts";
import { isReloaded } from "./reloaded-keys.ts";
import { inner, type KeyPath, Value } from "./value.ts";

/** One configuration file. */
export interface ConsulFile {
  readonly value: Readonly<Record<string, unknown>>;
  /** Where a key stands, for error messages: "agent.hcl:3: ports.http". */
  readonly at: (path: KeyPath) => string;
  /** Given to the `file` protocol, which takes the services and checks. */
  readonly path: string;
}

/** Read by the `file` protocol from the same files. */
export const DEFINITIONS: readonly string[] = ["service", "services", "check", "checks"];
/** Read by it, too, and no part of Consul's configuration. */
const OWN_DEFINITIONS = ["override", "overrides"];

const TAKEN: Readonly<Record<string, Known>> = { ...OWN_KEYS, ...CONSUL_KEYS };
const EXACT: ReadonlyMap<string, Known> = new Map<string, Known>([
  ...IGNORED.filter((key) => !key.includes("*")).map((key) => [key, "ignored"] as const),
  ...Object.entries(TAKEN),
]);
/** Groups whose keys are all accepted: "telemetry." of "telemetry.*", "acl_" of "acl_*". */
const GROUPS: readonly string[] = IGNORED.filter((key) => key.endsWith("*")).map((key) => key.slice(0, -1));
/** Keys that hold further keys: "ports", "dns_config", "dns_config.soa". */
const PARENTS: ReadonlySet<string> = new Set(
  [...Object.keys(TAKEN), ...IGNORED].flatMap((key) => {
    const parts = key.split(".");
    return parts.slice(0, -1).map((_, i) => parts.slice(0, i + 1).join("."));
  }),
);

/** Gathers what a file says. @throws InputError for wrong values and unknown keys, with file, line, key and the nearest known name */
export function readFile(draft: Draft, file: ConsulFile): void {
  readLevel(draft, file, file.value, [], "");
}

/** `prefix` is the dotted name of the level, with a dot at its end. */
function readLevel(draft: Draft, file: ConsulFile, level: object, path: KeyPath, prefix: string): void {
  for (const [key, raw] of Object.entries(level) as [string, unknown][]) {
    const dotted = prefix + key.toLowerCase();
    const here = [...path, key];
    if (raw === null) continue;
    if (prefix === "" && [...DEFINITIONS, ...OWN_DEFINITIONS].includes(dotted)) continue;
    if (dotted === "watches") {
      draft.watches.push(...readWatches(raw, here, file.at));
      continue;
    }
    const known = EXACT.get(dotted);
    if (known === undefined && PARENTS.has(dotted)) {
      const block = inner(raw);
      if (block === undefined) throw new InputError(file.at(here), `${JSON.stringify(raw)}: expected an object`);
      readLevel(draft, file, block, block === raw ? here : [...here, 0], `${dotted}.`);
    } else if (typeof known === "function") {
      known(draft, new Value(raw, file.at(here)));
      if (!isReloaded(dotted)) draft.untilRestart[dotted] = `${draft.untilRestart[dotted] ?? ""}${JSON.stringify(raw)}`;
    } else if (known === "ignored" || GROUPS.some((group) => dotted.startsWith(group))) draft.ignored.add(dotted);
    else throw new InputError(file.at(here), unknownKey(key, prefix));
  }
}

function unknownKey(key: string, prefix: string): string {
  if (prefix === "" && BELOW_PROTOCOLS.includes(key))
    return `unknown key "${key}": protocols stand below "protocols": {"protocols": {"${key}": …}}`;
  const names = new Set<string>(prefix === "" ? [...DEFINITIONS, ...OWN_DEFINITIONS, "watches"] : []);
  for (const known of [...EXACT.keys(), ...PARENTS])
    if (known.startsWith(prefix)) names.add(known.slice(prefix.length).split(".")[0] as string);
  const nearest = nearestName(key, names);
  return `unknown key "${prefix}${key}"${nearest === undefined ? "" : `: did you mean "${prefix}${nearest}"?`}`;
}
