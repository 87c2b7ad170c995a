// What `protocols.mdns` may say: where to speak, what to announce and what to look for.
import { InputError } from "../../base/error.ts";
import type { FilesRule } from "./announce.ts";
import type { HostsRule } from "./announce-hosts.ts";
import { type PlanRules, type PublishMode, typeFrom } from "./announce-plan.ts";

export interface MdnsConfig {
  /** Names of interfaces; absent = every one that is up and not loopback. */
  readonly interfaces?: readonly string[];
  readonly rules: PlanRules;
  /** True = every type of service. */
  readonly discover: boolean | readonly string[];
  readonly files?: FilesRule;
  readonly hosts?: HostsRule;
  /** This host's label on the LAN; absent = the system's host name. */
  readonly hostName?: string;
}

const AVAHI_FOLDER = "/etc/avahi/services";
const AVAHI_HOSTS = "/etc/avahi/hosts";
const KEYS = ["interfaces", "publish", "types", "discover", "files", "hosts", "host_name"];
const MODES: readonly PublishMode[] = ["labelled", "all", "none"];

/** Undefined = off, which is the default: it speaks to the whole LAN. @throws InputError that names the key */
export function configureMdns(raw: unknown): MdnsConfig | undefined {
  if (raw === undefined || raw === null || raw === false) return undefined;
  const given = raw === true ? {} : raw;
  if (typeof given !== "object" || Array.isArray(given))
    throw new InputError(
      "mdns",
      `expected true, false or an object such as {"publish": "all"}, but got ${JSON.stringify(raw)}`,
    );
  const told = given as Record<string, unknown>;
  const strange = Object.keys(told).find((key) => !KEYS.includes(key));
  if (strange !== undefined) throw new InputError(`mdns.${strange}`, `unknown key; known are ${KEYS.join(", ")}`);
  const wrong = (key: string, right: string): never => {
    throw new InputError(`mdns.${key}`, `expected ${right}, but got ${JSON.stringify(told[key])}`);
  };
  const texts = (key: string, right: string): readonly string[] => {
    const value = told[key];
    if (!Array.isArray(value) || !value.every((one) => typeof one === "string" && one !== "")) return wrong(key, right);
    return value as string[];
  };
  const { publish = "labelled", types = {}, discover = true, files, hosts, host_name: hostName } = told;
  if (!MODES.some((mode) => mode === publish)) wrong("publish", '"labelled", "all" or "none"');
  if (typeof types !== "object" || types === null || Array.isArray(types))
    wrong("types", 'an object such as {"web": "_http._tcp"}');
  const byName: Record<string, string> = Object.create(null);
  for (const [service, type] of Object.entries(types as object))
    byName[service] = typeFrom(String(type), `mdns.types.${service}`);
  if (files !== undefined && files !== false && (typeof files !== "string" || files === ""))
    wrong("files", "a folder of Avahi's service files, or false");
  if (hosts !== undefined && hosts !== false && (typeof hosts !== "string" || hosts === ""))
    wrong("hosts", "a file of Avahi's static hosts, or false");
  if (hostName !== undefined && (typeof hostName !== "string" || !/^[^\s.]{1,63}$/.test(hostName)))
    wrong("host_name", "one label of at most 63 characters, without dots");
  return {
    ...(told["interfaces"] === undefined ? {} : { interfaces: texts("interfaces", 'a list such as ["eth0"]') }),
    rules: { mode: publish as PublishMode, types: byName },
    discover:
      typeof discover === "boolean"
        ? discover
        : texts("discover", 'true, false or a list of types such as ["_http._tcp"]').map((type) =>
            typeFrom(type, "mdns.discover"),
          ),
    ...(files === false
      ? {}
      : { files: { folder: (files as string | undefined) ?? AVAHI_FOLDER, leftToAvahi: files === undefined } }),
    // Who has other service files than Avahi's, or none, does not mean its hosts either.
    ...(hosts === false || (hosts === undefined && files !== undefined)
      ? {}
      : { hosts: { path: (hosts as string | undefined) ?? AVAHI_HOSTS, leftToAvahi: hosts === undefined } }),
    ...(hostName === undefined ? {} : { hostName: hostName as string }),
  };
}
