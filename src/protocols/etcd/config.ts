// What `protocols.etcd` may say: which etcd, and where in it which layout lies.

import { InputError } from "../../base/error.ts";
import { type EtcdAccess, parseEndpoint } from "../../base/etcd/access.ts";
import type { Labels } from "../../model/node.ts";
import { nameFromText, textFromLabel } from "../../wire/dns/index.ts";
import { given } from "../../wire/given.ts";

/** A part of the keys that is read. `prefix` ends with "/". */
export type Layout =
  /** `<prefix><service>/<id>` = "host:port" */
  | { readonly kind: "registrator"; readonly prefix: string }
  /** `<prefix><labels in reverse>` = {"host", "port" …}; `domain` without dots at its ends. */
  | { readonly kind: "skydns"; readonly prefix: string; readonly domain: string };

export interface EtcdConfig {
  readonly access: EtcdAccess;
  readonly layouts: readonly Layout[];
  readonly tags: readonly string[];
  readonly labels: Labels;
  /** What is missing in an etcd that was set back or replaced stays for so long. */
  readonly holdMs: number;
  /** How often instances are asked by TCP where some stand by for others. */
  readonly checkMs: number;
}

const AT = "etcd";
const FILES = { ca_file: "caFile", cert_file: "certFile", key_file: "keyFile" } as const;
const KEYS = [
  ...["endpoints", "username", "password", ...Object.keys(FILES)],
  ...["registrator", "skydns", "skydns_path", "tags", "labels", "hold", "check_interval"],
];
const EXAMPLE = '{"endpoints": ["http://127.0.0.1:2379"], "registrator": "/services"}';

function layoutOf(domain: string, path: string, where: string): Layout {
  const labels = nameFromText(domain.replace(/^\.+/, "")).map((label) => textFromLabel(label).toLowerCase());
  if (labels.length === 0 || labels.some((label) => label.includes("/")))
    throw new InputError(where, `expected a domain such as "skydns.local", but got ${JSON.stringify(domain)}`);
  return { kind: "skydns", prefix: `${path}/${labels.toReversed().join("/")}/`, domain: labels.join(".") };
}

/** Undefined = off. @throws InputError that names the key */
export function configureEtcd(raw: unknown): EtcdConfig | undefined {
  if (raw === undefined || raw === null || raw === false) return undefined;
  const told = given(raw, AT, KEYS, EXAMPLE);
  const endpoints = told.texts("endpoints", 'an endpoint such as "http://127.0.0.1:2379"');
  if (endpoints.length === 0) throw new InputError("etcd.endpoints", `is missing: expected ${EXAMPLE}`);
  for (const endpoint of endpoints) parseEndpoint(endpoint);
  const [username, password] = [told.text("username", "a user's name"), told.text("password", "a password")];
  if ((username === undefined) !== (password === undefined))
    throw new InputError("etcd", "username and password belong together: give both or none");
  const files = Object.entries(FILES).flatMap(([key, name]) => {
    const file = told.text(key, "the path of a PEM file");
    return file === undefined ? [] : [[name, file] as const];
  });
  if ((told.raw("cert_file") === undefined) !== (told.raw("key_file") === undefined))
    throw new InputError("etcd", "cert_file and key_file belong together: give both or none");
  const path = (told.text("skydns_path", 'a path such as "/skydns"', /^(\/[^/\s]+)+\/?$/) ?? "/skydns").replace(
    /\/$/,
    "",
  );
  const prefixes = told.texts("registrator", 'a path such as "/services"', /^\/\S*$/);
  const layouts: Layout[] = prefixes.map((prefix) => ({
    kind: "registrator",
    prefix: `${prefix.replace(/\/+$/, "")}/`,
  }));
  for (const domain of told.texts("skydns", 'a domain such as "skydns.local"'))
    layouts.push(layoutOf(domain, path, "etcd.skydns"));
  if (layouts.length === 0)
    throw new InputError("etcd", `nothing is to be read ("registrator", "skydns"): expected ${EXAMPLE}`);
  for (const [i, { prefix }] of layouts.entries())
    if (layouts.some((other, j) => j !== i && prefix.startsWith(other.prefix)))
      throw new InputError("etcd", `what lies below "${prefix}" would be read twice`);
  return {
    access: {
      endpoints,
      ...(username === undefined || password === undefined ? {} : { username, password }),
      ...Object.fromEntries(files),
    },
    layouts,
    tags: told.texts("tags", "a tag"),
    labels: told.words("labels", 'an object of texts such as {"env": "prod"}'),
    holdMs: told.duration("hold", 0) ?? 60_000,
    checkMs: told.duration("check_interval", 1_000) ?? 10_000,
  };
}
