// The list of protocols, one line each, in start order; each is loaded only when it is on.
import { codeOf, messageOf } from "../base/error.ts";
import type { Ground } from "../contracts/ground.ts";
import type { Part, Protocol } from "../contracts/protocol.ts";

/** One protocol of the list. `install` loads it, checks its configuration and hands it what it names in `needs`, and no more. */
export interface Listed {
  readonly name: string;
  /** Where its configuration stands in a file, for messages. */
  readonly key: string;
  /** Only checks its configuration; true where that switches it off. @throws TrilithError `invalid` with the key and what would be right */
  check(raw: unknown): Promise<boolean>;
  install(raw: unknown, ground: Ground): Promise<Part | undefined>;
}

function listed<Config, Needs extends keyof Ground>(
  name: string,
  load: () => Promise<Protocol<Config, Needs>>,
  key: string = `protocols.${name}`,
): Listed {
  return {
    name,
    key,
    async check(raw) {
      const config: unknown = (await load()).configure(raw);
      return config === undefined || (config as { readonly off?: unknown }).off === true;
    },
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
  listed("shim", async () => (await import("./shim/setup.ts")).shim, "hook"),
  listed("proxy", async () => (await import("./proxy/setup.ts")).proxy),
  listed("hosts", async () => (await import("./hosts/setup.ts")).hosts),
  listed("api", async () => (await import("./api/setup.ts")).api),
  listed("consul", async () => (await import("./consul/setup.ts")).consul),
  listed("dns", async () => (await import("./dns/setup.ts")).dns),
];

/** What is wrong with protocols' configuration, as an agent's start would say it; of each protocol the first fault. */
export async function protocolFaults(told: Readonly<Record<string, unknown>>): Promise<readonly string[]> {
  const faults: string[] = [];
  for (const [name, raw] of Object.entries(told)) {
    const protocol = protocols.find((each) => each.name === name);
    if (protocol === undefined) {
      faults.push(`protocol "${name}": there are ${protocols.map((each) => each.name).join(", ")}`);
      continue;
    }
    try {
      await protocol.check(raw);
    } catch (error) {
      if (codeOf(error) !== "invalid") throw error;
      faults.push(messageOf(error));
    }
  }
  return faults;
}
