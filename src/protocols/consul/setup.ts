// Consul's HTTP dialect as a protocol: one route on the agent's HTTP listener, the watches of configuration files, remote execution, and measured coordinates.
import { defineProtocol, type Protocol } from "../../contracts/protocol.ts";
import { createAsk, createAskOverHttp } from "./ask.ts";
import { NEEDS } from "./call.ts";
import { type ConsulConfig, configure } from "./config.ts";
import { createMeasure } from "./measure.ts";
import { createRemoteExec } from "./remote-exec.ts";
import { rows } from "./routes/index.ts";
import { createHandler } from "./server.ts";
import { tellOf } from "./tell.ts";
import { createWatches } from "./watches.ts";

type Needs = (typeof NEEDS)[number] | "disk" | "http";

export const consul: Protocol<ConsulConfig, Needs> = defineProtocol({
  name: "consul",
  needs: [...NEEDS, "disk", "http"],
  configure,
  setup(config, ground) {
    const { disk, self } = ground;
    const ask = self.client === true ? createAskOverHttp(ground) : createAsk(rows, config, ground);
    const watches = createWatches({
      ...ground,
      ask,
      scripts: self.scripts.fromFiles,
    });
    const remoteExec = createRemoteExec({ ...ground, wanted: config.remoteExec });
    const measure = config.coordinates ? createMeasure({ ...ground, port: config.serverPort }) : undefined;
    return {
      routes: [{ prefix: "/", handle: createHandler(rows, config, ground) }],
      answers: (service, signal) => tellOf(ask, service, signal),
      background: {
        start: () => {
          watches.replace(config.watches);
          remoteExec.start();
          measure?.start();
        },
        stop: async () => void (await Promise.all([watches.stop(), remoteExec.stop(), measure?.stop()])),
      },
      rereads: true,
      async reload() {
        if (config.watchPaths.length === 0) return;
        const { watchesIn } = await import("./cli.ts");
        watches.replace(await watchesIn(config.watchPaths, disk));
      },
    };
  },
});
