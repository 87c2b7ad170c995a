// Listens on magic addresses for programs on this host that have no hook: for services that somebody asks for, or for all that exist.
import { isDeepStrictEqual } from "node:util";
import type { Clock } from "../../base/clock.ts";
import { messageOf } from "../../base/error.ts";
import type { Log } from "../../base/log.ts";
import type { Directory, View } from "../../contracts/directory.ts";
import type { Lookup } from "../../contracts/lookup.ts";
import type { AskedMagic, Magic, MagicDoors } from "../../contracts/magic.ts";
import { addressOf } from "../../model/instance.ts";
import type { MagicConfig } from "./config.ts";
import { CONFIGURED, type MagicPort, magicPorts } from "./magic-ports.ts";
import type { Ports, WantedPort } from "./ports.ts";

export interface MagicParts {
  /** Undefined: nobody is to listen. */
  readonly config: MagicConfig | undefined;
  readonly directory: Pick<Directory, "view" | "changed" | "ready">;
  readonly lookup: Pick<Lookup, "resolveNow">;
  readonly magic: Pick<Magic, "of" | "kept" | "asked" | "openBy">;
  readonly ports: Ports;
  /** This host's node. */
  readonly node: () => string;
  /** This host's addresses. */
  readonly interfaces: () => readonly { readonly address: string }[];
  readonly clock: Clock;
  readonly log: Log;
}

/** A burst of registrations is one look. */
const GATHER_MS = 100;
/** What only the guard keeps ends without a change in the directory; ports that are taken may be free. */
const LOOK_AGAIN_MS = 5_000;
/** What is away for a moment, as services are when agents start, is not worth writing down. */
const AWAY_MS = 60_000;
/** A service that nobody has known for so long is asked for no more. */
export const FORGET_MS: number = 7 * 24 * 3_600_000;

/** What a program on this host listens at, whatever its interfaces are. */
const EVERYWHERE = /^(127\.|0\.0\.0\.0$|::1?$|localhost$)/;

/** A service that was asked for. */
interface Asked {
  /** Set where nobody asked since the start: only these ports are opened again, since others may have become somebody else's. */
  readonly before?: ReadonlySet<string>;
  /** Since when it is not known, as this agent saw it. */
  awayMs?: number;
}

/** Of one service: the ports it should have, and those left to this host's own instances. */
interface Wishes {
  readonly wanted: readonly WantedPort[];
  readonly left: readonly MagicPort[];
}

/** Nobody is to listen. */
const OFF: MagicConfig = { all: false, ports: new Map(), most: 0 };

const NOTHING: Wishes = { wanted: [], left: [] };

/** See the first line. `start` and `stop` are a part's background. */
export class Doors implements MagicDoors {
  readonly #parts: MagicParts;
  #config: MagicConfig;
  /** Wakes whoever waits for something to change. */
  #rouse: () => void = () => {};
  readonly #stop = new AbortController();
  /** Ports of instances that ever ran here: they come back. */
  readonly #own = new Set<number>();
  readonly #asked = new Map<string, Asked>();
  /** Services that were looked at since somebody asked for them. */
  readonly #open = new Set<string>();
  readonly #opening = new Map<string, Promise<void>>();
  #wishes = new Map<string, Wishes>();
  #beyond = 0;
  #turn: Promise<void> = Promise.resolve();
  #running: Promise<void> | undefined;

  constructor(parts: MagicParts) {
    this.#parts = parts;
    this.#config = parts.config ?? OFF;
  }

  get all(): boolean {
    return this.#config.all;
  }

  /** How many ports there is no room for. */
  get beyond(): number {
    return this.#beyond;
  }

  /** Ports of this host's own instances that the magic addresses which somebody asked for do without. */
  left(): readonly { readonly service: string; readonly ports: readonly MagicPort[] }[] {
    if (this.all) return [];
    return [...this.#wishes].flatMap(([service, { left }]) => (left.length === 0 ? [] : [{ service, ports: left }]));
  }

  start(): void {
    if (this.#running !== undefined || this.#stop.signal.aborted) return;
    const { log } = this.#parts;
    this.#begin();
    this.#running = this.#watch().catch((error: unknown) => {
      if (!this.#stop.signal.aborted) log.error(`magic addresses are not kept any more: ${messageOf(error)}`);
    });
  }

  /** What was asked for in an earlier life is opened again, unless all is. */
  #begin(): void {
    const { magic } = this.#parts;
    if (!this.#isOn) return;
    if (!this.all)
      for (const { service, ports } of magic.asked.all())
        if (!this.#asked.has(service)) this.#asked.set(service, { before: new Set(ports) });
    magic.openBy(this);
  }

  get #isOn(): boolean {
    return this.#config !== OFF;
  }

  /** Listens for others from now on, or for nobody (undefined); what is open and still wanted is not touched, and who is connected stays so. */
  async retell(config: MagicConfig | undefined): Promise<void> {
    const now = config ?? OFF;
    if (isDeepStrictEqual(now, this.#config) || this.#stop.signal.aborted) return;
    this.#config = now;
    if (this.#running === undefined) return;
    if (this.#isOn) this.#begin();
    else {
      this.#parts.magic.openBy(undefined);
      this.#open.clear();
    }
    await this.#look();
    this.#rouse();
  }

  async stop(): Promise<void> {
    if (this.#running !== undefined) this.#parts.magic.openBy(undefined);
    this.#stop.abort(new Error("the agent is stopping"));
    await this.#running;
    await this.#turn;
    await this.#parts.ports.stop();
  }

  isOpen(service: string): boolean {
    return this.all || this.#open.has(service.toLowerCase());
  }

  open(service: string): Promise<void> {
    const name = service.toLowerCase();
    if (this.isOpen(name) || !this.#isOn || this.#stop.signal.aborted) return Promise.resolve();
    let opening = this.#opening.get(name);
    if (opening === undefined) {
      opening = this.#ask(name).finally(() => this.#opening.delete(name));
      this.#opening.set(name, opening);
    }
    return opening;
  }

  /** Ports that could not be had are tried again. */
  async retry(): Promise<void> {
    this.#parts.ports.retry();
    await this.#look();
  }

  async #ask(service: string): Promise<void> {
    const { directory, lookup } = this.#parts;
    const isNew = !this.#asked.has(service);
    if (isNew && this.#asked.size >= this.#config.most) {
      this.#beyond = Math.max(1, this.#beyond);
      return;
    }
    if (isNew && !isKnown(directory.view(), lookup, service)) return;
    this.#asked.set(service, {});
    await this.#look();
  }

  /** One after the other. Never rejects. */
  #look(): Promise<void> {
    this.#turn = this.#turn.then(async () => {
      if (this.#stop.signal.aborted) return;
      const { magic, ports, log } = this.#parts;
      const fresh = [...this.#asked].flatMap(([service, { before }]) => (before === undefined ? [service] : []));
      try {
        const wanted = this.#wanted();
        await magic.kept();
        await ports.want(wanted);
        for (const service of fresh) if (this.#wishes.has(service)) this.#open.add(service);
        await this.#remember();
      } catch (error) {
        log.error(`magic addresses: ${messageOf(error)}`);
      }
    });
    return this.#turn;
  }

  #wanted(): readonly WantedPort[] {
    const { directory, lookup } = this.#parts;
    const config = this.#config;
    const view = directory.view();
    this.#learnOwn(view);
    const next = new Map<string, Wishes>();
    const names = this.all
      ? new Set([...view.serviceNames(), ...this.#wishes.keys()].map((name) => name.toLowerCase()))
      : this.#isOn
        ? this.#asked.keys()
        : [];
    for (const service of names) {
      const wishes = view.residents(service).length > 0 ? this.#wishesOf(service, view) : undefined;
      // What the directory no longer has and the guard still answers stays as it was.
      const kept = wishes ?? (isKnown(view, lookup, service) ? (this.#wishes.get(service) ?? NOTHING) : undefined);
      if (kept !== undefined) next.set(service, kept);
      else this.#open.delete(service);
    }
    this.#wishes = next;
    const all = [...next.values()].flatMap(({ wanted }) => wanted);
    this.#beyond = Math.max(0, all.length - config.most);
    return all.slice(0, config.most);
  }

  /** Ports of instances that listen on this host; who is registered here with another host's address does not. */
  #learnOwn(view: View): void {
    let here: ReadonlySet<string> | undefined;
    for (const resident of view.residentsOn(this.#parts.node())) {
      const { port } = resident.instance;
      if (port === 0 || this.#own.has(port)) continue;
      const address = addressOf(resident);
      here ??= new Set([resident.node.address, ...this.#parts.interfaces().map((each) => each.address)]);
      if (EVERYWHERE.test(address) || here.has(address)) this.#own.add(port);
    }
  }

  #wishesOf(service: string, view: View): Wishes {
    const { magic } = this.#parts;
    const { wanted, left } = magicPorts(service, view.residents(service), this.#config, this.#own);
    const before = this.#asked.get(service)?.before;
    const meant = before === undefined ? wanted : wanted.filter((each) => before.has(keyOf(each)));
    if (meant.length === 0) return { wanted: [], left };
    const host = magic.of({ service }).v4;
    return {
      left,
      wanted: meant.map(({ port, protocol, why }) => ({
        ...{ host, port, protocol },
        query: { service },
        options: { name: `${service}:${port}${protocol === "udp" ? "/udp" : ""}` },
        insist: why === CONFIGURED,
      })),
    };
  }

  /** Writes down what was asked for and what is open for it, where that is news; what was away for too long is forgotten. */
  async #remember(): Promise<void> {
    if (this.all || !this.#isOn) return;
    const { magic, ports, clock, log } = this.#parts;
    const open = new Map<string, string[]>();
    for (const { wanted } of ports.listeners()) {
      const list = open.get(wanted.query.service) ?? [];
      open.set(wanted.query.service, list);
      list.push(keyOf(wanted));
    }
    const kept = new Map(magic.asked.all().map((each) => [each.service, each]));
    try {
      for (const [service, asked] of this.#asked) {
        const before = kept.get(service);
        if (this.#wishes.has(service)) {
          delete asked.awayMs;
          const now: AskedMagic = { service, ports: (open.get(service) ?? []).sort() };
          if (JSON.stringify(before) !== JSON.stringify(now)) await magic.asked.keep(now);
          continue;
        }
        asked.awayMs ??= clock.monotonic();
        const sinceMs = before?.unknownSinceMs;
        if (sinceMs !== undefined && clock.now() - sinceMs > FORGET_MS) {
          this.#asked.delete(service);
          await magic.asked.forget(service);
        } else if (before !== undefined && sinceMs === undefined && clock.monotonic() - asked.awayMs >= AWAY_MS)
          await magic.asked.keep({ ...before, unknownSinceMs: clock.now() });
      }
    } catch (error) {
      log.warn(`after a restart magic addresses answer again when they are asked for: ${messageOf(error)}`);
    }
  }

  async #watch(): Promise<void> {
    const { directory, clock } = this.#parts;
    const { signal } = this.#stop;
    await directory.ready(signal);
    while (!signal.aborted) {
      const after = directory.view().index;
      await this.#look();
      const again = new AbortController();
      const onStop = (): void => again.abort();
      this.#rouse = onStop;
      signal.addEventListener("abort", onStop, { once: true });
      if (signal.aborted) onStop();
      const changed = directory.changed("services", after, again.signal);
      const idle = !this.all && (this.#asked.size === 0 || !this.#isOn);
      await (idle ? changed : Promise.race([changed, clock.sleep(LOOK_AGAIN_MS, again.signal)])).catch(() => {});
      signal.removeEventListener("abort", onStop);
      again.abort();
      await clock.sleep(GATHER_MS, signal).catch(() => {});
    }
  }
}

/** "80/tcp" */
function keyOf({ port, protocol }: Pick<MagicPort, "port" | "protocol">): string {
  return `${port}/${protocol}`;
}

function isKnown(view: View, lookup: MagicParts["lookup"], service: string): boolean {
  return view.residents(service).length > 0 || lookup.resolveNow({ service, asker: "127.0.0.1" }).known;
}
