// What `protocols.hosts` may say: hosts files that are written, with which services under which names.
import { InputError } from "../../base/error.ts";
import { ipFamily } from "../../base/net.ts";
import { given } from "../../wire/given.ts";

/** One hosts file. */
export interface HostsRule {
  readonly path: string;
  /** Of the marked block in a file of others' lines; undefined = the whole file is Trilith's. */
  readonly block: string | undefined;
  /** Undefined = every one. */
  readonly services: readonly string[] | undefined;
  readonly tags: readonly string[];
  /** "host": this host's own instances only. */
  readonly from: "host" | "directory";
  /** Templates of the names that an instance's address gets. */
  readonly names: readonly string[];
  /** The same for nodes; empty = nodes are not written. */
  readonly nodes: readonly string[];
  /** In place of the directory's domain. */
  readonly domain?: string;
  /** For whom addresses are picked: the IP address of who reads the file. */
  readonly asker: string;
  /** True: always in place, so that the file stays the one that is mounted elsewhere. */
  readonly inPlace: boolean;
  /** True: what was written is taken out when the agent stops. */
  readonly remove: boolean;
}

const EXAMPLE = '{"path": "/etc/hosts"}';
const KEYS = ["path", "block", "services", "tags", "from", "names", "nodes", "domain", "asker", "in_place", "remove"];
/** What a template may name. */
const WORDS: Readonly<Record<"names" | "nodes", readonly string[]>> = {
  names: ["name", "domain", "id", "tag", "node", "container"],
  nodes: ["node", "domain"],
};
const DEFAULT_NAMES = ["{name}", "{name}.service.{domain}"];

/** Undefined = off, which is the default. @throws InputError that names the key */
export function configureHosts(raw: unknown): readonly HostsRule[] | undefined {
  if (raw === undefined || raw === null || raw === false) return undefined;
  const list = Array.isArray(raw) ? raw : [raw];
  const rules = list.map((one, i) => hostsRule(one, Array.isArray(raw) ? `hosts[${i}]` : "hosts"));
  if (rules.length === 0) throw new InputError("hosts", `no file is named: expected ${EXAMPLE}`);
  for (const [i, { path, block }] of rules.entries())
    if (rules.some((other, j) => j < i && other.path === path && (other.block === block || !other.block || !block)))
      throw new InputError(`hosts[${i}].path`, `"${path}" is written twice: give each a block of its own ("block")`);
  return rules;
}

function hostsRule(value: unknown, where: string): HostsRule {
  const rule = given(typeof value === "string" ? { path: value } : value, where, KEYS, EXAMPLE);
  const path = rule.text("path", "the path of a hosts file", /^\S.*$/);
  if (path === undefined) throw rule.wrong("path", "the path of a hosts file");
  const own = rule.raw("block");
  const block =
    own === false
      ? undefined
      : own === true
        ? "trilith"
        : (rule.text("block", "a word, or false for a file of its own", /^[\w.-]+$/) ?? "trilith");
  const services = rule.texts("services", "a service's name", /^[^\s/]+$/);
  const from = rule.text("from", '"host" or "directory"', /^(host|directory)$/);
  const asker = rule.text("asker", "an IP address") ?? "127.0.0.1";
  if (ipFamily(asker) === 0) throw rule.wrong("asker", "an IP address, for which the addresses are picked");
  const domain = rule.text("domain", 'a domain such as "lan"', /^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*$/);
  const templates = (key: "names" | "nodes", usual: readonly string[]): readonly string[] => {
    if (rule.raw(key) === undefined) return usual;
    const list = rule.texts(key, `templates such as "{${key === "names" ? "name" : "node"}}.lan"`, /^\S+$/);
    for (const template of list)
      for (const [, word = ""] of template.matchAll(/\{([^}]*)\}/g))
        if (!WORDS[key].includes(word))
          throw new InputError(
            `${where}.${key}`,
            `"${template}": {${word}} is nothing; there are ${WORDS[key].map((one) => `{${one}}`).join(", ")}`,
          );
    return list;
  };
  return {
    path,
    block,
    services: services.length === 0 || services.includes("*") ? undefined : services,
    tags: rule.texts("tags", "a tag"),
    from: from === "host" ? "host" : "directory",
    names: templates("names", DEFAULT_NAMES),
    nodes: templates("nodes", []),
    ...(domain === undefined ? {} : { domain }),
    asker,
    inPlace: rule.flag("in_place") ?? false,
    remove: rule.flag("remove") ?? false,
  };
}
