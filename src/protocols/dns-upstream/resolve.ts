// One name asked for: SRV records with their targets' addresses, or addresses alone; aliases followed, negative answers told from failures.
import { messageOf, TrilithError } from "../../base/error.ts";
import {
  CLASS,
  type DnsRecord,
  lowerLabel,
  type Message,
  type Name,
  type Nameservers,
  RCODE,
  type RecordData,
  sameName,
  TYPE,
  textOfName,
} from "../../wire/dns/index.ts";
import type { Entry } from "./config.ts";

/** Where instances are: a host of DNS at a port. */
export interface Place {
  /** The target's name in lower case, without the dot at its end. */
  readonly host: string;
  readonly port: number;
  /** IPv4 before IPv6, each in order of their text. */
  readonly addresses: readonly string[];
  readonly priority: number;
  /** 0 to 65535 as the record says; 0 for addresses alone. */
  readonly weight: number;
}

/** What DNS says about a service. `ttlMs`: for how long it says so. */
export type Found =
  | {
      readonly kind: "places";
      readonly places: readonly Place[];
      readonly faults: readonly string[];
      readonly ttlMs: number;
    }
  /** No such name, or no such records: what was known may be held for a while. */
  | { readonly kind: "nothing"; readonly text: string; readonly ttlMs: number }
  /** Decidedly not available at this domain: the one target is "." [RFC2782]. */
  | { readonly kind: "unavailable"; readonly text: string; readonly ttlMs: number };

type Data<K extends RecordData["kind"]> = Extract<RecordData, { kind: K }>;
interface Records<K extends RecordData["kind"]> {
  readonly data: readonly Data<K>[];
  readonly ttlS: number;
  /** Why there are none, where there are none. */
  readonly why: string;
  readonly message: Message;
}

const MOST_ALIASES = 8;
const MOST_PLACES = 1_000;
/** Targets whose addresses are asked for at the same time. */
const AT_ONCE = 16;
/** A negative answer without SOA is not to be kept [RFC2308-5]. */
const NO_TTL_S = 0;
const FLAGS = { checkingDisabled: false, dnssecOk: false } as const;

/** A TTL with the top bit set counts as 0 [RFC2181-8]. */
const ttlOf = ({ ttlS }: Pick<DnsRecord, "ttlS">): number => (ttlS > 0x7fff_ffff ? 0 : ttlS);
const hostOf = (name: Name): string => textOfName(name).replace(/\.$/, "").toLowerCase();

/** Records of one type at a name, through aliases. @throws TrilithError `unavailable` */
async function records<K extends "SRV" | "A" | "AAAA">(
  servers: Nameservers,
  asked: Name,
  kind: K,
  over: "udp" | "tcp" = "udp",
): Promise<Records<K>> {
  let at = asked;
  let ttlS = Number.POSITIVE_INFINITY;
  const seen = new Set<string>();
  for (;;) {
    const { message } = await servers.ask({ name: at, type: TYPE[kind], class: CLASS.IN }, FLAGS, over);
    for (let again = true; again; ) {
      again = false;
      const here = message.answers.filter((each) => each.class === CLASS.IN && sameName(each.name, at));
      const data = here.filter((each) => each.data.kind === kind);
      if (data.length > 0) {
        for (const each of data) ttlS = Math.min(ttlS, ttlOf(each));
        return { data: data.map((each) => each.data as Data<K>), ttlS, why: "", message };
      }
      const alias = here.find((each) => each.data.kind === "CNAME");
      if (alias === undefined) break;
      seen.add(at.map(lowerLabel).join("."));
      at = (alias.data as Data<"CNAME">).target;
      ttlS = Math.min(ttlS, ttlOf(alias));
      if (seen.has(at.map(lowerLabel).join(".")) || seen.size > MOST_ALIASES)
        throw new TrilithError("unavailable", `the aliases of "${hostOf(asked)}" lead to no end`);
      again = true;
    }
    // An answer that ends with an alias says nothing about where it leads, unless it says that there is nothing [RFC6604-3].
    const soa = message.authorities.find((each) => each.data.kind === "SOA");
    const negative = message.rcode === RCODE.NXDOMAIN || soa !== undefined;
    if (
      !negative &&
      seen.size > 0 &&
      message.answers.length > 0 &&
      !message.questions.some((one) => sameName(one.name, at))
    )
      continue;
    if (!negative && message.authorities.some((each) => each.data.kind === "NS") && !message.authoritative)
      throw new TrilithError("unavailable", `a resolver refers elsewhere for "${hostOf(at)}": it does not recurse`);
    const negativeS = soa === undefined ? NO_TTL_S : Math.min(ttlOf(soa), (soa.data as Data<"SOA">).minTtlS);
    const why = `"${hostOf(at)}" ${message.rcode === RCODE.NXDOMAIN ? "does not exist" : `has no ${kind} record`}`;
    return { data: [], ttlS: Math.min(ttlS, negativeS), why, message };
  }
}

const ordered = (addresses: Iterable<string>): readonly string[] =>
  [...new Set(addresses)].sort((a, b) => Number(a.includes(":")) - Number(b.includes(":")) || (a < b ? -1 : 1));

interface Addresses {
  readonly addresses: readonly string[];
  readonly ttlS: number;
  readonly why: string;
}

/** Both families. Of one that cannot be had what was known counts. @throws TrilithError `unavailable` where neither can */
async function addressesOf(
  servers: Nameservers,
  name: Name,
  known: readonly string[],
  over: "udp" | "tcp" = "udp",
): Promise<Addresses> {
  const asked = await Promise.allSettled([records(servers, name, "A", over), records(servers, name, "AAAA", over)]);
  const answers = asked.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []));
  const failed = asked.find((each) => each.status === "rejected");
  const found = answers.flatMap(({ data }) => data.map(({ address }) => address));
  if (failed !== undefined && found.length === 0) throw failed.reason;
  const kept = failed === undefined ? [] : known.filter((each) => each.includes(":") === (failed === asked[1]));
  // What one family lacks says nothing about how long the other holds.
  const telling = answers.filter(({ data }) => found.length === 0 || data.length > 0);
  return {
    addresses: ordered([...found, ...kept]),
    ttlS: Math.min(...telling.map(({ ttlS }) => ttlS)),
    why: answers[0]?.why ?? "",
  };
}

/** Addresses that came along with the SRV records. */
function alongWith({ additionals, answers }: Message, name: Name): Addresses | undefined {
  const here = [...answers, ...additionals].filter(
    (each) =>
      each.class === CLASS.IN && (each.data.kind === "A" || each.data.kind === "AAAA") && sameName(each.name, name),
  );
  if (here.length === 0) return undefined;
  const addresses = ordered(here.map(({ data }) => (data as Data<"A" | "AAAA">).address));
  return { addresses, ttlS: Math.min(...here.map(ttlOf)), why: "" };
}

/**
 * An answer that is whole as far as one can know. Over UDP some servers (Consul's) leave out what does not fit without a word: the first answer of all, and one
 * that lacks what was known, is asked for once more over TCP.
 */
async function wholeOf<T>(ask: (over: "udp" | "tcp") => Promise<T>, lacks: (answer: T) => boolean): Promise<T> {
  const answer = await ask("udp");
  if (!lacks(answer)) return answer;
  try {
    return await ask("tcp");
  } catch (error) {
    if (error instanceof TrilithError && error.code === "stopped") throw error;
    return answer;
  }
}

/**
 * What DNS says about an entry now.
 * @param before what it said last, undefined where nothing was heard yet: for targets that cannot be asked for now, and to see what is missing
 * @throws TrilithError `unavailable` where no resolver gives an answer, `stopped`
 */
export async function resolve(
  entry: Entry,
  servers: Nameservers,
  before: readonly Place[] | undefined,
): Promise<Found> {
  const known = (host: string): readonly string[] => before?.find((each) => each.host === host)?.addresses ?? [];
  if (entry.port !== undefined) {
    const had = known(entry.text);
    const { addresses, ttlS, why } = await wholeOf(
      (over) => addressesOf(servers, entry.name, had, over),
      (answer) => before === undefined || had.some((each) => !answer.addresses.includes(each)),
    );
    if (addresses.length === 0) return { kind: "nothing", text: why, ttlMs: ttlS * 1000 };
    const place: Place = { host: entry.text, port: entry.port, addresses, priority: 0, weight: 0 };
    return { kind: "places", places: [place], faults: [], ttlMs: ttlS * 1000 };
  }
  const { data, ttlS, why, message } = await wholeOf(
    (over) => records(servers, entry.name, "SRV", over),
    (answer) => {
      const now = new Set(answer.data.map(({ target, port }) => `${hostOf(target)} ${port}`));
      return before === undefined || before.some(({ host, port }) => !now.has(`${host} ${port}`));
    },
  );
  if (data.length === 0) return { kind: "nothing", text: why, ttlMs: ttlS * 1000 };
  const targets = data.filter(({ target }) => target.length > 0).slice(0, MOST_PLACES);
  if (targets.length === 0) {
    const text = `"${entry.text}" says that the service is decidedly not available there (target ".")`;
    return { kind: "unavailable", text, ttlMs: ttlS * 1000 };
  }
  const faults: string[] = [];
  const hosts = new Map<string, Addresses>();
  const atOf = async (target: Name): Promise<Addresses> => {
    const came = alongWith(message, target);
    if (came !== undefined) return came;
    try {
      const found = await addressesOf(servers, target, known(hostOf(target)));
      if (found.addresses.length === 0) faults.push(`its target ${found.why}`);
      return found;
    } catch (error) {
      if (error instanceof TrilithError && error.code === "stopped") throw error;
      faults.push(`the addresses of its target "${hostOf(target)}" are not to be had: ${messageOf(error)}`);
      return { addresses: known(hostOf(target)), ttlS: NO_TTL_S, why: "" };
    }
  };
  const wanted = [...new Map(targets.map(({ target }) => [hostOf(target), target]))];
  for (let i = 0; i < wanted.length; i += AT_ONCE)
    await Promise.all(wanted.slice(i, i + AT_ONCE).map(async ([host, target]) => hosts.set(host, await atOf(target))));
  const places: Place[] = [];
  let leastS = ttlS;
  for (const { target, port, priority, weight } of targets) {
    const host = hostOf(target);
    const found = hosts.get(host) as Addresses;
    leastS = Math.min(leastS, found.ttlS);
    if (found.addresses.length > 0) places.push({ host, port, addresses: found.addresses, priority, weight });
  }
  // Of targets that all lead nowhere nothing can be reached: as if there were none.
  if (places.length === 0) return { kind: "nothing", text: faults.join("; "), ttlMs: leastS * 1000 };
  return { kind: "places", places, faults, ttlMs: leastS * 1000 };
}
