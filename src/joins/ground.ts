// What protocols are handed from, and their parts made with it.
import type { Ground } from "../contracts/ground.ts";
import { protocols } from "../protocols/index.ts";
import { configurationOf } from "../trilith/configuration.ts";
import type { Base } from "./base.ts";
import type { Truth } from "./truth.ts";

/** What of the ground is not the machine's. */
type Standing = Omit<
  Ground,
  | "clock"
  | "random"
  | "log"
  | "disk"
  | "net"
  | "http"
  | "processes"
  | "metrics"
  | "probes"
  | "nearby"
  | "answers"
  | "via"
  | "dataTrouble"
>;

export function makeGround(base: Base, { others }: Truth, standing: Standing): Ground {
  const { clock, random, log, disk, net, http, processes, metrics, durable, parts } = base;
  return {
    clock,
    random,
    log,
    disk,
    net,
    http,
    processes,
    metrics,
    ...standing,
    probes: parts.probes,
    answers: (service, signal) => parts.answers(service, signal, clock),
    dataTrouble: () => durable.trouble(),
    via: () => others.storage?.via() ?? [],
    nearby: {
      // Loaded when somebody is to be met.
      async *meet(what, signal) {
        const { createNearby } = await import("../protocols/mdns/nearby.ts");
        yield* createNearby({ clock, random, log, net, processes }).meet(what, signal);
      },
    },
  };
}

/** Makes the part of every protocol that is on. @throws TrilithError `invalid` with the key and what would be right */
export async function installParts({ settings, parts }: Base, ground: Ground): Promise<void> {
  for (const protocol of protocols) {
    const told = configurationOf(protocol.name, settings);
    const { name, key } = protocol;
    await parts.add(
      {
        ...{ name, key },
        check: async (raw) => raw === false || (await protocol.check(raw)),
        install: async (raw) => (raw === false ? undefined : await protocol.install(raw, ground)),
      },
      told,
    );
  }
}
