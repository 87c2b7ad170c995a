// Consul's agent configuration (an object as JSON or HCL gives it) and Consul's command-line flags as Trilith's settings.
import { InputError } from "../../base/error.ts";
import { defaultSettings, type Settings } from "../../contracts/settings.ts";
import { CONSUL_KEYS } from "./settings/consul-keys.ts";
import { type Draft, newDraft } from "./settings/draft.ts";
import { type ConsulFile, DEFINITIONS, readFile } from "./settings/file.ts";
import { FLAGS } from "./settings/flags.ts";
import { IGNORED } from "./settings/ignored-keys.ts";
import { OWN_KEYS } from "./settings/own-keys.ts";
import { inner, urlsOf, Value } from "./settings/value.ts";

/** Consul's and Trilith's flags by their names in camelCase; values as the command line gave them. */
export type Flags = Readonly<Record<string, unknown>>;

/** What is understood, for documents and their test: keys and flags that count, and those without an effect (`*` = everything below). */
export const KNOWN: {
  readonly keys: readonly string[];
  readonly definitions: readonly string[];
  readonly ignoredKeys: readonly string[];
  readonly flags: readonly string[];
  readonly ignoredFlags: readonly string[];
} = {
  keys: [...Object.keys(OWN_KEYS), ...Object.keys(CONSUL_KEYS)],
  definitions: [...DEFINITIONS, "watches"],
  ignoredKeys: IGNORED,
  flags: Object.keys(FLAGS).filter((name) => FLAGS[name] !== "ignored"),
  ignoredFlags: Object.keys(FLAGS).filter((name) => FLAGS[name] === "ignored"),
};

/**
 * Settings from Consul configuration files, in their order, then flags; what is not mentioned stays out. `paths` are the files and
 * folders to look for services and checks in, also later: the files themselves unless told.
 * @throws InputError for wrong values and unknown keys, with file, line, key and the nearest known name
 */
export function settingsFrom(
  files: readonly ConsulFile[],
  flags: Flags = {},
  paths: readonly string[] = files.map(({ path }) => path),
): Partial<Settings> {
  const draft = newDraft();
  for (const file of files) readFile(draft, file);
  for (const [name, raw] of Object.entries(flags)) {
    if (raw === undefined) continue;
    const flag = `-${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
    const known = FLAGS[name];
    if (known === "ignored") draft.ignored.add(flag);
    else if (known !== undefined) {
      known(draft, new Value(raw, flag));
      for (const key of Object.keys(draft.untilRestart)) if (overrides(name, raw, key)) delete draft.untilRestart[key];
    } else throw new InputError(flag, "unknown flag");
  }
  return finish(draft, paths);
}

/** Keys besides its own of which a flag that is set decides, too. */
const ALSO: Readonly<Record<string, readonly string[]>> = {
  dev: ["data_dir"],
  enableScriptChecks: ["enable_local_script_checks"],
};

/** True where a flag wins, whatever files say under a key, now or later. */
function overrides(flag: string, raw: unknown, key: string): boolean {
  // Files and flags together say whom to join.
  if (key === "join") return false;
  if (FLAGS[flag] === (CONSUL_KEYS[key] ?? OWN_KEYS[key])) return true;
  return flag === key || (ALSO[flag]?.includes(key) === true && new Value(raw, flag).bool());
}

function finish(draft: Draft, consulPaths: readonly string[]): Partial<Settings> {
  if (draft.etcd !== undefined && draft.etcd.endpoints.length === 0)
    throw new InputError("-etcd-prefix", "needs the members' URLs (-etcd)");
  const join = joinOf(draft);
  const client = draft.client;
  const dnsHosts = (draft.dnsAddress ?? client)
    ?.split(/\s+/)
    .filter((host) => !host.startsWith("unix://"))
    .map((host) => (host === "localhost" ? "127.0.0.1" : host));
  if (dnsHosts !== undefined && dnsHosts.length > 0) draft.dns["host"] = dnsHosts;
  if (Object.keys(draft.soa).length > 0) draft.dns["soa"] = draft.soa;
  const clientAddress = draft.httpAddress ?? client;
  const protocols: Record<string, unknown> = { ...draft.told };
  const { enabled: isHooked, keys: hook } = draft.hook;
  if (Object.keys(hook).length > 0) protocols["shim"] = isHooked ? hook : { enabled: false, ...hook };
  else if (!isHooked) protocols["shim"] = false;
  if (draft.watches.length > 0) draft.consul["watches"] = draft.watches;
  for (const name of ["dns", "consul", "docker", "process"] as const)
    if (Object.keys(draft[name]).length > 0) protocols[name] = { ...(inner(draft.told[name]) ?? {}), ...draft[name] };
  if (consulPaths.length + draft.servicePaths.length > 0)
    protocols["file"] = { paths: draft.servicePaths, consulPaths: [...consulPaths] };
  if (draft.tlsForChecks !== true) for (const { key } of draft.tls.values()) draft.ignored.add(key);
  // Whether it is a server decides what becomes of others' keys.
  const waiting = Object.entries(draft.untilRestart).filter(([key]) => key === "server" || !draft.ignored.has(key));
  return {
    ...given("node", draft.node),
    ...given("nodeId", draft.nodeId),
    ...given("datacenter", draft.datacenter),
    ...given("domain", draft.domain),
    ...given("dataDir", draft.dataDir),
    ...given("dev", draft.dev),
    ...given("compat", draft.compat),
    ...given("storage", draft.storage),
    ...given("etcd", draft.etcd),
    ...given("join", join),
    ...given("peers", peersOf(draft)),
    ...(Object.keys(draft.magic).length > 0 ? { magic: draft.magic } : {}),
    ...(Object.keys(draft.guard).length > 0 ? { guard: { ...defaultSettings.guard, ...draft.guard } } : {}),
    ...given("datacenters", draft.datacenters),
    ...given("clientAddress", clientAddress),
    ...given("bindAddress", draft.bindAddress),
    ...given("advertiseAddress", draft.advertiseAddress),
    ...(Object.keys(draft.nodeLabels).length > 0 ? { nodeLabels: draft.nodeLabels } : {}),
    ...given("httpPort", draft.httpPort),
    ...(draft.tlsForChecks === true
      ? { checkTls: Object.fromEntries([...draft.tls].map(([name, { value }]) => [name, value])) }
      : {}),
    ...(draft.scripts === undefined && draft.localScripts === undefined
      ? {}
      : {
          scripts: {
            fromApi: draft.scripts === true,
            fromFiles: draft.scripts === true || draft.localScripts === true,
          },
        }),
    ...given("checkUpdateMs", draft.checkUpdateMs),
    ...given("leaveOnTerm", draft.leaveOnTerm),
    ...(draft.logLevel === undefined && draft.logFormat === undefined
      ? {}
      : { log: { level: draft.logLevel ?? "info", format: draft.logFormat ?? "text" } }),
    ...(Object.keys(protocols).length > 0 ? { protocols } : {}),
    ...(draft.ignored.size > 0 ? { ignored: [...draft.ignored] } : {}),
    ...(waiting.length > 0 ? { untilRestart: Object.fromEntries(waiting) } : {}),
  };
}

/** Whom this host joins: those named by ours, else the cluster's hosts where this host is no server and has no store of its own. */
function joinOf(draft: Draft): Settings["join"] | undefined {
  const own = draft.server === true || draft.storage !== undefined || draft.dev === true;
  const urls = draft.join ?? (own ? [] : draft.cluster.flatMap(({ value }) => urlsOf(value)));
  if (draft.join === undefined && !own) for (const { key } of draft.cluster) draft.ignored.delete(key);
  if (urls.length === 0) return undefined;
  return {
    servers: [...new Set(urls)],
    livenessMs: draft.joinLivenessMs ?? 15_000,
    ...(draft.joinToken === undefined ? {} : { token: draft.joinToken }),
  };
}

/** How agents without a server find each other. */
function peersOf({ peers }: Draft): Settings["peers"] | undefined {
  const { find, ...rest } = peers;
  if (find !== undefined) return { find, ...rest };
  const [stray] = Object.keys(rest);
  if (stray !== undefined)
    throw new InputError(`peers_${stray}`, "is of use only with peers (--peers tailnet, lan or hosts)");
  return undefined;
}

function given<K extends keyof Settings>(key: K, value: Settings[K] | undefined): Partial<Pick<Settings, K>> {
  return value === undefined ? {} : ({ [key]: value } as Partial<Pick<Settings, K>>);
}
