// `trilith wait _http._tcp`: the first instance on the LAN that fits, as soon as its address and port are known.
import type { Timer } from "../../../base/clock.ts";
import type { Following, Found, Resolved } from "../engine.ts";
import { Ending, type Machine, type Shell, withEngine } from "./machine.ts";

/** Hosts with both families announce and answer on each by itself; Avahi's IPv6 side names no IPv4 address. */
const OTHER_FAMILY_MS = 1000;

/** What is waited for. */
export interface Awaited {
  readonly type: string;
  /** "_printer": only instances with this subtype. */
  readonly subtype?: string;
  /** The instance's name, in any case. */
  readonly name?: string;
  /** Pairs that have to be in its TXT record; keys in any case. */
  readonly labels?: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
}

/** Something that was waited for. */
export interface Arrived {
  readonly name: string;
  readonly host: string;
  readonly address: string;
  readonly port: number;
  /** The TXT record's pairs, by keys in lower case; the first of each counts [RFC 6763 §6.4]. */
  readonly labels: ReadonlyMap<string, string>;
}

/**
 * What has come; "timeout" after the time, "stopped" by the signal.
 * @throws TrilithError `unavailable` where no network interface can be used (never; it is waited for) and InputError for a type that is none
 */
export async function awaitOnLan(
  awaited: Awaited,
  shell: Pick<Shell, "signal">,
  machine: Machine,
): Promise<Arrived | "timeout" | "stopped"> {
  return await withEngine(machine, async (mdns) => {
    const ending = new Ending(shell.signal);
    const resolving = new Map<string, Following>();
    let arrived: Arrived | undefined;
    let moment: Timer | undefined;
    const take = (found: Resolved): void => {
      const pairs = pairsOf(found.txt);
      const fits = Object.entries(awaited.labels ?? {}).every(([key, value]) => pairs.get(key.toLowerCase()) === value);
      if (!fits) return;
      const comes = arrivedOf(found);
      if (arrived === undefined || (arrived.name === comes.name && worth(comes) > worth(arrived))) arrived = comes;
      if (worth(arrived) === BEST || !mdns.places.some(({ family }) => family === 4)) ending.end();
      else moment ??= machine.clock.after(OTHER_FAMILY_MS, ending.end, true);
    };
    const keyOf = ({ interface: at, family, name }: Found): string => JSON.stringify([at, family, name]);
    const { type, subtype, name } = awaited;
    const browsing = mdns.browse({ type, ...(subtype === undefined ? {} : { subtype }) }, (event) => {
      if (event.kind === "remove") {
        resolving.get(keyOf(event.found))?.close();
        resolving.delete(keyOf(event.found));
      }
      if (event.kind !== "add") return;
      const { found } = event;
      if (name !== undefined && found.name.toLowerCase() !== name.toLowerCase()) return;
      resolving.set(
        keyOf(found),
        mdns.resolve(
          { name: found.name, type: found.type, interface: found.interface, family: found.family },
          (told) => {
            if (told.kind === "resolved") take(told.found);
          },
        ),
      );
    });
    const timer = machine.clock.after(awaited.timeoutMs, ending.end, true);
    await ending.reached;
    timer.cancel();
    moment?.cancel();
    browsing.close();
    for (const each of resolving.values()) each.close();
    return arrived ?? (shell.signal.aborted ? "stopped" : "timeout");
  });
}

/** The pairs of a TXT record, by keys in lower case; the first of each counts, one without "=" is "" [RFC 6763 §6.4]. */
function pairsOf(strings: readonly Uint8Array[]): Map<string, string> {
  const pairs = new Map<string, string>();
  for (const bytes of strings) {
    const text = Buffer.from(bytes).toString("utf8");
    const at = text.indexOf("=");
    const key = (at < 0 ? text : text.slice(0, at)).toLowerCase();
    if (key !== "" && !pairs.has(key)) pairs.set(key, at < 0 ? "" : text.slice(at + 1));
  }
  return pairs;
}

const linkLocal = (address: string): boolean => /^fe[89ab]/i.test(address);

const BEST = 2;
/** How many programs can connect to it: IPv4 is best, then IPv6 without a zone. */
const worth = ({ address }: Arrived): number => (!address.includes(":") ? BEST : linkLocal(address) ? 0 : 1);

function arrivedOf({ name, host, port, txt, addresses, family, interface: at }: Resolved): Arrived {
  // What most programs can connect to: an IPv4 address, then one that needs no zone.
  const [best] = [
    ...addresses.filter((each) => each.family === 4),
    ...addresses.filter(({ address }) => !linkLocal(address)),
    ...addresses.filter((each) => each.family === family),
    ...addresses,
  ];
  const address = best?.address ?? "";
  return { name, host, port, address: linkLocal(address) ? `${address}%${at}` : address, labels: pairsOf(txt) };
}
