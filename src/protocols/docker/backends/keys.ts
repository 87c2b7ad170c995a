// What the key-value backends have in common: keys `<prefix>/<name>/<id>`, values `ip:port`.
import { hostPort } from "../../../base/net.ts";
import { type Entry, each, type Standing } from "./backend.ts";

/** `ip:port`, with brackets around IPv6. */
export function keyValue({ ip, port }: Entry): string {
  return hostPort(ip, port);
}

/** Reads places one by one, a few at a time; undefined = not there. */
export async function readEach(
  places: readonly string[],
  read: (place: string) => Promise<string | undefined>,
): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  await each(places, async (place) => {
    const value = await read(place);
    if (value !== undefined) found.set(place, value);
  });
  return found;
}

/** Keys as what stands there: the last part is the ID, what lies between the prefix and it the name. */
export function standingKeys(keys: readonly string[], above: string): Standing[] {
  return keys.flatMap((place) => {
    const rest = place.startsWith(above) ? place.slice(above.length) : "";
    const slash = rest.lastIndexOf("/");
    return slash <= 0 || slash === rest.length - 1
      ? []
      : [{ place, id: rest.slice(slash + 1), name: rest.slice(0, slash) }];
  });
}
