// Lists that follow the LAN: instances, types, domains, and any records at all.
import { type Name, TYPE, textFromLabel } from "../../../wire/dns/index.ts";
import type { BrowseEvent, Following, Found, FoundDomain, FoundType, Heard, Within } from "../engine.ts";
import type { Entry } from "./cache.ts";
import type { Follower, Followers } from "./follow.ts";
import type { Link } from "./link.ts";
import { plainText } from "./names.ts";

/** A list of what `read` makes of records; undefined = not for the list. */
export function list<T>(
  followers: Followers,
  what: Within & { readonly name: Name; readonly type: number },
  read: (link: Link, entry: Entry) => T | undefined,
  listener: (event: BrowseEvent<T>) => void,
): Following {
  // Told once each, so that what is removed was added before.
  const told = new Map<Entry, T>();
  let open = true;
  const follower: Follower = {
    within: what,
    name: what.name,
    type: what.type,
    added(link, entry) {
      if (!open || told.has(entry)) return;
      const found = read(link, entry);
      if (found === undefined) return;
      told.set(entry, found);
      listener({ kind: "add", found });
    },
    removed(_link, entry, why) {
      const found = told.get(entry);
      if (!open || found === undefined) return;
      told.delete(entry);
      listener({ kind: "remove", found, why });
    },
  };
  followers.add(follower);
  if (open) listener({ kind: "cacheExhausted" });
  const timer = followers.allForNow(() => {
    if (open) listener({ kind: "allForNow" });
  });
  return {
    close() {
      if (!open) return;
      open = false;
      timer.cancel();
      followers.remove(follower);
    },
  };
}

/** What an instance's name says, and where it was heard. */
export function instanceNamed(link: Link, name: Name, local: boolean): Found {
  const [label = "", ...rest] = name;
  return {
    interface: link.interface,
    family: link.family,
    name: textFromLabel(label),
    type: plainText(rest.slice(0, 2)),
    domain: plainText(rest.slice(2)),
    local,
  };
}

/** An instance out of a PTR record that lists it. */
export function readInstance(link: Link, entry: Entry): Found | undefined {
  const { data } = entry.rec;
  if (data.kind !== "PTR" || data.target.length < 4) return undefined;
  return instanceNamed(link, data.target, entry.local);
}

export function readType(link: Link, entry: Entry): FoundType | undefined {
  const { data } = entry.rec;
  if (data.kind !== "PTR" || data.target.length < 3) return undefined;
  return {
    interface: link.interface,
    family: link.family,
    type: plainText(data.target.slice(0, 2)),
    domain: plainText(data.target.slice(2)),
    local: entry.local,
  };
}

export function readDomain(link: Link, entry: Entry): FoundDomain | undefined {
  const { data } = entry.rec;
  if (data.kind !== "PTR" || data.target.length === 0) return undefined;
  return { interface: link.interface, family: link.family, domain: plainText(data.target), local: entry.local };
}

export function readHeard(link: Link, entry: Entry): Heard | undefined {
  if (entry.rec.type === TYPE.NSEC) return undefined;
  return {
    interface: link.interface,
    family: link.family,
    name: entry.rec.name,
    data: entry.rec.data,
    local: entry.local,
  };
}
