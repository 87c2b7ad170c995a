// What `protocols.zookeeper` may say: the servers, the server sets to read and the services to write; Discotech's keys too.
import { InputError } from "../../base/error.ts";
import { type Given, given } from "../../wire/given.ts";

/** Server sets that are read. */
export interface SetRule {
  /** Of one set, or of many where a part is "*": "/discovery/*". */
  readonly path: string;
  /** The service's name; {1} is what the first "*" stands for. Absent = the path's last part. */
  readonly service?: string;
  readonly tags: readonly string[];
  /** The additional endpoint that is the service, in place of the service endpoint. */
  readonly endpoint?: string;
  /** What additional endpoints are instances of: true = of "<service>-<endpoint>", false = of nothing; by the endpoint's name otherwise. */
  readonly endpoints: boolean | Readonly<Record<string, string>>;
}

/** Services that are written. */
export interface AnnounceRule {
  /** "*" = every one. */
  readonly service: string;
  /** Of the set; {service} is the service's name. */
  readonly path: string;
  /** Only instances with all of these. */
  readonly tags: readonly string[];
  /** "host": this host's own; "directory": everybody's, for hosts that have no agent or do not reach ZooKeeper. */
  readonly from: "host" | "directory";
  /** The label that holds the member's shard. */
  readonly shard: string;
}

export interface ZooKeeperConfig {
  /** "a:2181,b:2181/below" */
  readonly servers: string;
  readonly sessionMs: number;
  readonly auth?: { readonly scheme: string; readonly credentials: string };
  readonly sets: readonly SetRule[];
  readonly announce: readonly AnnounceRule[];
}

/** What Discotech called it (disco.conf). Its poll interval is taken and not needed: changes are told by the server. */
const DISCOTECH = [
  "zookeeper_host",
  "zookeeper_port",
  "zookeeper_poll_ms",
  "zookeeper_poll_secs",
  "zookeeper_timeout_secs",
  "serverset_znode",
];
const KEYS = ["servers", "session_timeout", "auth", "sets", "announce", ...DISCOTECH];
const EXAMPLE = '{"servers": "zk1:2181,zk2:2181", "sets": ["/discovery/*"]}';
const PATH = /^(\/[^/\s]+)+$/;
const SESSION_MS = 10_000;

/** Undefined = off, which is the default. @throws InputError that names the key */
export function configureZooKeeper(raw: unknown): ZooKeeperConfig | undefined {
  if (raw === undefined || raw === null || raw === false) return undefined;
  const told = given(raw === true ? {} : raw, "zookeeper", KEYS, EXAMPLE);
  const sets = told.list("sets", setRule);
  const znode = told.text("serverset_znode", 'the path of a server set, such as "/discovery/web"', PATH);
  const announce = told.list("announce", announceRule);
  if (sets.length === 0 && znode === undefined && announce.length === 0)
    throw new InputError("zookeeper", `nothing is to be read ("sets") or written ("announce"): expected ${EXAMPLE}`);
  const timeout = told.number("zookeeper_timeout_secs", 1, 3600);
  told.number("zookeeper_poll_ms", 0, Number.MAX_SAFE_INTEGER);
  told.number("zookeeper_poll_secs", 0, Number.MAX_SAFE_INTEGER);
  const auth = authOf(told);
  return {
    servers: serversOf(told),
    sessionMs: told.duration("session_timeout", 1000) ?? (timeout === undefined ? SESSION_MS : timeout * 1000),
    ...(auth === undefined ? {} : { auth }),
    sets: znode === undefined ? sets : [...sets, { path: znode, tags: [], endpoints: true }],
    announce,
  };
}

function serversOf(told: Given): string {
  const what = 'servers such as "zk1:2181,zk2:2181" or "zk1,zk2/below"';
  const servers = told.text("servers", what, /^[^\s,/]+(,[^\s,/]+)*(\/[^/\s]+)*$/);
  const host = told.text("zookeeper_host", "a host's name or address", /^[^\s,/]+$/);
  const port = told.number("zookeeper_port", 1, 65_535) ?? 2181;
  if (servers !== undefined && host !== undefined)
    throw new InputError("zookeeper.zookeeper_host", 'the servers are told twice: "servers" is enough');
  const text = servers ?? (host === undefined ? "127.0.0.1:2181" : `${host}:${port}`);
  for (const server of (text.split("/")[0] ?? "").split(",")) {
    const [, digits] = /:([^:]*)$/.exec(server) ?? [];
    if (digits !== undefined && !(/^\d{1,5}$/.test(digits) && Number(digits) > 0 && Number(digits) < 65_536))
      throw new InputError("zookeeper.servers", `"${server}": expected a port from 1 to 65535 behind the colon`);
  }
  return text;
}

function authOf(told: Given): ZooKeeperConfig["auth"] {
  const text = told.text("auth", 'credentials such as "digest:user:password"', /^[^:\s]+:.+$/s);
  if (text === undefined) return undefined;
  const [scheme = "", ...rest] = text.split(":");
  if (scheme === "digest" && rest.length < 2)
    throw new InputError("zookeeper.auth", 'expected credentials such as "digest:user:password"');
  return { scheme, credentials: rest.join(":") };
}

function setRule(value: unknown, where: string): SetRule {
  const what = 'the path of a server set, such as "/discovery/web", or of many, "/discovery/*"';
  const keys = ["path", "service", "tags", "endpoint", "endpoints"];
  const rule = given(typeof value === "string" ? { path: value } : value, where, keys, '{"path": "/discovery/web"}');
  const path = rule.text("path", what, PATH);
  if (path === undefined) throw rule.wrong("path", what);
  const stars = path.split("/").filter((part) => part === "*").length;
  if (/[^/]\*|\*[^/]/.test(path)) throw rule.wrong("path", '"*" in place of a whole part, such as "/discovery/*"');
  const service = rule.text("service", "a service's name", /^[^\s/]+$/);
  for (const [, digits] of (service ?? "").matchAll(/\{([^}]*)\}/g))
    if (!(Number(digits) >= 1 && Number(digits) <= stars))
      throw rule.wrong("service", `{1} to {${stars}} for what the "*" of "${path}" stand for`);
  const endpoint = rule.text("endpoint", 'the name of an additional endpoint, such as "http"');
  const told = rule.raw("endpoints");
  const endpoints =
    told === undefined
      ? endpoint === undefined
      : typeof told === "boolean"
        ? told
        : rule.words("endpoints", 'true, false, or names of services such as {"http": "web-admin"}');
  return {
    path,
    tags: rule.texts("tags", "a tag"),
    endpoints,
    ...(service === undefined ? {} : { service }),
    ...(endpoint === undefined ? {} : { endpoint }),
  };
}

function announceRule(value: unknown, where: string): AnnounceRule {
  const keys = ["service", "path", "tags", "from", "shard"];
  const example = '{"service": "web", "path": "/discovery/web"}';
  const rule = given(value, where, keys, example);
  const service = rule.text("service", 'the name of a service, or "*" for every one', /^[^\s/]+$/);
  const path = rule.text("path", 'the path of a server set, such as "/discovery/{service}"', PATH);
  if (service === undefined || path === undefined) throw new InputError(where, `expected both as in ${example}`);
  if (path.includes("*")) throw rule.wrong("path", 'a path without "*"; {service} is the service\'s name');
  const [strange] = /\{(?!service\})[^}/]*\}/.exec(path) ?? [];
  if (strange !== undefined)
    throw rule.wrong("path", `a path in which {service} is the service's name; ${strange} is nothing`);
  if (service === "*" && !path.includes("{service}"))
    throw rule.wrong("path", "{service} in it: otherwise every service would be a member of the same set");
  const from = rule.text("from", '"host" or "directory"', /^(host|directory)$/) ?? "host";
  return {
    service,
    path,
    tags: rule.texts("tags", "a tag"),
    from: from === "directory" ? "directory" : "host",
    shard: rule.text("shard", "the name of a label") ?? "shard",
  };
}
