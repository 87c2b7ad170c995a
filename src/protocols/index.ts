// The list of protocols, one line each, in start order; each is loaded only when it is on.
import type { Ground } from "../contracts/ground.ts";
import type { Part, Protocol } from "../contracts/protocol.ts";

/** One protocol of the list. `install` loads it, checks its configuration and hands it what it names in `needs`, and no more. */
export interface Listed {
  readonly name: string;
  install(raw: unknown, ground: Ground): Promise<Part | undefined>;
}

function listed<Config, Needs extends keyof Ground>(
  name: string,
  load: () => Promise<Protocol<Config, Needs>>,
): Listed {
  return {
    name,
    async install(raw, ground) {
      const protocol = await load();
      const handed = Object.fromEntries(protocol.needs.map((need) => [need, ground[need]])) as unknown as Pick<
        Ground,
        Needs
      >;
      return await protocol.setup(protocol.configure(raw), handed);
    },
  };
}

export const protocols: readonly Listed[] = [
  listed("file", async () => (await import("./file/setup.ts")).file),
  listed("docker", async () => (await import("./docker/setup.ts")).docker),
  listed("process", async () => (await import("./process/setup.ts")).processes),
  listed("eureka", async () => (await import("./eureka/setup.ts")).eureka),
  listed("backends", async () => (await import("./backends/setup.ts")).backends),
  listed("peers", async () => (await import("./peers/setup.ts")).peers),
  listed("mdns", async () => (await import("./mdns/setup.ts")).mdns),
  listed("etcd", async () => (await import("./etcd/setup.ts")).etcd),
  listed("consul-upstream", async () => (await import("./consul-upstream/setup.ts")).consulUpstream),
  listed("dns-upstream", async () => (await import("./dns-upstream/setup.ts")).dnsUpstream),
  listed("minidisc", async () => (await import("./minidisc/setup.ts")).minidisc),
  listed("flat", async () => (await import("./flat/setup.ts")).flat),
  listed("zookeeper", async () => (await import("./zookeeper/setup.ts")).zookeeper),
  listed("shim", async () => (await import("./shim/setup.ts")).shim),
  listed("proxy", async () => (await import("./proxy/setup.ts")).proxy),
  listed("hosts", async () => (await import("./hosts/setup.ts")).hosts),
  listed("api", async () => (await import("./api/setup.ts")).api),
  listed("consul", async () => (await import("./consul/setup.ts")).consul),
  listed("dns", async () => (await import("./dns/setup.ts")).dns),
];
