// What the agent holds of a service and of a check, and what of it stands in the directory.
import type { HeldCheck, HeldService } from "../contracts/agent.ts";
import {
  type Check,
  type CheckSpec,
  NODE_MAINTENANCE_CHECK,
  SERVICE_MAINTENANCE_CHECK,
  type Status,
} from "../model/check.ts";
import type { Instance, Registration } from "../model/instance.ts";
import type { Authority } from "../model/reason.ts";
import { ResultCounter } from "./thresholds.ts";

/** A service with who owns it and what was asked for. Replaced, never changed. */
export class ServiceRecord implements HeldService {
  readonly from: string;
  readonly registration: Registration;
  readonly instance: Instance;
  readonly checks: readonly CheckSpec[];
  constructor(from: string, registration: Registration, instance: Instance, checks: readonly CheckSpec[]) {
    this.from = from;
    this.registration = registration;
    this.instance = instance;
    this.checks = checks;
  }

  get asked(): Registration {
    return this.registration.overridden?.registration ?? this.registration;
  }

  get authority(): Authority {
    return this.instance.origin.authority;
  }
}

/** One result of a check. */
export interface Result {
  readonly atMs: number;
  readonly status: Status;
  readonly output: string;
}

const RESULTS_KEPT = 16;
const OUTPUT_CHARACTERS_KEPT = 512;

/** A check with who owns it, how it stands and its last results. Replaced, except for results and counter, which its successors share. */
export class CheckRecord implements HeldCheck {
  readonly from: string;
  readonly check: Check;
  readonly spec: CheckSpec;
  readonly counter: ResultCounter;
  /** Newest first. */
  readonly #results: Result[];

  constructor(from: string, check: Check, spec: CheckSpec, before?: CheckRecord) {
    this.from = from;
    this.check = check;
    this.spec = spec;
    this.#results = before === undefined ? [] : before.#results;
    this.counter = before !== undefined && before.spec === spec ? before.counter : new ResultCounter(spec.thresholds);
  }

  get serviceId(): string {
    return this.check.serviceId;
  }

  get history(): readonly Result[] {
    return [...this.#results];
  }

  remember(atMs: number, status: Status, output: string): void {
    const short = output.length > OUTPUT_CHARACTERS_KEPT ? `${output.slice(0, OUTPUT_CHARACTERS_KEPT)}…` : output;
    const newest = this.#results[0];
    // The same words are kept once.
    this.#results.unshift({ atMs, status, output: newest?.output === short ? newest.output : short });
    this.#results.length = Math.min(this.#results.length, RESULTS_KEPT);
  }
}

/** The instance of a registration on a node. */
export function instanceOf(
  node: string,
  from: string,
  authority: Authority,
  r: Registration,
  now: { readonly tags: readonly string[]; readonly draining: boolean },
): Instance {
  const {
    checks: _checks,
    external: _external,
    aka: _aka,
    words: _words,
    authority: _authority,
    overridden,
    foreignId,
    text,
    draining,
    ...facts
  } = r;
  return {
    ...facts,
    tags: r.enableTagOverride === true ? now.tags : r.tags,
    ...(draining === true || now.draining ? { draining: true } : {}),
    node,
    origin: {
      source: from,
      authority,
      ...(foreignId === undefined ? {} : { foreignId }),
      ...(text === undefined ? {} : { text }),
      ...(overridden === undefined ? {} : { overridden: { by: overridden.by, original: overridden.original } }),
    },
  };
}

/** Consul's type words where they differ from the kinds. */
const TYPE_OF: Readonly<Record<string, string>> = { none: "", "os-service": "os_service" };

/** The check of a spec on a node. */
export function checkOf(
  node: string,
  from: string,
  authority: Authority,
  spec: CheckSpec,
  serviceId: string,
  stands: { readonly status: Status; readonly output: string },
): Check {
  return {
    id: spec.id,
    node,
    name: spec.name,
    status: stands.status,
    notes: spec.notes,
    output: stands.output,
    serviceId,
    type: isMaintenance(spec.id) ? "maintenance" : (TYPE_OF[spec.kind] ?? spec.kind),
    ...(spec.intervalMs > 0 ? { intervalMs: spec.intervalMs } : {}),
    ...(spec.timeoutMs > 0 ? { timeoutMs: spec.timeoutMs } : {}),
    origin: { source: from, authority },
    ...(spec.foreign === undefined ? {} : { foreign: spec.foreign }),
  };
}

/** Whether a check by this id is one of those that put a node or a service into maintenance. */
export function isMaintenance(checkId: string): boolean {
  return checkId === NODE_MAINTENANCE_CHECK || checkId.startsWith(SERVICE_MAINTENANCE_CHECK);
}

/** The check that puts a service ("" = the node) into maintenance, in Consul's words. */
export function maintenanceSpec(serviceId: string, reason: string): CheckSpec {
  const what = serviceId === "" ? "node" : "service";
  return {
    id: serviceId === "" ? NODE_MAINTENANCE_CHECK : SERVICE_MAINTENANCE_CHECK + serviceId,
    name: serviceId === "" ? "Node Maintenance Mode" : "Service Maintenance Mode",
    notes:
      reason === ""
        ? `Maintenance mode is enabled for this ${what}, but no reason was provided. This is a default message.`
        : reason,
    kind: "none",
    detail: null,
    intervalMs: 0,
    timeoutMs: 0,
    initial: "critical",
  };
}

const REFUSED = "refused check";

/** In place of a check that cannot be asked: the service is held, visible and never healthy by mistake. */
export function unaskable(spec: CheckSpec, text: string): CheckSpec {
  const { ttlMs: _ttl, ...rest } = spec;
  return { ...rest, kind: "none", detail: REFUSED, initial: "critical", notes: text };
}

/** True for what `unaskable` made. */
export function isRefusal(spec: CheckSpec): boolean {
  return spec.kind === "none" && spec.detail === REFUSED;
}
