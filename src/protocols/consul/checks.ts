// What definitions of checks need from this agent: the probes' parsers, and whether scripts may run.
import { TrilithError } from "../../base/error.ts";
import type { CheckDefinition, CheckKind } from "../../wire/consul-definition.ts";
import type { Call, ConsulGround } from "./call.ts";
import { Refusal } from "./errors.ts";

/** Hands a check's detail to the probe of its kind. The result throws TrilithError `invalid` for kinds this agent cannot ask. */
export function detailParser(
  ground: Pick<ConsulGround, "probes">,
): (kind: CheckKind, detail: Readonly<Record<string, unknown>>) => unknown {
  return (kind, detail) => {
    const probe = ground.probes.get(kind);
    if (probe === undefined)
      throw new TrilithError(
        "invalid",
        `Invalid check: this agent has no ${kind} checks; it has ${[...ground.probes.keys(), "ttl"].sort().join(", ")}`,
      );
    return probe.parse(detail);
  };
}

/** @throws Refusal 500 where a check would run a command and callers may not bring commands */
export function refuseScripts(call: Call, checks: readonly CheckDefinition[]): void {
  if (call.ground.self.scripts.fromApi) return;
  if (checks.some(({ kind }) => kind === "script" || kind === "docker"))
    throw new Refusal(
      500,
      "Scripts are disabled on this agent from remote calls; to enable, configure 'enable_script_checks' to true",
    );
}

const DEFAULT_OUTPUT_BYTES = 4096;

/** True where a check keeps more of an output than `maxBytes`. */
export function allowsMore(spec: { readonly outputMaxBytes?: number }, maxBytes: number): boolean {
  return (spec.outputMaxBytes ?? DEFAULT_OUTPUT_BYTES) > maxBytes;
}

/** A check whose output is kept no longer than the agent allows. */
export function limitOutput<T extends { readonly outputMaxBytes?: number }>(spec: T, maxBytes: number): T {
  return allowsMore(spec, maxBytes) ? { ...spec, outputMaxBytes: maxBytes } : spec;
}
