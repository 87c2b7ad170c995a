// Others of one kind on the LAN, for protocols that meet them (contracts/nearby.ts): announced and browsed with an engine of its own.
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import { hostPort, type Net } from "../../base/net.ts";
import type { Processes } from "../../base/process.ts";
import type { Random } from "../../base/random.ts";
import type { Nearby } from "../../contracts/nearby.ts";
import { createMdns, type Following, type Found, type Resolved } from "./engine.ts";

export interface NearbyOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly net: Net;
  readonly processes: Pick<Processes, "hostname">;
}

/** A network full of inventions must not fill the memory. */
const MOST = 1_000;

const keyOf = ({ name, interface: at, family }: Found): string => `${name}\u0000${at}\u0000${family}`;

/** Addresses that a URL can hold: not those that mean something only with an interface. */
function placesOf({ addresses, port }: Resolved): readonly string[] {
  return addresses.filter(({ address }) => !/^fe[89ab]/i.test(address)).map(({ address }) => hostPort(address, port));
}

/** Kept by multicast DNS. Nothing is opened before `meet`. */
export function createNearby(options: NearbyOptions): Nearby {
  return {
    async *meet({ type, port, name }, signal) {
      if (signal.aborted) return;
      const { clock, random, net, processes } = options;
      const mdns = createMdns({ clock, random, net, log: options.log.part("mdns"), hostName: processes.hostname() });
      const resolving = new Map<string, Following>();
      const resolved = new Map<string, Resolved>();
      let bell: (() => void) | undefined;
      let rung = true;
      const ring = (): void => {
        rung = true;
        bell?.();
      };
      signal.addEventListener("abort", ring);
      try {
        await mdns.start();
        mdns.publish({ name, services: [{ type, port }] });
        mdns.browse({ type }, (event) => {
          if (event.kind === "remove") {
            const key = keyOf(event.found);
            resolving.get(key)?.close();
            resolving.delete(key);
            if (resolved.delete(key)) ring();
          }
          if (event.kind !== "add" || resolving.size >= MOST) return;
          const { found } = event;
          const key = keyOf(found);
          if (resolving.has(key)) return;
          const { name: other, domain, interface: at, family } = found;
          resolving.set(
            key,
            mdns.resolve({ name: other, type, domain, interface: at, family }, (told) => {
              if (told.kind === "lost") resolved.delete(key);
              // What this host itself says at its own port is this host's own.
              else if (!(told.found.local && told.found.port === port)) resolved.set(key, told.found);
              ring();
            }),
          );
        });
        while (!signal.aborted) {
          if (rung) {
            rung = false;
            yield [...new Set([...resolved.values()].flatMap(placesOf))].sort();
            continue;
          }
          await new Promise<void>((resolve) => {
            bell = resolve;
          });
        }
      } finally {
        signal.removeEventListener("abort", ring);
        await mdns.stop();
      }
    },
  };
}
