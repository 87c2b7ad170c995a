// The protocol "peers": agents without a server; each shows its own and listens to the others.
import { ipFamily } from "../../base/net.ts";
import { httpListener } from "../../contracts/http-listener.ts";
import { defineProtocol, type Protocol } from "../../contracts/protocol.ts";
import { Circle } from "./circle.ts";
import { configurePeers, hostOf, isLoopback, isPrivileged, type PeersConfig } from "./config.ts";
import { LanWatch } from "./lan.ts";
import { createOwn } from "./own.ts";
import { TailnetWatch } from "./tailnet.ts";

const NEEDS = ["clock", "random", "log", "net", "http", "directory", "vouch", "self", "leaving", "nearby"] as const;

/** Where this host shows its own: as told, else at the address that it binds, else everywhere; on loopback where all named hosts are there. */
function bindOf({ bind, hosts, find }: PeersConfig, bindAddress: string): string {
  if (bind !== undefined) return bind;
  if (!isLoopback(bindAddress) && ipFamily(bindAddress) !== 0) return bindAddress;
  return find === "list" && hosts.every((place) => isLoopback(hostOf(place))) ? bindAddress : "0.0.0.0";
}

export const peers: Protocol<PeersConfig | undefined, (typeof NEEDS)[number]> = defineProtocol({
  name: "peers",
  needs: NEEDS,
  configure: configurePeers,
  setup(config, ground) {
    if (config === undefined) return undefined;
    const { http, random, self } = ground;
    const log = ground.log.part("peers");
    const life = random.uuid();
    const circle: Circle = new Circle({
      ...ground,
      log,
      key: config.key,
      port: config.port,
      life,
      addressIsPlace: config.find === "tailnet",
      mayAsk: (host) => config.key !== undefined || isPrivileged(host),
    });
    const own = createOwn({
      ...ground,
      key: config.key,
      life,
      heard: () => circle.heard(),
      caller: (place) => circle.told(place),
    });
    if (config.find === "tailnet") {
      const tailnet = new TailnetWatch({
        ...ground,
        log,
        socket: config.tailscaled,
        port: config.port,
        handle: own.handle,
        found: (places) => circle.set("found", places),
      });
      return {
        states: () => [tailnet.state(), ...circle.states()],
        background: {
          start() {
            circle.set("named", config.hosts);
            tailnet.start();
          },
          async stop() {
            await tailnet.stop();
            await Promise.all([own.goodbye(ground.leaving?.() ?? false), circle.stop()]);
            await tailnet.close();
          },
        },
      };
    }
    const lan =
      config.find === "lan" && ground.nearby !== undefined
        ? new LanWatch({
            ...ground,
            nearby: ground.nearby,
            log,
            node: self.node,
            port: config.port,
            found: (places) => circle.set("found", places),
          })
        : undefined;
    return {
      states: () => circle.states(),
      listeners: [
        httpListener("peers", http, { host: bindOf(config, self.bindAddress), port: config.port }, own.handle),
      ],
      background: {
        start() {
          circle.set("named", config.hosts);
          lan?.start();
        },
        async stop() {
          await Promise.all([lan?.stop(), own.goodbye(ground.leaving?.() ?? false), circle.stop()]);
        },
      },
    };
  },
});
