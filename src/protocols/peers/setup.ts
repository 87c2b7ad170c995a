// The protocol "peers": agents without a server; each shows its own and listens to the others.
import type { Timer } from "../../base/clock.ts";
import { ipFamily } from "../../base/net.ts";
import { httpListener } from "../../contracts/http-listener.ts";
import { defineProtocol, type Protocol } from "../../contracts/protocol.ts";
import { Circle } from "./circle.ts";
import { configurePeers, hostOf, isLoopback, isPrivileged, type PeersConfig } from "./config.ts";
import { LanWatch } from "./lan.ts";
import { createOwn } from "./own.ts";
import { TailnetWatch } from "./tailnet.ts";

const NEEDS = ["clock", "random", "log", "net", "http", "directory", "vouch", "self", "leaving", "nearby"] as const;

/** So long after another key was told who is heard with the one before is heard on, for the others to be told it, too. */
export const KEY_CHANGE_MS = 300_000;

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
  setup(first, ground) {
    if (first === undefined) return undefined;
    const { clock, http, random, self } = ground;
    const log = ground.log.part("peers");
    const life = random.uuid();
    let config = first;
    const key = (): string | undefined => config.key;
    const circle: Circle = new Circle({
      ...ground,
      log,
      key,
      port: first.port,
      life,
      addressIsPlace: first.find === "tailnet",
      mayAsk: (host) => config.key !== undefined || isPrivileged(host),
    });
    const own = createOwn({
      ...ground,
      key,
      life,
      heard: () => circle.heard(),
      caller: (place) => circle.told(place),
    });
    const found = (places: readonly string[]): void => circle.set("found", places);
    const { find, port, tailscaled } = first;
    const { nearby, leaving } = ground;
    const tailnet =
      find === "tailnet"
        ? new TailnetWatch({ ...ground, log, socket: tailscaled, port, handle: own.handle, found })
        : undefined;
    const lan =
      find === "lan" && nearby !== undefined
        ? new LanWatch({ ...ground, nearby, log, node: self.node, port, found })
        : undefined;
    const on = { host: bindOf(first, self.bindAddress), port };
    let cutting: Timer | undefined;
    let runs = false;
    return {
      states: () => [...(tailnet === undefined ? [] : [tailnet.state()]), ...circle.states()],
      ...(tailnet === undefined ? { listeners: [httpListener("peers", http, on, own.handle)] } : {}),
      background: {
        start() {
          runs = true;
          circle.set("named", config.hosts);
          tailnet?.start();
          lan?.start();
        },
        async stop() {
          cutting?.cancel();
          await tailnet?.stop();
          await Promise.all([lan?.stop(), own.goodbye(leaving?.() ?? false), circle.stop()]);
          await tailnet?.close();
        },
      },
      rereads: true,
      async reload(read) {
        if (read === undefined) return;
        // Hosts without a port show their own where this one does, which stays until a restart.
        const now = configurePeers({ ...(read.raw as object), port });
        const told = configurePeers(read.raw);
        if (now === undefined || told === undefined) return;
        const isElsewhere = told.find === find && bindOf(told, self.bindAddress) !== on.host;
        for (const [name, was, is, why] of [
          ["peers", find, told.find, "how hosts find each other decides where this one shows its own"],
          ["peers_port", port, told.port, "other hosts ask at the port that they were told"],
          ["peers_bind", first.bind, told.bind, "other hosts ask at the address that they were told"],
          ["peers_tailscaled", tailscaled, told.tailscaled, "it says where this host is on the tailnet"],
        ] as const)
          if (was !== is) log.warn(`${name} is another one now: it counts after a restart, as ${why}`);
        if (isElsewhere && first.bind === told.bind)
          log.warn(
            `peers: this host shows its own at ${on.host} until a restart, where not all of the hosts that are named now can ask it`,
          );
        const before = config;
        const { key: _, ...rest } = before;
        config = { ...rest, hosts: now.hosts, ...(now.key === undefined ? {} : { key: now.key }) };
        if (runs) circle.set("named", config.hosts);
        if (config.key === before.key) return;
        cutting?.cancel();
        cutting = clock.after(KEY_CHANGE_MS, () => {
          own.cutOthers();
          circle.cutOthers();
        });
      },
    };
  },
});
