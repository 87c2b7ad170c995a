// What is said on the LAN about a service now, for `why`.
import type { Told } from "../../contracts/protocol.ts";
import type { Announcer } from "./announce.ts";
import { keyOfName } from "./announce-plan.ts";
import type { Lan } from "./source-lan.ts";
import { addressesOf, type Sighting, serviceOfType } from "./source-registration.ts";

/** What this host announces of it and what it does not, then who else on the LAN is heard with it. */
export function tellOf(lan: Lan, announcer: Announcer, service: string): readonly Told[] {
  const { mdns, places } = lan;
  if (mdns === undefined || places.length === 0) return [];
  const to = `the LAN (${[...new Set(places.map((place) => place.interface))].join(", ")})`;
  const about = announcer.about(service);
  const told = new Set<string>();
  const own = about.flatMap(({ published, services = [], id, why }): Told[] => {
    if (published === undefined) return [{ to, text: `nothing of ${id}: ${why}` }];
    return services.map(({ type, port, host }) => {
      told.add(keyOfName(published.name, type));
      const at = `"${published.name}" at ${host ?? mdns.hostName}:${port}`;
      return {
        to,
        text: `${type}.local PTR: ${at}${published.state === "established" ? "" : ` (${published.state})`}`,
      };
    });
  });
  const others: string[] = [];
  for (const places of lan.resolved()) {
    const [first, ...more] = places;
    if (first === undefined || serviceOfType(first.type) !== service.toLowerCase()) continue;
    const seen: Sighting = [first, ...more];
    if (told.has(keyOfName(first.name, first.type))) continue;
    const at = `${first.type}.local PTR: "${first.name}" at ${first.host}:${first.port} (${addressesOf(seen).join(", ")})`;
    const mine = announcer.isMine(first.name, first.type);
    others.push(`${at}, said by ${mine ? "this host for a service of another name" : "another host or program"}`);
  }
  return [...own, ...others.map((text) => ({ to, text }))];
}
