// A peer of the tailnet: advertises services of this process or host as Minidisc does, and finds those of all others. No server, no agent.
import type { Clock } from "../../base/clock.ts";
import { codeOf, messageOf, TrilithError } from "../../base/error.ts";
import type { Http } from "../../base/http.ts";
import { type Log, silentLog } from "../../base/log.ts";
import { ipFamily, type Net } from "../../base/net.ts";
import { jitter, type Random } from "../../base/random.ts";
import { createLocalApi, type LocalApi, speakingAddress, type Tailnet, troubleOf } from "../../base/tailnet.ts";
import type { Labels } from "../../model/node.ts";
import { createAsker, type SocksProxy } from "./ask.ts";
import { type Found, Hosts, isMatch, type Listing, sweep } from "./hosts.ts";
import { Member, type Role } from "./member.ts";
import { Nap } from "./nap.ts";
import type { AddrPort, StreamedService } from "./wire.ts";

export type { SocksProxy } from "./ask.ts";
export type { Found, HostState, Listing } from "./hosts.ts";
export type { Role } from "./member.ts";

/** A service to be advertised. */
export interface Offer {
  readonly name: string;
  readonly port: number;
  /** An IP address; "" (default) = this host's in the tailnet. */
  readonly address?: string;
  readonly labels?: Labels;
  readonly tags?: readonly string[];
  /** Told to other Triliths; default passing. What is neither is not to be advertised at all. */
  readonly health?: "passing" | "warning";
  /** The ID of the node whose agent offers it, so that those who know that node need no second copy. */
  readonly owner?: string;
}

/** What was advertised together. */
export interface Advertisement {
  /** Advertises these instead. @throws TrilithError `invalid` */
  update(offers: Offer | readonly Offer[]): void;
  /** Advertises nothing of it any more; the last one to stop no longer listens. Once. */
  stop(): void;
}

export interface PeerState {
  readonly ok: boolean;
  /** For people: "leader at 100.64.0.1:28004 with 2 delegates; 3 hosts online". */
  readonly text: string;
  /** What this process is among those of its host; undefined while it advertises nothing. */
  readonly role: Role | undefined;
  /** True where no tailscaled is at all. */
  readonly absent: boolean;
  /** The tailnet as it was seen last; undefined before that, and while tailscaled does not answer. */
  readonly tailnet: Tailnet | undefined;
}

export interface PeerMachine {
  readonly clock: Clock;
  readonly random: Random;
  readonly http: Http;
  readonly net: Pick<Net, "connect">;
  readonly log?: Log;
}

export interface PeerOptions extends PeerMachine {
  /** tailscaled's LocalAPI, or the path of its unix socket. */
  readonly localApi?: LocalApi | string;
  /** tailscaled's SOCKS5 proxy, used where it runs with userspace networking. */
  readonly proxy?: SocksProxy;
  /** How often an original implementation on another host is asked, before jitter; default 10 000. */
  readonly pollMs?: number;
  /** How often tailscaled is asked, before jitter; default 5 000. */
  readonly statusMs?: number;
}

export interface ListOptions {
  readonly once?: boolean;
  readonly wanted?: (found: Found) => boolean;
  readonly signal?: AbortSignal;
}

export interface Peer {
  /**
   * Advertises services until they are taken back. Resolves when this host's list has them, at the latest after three seconds: without a
   * tailnet they are advertised as soon as there is one. The signal ends the waiting only. @throws TrilithError `invalid`
   */
  advertise(offers: Offer | readonly Offer[], signal?: AbortSignal): Promise<Advertisement>;
  /**
   * All services of the tailnet, this host's first. From the watched cache where `follow` runs (`once` not set), else every host is asked at the
   * same time. Where nothing in the cache is `wanted` (default: anything is), every host is asked before the answer: who has just come is not in it
   * yet. @throws TrilithError `unavailable`, `not-found` … where there is no tailnet
   */
  list(options?: ListOptions): Promise<Listing>;
  /** The services called so with all of the labels, in the order of `list`. @throws as `list` */
  find(name: string, labels?: Labels, options?: Omit<ListOptions, "wanted">): Promise<readonly Found[]>;
  /** The list now, as soon as every host has answered or failed to, and after every change; waits while there is no tailnet. Ends when aborted. */
  follow(signal: AbortSignal): AsyncIterable<Listing>;
  state(): PeerState;
  /** Resolves when tailscaled has been looked for, at the latest after two seconds or when aborted: `state` tells then. */
  looked(signal: AbortSignal): Promise<void>;
  /** Resolves when this host's addresses in the tailnet change, or when aborted. */
  moved(signal: AbortSignal): Promise<void>;
  /** Resolves when nothing listens or asks any more. Once. */
  stop(): Promise<void>;
}

const STATUS_MS = 5_000;
const HURRY_MS = 1_000;
const ABSENT_MS = 15_000;
const POLL_MS = 10_000;
const TAKEN_MS = 3_000;
const LOOK_MS = 2_000;
const FIRST_ANSWERS_MS = 2_500;

/** Builds a peer; nothing is opened or asked before something is advertised, listed or followed. */
export function createPeer(options: PeerOptions): Peer {
  return new TailnetPeer(options);
}

class TailnetPeer implements Peer {
  readonly #options: PeerOptions;
  readonly #localApi: LocalApi;
  readonly #stop = new AbortController();
  readonly #hosts: Hosts;
  readonly #member: Member;
  readonly #asker;
  readonly #offers = new Set<{ services: readonly Offer[] }>();
  #services: readonly StreamedService[] = [];
  #tailnet: Tailnet | undefined;
  #asked = false;
  #absent = false;
  #trouble: string | undefined;
  #watching: Promise<void> | undefined;
  #followers = 0;
  #version = 0;
  #waiting = new Set<() => void>();
  readonly #nap: Nap;

  constructor(options: PeerOptions) {
    this.#options = options;
    this.#nap = new Nap(options.clock, this.#stop.signal);
    const { clock, random, http, net, localApi } = options;
    this.#localApi = typeof localApi === "object" ? localApi : createLocalApi(http, localApi);
    this.#asker = createAsker({ http, clock, net }, () => (this.#tailnet?.tun === false ? options.proxy : undefined));
    const changed = (): void => this.#changed();
    this.#hosts = new Hosts({
      asker: this.#asker,
      clock,
      random,
      pollMs: options.pollMs ?? POLL_MS,
      changed,
    });
    const log = (options.log ?? silentLog).part("minidisc");
    this.#member = new Member({ clock, random, http, log, asker: this.#asker }, () => this.#services, changed);
  }

  async advertise(offers: Offer | readonly Offer[], signal?: AbortSignal): Promise<Advertisement> {
    this.#mustRun();
    const services = checked(offers);
    const own = { services };
    this.#offers.add(own);
    this.#offer();
    this.#take();
    this.#watch();
    await this.#until(
      () => this.#asked && (this.#member.role.role !== "none" || this.#trouble !== undefined),
      TAKEN_MS,
      signal,
    );
    return {
      update: (next) => {
        own.services = checked(next);
        this.#offer();
      },
      stop: () => {
        this.#offers.delete(own);
        this.#offer();
        if (this.#offers.size === 0) this.#member.place(undefined);
      },
    };
  }

  async list({ once = false, wanted = () => true, signal }: ListOptions = {}): Promise<Listing> {
    this.#mustRun();
    const stop = signal ?? this.#stop.signal;
    if (!once && this.#isFollowed()) {
      await this.#until(() => this.#asked && (this.#hosts.settled || this.#trouble !== undefined), FIRST_ANSWERS_MS);
      if (this.#tailnet !== undefined && this.#isFollowed()) {
        const cached = this.#hosts.listing();
        if (cached.services.some(wanted) || this.#trouble !== undefined) return cached;
        this.#look(await this.#status(stop));
        await this.#hosts.refresh();
        stop.throwIfAborted();
        // Who followed may have stopped meanwhile, and the cache is empty then.
        if (this.#isFollowed()) return this.#hosts.listing();
      }
    }
    const tailnet = await this.#status(stop);
    const trouble = troubleOf(tailnet, this.#localApi.path);
    if (trouble !== undefined) throw new TrilithError("unavailable", trouble);
    this.#tailnet ??= tailnet;
    return await sweep({ asker: this.#asker, clock: this.#options.clock }, tailnet, stop);
  }

  async find(name: string, labels: Labels = {}, options: Omit<ListOptions, "wanted"> = {}): Promise<readonly Found[]> {
    const wanted = (each: Found): boolean => isMatch(each, name, labels);
    return (await this.list({ ...options, wanted })).services.filter(wanted);
  }

  async *follow(signal: AbortSignal): AsyncIterable<Listing> {
    this.#mustRun();
    if (signal.aborted) return;
    this.#followers++;
    if (this.#tailnet !== undefined && this.#trouble === undefined) this.#hosts.be(this.#tailnet);
    this.#watch();
    this.#nap.wake();
    let told = -1;
    let patient = true;
    try {
      while (!signal.aborted && !this.#stop.signal.aborted) {
        const ready = (): boolean =>
          this.#tailnet !== undefined &&
          this.#trouble === undefined &&
          this.#version !== told &&
          (!patient || this.#hosts.settled);
        await this.#until(ready, patient && this.#tailnet !== undefined ? FIRST_ANSWERS_MS : undefined, signal);
        if (signal.aborted || this.#stop.signal.aborted) return;
        if (this.#tailnet === undefined || this.#trouble !== undefined) continue;
        patient = false;
        told = this.#version;
        yield this.#hosts.listing();
      }
    } finally {
      if (--this.#followers === 0) await this.#hosts.end();
    }
  }

  async looked(signal: AbortSignal): Promise<void> {
    this.#watch();
    await this.#until(() => this.#asked, LOOK_MS, signal);
  }

  async moved(signal: AbortSignal): Promise<void> {
    const addresses = (): string => JSON.stringify([this.#tailnet?.own.ipv4, this.#tailnet?.own.ipv6]);
    const before = addresses();
    await this.#until(() => addresses() !== before, undefined, signal);
  }

  state(): PeerState {
    const role = this.#offers.size === 0 ? undefined : this.#member.role;
    const tailnet = this.#tailnet;
    if (this.#trouble !== undefined || tailnet === undefined)
      return {
        ok: this.#absent || !this.#asked,
        text: this.#trouble ?? "not asked yet",
        absent: this.#absent,
        role,
        tailnet,
      };
    const online = tailnet.peers.filter((each) => each.online).length;
    const others = `${online} other host${online === 1 ? "" : "s"} online`;
    if (role === undefined)
      return { ok: true, text: `${this.#where(tailnet)}, ${others}`, absent: false, role, tailnet };
    return { ok: role.role !== "none", text: `${roleText(role)}, ${others}`, absent: false, role, tailnet };
  }

  async stop(): Promise<void> {
    this.#stop.abort(new TrilithError("stopped", "the peer was stopped"));
    this.#changed();
    await this.#watching;
    await Promise.all([this.#member.stop(), this.#hosts.end()]);
  }

  #isFollowed(): boolean {
    return this.#followers > 0;
  }

  #where(tailnet: Tailnet): string {
    return `${tailnet.own.name} at ${speakingAddress(tailnet.own) ?? "no address"}`;
  }

  #mustRun(): void {
    if (this.#stop.signal.aborted) throw new TrilithError("stopped", "this peer was stopped");
  }

  #changed(): void {
    this.#version++;
    for (const check of [...this.#waiting]) check();
  }

  /** Resolves when the condition holds, after `ms`, or when either is stopped. */
  #until(condition: () => boolean, ms?: number, signal?: AbortSignal): Promise<void> {
    const { clock } = this.#options;
    return new Promise((resolve) => {
      const stop = this.#stop.signal;
      const done = (): void => {
        timer?.cancel();
        this.#waiting.delete(check);
        signal?.removeEventListener("abort", done);
        resolve();
      };
      const check = (): void => {
        if (condition() || stop.aborted) done();
      };
      const timer = ms === undefined ? undefined : clock.after(ms, done, true);
      signal?.addEventListener("abort", done, { once: true });
      this.#waiting.add(check);
      if (signal?.aborted) done();
      else check();
    });
  }

  #offer(): void {
    const own = this.#tailnet === undefined ? undefined : speakingAddress(this.#tailnet.own);
    const before = JSON.stringify(this.#services);
    this.#services =
      own === undefined
        ? []
        : [...this.#offers].flatMap(({ services }) =>
            services.map((each) => offered(each, own, this.#tailnet?.own.ipv6)),
          );
    if (JSON.stringify(this.#services) !== before) this.#member.changed();
  }

  #watch(): void {
    this.#watching ??= this.#run();
  }

  /** Looks at the tailnet again and again: states, addresses and hosts come and go. */
  async #run(): Promise<void> {
    const { random, statusMs = STATUS_MS } = this.#options;
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        this.#look(await this.#localApi.status(signal));
      } catch (error) {
        if (signal.aborted) return;
        // tailscaled being away says nothing about the address: what runs goes on.
        this.#trouble = this.#away(error);
        this.#absent = codeOf(error) === "not-found";
        this.#asked = true;
        this.#changed();
      }
      // Who waits for a login is back soon; where no tailscaled is, one may be installed one day.
      const pauseMs = this.#trouble === undefined ? statusMs : this.#absent ? ABSENT_MS : Math.min(statusMs, HURRY_MS);
      await this.#nap.pause(jitter(pauseMs, 0.1, random));
    }
  }

  #look(tailnet: Tailnet): void {
    const trouble = troubleOf(tailnet, this.#localApi.path);
    const news =
      trouble !== this.#trouble || !this.#asked || JSON.stringify(tailnet.own) !== JSON.stringify(this.#tailnet?.own);
    this.#asked = true;
    this.#absent = false;
    this.#trouble = trouble;
    this.#tailnet = tailnet;
    this.#offer();
    this.#take();
    if (this.#isFollowed() && trouble === undefined) this.#hosts.be(tailnet);
    if (news) this.#changed();
  }

  /** Takes this process's place among those of the host, where something is offered and there is an address. */
  #take(): void {
    if (this.#offers.size === 0 || this.#tailnet === undefined) return;
    const { own, tun } = this.#tailnet;
    const speaking = this.#trouble === undefined ? speakingAddress(own) : undefined;
    const sixth = own.ipv6 === undefined ? {} : { ipv6: own.ipv6 };
    this.#member.place(speaking === undefined ? undefined : { speaking, tun, ...sixth });
  }

  async #status(signal: AbortSignal): Promise<Tailnet> {
    try {
      return await this.#localApi.status(signal);
    } catch (error) {
      throw new TrilithError(codeOf(error), this.#away(error), error);
    }
  }

  #away(error: unknown): string {
    const { path } = this.#localApi;
    return codeOf(error) === "not-found"
      ? `no tailscaled at ${path}`
      : `tailscaled at ${path} does not answer: ${messageOf(error)}`;
  }
}

function roleText(role: Role): string {
  switch (role.role) {
    case "leader":
      return `leads at ${role.at.host}:${role.at.port} with ${role.delegates} delegate${role.delegates === 1 ? "" : "s"}`;
    case "delegate":
      return `delegate at ${role.at.host}:${role.at.port} of ${role.leader === "trilith" ? "a Trilith" : "an original Minidisc"}`;
    default:
      return role.text;
  }
}

function checked(offers: Offer | readonly Offer[]): readonly Offer[] {
  const all = Array.isArray(offers) ? (offers as readonly Offer[]) : [offers as Offer];
  for (const { name, port, address = "" } of all) {
    if (typeof name !== "string" || name === "" || name.includes("\0"))
      throw new TrilithError("invalid", `name ${JSON.stringify(name)}: expected a name`);
    if (!Number.isInteger(port) || port < 1 || port > 65_535)
      throw new TrilithError("invalid", `port ${port} of "${name}": expected a whole number from 1 to 65535`);
    if (address !== "" && ipFamily(address) === 0)
      throw new TrilithError("invalid", `address ${JSON.stringify(address)} of "${name}": expected an IP address`);
  }
  return all;
}

function offered(
  { name, port, address = "", labels = {}, tags = [], health = "passing", owner }: Offer,
  own: string,
  ipv6: string | undefined,
): StreamedService {
  const also: AddrPort[] = address === "" && ipv6 !== undefined && ipv6 !== own ? [{ host: ipv6, port }] : [];
  const at = { host: address === "" ? own : address, port };
  return { name, labels, tags, also, health, at, ...(owner === undefined ? {} : { owner }) };
}
