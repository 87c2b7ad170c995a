// Docker's configuration: what is accepted, and what is said about the rest.
import { InputError } from "../../base/error.ts";
import { parseGoDuration } from "../../wire/duration.ts";
import { farHost, parseHost } from "./endpoint.ts";
import { type MirrorConfig, mirrorUri } from "./registrator-command/mirror.ts";
import { parseTemplate } from "./tags-template.ts";

/** One of several engines. */
export interface EndpointConfig {
  /** unix://, tcp:// or https://. */
  readonly host: string;
  /** What it is called here; part of its containers' identity. */
  readonly name: string;
  /** The host part of its IDs; "" = the engine's own host name. */
  readonly hostname: string;
  /** As `docker.ip`, for this engine. */
  readonly ip: string;
  /** The folder of ca.pem, cert.pem and key.pem; tcp:// is then spoken over TLS. "" = none. */
  readonly certPath: string;
  /** False = any certificate of the engine is taken. */
  readonly tlsVerify: boolean;
}

export interface DockerConfig {
  readonly enabled: "auto" | boolean;
  /** "" = DOCKER_HOST, else the usual sockets. */
  readonly host: string;
  /** A context of the docker client; "" = DOCKER_CONTEXT. */
  readonly context: string;
  /** Several engines, in place of `host`; the first one on this host is the main one. */
  readonly endpoints: readonly EndpointConfig[];
  /** The host part of service IDs; "" = this machine's host name. */
  readonly hostname: string;
  readonly ip: string;
  readonly internal: boolean;
  readonly explicit: boolean;
  readonly useIpFromLabel: string;
  /** A Go template, its result split at commas. */
  readonly tags: string;
  /** A Go template for the name of containers that give none; "" = the image's. */
  readonly name: string;
  /** False = no `-port` behind the names of a container with several ports. */
  readonly portSuffix: boolean;
  readonly deregister: "always" | "on-success";
  readonly compat: boolean;
  /** Whose labels `connect.PORT=SERVICE` count: the containers' (true), their images' as well, or none. */
  readonly connect: boolean | "images";
  /** Where containers are written to besides, as Registrator would. */
  readonly backends: readonly MirrorConfig[];
}

const KEYS = [
  ...[
    "enabled",
    "host",
    "context",
    "endpoints",
    "hostname",
    "ip",
    "internal",
    "explicit",
    "useIpFromLabel",
    "tags",
    "name",
  ],
  ...["portSuffix", "deregister", "compat", "connect", "backends"],
];
const ENDPOINT_KEYS = ["host", "name", "hostname", "ip", "certPath", "tlsVerify"];

/** Reads values of an object by key; `at` is what stands before the key in messages. */
class Fields {
  readonly #values: ReadonlyMap<string, unknown>;
  readonly #at: string;
  constructor(given: object, at: string, known: readonly string[]) {
    this.#values = new Map<string, unknown>(Object.entries(given));
    this.#at = at;
    for (const key of this.#values.keys())
      if (!known.includes(key)) throw new InputError(at, `unknown key "${key}": known are ${known.join(", ")}`);
  }
  get(key: string): unknown {
    return this.#values.get(key);
  }
  fail(key: string, right: string): never {
    throw new InputError(`${this.#at}.${key}`, `${JSON.stringify(this.#values.get(key))}: expected ${right}`);
  }
  text(key: string): string {
    const value = this.#values.get(key) ?? "";
    return typeof value === "string" ? value : this.fail(key, "a text");
  }
  flag(key: string, otherwise: boolean): boolean {
    const value = this.#values.get(key) ?? otherwise;
    return typeof value === "boolean" ? value : this.fail(key, "true or false");
  }
  address(key: string): string {
    const ip = this.text(key);
    if (ip === "0.0.0.0" || ip === "::" || /[\s/]/.test(ip))
      this.fail(key, "an address or host name one can connect to");
    return ip;
  }
  template(key: string): string {
    const source = this.text(key);
    try {
      parseTemplate(source);
    } catch (error) {
      throw new InputError(`${this.#at}.${key}`, error instanceof Error ? error.message : String(error), error);
    }
    return source;
  }
}

function endpointsOf(given: unknown): EndpointConfig[] {
  if (given === undefined) return [];
  if (!Array.isArray(given) || given.length === 0)
    throw new InputError(
      "docker.endpoints",
      `${JSON.stringify(given)}: expected a list of places: ["unix:///var/run/docker.sock", {"host": "tcp://10.0.0.5:2376", "certPath": "/etc/docker/certs"}]`,
    );
  const endpoints = given.map((one: unknown, i): EndpointConfig => {
    const at = `docker.endpoints[${i}]`;
    const raw = typeof one === "string" ? { host: one } : one;
    if (typeof raw !== "object" || raw === null || Array.isArray(raw))
      throw new InputError(
        at,
        `${JSON.stringify(one)}: expected a place or an object with ${ENDPOINT_KEYS.join(", ")}`,
      );
    const fields = new Fields(raw, at, ENDPOINT_KEYS);
    const endpoint = parseHost(fields.text("host"), `${at}.host`);
    const usual =
      endpoint.socketPath?.replace(/^.*\/|\.sock$/g, "") ?? farHost(endpoint) ?? new URL(endpoint.base).host;
    return {
      host: fields.text("host"),
      name: fields.text("name") || usual,
      hostname: fields.text("hostname"),
      ip: fields.address("ip"),
      certPath: fields.text("certPath"),
      tlsVerify: fields.flag("tlsVerify", true),
    };
  });
  const names = new Set<string>();
  endpoints.forEach(({ name }, i) => {
    if (names.has(name))
      throw new InputError(
        `docker.endpoints[${i}]`,
        `another endpoint is called ${JSON.stringify(name)} already: give each a "name"`,
      );
    names.add(name);
  });
  return endpoints;
}

function backendsOf(given: unknown): MirrorConfig[] {
  if (given === undefined) return [];
  if (!Array.isArray(given))
    throw new InputError(
      "docker.backends",
      `${JSON.stringify(given)}: expected a list: ["etcd://10.0.0.5:2379/services", {"uri": "skydns2://10.0.0.5:2379/skydns.local", "ttl": "60s"}]`,
    );
  return given.map((one: unknown, i): MirrorConfig => {
    const at = `docker.backends[${i}]`;
    const raw = typeof one === "string" ? { uri: one } : one;
    if (typeof raw !== "object" || raw === null || Array.isArray(raw))
      throw new InputError(at, `${JSON.stringify(one)}: expected a registry URI or an object with uri, ttl`);
    const fields = new Fields(raw, at, ["uri", "ttl"]);
    const uri = fields.text("uri");
    mirrorUri(uri, `${at}.uri`);
    const ttlMs = fields.text("ttl") === "" ? 0 : parseGoDuration(fields.text("ttl"), `${at}.ttl`);
    if (ttlMs !== 0 && (ttlMs < 2_000 || ttlMs % 1000 !== 0)) fields.fail("ttl", "whole seconds, two at least");
    return { uri, ttlSeconds: ttlMs / 1000 };
  });
}

/** Checks raw configuration. @throws InputError with the key and what would be right */
export function configure(raw: unknown): DockerConfig {
  const given = typeof raw === "boolean" ? { enabled: raw } : (raw ?? {});
  if (typeof given !== "object" || Array.isArray(given))
    throw new InputError("docker", `${JSON.stringify(raw)}: expected true, false or an object with ${KEYS.join(", ")}`);
  const fields = new Fields(given, "docker", KEYS);
  const enabled = fields.get("enabled") ?? "auto";
  if (enabled !== "auto" && typeof enabled !== "boolean") return fields.fail("enabled", '"auto", true or false');
  const deregister = fields.get("deregister") ?? "always";
  if (deregister !== "always" && deregister !== "on-success")
    return fields.fail("deregister", '"always" or "on-success"');
  const connect = fields.get("connect") ?? true;
  if (connect !== "images" && typeof connect !== "boolean") return fields.fail("connect", '"images", true or false');
  const host = fields.text("host");
  const endpoints = endpointsOf(fields.get("endpoints"));
  if (host !== "" && endpoints.length > 0) fields.fail("host", 'none beside "endpoints"');
  if (host !== "") parseHost(host, "docker.host");
  return {
    enabled,
    host,
    context: fields.text("context"),
    endpoints,
    hostname: fields.text("hostname"),
    ip: fields.address("ip"),
    internal: fields.flag("internal", false),
    explicit: fields.flag("explicit", false),
    useIpFromLabel: fields.text("useIpFromLabel"),
    tags: fields.template("tags"),
    name: fields.template("name"),
    portSuffix: fields.flag("portSuffix", true),
    deregister,
    compat: fields.flag("compat", false),
    connect,
    backends: backendsOf(fields.get("backends")),
  };
}
