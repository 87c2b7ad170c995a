// What DNS says as registrations on external nodes, the same whoever asks. Pure.
import { ipFamily } from "../../base/net.ts";
import type { View } from "../../contracts/directory.ts";
import type { Prioritised } from "../../contracts/priorities.ts";
import { firstHandPlaces, nodeAt, placeOf } from "../../contracts/second-hand.ts";
import type { Address, Registration, Weights } from "../../model/instance.ts";
import type { Entry } from "./config.ts";
import type { Place } from "./resolve.ts";

/** The source's name in the directory. */
export const SOURCE = "dns-upstream";
/** Labels that say what was asked for, and the record's priority where it has one. */
const NAME = "dns-name";
const PRIORITY = "dns-priority";
/** Of weights among which is a 0 the others count so many times: it gets a very small share [RFC2782]. */
const SMALL = 100;
const MOST_WEIGHT = 65_535;

/** The weights of the places of one priority: all 0 = all alike. */
function weigh(places: readonly Place[], { priority, weight }: Place): Weights | undefined {
  const level = places.filter((each) => each.priority === priority);
  if (level.every((each) => each.weight === 0)) return undefined;
  const mixed = level.some((each) => each.weight === 0);
  const share = weight === 0 ? 1 : Math.min(MOST_WEIGHT, mixed ? weight * SMALL : weight);
  return { passing: share, warning: share };
}

/** One IPv4 and one IPv6 address are one host's; several of a family are several hosts'. */
function hostsOf(addresses: readonly string[]): readonly (readonly [string, ...string[]])[] {
  const of = (family: 4 | 6): readonly string[] => addresses.filter((each) => ipFamily(each) === family);
  const [[v4, ...more4], [v6, ...more6]] = [of(4), of(6)];
  if (v4 !== undefined && v6 !== undefined && more4.length + more6.length === 0) return [[v4, v6]];
  return addresses.map((each) => [each]);
}

/** Everything that DNS says of an entry's service. What somebody here holds at first hand is left out: it needs no hearsay. */
export function registrationsOf(entry: Entry, places: readonly Place[], view: View): readonly Prioritised[] {
  const { service, tags, text } = entry;
  const known = firstHandPlaces(view, service);
  return places.flatMap((place) =>
    hostsOf(place.addresses).flatMap((host): Prioritised[] => {
      const { port, priority } = place;
      const [address, other] = host;
      if (host.some((each) => known.has(placeOf(each, port)))) return [];
      const labels: Record<string, string> = Object.assign(Object.create(null), entry.labels);
      labels[NAME] = text;
      if (entry.port === undefined) labels[PRIORITY] = String(priority);
      const weights = weigh(places, place);
      const lan = (each: string): Address => ({ host: each, port, reach: "lan" });
      const tagged = other === undefined ? {} : { lan_ipv4: { address, port }, lan_ipv6: { address: other, port } };
      const registration: Registration = {
        ...{ id: `${service}:${address}:${port}`, name: service, tags, labels, address, port, checks: [] },
        ...(other === undefined ? {} : { addresses: host.map(lan), taggedAddresses: tagged }),
        ...(weights === undefined ? {} : { weights }),
        foreignId: `${keyOfEntry(entry)} ${place.host} ${address}:${port}`,
        text: `${place.host}:${port}, by DNS from ${text}`,
        external: { node: { ...nodeAt(place.host, SOURCE, view), address } },
      };
      return [{ registration, priority }];
    }),
  );
}

/** What the instances of an entry have in front of their foreign IDs. */
const keyOfEntry = ({ service, text }: Entry): string => `${service} ${text}`;

/** True for what an entry brought in, in this life or an earlier one. */
export function isOf(entry: Entry, { foreignId, port }: Registration): boolean {
  return foreignId?.startsWith(`${keyOfEntry(entry)} `) === true && (entry.port === undefined || entry.port === port);
}

/** What an entry is called. */
export function nameOfEntry({ service, text, port }: Pick<Entry, "service" | "text" | "port">): string {
  return `${service} (${text}${port === undefined ? "" : `:${port}`})`;
}

/** What the entry is called that brought an instance in. */
export function entryOf({ name, port, labels }: Registration): string {
  const text = labels[NAME] ?? "";
  return nameOfEntry({ service: name, text, ...(labels[PRIORITY] === undefined ? { port } : {}) });
}

/** The priority that a registration was made with. */
export function priorityOf({ labels }: Registration): number {
  return Number(labels[PRIORITY] ?? 0);
}
