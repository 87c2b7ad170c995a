// What `protocols.backends` may say: where to listen, for whom, and what the backends are.
import { InputError } from "../../base/error.ts";
import { networkFault } from "../../base/networks.ts";
import { parseGoDuration } from "../../wire/duration.ts";

export interface BackendsConfig {
  readonly host: string;
  readonly port: number;
  /** Who may ask, in CIDR notation; absent = the networks that this host has an interface in. */
  readonly networks?: readonly string[];
  /** The service that backends are instances of. */
  readonly service: string;
  /** The port of backends that tell none; 0 = none. */
  readonly backendPort: number;
  /** In front of "://" in Apache's lines. */
  readonly scheme: string;
  /** A backend that did not repeat its POST for so long is critical, and deregistered after as long again; absent = it stays until it is deleted. */
  readonly expireMs?: number;
  /** Whether backends with a port are asked by TCP. */
  readonly check: boolean;
}

const KEYS = ["address", "port", "networks", "service", "backend_port", "scheme", "expire", "check"];

/** Undefined = off, which is the default. @throws InputError that names the key */
export function configureBackends(raw: unknown): BackendsConfig | undefined {
  if (raw === undefined || raw === false) return undefined;
  const given = raw === true ? {} : raw;
  if (typeof given !== "object" || given === null || Array.isArray(given))
    throw new InputError(
      "backends",
      `expected true, false or an object such as {"port": 80}, but got ${JSON.stringify(raw)}`,
    );
  const told = given as Record<string, unknown>;
  const strange = Object.keys(told).find((key) => !KEYS.includes(key));
  if (strange !== undefined) throw new InputError(`backends.${strange}`, `unknown key; known are ${KEYS.join(", ")}`);
  const text = (key: string, fallback: string, good: RegExp, what: string): string => {
    const value = told[key] ?? fallback;
    if (typeof value !== "string" || !good.test(value))
      throw new InputError(`backends.${key}`, `expected ${what}, but got ${JSON.stringify(value)}`);
    return value;
  };
  const networks = told["networks"];
  if (networks !== undefined) {
    if (!Array.isArray(networks) || networks.length === 0)
      throw new InputError(
        "backends.networks",
        `expected a list such as ["192.168.1.0/24"], but got ${JSON.stringify(networks)}`,
      );
    for (const each of networks) {
      const fault = networkFault(String(each));
      if (fault !== undefined) throw new InputError("backends.networks", fault);
    }
  }
  const expire = told["expire"];
  const expireMs = expire === undefined ? undefined : parseGoDuration(String(expire), "backends.expire");
  if (expireMs !== undefined && expireMs < 1000)
    throw new InputError("backends.expire", `expected at least 1s, but got ${JSON.stringify(expire)}`);
  const check = told["check"] ?? true;
  if (typeof check !== "boolean")
    throw new InputError("backends.check", `expected true or false, but got ${JSON.stringify(check)}`);
  return {
    host: text("address", "127.0.0.1", /\S/, "an IP address"),
    port: portOf(told["port"] ?? 80, "backends.port", 0),
    ...(networks === undefined ? {} : { networks: networks as string[] }),
    service: text("service", "backend", /^[^\s/]+$/, "a service's name"),
    backendPort: portOf(told["backend_port"] ?? 0, "backends.backend_port", 0),
    scheme: text("scheme", "http", /^[a-z][a-z0-9+.-]*$/, 'a scheme such as "http"'),
    ...(expireMs === undefined ? {} : { expireMs }),
    check,
  };
}

/** A port as a number or in digits. @throws InputError at `where` */
export function portOf(value: unknown, where: string, least: number): number {
  const port = typeof value === "string" && /^\d{1,5}$/.test(value) ? Number(value) : value;
  if (typeof port !== "number" || !Number.isInteger(port) || port < least || port > 65_535)
    throw new InputError(where, `expected a port from ${least} to 65535, but got ${JSON.stringify(value)}`);
  return port;
}
