// Docker: containers are services; named and described as Registrator does, drained on the stop signal, gone when they die.
import type { Disk } from "../../base/disk.ts";
import { InputError, messageOf } from "../../base/error.ts";
import { systemNamespaceSockets } from "../../base/namespace-socket.ts";
import type { Processes } from "../../base/process.ts";
import type { Ground } from "../../contracts/ground.ts";
import type { Probe } from "../../contracts/probe.ts";
import { defineProtocol, type Part, type Protocol } from "../../contracts/protocol.ts";
import type { EngineInfo } from "./client.ts";
import { configure, type DockerConfig, type EndpointConfig } from "./config.ts";
import { Forwarding } from "./connect/follow.ts";
import { connectAnswers, connectStates } from "./connect/tell.ts";
import { certificatesIn, type Endpoint, endpointOfContext, farHost, parseHost } from "./endpoint.ts";
import type { EngineOptions } from "./engine-watch.ts";
import { execProbe } from "./exec.ts";
import { hostAddressSoon } from "./host-address.ts";
import type { TranslateOptions } from "./registrator.ts";
import { mirrors } from "./registrator-command/mirror.ts";
import { absentSource, dockerSource, engineIdentity } from "./source.ts";
import { parseTemplate } from "./tags-template.ts";

const SOCKETS = ["unix:///var/run/docker.sock", "unix:///tmp/docker.sock"];
const PODMAN = "/run/podman/podman.sock";

/** An engine as configured or found, before its containers are translated. */
interface Place {
  /** "" = the main one. */
  readonly name: string;
  readonly endpoints: readonly Endpoint[];
  readonly optional: boolean;
  readonly config: Partial<EndpointConfig>;
}

/** Docker's client speaks TLS over tcp:// where DOCKER_TLS_VERIFY says so, with the certificates of DOCKER_CERT_PATH. */
function tlsOfEnvironment(processes: Pick<Processes, "env">, disk: Disk): Endpoint["tls"] {
  if ((processes.env("DOCKER_TLS_VERIFY") ?? "") === "") return undefined;
  const folder = processes.env("DOCKER_CERT_PATH") || `${processes.env("HOME") ?? ""}/.docker`;
  return certificatesIn(folder, disk, false);
}

/**
 * Where DOCKER_HOST leads, with DOCKER_TLS_VERIFY and DOCKER_CERT_PATH; undefined where it is not set.
 * @throws InputError for a spelling that is not spoken
 */
export function endpointOfEnvironment(processes: Pick<Processes, "env">, disk: Disk): Endpoint | undefined {
  const spelling = processes.env("DOCKER_HOST") ?? "";
  return spelling === "" ? undefined : parseHost(spelling, "DOCKER_HOST", tlsOfEnvironment(processes, disk));
}

/** The context of the docker client that is asked for (`context`, DOCKER_CONTEXT) and not overruled by a host; "" = none. */
function contextOf(config: DockerConfig, processes: Pick<Processes, "env">): string {
  if (config.host !== "" || config.endpoints.length > 0) return "";
  const asked =
    config.context || ((processes.env("DOCKER_HOST") ?? "") === "" ? processes.env("DOCKER_CONTEXT") : "") || "";
  return asked === "default" ? "" : asked;
}

function placesOf(
  config: DockerConfig,
  processes: Pick<Processes, "env">,
  disk: Disk,
  context: Endpoint | undefined,
): Place[] {
  if (config.endpoints.length > 0)
    return config.endpoints.map((one, i) => {
      const certificates =
        one.certPath === "" ? undefined : certificatesIn(one.certPath, disk, one.tlsVerify === false);
      return {
        name: one.name,
        endpoints: [parseHost(one.host, `docker.endpoints[${i}].host`, certificates)],
        optional: false,
        config: one,
      };
    });
  const main = (endpoints: readonly Endpoint[], optional: boolean): Place => ({
    name: "",
    endpoints,
    optional: optional && config.enabled === "auto",
    config: {},
  });
  if (config.host !== "")
    return [main([parseHost(config.host, "docker.host", tlsOfEnvironment(processes, disk))], false)];
  if (context !== undefined) return [main([context], false)];
  const fromEnvironment = endpointOfEnvironment(processes, disk);
  if (fromEnvironment !== undefined) return [main([fromEnvironment], false)];
  const run = processes.env("XDG_RUNTIME_DIR") ?? "";
  const podman = [PODMAN, ...(run === "" ? [] : [`${run}/podman/podman.sock`])];
  return [
    main(
      SOCKETS.map((socket) => parseHost(socket, "docker")),
      true,
    ),
    {
      name: "podman",
      endpoints: podman.map((path) => parseHost(`unix://${path}`, "docker")),
      optional: true,
      config: {},
    },
  ];
}

type Needs =
  | ("clock" | "random" | "disk" | "net" | "http" | "log" | "processes" | "agent" | "self" | "probes")
  | ("lookup" | "connector");

export const docker: Protocol<DockerConfig, Needs> = defineProtocol({
  name: "docker",
  needs: [
    "clock",
    "random",
    "disk",
    "net",
    "http",
    "log",
    "processes",
    "agent",
    "self",
    "probes",
    "lookup",
    "connector",
  ],
  configure,
  setup(config, ground): Part | Promise<Part> {
    // Checks inside containers can be registered all the same; they are critical and say why.
    if (config.enabled === false)
      return { probes: [execProbe(ground.http, [], "Docker is switched off on this agent") as Probe] };
    const { processes, disk } = ground;
    const absent = (error: unknown): Part => {
      if (config.enabled === true || config.endpoints.length > 0 || config.context !== "") throw error;
      // Somebody's shell speaks to a Docker far away: no reason for the agent not to start.
      const why = messageOf(error);
      return { source: absentSource(why), probes: [execProbe(ground.http, [], why) as Probe] };
    };
    const follow = (context?: Endpoint): Part => {
      let places: Place[];
      try {
        places = placesOf(config, processes, disk, context);
      } catch (error) {
        return absent(error);
      }
      return partOf(config, ground, places);
    };
    const context = contextOf(config, processes);
    if (context === "") return follow();
    const folder = processes.env("DOCKER_CONFIG") || `${processes.env("HOME") ?? ""}/.docker`;
    return endpointOfContext(context, folder, disk).then(follow, absent);
  },
});

/** Follows the containers of these engines. */
function partOf(config: DockerConfig, ground: Pick<Ground, Needs>, places: readonly Place[]): Part {
  const { self, clock, net, processes, probes } = ground;
  const tags = parseTemplate(config.tags);
  const name = config.name === "" ? undefined : parseTemplate(config.name);
  const own = config.hostname || processes.hostname();

  /** The first part of IDs: this host's name for its own main engine, the engine's for others, told apart where they have one name. */
  const hostnameOf = (place: Place, main: boolean, info: EngineInfo): string => {
    if (place.config.hostname) return place.config.hostname;
    if (place.name === "" || main) return own;
    return info.hostname === "" || info.hostname === processes.hostname() ? `${own}-${place.name}` : info.hostname;
  };
  const engineOf = (place: Place, i: number): EngineOptions => ({
    name: place.name,
    endpoints: place.endpoints,
    optional: place.optional,
    deregister: config.deregister,
    async translation(info, meanwhile): Promise<TranslateOptions> {
      const far = place.endpoints.map(farHost).find((host) => host !== undefined);
      const ip = place.config.ip || config.ip;
      const hostname = hostnameOf(place, i === 0 && far === undefined, info);
      const to = (hostIp: string): TranslateOptions => ({
        ip,
        internal: config.internal,
        explicit: config.explicit,
        useIpFromLabel: config.useIpFromLabel,
        tags: (container) => tags(container.raw),
        ...(name === undefined ? {} : { name: (container) => name(container.raw) }),
        portSuffix: config.portSuffix,
        compat: config.compat,
        hostname,
        hostIp,
        ...(far === undefined ? {} : { remote: true }),
        ...(place.name === "" ? {} : { engine: engineIdentity(place.name, info.id) }),
        scripts: self.scripts.fromApi,
        probes,
        nodeAddress: self.advertiseAddress,
      });
      // Where the address is given, no resolver is asked.
      if (ip !== "") return to(ip);
      // What another host publishes is reached at that host.
      const [asked, advertised] = [far ?? own, far ?? self.advertiseAddress];
      const guessed = (address: string): void => meanwhile(to(address));
      return to(await hostAddressSoon(net, clock, asked, advertised, config.compat, guessed));
    },
  });
  const [main, ...others] = places.map(engineOf);
  if (main === undefined) throw new InputError("docker.endpoints", "expected at least one");
  const forwarding =
    config.connect !== false
      ? new Forwarding({
          ...ground,
          log: ground.log.part("connect"),
          sockets: systemNamespaceSockets,
          domain: self.domain,
          images: config.connect === "images",
        })
      : undefined;
  const backgrounds = [
    ...(config.backends.length === 0
      ? []
      : [
          mirrors(
            config.backends,
            { flags: config, template: tags, endpoints: main.endpoints, hostname: own, optional: main.optional },
            !self.dev,
            { ...ground, log: ground.log.part("docker") },
          ),
        ]),
    ...(forwarding === undefined ? [] : [{ start: () => {}, stop: () => forwarding.stop() }]),
  ];
  return {
    probes: [
      execProbe(
        ground.http,
        places.flatMap(({ endpoints }) => endpoints),
      ) as Probe,
    ],
    source: dockerSource(
      { ...main, others },
      { ...ground, log: ground.log.part("docker"), running: (containers) => forwarding?.follow(containers) },
    ),
    ...(backgrounds.length === 0
      ? {}
      : {
          background: {
            start: () => {
              for (const one of backgrounds) one.start();
            },
            stop: async () => {
              await Promise.all(backgrounds.map((one) => one.stop()));
            },
          },
        }),
    ...(forwarding === undefined
      ? {}
      : {
          states: () => connectStates(forwarding.told(), ground.lookup),
          answers: async (service) => connectAnswers(service, forwarding.told(), ground.lookup),
        }),
  };
}
