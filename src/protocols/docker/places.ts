// Where Docker's engines are looked for: as configured, else as the docker client would, else at the usual sockets.
import type { Disk } from "../../base/disk.ts";
import { messageOf } from "../../base/error.ts";
import type { Processes } from "../../base/process.ts";
import type { DockerConfig, EndpointConfig } from "./config.ts";
import { certificatesIn, type Endpoint, endpointOfContext, parseHost } from "./endpoint.ts";

const SOCKETS = ["unix:///var/run/docker.sock", "unix:///tmp/docker.sock"];
const PODMAN = "/run/podman/podman.sock";

/** An engine as configured or found, before its containers are translated. */
export interface Place {
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

/** Where a configuration has containers looked for. */
export interface Looking {
  readonly places: readonly Place[];
  /** Why nowhere; "" where it is somewhere. */
  readonly why: string;
}

/** @throws TrilithError where what the configuration names itself cannot be had */
export async function lookingOf(
  config: DockerConfig,
  { processes, disk }: { readonly processes: Pick<Processes, "env">; readonly disk: Disk },
): Promise<Looking> {
  if (config.enabled === false) return { places: [], why: "Docker is switched off on this agent" };
  try {
    const context = contextOf(config, processes);
    const folder = processes.env("DOCKER_CONFIG") || `${processes.env("HOME") ?? ""}/.docker`;
    const found = context === "" ? undefined : await endpointOfContext(context, folder, disk);
    return { places: placesOf(config, processes, disk, found), why: "" };
  } catch (error) {
    if (config.enabled === true || config.endpoints.length > 0 || config.context !== "") throw error;
    // Somebody's shell speaks to a Docker far away: no reason for the agent not to start.
    return { places: [], why: messageOf(error) };
  }
}
