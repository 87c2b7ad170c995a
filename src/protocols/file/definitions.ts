// Configuration text → services and checks of this host, or the place and kind of its mistake. Pure.
import { InputError } from "../../base/error.ts";
import { nearestName } from "../../base/nearest-name.ts";
import type { CheckRegistration } from "../../contracts/agent.ts";
import type { Registration } from "../../model/instance.ts";
import type { Override } from "../../model/override.ts";
import { readOverride } from "../../model/override-words.ts";
import {
  type CheckDefinition,
  type CheckKind,
  decodeCheck,
  decodeService,
  type ServiceDefinition,
} from "../../wire/consul-definition/decode.ts";
import { checkFault, nameFault, STATUS_FAULT, serviceFault, statusKnown } from "../../wire/consul-definition/faults.ts";
import type { Path, UnknownField } from "../../wire/consul-definition/reader.ts";
import { checkSpecOf, registrationOf } from "../../wire/consul-definition/registration.ts";
import { type ConfigText, pathText } from "../../wire/hcl/config.ts";

/** What can be asked on this host. */
export interface CheckAbility {
  /** False = checks that run commands are refused. */
  readonly scripts: boolean;
  /** The probe's own reading of a detail; undefined = nobody here can ask that way. @throws TrilithError `invalid` */
  parse(kind: CheckKind): ((detail: Readonly<Record<string, unknown>>) => unknown) | undefined;
}

/** A service or check with the place it came from, for messages about it. */
export interface Placed<T> {
  readonly item: T;
  /** "web.hcl:3: service". */
  readonly at: string;
}

/** What one file holds. */
export interface Definitions {
  readonly services: readonly Placed<Registration>[];
  readonly checks: readonly Placed<CheckRegistration>[];
  /** What is said about services of any source. */
  readonly overrides?: readonly Override[];
  /** What was taken but looks wrong: keys given twice. */
  readonly warnings: readonly { readonly about: string; readonly text: string }[];
}

const ROOT_KEYS: readonly string[] = ["service", "services", "check", "checks", "override", "overrides"];

/** The objects under a singular or plural key: a block, repeated blocks, or a list. */
function objectsUnder(config: ConfigText, key: string): readonly { readonly value: unknown; readonly path: Path }[] {
  const value = config.value[key];
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) return [{ value, path: [key] }];
  return value.map((one, i) => ({ value: one, path: [key, i] }));
}

/**
 * Reads the services and checks of one configuration text. Unknown keys are errors, as with Consul: a slip of the pen must not change a live service.
 * @param rootKeys `only-definitions`: other keys at the top are errors; `any`: they are somebody else's (a Consul configuration file)
 * @throws InputError with file, line and key
 */
export function definitionsIn(
  config: ConfigText,
  ability: CheckAbility,
  rootKeys: "only-definitions" | "any",
): Definitions {
  const warnings: { about: string; text: string }[] = [];
  const refuseUnknown = ([first]: readonly UnknownField[]): void => {
    if (first !== undefined) throw new InputError(config.at(first.path), unknownKeyText(first));
  };
  for (const path of config.duplicates)
    warnings.push({ about: config.at(path), text: "given more than once: only the last one counts" });
  if (rootKeys === "only-definitions")
    for (const key of Object.keys(config.value))
      if (!ROOT_KEYS.includes(key)) refuseUnknown([{ key, path: [key], nearest: nearestName(key, ROOT_KEYS) }]);

  const readable = (check: CheckDefinition): ((kind: CheckKind, detail: CheckDefinition["detail"]) => unknown) => {
    return (kind, detail) => {
      const where = config.at(check.path);
      if ((kind === "script" || kind === "docker") && !ability.scripts)
        throw new InputError(
          where,
          "script checks are off on this agent: start it with --enable-local-script-checks (enable_local_script_checks) to allow them in files",
        );
      const parse = ability.parse(kind);
      if (parse === undefined) throw new InputError(where, `this agent has no way to run ${kind} checks`);
      try {
        return parse(detail);
      } catch (error) {
        throw new InputError(where, error instanceof Error ? error.message : String(error), error);
      }
    };
  };

  const services: Placed<Registration>[] = [];
  for (const { value, path } of [...objectsUnder(config, "service"), ...objectsUnder(config, "services")]) {
    const service: ServiceDefinition = decodeService(value, { spelling: "file", at: config.at, path });
    refuseUnknown(service.unknown);
    const fault = serviceFault(service);
    if (fault !== undefined) throw new InputError(config.at(placeOfFault(service)), fault);
    const byKind = new Map(service.checks.map((check) => [check.detail, check]));
    services.push({
      at: config.at(service.path),
      item: registrationOf(service, (kind, detail) => readable(byKind.get(detail) as CheckDefinition)(kind, detail)),
    });
  }

  const checks: Placed<CheckRegistration>[] = [];
  for (const { value, path } of [...objectsUnder(config, "check"), ...objectsUnder(config, "checks")]) {
    const check = decodeCheck(value, { spelling: "file", at: config.at, path });
    refuseUnknown(check.unknown);
    const fault =
      check.name === "" && check.id === ""
        ? "Missing check name"
        : (nameFault("check ID", check.id === "" ? check.name : check.id) ??
          checkFault(check) ??
          (statusKnown(check) ? undefined : STATUS_FAULT));
    if (fault !== undefined) throw new InputError(config.at(check.path), fault);
    const spec = checkSpecOf(check, readable(check));
    checks.push({
      at: config.at(check.path),
      item: {
        ...spec,
        id: spec.id === "" ? spec.name : spec.id,
        name: spec.name === "" ? spec.id : spec.name,
        serviceId: check.serviceId,
        foreign: { ...spec.foreign, ...standAlone(check) },
      },
    });
  }
  const overrides = [...objectsUnder(config, "override"), ...objectsUnder(config, "overrides")].map(({ value, path }) =>
    readOverride(value, path, config.at),
  );
  return { services, checks, warnings, ...(overrides.length === 0 ? {} : { overrides }) };
}

/** What is told of a key that nobody knows. */
export function unknownKeyText({ nearest }: UnknownField): string {
  return `unknown key${nearest === undefined ? "" : `: did you mean "${nearest}"?`}`;
}

/** How Consul shows a check that stands alone in a file: without a type, its durations as they were given. */
function standAlone(check: CheckDefinition): Readonly<Record<string, unknown>> {
  return { Type: "", Interval: check.given["Interval"] ?? "0s", Timeout: check.given["Timeout"] ?? "0s" };
}

/** The path to point at for what `serviceFault` found: the first check at fault, or the service. */
function placeOfFault(service: ServiceDefinition): Path {
  if (service.name === "") return service.path;
  const check = service.checks.find((one) => checkFault(one) !== undefined || !statusKnown(one));
  return check?.path ?? service.path;
}

/** Everything several files state, with what they dispute. */
export interface Merged {
  readonly services: readonly Registration[];
  /** Checks of the node and of services that are not in files. */
  readonly checks: readonly CheckRegistration[];
  readonly overrides: readonly Override[];
  readonly complaints: readonly { readonly about: string; readonly text: string }[];
}

/** Puts files together in order: the first to define an ID has it; checks find the services they are about. */
export function mergeDefinitions(
  files: readonly { readonly name: string; readonly definitions: Definitions }[],
): Merged {
  const services = new Map<string, { registration: Registration; at: string }>();
  const checks = new Map<string, { check: CheckRegistration; at: string }>();
  const complaints: { about: string; text: string }[] = [];
  for (const { definitions } of files) {
    complaints.push(...definitions.warnings);
    for (const { item, at } of definitions.services) {
      const before = services.get(item.id);
      if (before !== undefined)
        complaints.push({
          about: at,
          text: `ignored: there is a service with the ID "${item.id}" at ${before.at} already. Give this one an id of its own`,
        });
      else services.set(item.id, { registration: { ...item, foreignId: item.id, text: `defined in ${at}` }, at });
    }
  }
  for (const { definitions } of files)
    for (const { item, at } of definitions.checks) {
      const before = checks.get(item.id);
      if (before !== undefined) {
        complaints.push({
          about: at,
          text: `ignored: there is a check with the ID "${item.id}" at ${before.at} already`,
        });
        continue;
      }
      checks.set(item.id, { check: item, at });
    }
  for (const [id, { check }] of checks) {
    const service = services.get(check.serviceId);
    if (check.serviceId === "" || service === undefined) continue;
    const { serviceId: _, ...spec } = check;
    service.registration = { ...service.registration, checks: [...service.registration.checks, spec] };
    checks.delete(id);
  }
  return {
    services: [...services.values()].map(({ registration }) => registration),
    checks: [...checks.values()].map(({ check }) => check),
    overrides: files.flatMap(({ definitions }) => definitions.overrides ?? []),
    complaints,
  };
}

/** A list of inline definitions (already parsed elsewhere) as configuration text that has names instead of lines. */
export function inlineConfig(value: Readonly<Record<string, unknown>>, name: string): ConfigText {
  return {
    value,
    fileName: name,
    position: () => ({ line: 1, column: 1 }),
    at: (path) => (path.length === 0 ? name : `${name}: ${pathText(path)}`),
    duplicates: [],
  };
}
