// Consul's HTTP dialect as a protocol: one route on the agent's HTTP listener.
import { defineProtocol, type Protocol } from "../../contracts/protocol.ts";
import { NEEDS } from "./call.ts";
import { type ConsulConfig, configure } from "./config.ts";
import { rows } from "./routes/index.ts";
import { createHandler } from "./server.ts";

export const consul: Protocol<ConsulConfig, (typeof NEEDS)[number]> = defineProtocol({
  name: "consul",
  needs: NEEDS,
  configure,
  setup: (config, ground) => ({ routes: [{ prefix: "/", handle: createHandler(rows, config, ground) }] }),
});
