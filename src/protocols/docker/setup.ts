// Docker: containers are services; named and described as Registrator does, drained on the stop signal, gone when they die.
import type { Ground } from "../../contracts/ground.ts";
import { defineProtocol, type Protocol } from "../../contracts/protocol.ts";
import { configure, type DockerConfig } from "./config.ts";
import { DockerPart } from "./part.ts";
import { lookingOf } from "./places.ts";

const NEEDS = [
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
] as const satisfies readonly (keyof Ground)[];

export const docker: Protocol<DockerConfig, (typeof NEEDS)[number]> = defineProtocol({
  name: "docker",
  needs: NEEDS,
  configure,
  setup: async (config, ground) => new DockerPart(config, await lookingOf(config, ground), ground),
});
