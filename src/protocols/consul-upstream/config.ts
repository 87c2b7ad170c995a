// What `protocols["consul-upstream"]` may say: which Consuls elsewhere, and what of them.
import { InputError } from "../../base/error.ts";
import type { Labels } from "../../model/node.ts";
import { given } from "../../wire/given.ts";

/** One Consul (or Trilith) whose services are read. */
export interface UpstreamConfig {
  /** Tells several upstreams apart. */
  readonly name: string;
  /** `http://host:port` of one or several of its agents. */
  readonly urls: readonly string[];
  /** Another datacenter than its agents' own. */
  readonly datacenter?: string;
  readonly token?: string;
  /** A PEM file. */
  readonly caFile?: string;
  /** Undefined = every one. */
  readonly services?: ReadonlySet<string>;
  /** In front of the names of services and nodes. */
  readonly prefix: string;
  readonly tags: readonly string[];
  readonly labels: Labels;
}

export interface ConsulUpstreamConfig {
  readonly upstreams: readonly UpstreamConfig[];
  /** What an upstream no longer has after it was away stays for so long. */
  readonly holdMs: number;
}

const AT = "consul-upstream";
const UPSTREAM_KEYS = ["name", "url", "datacenter", "token", "ca_file", "services", "prefix", "tags", "labels"];
const EXAMPLE = '{"url": "http://consul.example:8500"}';
const NAME = /^[A-Za-z0-9._-]+$/;
/** Every directory's own. */
const OWN_SERVICE = "consul";

function upstreamAt(value: unknown, where: string): UpstreamConfig {
  const told = given(value, where, UPSTREAM_KEYS, EXAMPLE);
  const urls = told.texts("url", 'a URL such as "http://consul.example:8500"', /^https?:\/\/[^/\s?#]+\/?$/);
  if (urls.length === 0) throw new InputError(`${where}.url`, `is missing: expected ${EXAMPLE}`);
  for (const url of urls) if (!URL.canParse(url)) throw told.wrong("url", 'a URL such as "http://consul.example:8500"');
  const services = told.texts("services", "a service's name");
  if (services.some((name) => name.toLowerCase() === OWN_SERVICE))
    throw new InputError(`${where}.services`, `"${OWN_SERVICE}" is every directory's own: leave it out`);
  if (told.raw("services") !== undefined && services.length === 0)
    throw told.wrong("services", "at least one service (without the key every one is read)");
  const optional = {
    datacenter: told.text("datacenter", "a datacenter's name", NAME),
    token: told.text("token", "a token"),
    caFile: told.text("ca_file", "the path of a PEM file"),
  };
  return {
    name: told.text("name", "a name of letters, digits, dots and hyphens", NAME) ?? optional.datacenter ?? "consul",
    urls: urls.map((url) => url.replace(/\/$/, "")),
    ...Object.fromEntries(Object.entries(optional).filter(([, text]) => text !== undefined)),
    ...(services.length === 0 ? {} : { services: new Set(services) }),
    prefix: told.text("prefix", "letters, digits, dots and hyphens", NAME) ?? "",
    tags: told.texts("tags", "a tag"),
    labels: told.words("labels", 'an object of texts such as {"env": "prod"}'),
  };
}

/** Undefined = off. @throws InputError that names the key */
export function configureConsulUpstream(raw: unknown): ConsulUpstreamConfig | undefined {
  if (raw === undefined || raw === null || raw === false) return undefined;
  const told = given(raw, AT, ["upstreams", "hold"], `{"upstreams": [${EXAMPLE}]}`);
  const upstreams = told.list("upstreams", upstreamAt);
  if (upstreams.length === 0) throw new InputError(`${AT}.upstreams`, `is missing: expected [${EXAMPLE}]`);
  for (const [i, { name }] of upstreams.entries())
    if (upstreams.findIndex((other) => other.name === name) !== i)
      throw new InputError(`${AT}.upstreams[${i}].name`, `another upstream is called "${name}", too: name them apart`);
  return { upstreams, holdMs: told.duration("hold", 0) ?? 60_000 };
}
