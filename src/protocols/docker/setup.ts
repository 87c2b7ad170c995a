// Docker: containers are services; named and described as Registrator does, drained on the stop signal, gone when they die.
import { InputError, messageOf } from "../../base/error.ts";
import { ipFamily, type Net } from "../../base/net.ts";
import type { Probe } from "../../contracts/probe.ts";
import { defineProtocol, type Protocol } from "../../contracts/protocol.ts";
import { type Endpoint, parseHost } from "./client.ts";
import { execProbe } from "./exec.ts";
import type { TranslateOptions } from "./registrator.ts";
import { absentSource, dockerSource } from "./source.ts";
import { parseTemplate } from "./tags-template.ts";

export interface DockerConfig {
  readonly enabled: "auto" | boolean;
  /** "" = DOCKER_HOST, else the usual sockets. */
  readonly host: string;
  /** The host part of service IDs; "" = this machine's host name. */
  readonly hostname: string;
  readonly ip: string;
  readonly internal: boolean;
  readonly explicit: boolean;
  readonly useIpFromLabel: string;
  /** A Go template, its result split at commas. */
  readonly tags: string;
  readonly compat: boolean;
}

const SOCKETS = ["unix:///var/run/docker.sock", "unix:///tmp/docker.sock"];
const KEYS = ["enabled", "host", "hostname", "ip", "internal", "explicit", "useIpFromLabel", "tags", "compat"];

function configure(raw: unknown): DockerConfig {
  const given = typeof raw === "boolean" ? { enabled: raw } : (raw ?? {});
  if (typeof given !== "object" || Array.isArray(given))
    throw new InputError("docker", `${JSON.stringify(raw)}: expected true, false or an object with ${KEYS.join(", ")}`);
  const values = new Map<string, unknown>(Object.entries(given));
  for (const key of values.keys())
    if (!KEYS.includes(key)) throw new InputError("docker", `unknown key "${key}": known are ${KEYS.join(", ")}`);
  const text = (key: string): string => {
    const value = values.get(key) ?? "";
    if (typeof value !== "string") throw new InputError(`docker.${key}`, `${JSON.stringify(value)}: expected a text`);
    return value;
  };
  const flag = (key: string): boolean => {
    const value = values.get(key) ?? false;
    if (typeof value !== "boolean")
      throw new InputError(`docker.${key}`, `${JSON.stringify(value)}: expected true or false`);
    return value;
  };
  const enabled = values.get("enabled") ?? "auto";
  if (enabled !== "auto" && typeof enabled !== "boolean")
    throw new InputError("docker.enabled", `${JSON.stringify(enabled)}: expected "auto", true or false`);
  const ip = text("ip");
  if (ip === "0.0.0.0" || ip === "::" || /[\s/]/.test(ip))
    throw new InputError("docker.ip", `${JSON.stringify(ip)}: expected an address or host name one can connect to`);
  if (text("host") !== "") parseHost(text("host"), "docker.host");
  try {
    parseTemplate(text("tags"));
  } catch (error) {
    throw new InputError("docker.tags", error instanceof Error ? error.message : String(error), error);
  }
  return {
    enabled,
    host: text("host"),
    hostname: text("hostname"),
    ip,
    internal: flag("internal"),
    explicit: flag("explicit"),
    useIpFromLabel: text("useIpFromLabel"),
    tags: text("tags"),
    compat: flag("compat"),
  };
}

/**
 * The address of ports bound to all interfaces: what the host name resolves to (IPv4 first), as Registrator takes it; where that leads
 * to the machine itself only (Debian's 127.0.1.1), the address other hosts reach this node at. "" = the node's address.
 */
export async function hostAddress(
  net: Pick<Net, "resolve">,
  hostname: string,
  advertised: string,
  compat: boolean,
): Promise<string> {
  const found = await net.resolve(hostname).catch((): readonly string[] => []);
  const first = found.find((address) => ipFamily(address) === 4) ?? found[0] ?? "";
  if (compat || !isLoopback(first)) return first;
  return isLoopback(advertised) ? first : advertised;
}

function isLoopback(address: string): boolean {
  return address === "" || address === "::1" || address.startsWith("127.");
}

export const docker: Protocol<
  DockerConfig,
  "clock" | "random" | "disk" | "net" | "http" | "log" | "processes" | "agent" | "self" | "probes"
> = defineProtocol({
  name: "docker",
  needs: ["clock", "random", "disk", "net", "http", "log", "processes", "agent", "self", "probes"],
  configure,
  setup(config, ground) {
    // Checks inside containers can be registered all the same; they are critical and say why.
    if (config.enabled === false)
      return { probes: [execProbe(ground.http, [], "Docker is switched off on this agent") as Probe] };
    const { self, net, processes, probes } = ground;
    const fromEnvironment = processes.env("DOCKER_HOST") ?? "";
    const spelling = config.host || fromEnvironment;
    const endpoints: Endpoint[] = [];
    try {
      for (const place of spelling === "" ? SOCKETS : [spelling])
        endpoints.push(parseHost(place, config.host === "" ? "DOCKER_HOST" : "docker.host"));
    } catch (error) {
      if (config.enabled === true) throw error;
      // Somebody's shell speaks to a Docker far away: no reason for the agent not to start.
      const why = messageOf(error);
      return { source: absentSource(why), probes: [execProbe(ground.http, [], why) as Probe] };
    }
    const hostname = config.hostname || processes.hostname();
    const template = parseTemplate(config.tags);
    const translation = async (): Promise<TranslateOptions> => ({
      ip: config.ip,
      internal: config.internal,
      explicit: config.explicit,
      useIpFromLabel: config.useIpFromLabel,
      tags: (container) => template(container.raw),
      compat: config.compat,
      hostname,
      hostIp: await hostAddress(net, hostname, self.advertiseAddress, config.compat),
      scripts: self.scripts.fromApi,
      probes,
      nodeAddress: self.advertiseAddress,
    });
    return {
      probes: [execProbe(ground.http, endpoints) as Probe],
      source: dockerSource(
        { endpoints, optional: config.enabled === "auto" && spelling === "", translation },
        { ...ground, log: ground.log.part("docker") },
      ),
    };
  },
});
