// An instance followed to its end: SRV, TXT and the host's addresses, place by place.
import { type Name, TYPE } from "../../../wire/dns/index.ts";
import type { Address, Following, Found, Gone, Resolved, ResolveEvent, Within } from "../engine.ts";
import { instanceNamed } from "./browse.ts";
import type { Entry } from "./cache.ts";
import type { Follower, Followers } from "./follow.ts";
import type { Link } from "./link.ts";
import { nameKey, plainText } from "./names.ts";

interface At {
  readonly link: Link;
  /** Whose addresses are asked for, and the followers that do. */
  target: string | undefined;
  addresses: readonly Follower[];
  told: { readonly found: Resolved; readonly text: string } | undefined;
}

export function resolve(
  followers: Followers,
  what: Within & { readonly name: Name },
  listener: (event: ResolveEvent) => void,
): Following {
  let open = true;
  const places = new Map<Link, At>();
  const follow = (within: Within, name: Name, type: number): Follower => {
    const follower: Follower = {
      within,
      name,
      type,
      added: (link) => look(link, "replaced"),
      removed: (link, _entry, why) => look(link, why),
    };
    return follower;
  };
  const look = (link: Link, why: Gone): void => {
    if (!open) return;
    let at = places.get(link);
    if (at === undefined) {
      at = { link, target: undefined, addresses: [], told: undefined };
      places.set(link, at);
    }
    const srv = latest(link, what.name, TYPE.SRV);
    const txt = latest(link, what.name, TYPE.TXT);
    followTarget(at, srv);
    if (!open) return;
    const found = srv === undefined || txt === undefined ? undefined : put(at, what.name, srv, txt);
    if (found === undefined) {
      const before = at.told;
      at.told = undefined;
      if (before !== undefined) listener({ kind: "lost", found: instanceOf(before.found), why });
      return;
    }
    const text = JSON.stringify([found, found.txt.map((bytes) => [...bytes])]);
    if (at.told?.text === text) return;
    at.told = { found, text };
    listener({ kind: "resolved", found });
  };
  /** The addresses of the present target are asked for, no others. */
  const followTarget = (at: At, srv: Entry | undefined): void => {
    const said = srv?.rec.data.kind === "SRV" ? srv.rec.data.target : undefined;
    // The root as a target means that there is no such service [RFC 2782].
    const target = said?.length === 0 ? undefined : said;
    const key = target === undefined ? undefined : nameKey(target);
    if (key === at.target) return;
    at.target = key;
    const before = at.addresses;
    const within: Within = { interface: at.link.interface, family: at.link.family };
    at.addresses = target === undefined ? [] : [TYPE.A, TYPE.AAAA].map((type) => follow(within, target, type));
    for (const follower of before) followers.remove(follower);
    for (const follower of at.addresses) followers.add(follower);
  };
  const own = [TYPE.SRV, TYPE.TXT].map((type) => follow(what, what.name, type));
  for (const follower of own) followers.add(follower);
  return {
    close() {
      if (!open) return;
      open = false;
      for (const follower of [...own, ...[...places.values()].flatMap(({ addresses }) => addresses)])
        followers.remove(follower);
    },
  };
}

/** What was said last, where something else was said before. */
function latest(link: Link, name: Name, type: number): Entry | undefined {
  let best: Entry | undefined;
  for (const entry of link.cache.at(nameKey(name), type))
    if (best === undefined || rank(entry) >= rank(best)) best = entry;
  return best;
}

function rank(entry: Entry): number {
  if (entry.leaving !== undefined) return -1;
  return entry.own ? Number.POSITIVE_INFINITY : entry.heardAtMs;
}

function put({ link, target }: At, name: Name, srv: Entry, txt: Entry): Resolved | undefined {
  const { data } = srv.rec;
  const text = txt.rec.data;
  if (data.kind !== "SRV" || text.kind !== "TXT" || target === undefined) return undefined;
  const addresses: Address[] = [];
  const entries = [...link.cache.at(target, TYPE.A), ...link.cache.at(target, TYPE.AAAA)];
  const staying = entries.filter(({ leaving }) => leaving === undefined);
  for (const { rec } of staying.length > 0 ? staying : entries)
    if (rec.data.kind === "A") addresses.push({ address: rec.data.address, family: 4 });
    else if (rec.data.kind === "AAAA") addresses.push({ address: rec.data.address, family: 6 });
  if (addresses.length === 0) return undefined;
  return {
    ...instanceNamed(link, name, srv.local),
    host: plainText(data.target),
    port: data.port,
    priority: data.priority,
    weight: data.weight,
    txt: text.strings,
    addresses,
  };
}

function instanceOf({ interface: name, family, name: instance, type, domain, local }: Resolved): Found {
  return { interface: name, family, name: instance, type, domain, local };
}
