// Checked definitions as the model's registrations and checks; structural types, since wire may not import the model.
import type { CheckDefinition, CheckKind, Labels, ServiceDefinition, TaggedAddress, Weights } from "./decode.ts";

/** The fields of the model's CheckSpec that a definition fills in. */
export interface CheckSpecFields {
  readonly id: string;
  readonly name: string;
  readonly notes: string;
  readonly kind: string;
  readonly detail: unknown;
  readonly intervalMs: number;
  readonly timeoutMs: number;
  readonly ttlMs?: number;
  readonly initial?: "passing" | "warning" | "critical";
  readonly thresholds?: {
    readonly successBeforePassing?: number;
    readonly failuresBeforeWarning?: number;
    readonly failuresBeforeCritical?: number;
  };
  readonly deregisterAfterMs?: number;
  readonly outputMaxBytes?: number;
  readonly foreign: Readonly<Record<string, unknown>>;
}

/** The fields of the model's Registration that a definition fills in. */
export interface RegistrationFields {
  readonly id: string;
  readonly name: string;
  readonly tags: readonly string[];
  readonly labels: Labels;
  readonly address: string;
  readonly port: number;
  readonly taggedAddresses?: Readonly<Record<string, TaggedAddress>>;
  readonly weights?: Weights;
  readonly socketPath?: string;
  readonly enableTagOverride?: boolean;
  readonly foreign?: Readonly<Record<string, unknown>>;
  readonly checks: readonly CheckSpecFields[];
}

/** A checked definition as the model's check. `parseDetail` is the own `parse` of the kind's probe; it may throw, and is not called for "ttl" and "alias". */
export function checkSpecOf(
  check: CheckDefinition,
  parseDetail: (kind: CheckKind, detail: Readonly<Record<string, unknown>>) => unknown,
): CheckSpecFields {
  const thresholds: Record<string, number> = {};
  if (check.successBeforePassing > 0) thresholds["successBeforePassing"] = check.successBeforePassing;
  if (check.failuresBeforeWarning > 0) thresholds["failuresBeforeWarning"] = check.failuresBeforeWarning;
  if (check.failuresBeforeCritical > 0) thresholds["failuresBeforeCritical"] = check.failuresBeforeCritical;
  const pushed = check.kind === "ttl" || check.kind === "alias" || check.kind === "";
  return {
    id: check.id,
    name: check.name,
    notes: check.notes,
    kind: check.kind === "" ? "none" : check.kind,
    detail: pushed ? check.detail : parseDetail(check.kind, check.detail),
    intervalMs: check.intervalMs,
    timeoutMs: check.timeoutMs,
    ...(check.ttlMs > 0 ? { ttlMs: check.ttlMs } : {}),
    ...(check.status === "" ? {} : { initial: check.status as "passing" }),
    ...(Object.keys(thresholds).length > 0 ? { thresholds } : {}),
    ...(check.deregisterAfterMs > 0 ? { deregisterAfterMs: check.deregisterAfterMs } : {}),
    ...(check.outputMaxBytes > 0 ? { outputMaxBytes: check.outputMaxBytes } : {}),
    foreign: check.given,
  };
}

/** A checked definition as the model's registration; its ID is the name where none was given. */
export function registrationOf(
  service: ServiceDefinition,
  parseDetail: (kind: CheckKind, detail: Readonly<Record<string, unknown>>) => unknown,
): RegistrationFields {
  return {
    id: service.id === "" ? service.name : service.id,
    name: service.name,
    tags: service.tags,
    labels: service.labels,
    address: service.address,
    port: service.port,
    ...(service.taggedAddresses === undefined ? {} : { taggedAddresses: service.taggedAddresses }),
    ...(service.weights === undefined ? {} : { weights: service.weights }),
    ...(service.socketPath === "" ? {} : { socketPath: service.socketPath }),
    ...(service.enableTagOverride ? { enableTagOverride: true } : {}),
    ...(Object.keys(service.foreign).length > 0 ? { foreign: service.foreign } : {}),
    checks: service.checks.map((check) => checkSpecOf(check, parseDetail)),
  };
}
