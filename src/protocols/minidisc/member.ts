// This process among the Minidisc processes of its host: it leads where the port is free, is the leader's delegate elsewhere, and notices every change.
import type { Clock } from "../../base/clock.ts";
import { messageOf, TrilithError } from "../../base/error.ts";
import type { Http } from "../../base/http.ts";
import type { Log } from "../../base/log.ts";
import { hostPort, type Listening } from "../../base/net.ts";
import { jitter, type Random } from "../../base/random.ts";
import { labelsOf } from "../../model/label-tags.ts";
import type { Asker } from "./ask.ts";
import { Delegates } from "./delegates.ts";
import { createHandler } from "./handler.ts";
import { Pings } from "./pings.ts";
import { Streams } from "./streams.ts";
import {
  type AddrPort,
  addrPortText,
  encodeLine,
  PORT,
  plainIp,
  type StreamedService,
  sameAt,
  type WireService,
} from "./wire.ts";

/** This host's addresses in the tailnet; `speaking` is the one that Minidisc uses. */
export interface Place {
  readonly speaking: string;
  readonly ipv6?: string;
  /** False: no interface carries the address. */
  readonly tun: boolean;
}

export interface MemberMachine {
  readonly clock: Clock;
  readonly random: Random;
  readonly http: Http;
  readonly log: Log;
  readonly asker: Asker;
}

/** What this process is at present. */
export type Role =
  | { readonly role: "leader"; readonly at: AddrPort; readonly delegates: number }
  | { readonly role: "delegate"; readonly at: AddrPort; readonly leader: "trilith" | "original" }
  | { readonly role: "none"; readonly text: string };

const FIRST_RETRY_MS = 100;
const SLOWEST_RETRY_MS = 10_000;
/** What answers on the port and is no Minidisc will hardly become one. */
const STRANGER_RETRY_MS = 60_000;
const ADDRESS_RETRY_MS = 1_000;
/** A leader that lasted so long was one. */
const SETTLED_MS = 500;
const ANSWER_MS = 1_000;
/** A leader's list may take its delegates' time. */
const LIST_MS = 3_000;
const PING_MS = 2_000;
/** Every so many pings the leader is asked whether it still knows this delegate. */
const PINGS_PER_LOOK = 2;
const BEAT_MS = 1_000;

/** What a delegate of an original implementation does next. */
type Next = "lead" | "register";

export class Member {
  readonly #machine: MemberMachine;
  readonly #own: () => readonly StreamedService[];
  readonly #told: () => void;
  readonly #mark: string;
  readonly #pings: Pings;
  readonly #streams: Streams;
  #delegates: Delegates | undefined;
  /** The delegates of the Trilith that leads: who takes over knows them. Undefined = nobody told. */
  #heirs: readonly AddrPort[] | undefined;
  /** This process's own listener. */
  #at: AddrPort | undefined;
  #leads = false;
  #asked = 0;
  #place: Place | undefined;
  #role: Role = { role: "none", text: "not started" };
  #stop: AbortController | undefined;
  #running: Promise<void> = Promise.resolve();
  #ended = false;
  #warned = "";

  /** `own`: the services of this process; `told` is called when the role changes. */
  constructor(machine: MemberMachine, own: () => readonly StreamedService[], told: () => void) {
    this.#machine = machine;
    this.#own = own;
    this.#told = told;
    this.#mark = machine.random.uuid();
    this.#pings = new Pings(machine.clock);
    this.#streams = new Streams(machine.clock, () => this.#line());
  }

  get role(): Role {
    return this.#role;
  }

  /** Where this host is in the tailnet; undefined = nowhere. The same place again changes nothing; another one is moved to. */
  place(place: Place | undefined): void {
    if (this.#ended || JSON.stringify(place) === JSON.stringify(this.#place)) return;
    this.#place = place;
    const before = this.#stop;
    before?.abort(new TrilithError("stopped", "the address changed"));
    this.#stop = undefined;
    if (place === undefined) {
      this.#be({ role: "none", text: "no address in the tailnet" });
      return;
    }
    const stop = new AbortController();
    this.#stop = stop;
    const after = this.#running;
    this.#running = (async () => {
      await after;
      await this.#live(place, stop.signal);
    })();
  }

  /** To be called when `own` tells something else. */
  changed(): void {
    this.#streams.tell();
  }

  async stop(): Promise<void> {
    this.place(undefined);
    this.#ended = true;
    await this.#running;
  }

  #be(role: Role): void {
    const told = JSON.stringify(role);
    if (told === JSON.stringify(this.#role)) return;
    this.#role = role;
    if (role.role !== "none") this.#warned = "";
    else if (this.#place !== undefined && this.#warned !== role.text) {
      this.#warned = role.text;
      this.#machine.log.warn(role.text);
    }
    this.#told();
  }

  #line(): string {
    return encodeLine({
      mark: this.#mark,
      leads: this.#leads,
      services: [...this.#own(), ...(this.#delegates?.known() ?? [])],
      delegates: this.#delegates?.addresses ?? [],
    });
  }

  async #live(place: Place, signal: AbortSignal): Promise<void> {
    const listeners: Listening[] = [];
    const close = async (): Promise<void> => {
      this.#streams.end();
      await Promise.all(listeners.splice(0).map((each) => each.close()));
      this.#at = undefined;
    };
    const leader: AddrPort = { host: place.speaking, port: PORT };
    let failures = 0;
    try {
      while (!signal.aborted) {
        let leading: Listening | undefined;
        let pauseMs: number;
        try {
          leading = await this.#listen(place.speaking, PORT);
        } catch (error) {
          if (!isErrno(error, "EADDRINUSE")) {
            pauseMs = ADDRESS_RETRY_MS * 2 ** Math.min(failures++, 3);
            this.#be({ role: "none", text: unbound(place, error) });
            await this.#pause(pauseMs, signal);
            continue;
          }
        }
        if (leading !== undefined && signal.aborted) {
          // The address went while the port was being opened.
          listeners.push(leading);
          break;
        }
        if (leading !== undefined) {
          const before = listeners.splice(0);
          listeners.push(leading);
          await this.#lead(place, before, listeners, signal);
          continue;
        }
        if (this.#at === undefined) {
          const own = await this.#listen(place.speaking, 0);
          listeners.push(own);
          this.#at = { host: place.speaking, port: own.port };
        }
        const begun = this.#machine.clock.monotonic();
        const end = await this.#follow(leader, this.#at, signal);
        if (signal.aborted) break;
        // Who had a leader for a while looks at once; who is turned away waits longer and longer.
        failures = end === "left" && this.#machine.clock.monotonic() - begun > SETTLED_MS ? 0 : failures + 1;
        const mostMs = end === "stranger" ? STRANGER_RETRY_MS : SLOWEST_RETRY_MS;
        if (failures > 0) await this.#pause(Math.min(mostMs, FIRST_RETRY_MS * 2 ** Math.min(failures, 16)), signal);
      }
    } catch (error) {
      if (!signal.aborted) {
        this.#be({ role: "none", text: `cannot take part in Minidisc: ${messageOf(error)}` });
        this.#machine.log.error("cannot take part", { error: messageOf(error) });
      }
    } finally {
      await close();
    }
  }

  /** Answers on the port until aborted. `before`: the listener of the delegate that this was. */
  async #lead(place: Place, before: readonly Listening[], listeners: Listening[], signal: AbortSignal): Promise<void> {
    const own = this.#at;
    this.#at = { host: place.speaking, port: PORT };
    this.#leads = true;
    const delegates = new Delegates({
      asker: this.#machine.asker,
      clock: this.#machine.clock,
      random: this.#machine.random,
      changed: () => {
        this.#streams.tell();
        this.#be({ role: "leader", at: { host: place.speaking, port: PORT }, delegates: delegates.addresses.length });
      },
    });
    this.#delegates = delegates;
    // A delegate of the leader before that does not know of its end would be lost for good.
    if (this.#heirs === undefined) this.#pings.begin();
    for (const heir of this.#heirs ?? []) if (own === undefined || !sameAt(heir, own)) delegates.add(heir);
    this.#heirs = undefined;
    this.#be({ role: "leader", at: this.#at, delegates: delegates.addresses.length });
    await Promise.all(before.map((each) => each.close()));
    try {
      if (place.ipv6 !== undefined && place.ipv6 !== place.speaking) {
        // Unseen by the original implementations; a Trilith without IPv4 asks there.
        const sixth = await this.#listen(place.ipv6, PORT).catch((error: unknown) => {
          this.#machine.log.debug(`not on IPv6: ${messageOf(error)}`);
        });
        if (sixth !== undefined) listeners.push(sixth);
      }
      await aborted(signal);
    } finally {
      this.#leads = false;
      this.#delegates = undefined;
      await delegates.end();
    }
  }

  /** Is a delegate until the leader is gone ("left"), or nobody takes this one ("refused", "stranger"). */
  async #follow(leader: AddrPort, own: AddrPort, signal: AbortSignal): Promise<"left" | "refused" | "stranger"> {
    const { asker } = this.#machine;
    for (;;) {
      const reply = await asker.addDelegate(leader, own, ANSWER_MS, signal);
      if (reply.kind === "refused") return "refused";
      if (reply.kind === "other") return this.#strange(reply.text);
      if (reply.kind === "ok" && reply.mark !== undefined) {
        this.#be({ role: "delegate", at: own, leader: "trilith" });
        return (await this.#attend(leader, own, signal)) ? "left" : "refused";
      }
      this.#heirs = undefined;
      // Whether a leader that was slow has registered this one is to be looked at: registering again would have a Python leader list it twice.
      const unsure = reply.kind !== "ok";
      if (unsure) this.#be({ role: "none", text: `${reply.text}: whoever leads this host is slow or hangs` });
      else {
        // Many a web server has a kind answer for everything.
        const list = await asker.services(leader, LIST_MS, signal);
        if (list.kind === "other") return this.#strange(list.text);
        this.#be({ role: "delegate", at: own, leader: "original" });
      }
      if ((await this.#watch(leader, own, unsure, signal)) === "lead") return "left";
    }
  }

  #strange(how: string): "stranger" {
    this.#be({
      role: "none",
      text: `${how}: what listens there is no Minidisc, so nothing of this process is advertised`,
    });
    return "stranger";
  }

  /** Holds on to a Trilith that leads: its end is seen at once. False where it never spoke. */
  async #attend(leader: AddrPort, own: AddrPort, signal: AbortSignal): Promise<boolean> {
    const { asker } = this.#machine;
    const over = new AbortController();
    const stop = (): void => over.abort(signal.reason);
    signal.addEventListener("abort", stop, { once: true });
    let spoke = false;
    try {
      await asker.follow(leader, BEAT_MS, over.signal, (line) => {
        spoke = true;
        this.#heirs = line.delegates;
        // It let this one go: after a long silence of ours, or because another leads already.
        if (!line.delegates.some((each) => sameAt(each, own))) over.abort(new Error("not listed"));
      });
    } finally {
      signal.removeEventListener("abort", stop);
    }
    signal.throwIfAborted();
    return spoke;
  }

  /** Pings an original implementation that leads, and looks whether it still knows this delegate. */
  async #watch(leader: AddrPort, own: AddrPort, unsure: boolean, signal: AbortSignal): Promise<Next> {
    const { asker, random } = this.#machine;
    const over = new AbortController();
    const stop = (): void => over.abort(signal.reason);
    signal.addEventListener("abort", stop, { once: true });
    let look = unsure;
    // Resolves when a connection to Go's server ends. It rings for the next ping only: who that one finds is what counts.
    let held: Promise<void> | undefined;
    try {
      for (let pings = 1; ; pings++) {
        if (pings > 1 || unsure) {
          const pause = this.#pause(jitter(unsure ? ANSWER_MS : PING_MS, 0.1, random), over.signal);
          await (held === undefined ? pause : Promise.race([pause, held]));
        }
        signal.throwIfAborted();
        const reply = await asker.ping(leader, ANSWER_MS, signal);
        if (reply.kind === "refused" || reply.kind === "other") return "lead";
        // One of our kind leads now, and not for long.
        if (reply.kind === "ok" && reply.mark !== undefined) return "register";
        // Where another original takes a dead one's place first, it never learns of the third: the port is to be had at once.
        if (reply.kind === "ok" && !reply.python)
          held ??= asker.hold(leader, over.signal).then(() => {
            held = undefined;
          });
        if (!look && reply.kind === "ok" && pings % PINGS_PER_LOOK !== 0) continue;
        const askedBefore = this.#asked;
        const shown = new Set(this.#own().map(wireText));
        const list = await asker.services(leader, LIST_MS, signal);
        if (list.kind === "refused") return "lead";
        if (list.kind !== "ok") {
          // Slow, or broken by another delegate: that says nothing about this one.
          look = true;
          continue;
        }
        if (list.mark !== undefined) return "register";
        look = false;
        unsure = false;
        const known = this.#asked !== askedBefore || list.services.some((each) => shown.has(wireText(each)));
        if (!known) return "register";
        this.#be({ role: "delegate", at: own, leader: "original" });
      }
    } finally {
      signal.removeEventListener("abort", stop);
      over.abort();
      await held;
    }
  }

  #listen(host: string, port: number): Promise<Listening> {
    const leads = port === PORT;
    const handle = createHandler(
      {
        mark: this.#mark,
        services: async () => {
          if (!leads) this.#asked++;
          const others = leads ? ((await this.#delegates?.services()) ?? []) : [];
          // What has IPv6 alone is for our own kind: the original implementations know nothing but IPv4.
          return [...this.#own(), ...others]
            .filter(({ at }) => !at.host.includes(":"))
            .map((each) => ({ ...each, labels: labelsOf(each.labels, each.tags) }));
        },
        addDelegate: (delegate, sender) => {
          if (!leads || delegate === undefined || delegate.host !== this.#at?.host) return false;
          // Only who has the address can be at it; this process itself is nobody's delegate.
          if (plainIp(sender.address) !== delegate.host || delegate.port === PORT) return false;
          // Go takes port 0, at which nobody is.
          if (delegate.port === 0) return true;
          if (this.#delegates?.add(delegate) !== true) return false;
          // Our own kind does not ping.
          if (!sender.trilith) this.#pings.registered(addrPortText(delegate), sender.client);
          return true;
        },
        pinged: ({ client }) =>
          !leads || this.#pings.answered(client, (delegate) => this.#delegates?.has(delegate) === true),
        followed: (response, beatMs) => this.#streams.add(response, beatMs),
      },
      this.#machine.clock,
    );
    return this.#machine.http.serve({ host, port }, handle);
  }

  async #pause(ms: number, signal: AbortSignal): Promise<void> {
    await this.#machine.clock.sleep(jitter(ms, 0.2, this.#machine.random), signal).catch(() => {});
  }
}

const wireText = ({ name, at }: WireService): string => `${addrPortText(at)} ${name}`;

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
}

function isErrno(error: unknown, code: string): boolean {
  for (let at: unknown = error; at instanceof Error; at = at.cause)
    if ((at as { readonly code?: unknown }).code === code) return true;
  return codeIs(error, code);
}

const codeIs = (error: unknown, code: string): boolean =>
  code === "EADDRINUSE" && error instanceof TrilithError && error.code === "address-in-use";

function unbound(place: Place, error: unknown): string {
  const at = hostPort(place.speaking, PORT);
  if (!isErrno(error, "EADDRNOTAVAIL")) return `cannot listen on ${at}: ${messageOf(error)}`;
  return place.tun
    ? `cannot listen on ${at}: no interface here carries the address (in a container: share the network of tailscaled's)`
    : `cannot listen on ${at}: tailscaled runs with userspace networking, so the address exists inside tailscaled only; nothing of this host is advertised, other hosts are found through its SOCKS5 proxy where one is configured`;
}
