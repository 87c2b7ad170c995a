// SERVICE_CHECK_* attributes → the one check Registrator would have registered.
import { messageOf } from "../base/error.ts";
import { nearestName } from "../base/nearest-name.ts";
import { hostPort } from "../base/net.ts";
import type { CheckSpecFields } from "./consul-definition/registration.ts";
import { parseGoDuration } from "./duration.ts";

/** What a check is about. */
export interface Checked {
  /** "" = a process outside of containers. */
  readonly containerId: string;
  readonly exposedPort: string;
  /** "" = the node's own address. */
  readonly address: string;
  readonly port: number;
  /** Attributes in lower case, as service-env.ts reads them. */
  readonly attributes: ReadonlyMap<string, string>;
}

export interface CheckOptions {
  /** True where what registers itself may have commands run on this host. */
  readonly scripts: boolean;
  /** The ways to ask that this agent has, by kind. */
  readonly probes: ReadonlyMap<string, { parse(raw: unknown): unknown }>;
  /** Address used in URLs where the service has none of its own. */
  readonly nodeAddress: string;
}

/** A check that was asked for, `detail` as the probe reads it: a CheckSpec of the model. */
export type AskedCheck = Omit<CheckSpecFields, "thresholds" | "outputMaxBytes" | "foreign">;

const DEFAULT_INTERVAL_MS = 10_000;

/** The attributes that ask for a check, in Registrator's order: the first one given wins. */
const KINDS = [
  "check_http",
  "check_https",
  "check_cmd",
  "check_script",
  "check_ttl",
  "check_tcp",
  "check_grpc",
  // Commands inside the container: spellings of Registrator's forks, not of its releases.
  "check_docker",
  "check_docker_script",
  "docker_check_script",
] as const;

/** The attributes that say more about the check that another one asks for. */
const MANNERS = [
  "check_http_method",
  "check_https_method",
  "check_grpc_use_tls",
  "check_tls_skip_verify",
  "check_docker_shell",
  "check_interval",
  "check_timeout",
  "check_initial_status",
  "check_deregister_after",
] as const;
const KNOWN: ReadonlySet<string> = new Set([...KINDS, ...MANNERS]);

const STATUSES = ["passing", "warning", "critical"] as const;

/** Those that make sense for containers only. */
const INSIDE: ReadonlySet<string> = new Set([
  "check_cmd",
  "check_docker",
  "check_docker_script",
  "docker_check_script",
]);

const ASKING = "one of SERVICE_CHECK_HTTP, _HTTPS, _TCP, _TTL, _GRPC, _SCRIPT, _DOCKER";

/** `SERVICE_CHECK_HTTP` for `check_http`. */
function spelt(key: string): string {
  return `SERVICE_${key.toUpperCase()}`;
}

/**
 * The check a port's attributes ask for, if any. What is wrong about it is told to `complain` and left out, so that a spelling mistake
 * never costs the service. Source: Registrator 7.4.0, consul/consul.go `buildCheck`.
 */
export function buildCheck(
  checked: Checked,
  options: CheckOptions,
  complain: (text: string) => void,
): AskedCheck | undefined {
  const { attributes } = checked;
  const get = (key: string): string => attributes.get(key) ?? "";
  const duration = (key: string, instead: string, minimumMs = 0): number | undefined => {
    if (get(key) === "") return undefined;
    try {
      const ms = parseGoDuration(get(key));
      if (ms > minimumMs) return ms;
      complain(`${spelt(key)}="${get(key)}" is not more than ${minimumMs}: ${instead}`);
    } catch (error) {
      complain(`${spelt(key)}="${get(key)}": ${messageOf(error)}; right would be "10s" or "1m30s": ${instead}`);
    }
    return undefined;
  };
  const kind = KINDS.find((key) => get(key) !== "");
  let unknown = false;
  for (const [key, value] of attributes) {
    if (!key.startsWith("check_") || value === "" || KNOWN.has(key)) continue;
    unknown = true;
    const near = nearestName(key, KNOWN);
    complain(
      `${spelt(key)} says nothing about a check${near === undefined ? `: ${ASKING} would` : `; right would be ${spelt(near)}`}`,
    );
  }
  if (kind === undefined) {
    const manner = MANNERS.find((key) => get(key) !== "");
    if (manner !== undefined && !unknown)
      complain(`${spelt(manner)} says how to check, but nothing says what; right would be ${ASKING} besides`);
    return undefined;
  }
  if (checked.containerId === "" && INSIDE.has(kind)) {
    complain(`${spelt(kind)} runs inside a container, and this is none; registered without this check`);
    return undefined;
  }
  const where = hostPort(checked.address === "" ? options.nodeAddress : checked.address, checked.port);
  const url = (scheme: string, path: string): string => `${scheme}://${where}${path.startsWith("/") ? "" : "/"}${path}`;
  const withoutCheck = "registered without this check";

  let probe: { readonly kind: string; readonly detail: unknown };
  let ttlMs: number | undefined;
  switch (kind) {
    case "check_http":
      probe = { kind: "http", detail: httpDetail(url("http", get(kind)), get("check_http_method")) };
      break;
    case "check_https":
      // Registrator knows CHECK_TLS_SKIP_VERIFY for gRPC only.
      probe = { kind: "http", detail: httpDetail(url("https", get(kind)), get("check_https_method")) };
      break;
    case "check_cmd":
      probe = {
        kind: "script",
        detail: { args: ["check-cmd", checked.containerId.slice(0, 12), checked.exposedPort, get(kind)] },
      };
      break;
    case "check_script": {
      const script = get(kind)
        .replaceAll("$SERVICE_IP", checked.address === "" ? options.nodeAddress : checked.address)
        .replaceAll("$SERVICE_PORT", String(checked.port));
      // Registrator hands the whole line over as one program name, which runs only where it has no arguments.
      probe = { kind: "script", detail: { args: ["/bin/sh", "-c", script] } };
      break;
    }
    case "check_ttl":
      ttlMs = duration(kind, withoutCheck);
      if (ttlMs === undefined) return undefined;
      probe = { kind: "ttl", detail: undefined };
      break;
    case "check_tcp":
      probe = { kind: "tcp", detail: { address: where } };
      break;
    case "check_grpc": {
      const tls = get("check_grpc_use_tls") !== "";
      probe = {
        kind: "grpc",
        detail: { address: where, useTls: tls, tlsSkipVerify: tls && get("check_tls_skip_verify") !== "" },
      };
      break;
    }
    default:
      probe = {
        kind: "docker",
        detail: { container: checked.containerId, args: [get("check_docker_shell") || "/bin/sh", "-c", get(kind)] },
      };
  }
  if ((probe.kind === "script" || probe.kind === "docker") && !options.scripts) {
    complain(`${spelt(kind)}: script checks are switched off (enable_script_checks); ${withoutCheck}`);
    return undefined;
  }
  let detail: unknown;
  if (probe.kind !== "ttl") {
    const asked = options.probes.get(probe.kind);
    if (asked === undefined) {
      complain(`${spelt(kind)}: this version has no ${probe.kind} checks; ${withoutCheck}`);
      return undefined;
    }
    try {
      detail = asked.parse(probe.detail);
    } catch (error) {
      complain(`${spelt(kind)}="${get(kind)}": ${messageOf(error)}; ${withoutCheck}`);
      return undefined;
    }
  }

  const takesTimeout = probe.kind !== "ttl" && probe.kind !== "script";
  const timeoutMs = takesTimeout ? duration("check_timeout", "the default is used") : undefined;
  const intervalMs = ttlMs === undefined ? duration("check_interval", "every 10s instead") : undefined;
  const deregisterAfterMs = duration("check_deregister_after", "never deregistered for being critical");
  const initial = get("check_initial_status");
  const status = STATUSES.find((one) => one === initial);
  if (initial !== "" && status === undefined)
    complain(
      `${spelt("check_initial_status")}="${initial}": it has to be passing, warning or critical; begins as critical`,
    );
  return {
    id: "",
    name: "",
    notes: "",
    kind: probe.kind,
    detail,
    intervalMs: ttlMs === undefined ? (intervalMs ?? DEFAULT_INTERVAL_MS) : 0,
    timeoutMs: timeoutMs ?? 0,
    ...(ttlMs === undefined ? {} : { ttlMs }),
    ...(status === undefined ? {} : { initial: status }),
    ...(deregisterAfterMs === undefined ? {} : { deregisterAfterMs }),
  };
}

function httpDetail(url: string, method: string): unknown {
  return { url, ...(method === "" ? {} : { method }) };
}
