// Docker: containers are services; named and described as Registrator does, drained on the stop signal, gone when they die.
import { defineProtocol, type Protocol } from "../../contracts/protocol.ts";
import { configure, type DockerConfig } from "./config.ts";
import { DockerPart } from "./part.ts";
import { lookingOf } from "./places.ts";

export const docker: Protocol<
  DockerConfig,
  | "clock"
  | "random"
  | "disk"
  | "net"
  | "http"
  | "log"
  | "processes"
  | "agent"
  | "self"
  | "probes"
  | "lookup"
  | "connector"
> = defineProtocol({
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
  setup: async (config, ground) => new DockerPart(config, await lookingOf(config, ground), ground),
});
