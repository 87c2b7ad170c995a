// What runs of the parts: what they listen on, what their sources tell, what goes on in the background; begun, exchanged by a reload, ended.
import { codeOf, messageOf } from "../base/error.ts";
import { ipFamily } from "../base/net.ts";
import type { Directory } from "../contracts/directory.ts";
import type { Listener, Part } from "../contracts/protocol.ts";
import type { Source } from "../contracts/source.ts";
import { bringerOf, type Carried, type Carrying, carry, dropAll, dropEach } from "./sources.ts";

export interface RunningMachine extends Carrying {
  readonly directory: Pick<Directory, "view">;
  /** Filled in: "dns" → "127.0.0.1:8600". */
  readonly listening: Map<string, string>;
}

/** What runs of one protocol. */
interface Life {
  listeners: readonly Listener[];
  source: Source | undefined;
  /** Under which name services are brought in. */
  bringer: string | undefined;
  carried: Carried | undefined;
  background: Part["background"];
}

/** By protocol. Nothing runs yet. */
export class Running {
  readonly #machine: RunningMachine;
  readonly #lives = new Map<string, Life>();
  readonly #where = new Map<Listener, string>();
  /** Who brought in what nobody brings in any more, and how it is taken out. */
  readonly #leftovers = new Map<string, typeof dropAll>();

  constructor(machine: RunningMachine) {
    this.#machine = machine;
  }

  /** When every source has told its first list. */
  firstLists(): Promise<unknown> {
    return Promise.all([...this.#lives.values()].map(({ carried }) => carried?.first));
  }

  /**
   * Brings to what a part puts at the agent's disposal now; undefined = it is off. What stays runs on; what a source told that is no longer there goes with
   * the next `sweep`.
   * @throws TrilithError `address-in-use`, `not-allowed`: everything is as it was before
   */
  async bring(protocol: string, part: Part | undefined): Promise<void> {
    await this.listen(protocol, part);
    const life = this.#of(protocol);
    const isOther = life.background !== part?.background;
    if (isOther) await this.#end(protocol, part === undefined ? "off" : undefined);
    await this.tell(protocol, part);
    if (isOther) this.begin(protocol, part);
  }

  /** Opens what a part listens on, and closes what it no longer does. @throws TrilithError as `bring` */
  async listen(protocol: string, part: Part | undefined): Promise<void> {
    const life = this.#of(protocol);
    const before = life.listeners;
    const wanted = part?.listeners ?? [];
    const old = before.filter((listener) => !wanted.includes(listener));
    const fresh = wanted.filter((listener) => !before.includes(listener));
    try {
      await this.#openAll(fresh);
    } catch (error) {
      const inTheWay = old.filter((one) => fresh.some((other) => isInTheWay(one, other)));
      if (codeOf(error) !== "address-in-use" || inTheWay.length === 0) throw error;
      // Of both on one port the old one has to go first.
      for (const listener of inTheWay) await this.#close(listener);
      try {
        await this.#openAll(fresh);
      } catch (again) {
        await this.#openAll(inTheWay).catch((lost: unknown) =>
          this.#machine.log.error(`${protocol} does not listen any more`, { error: messageOf(lost) }),
        );
        throw again;
      }
    }
    life.listeners = wanted;
    for (const listener of old) await this.#close(listener);
  }

  /** Carries what a part's source tells, in place of another one's before; what was brought in and is not now is left to `sweep`. */
  async tell(protocol: string, part: Part | undefined): Promise<void> {
    const life = this.#of(protocol);
    const { source } = part ?? {};
    const { bringer: before, carried, source: told } = life;
    life.bringer = bringerOf(protocol, part);
    if (source !== life.source) {
      await carried?.stop();
      life.source = source;
      life.carried = source === undefined ? undefined : carry(source, this.#machine);
    }
    if (before !== undefined && before !== life.bringer)
      this.#leftovers.set(before, told === undefined ? dropEach : dropAll);
    if (life.bringer !== undefined) this.#leftovers.delete(life.bringer);
  }

  /** Takes out what nobody brings in any more. @throws what the first failed with; the next sweep tries again */
  async sweep(): Promise<void> {
    const failures: unknown[] = [];
    for (const [bringer, drop] of [...this.#leftovers])
      try {
        await drop(bringer, this.#machine);
        this.#leftovers.delete(bringer);
      } catch (error) {
        failures.push(error);
      }
    if (failures.length > 0) throw failures[0];
  }

  /** Begins what goes on while the agent runs. */
  begin(protocol: string, part: Part | undefined): void {
    const life = this.#of(protocol);
    life.background = part?.background;
    life.background?.start();
  }

  /** Ends what goes on in the background, the last begun first. */
  async endAll(): Promise<void> {
    for (const protocol of [...this.#lives.keys()].reverse()) await this.#end(protocol);
  }

  async silenceAll(): Promise<void> {
    await Promise.all([...this.#lives.values()].map(({ carried }) => carried?.stop()));
  }

  async closeAll(): Promise<void> {
    for (const life of [...this.#lives.values()].reverse()) {
      for (const listener of life.listeners.toReversed()) await this.#close(listener);
      life.listeners = [];
    }
  }

  #of(protocol: string): Life {
    let life = this.#lives.get(protocol);
    if (life === undefined) {
      life = { listeners: [], source: undefined, bringer: undefined, carried: undefined, background: undefined };
      this.#lives.set(protocol, life);
    }
    return life;
  }

  async #end(protocol: string, off?: "off"): Promise<void> {
    const life = this.#of(protocol);
    const { background } = life;
    life.background = undefined;
    try {
      await background?.stop(off);
    } catch (error) {
      this.#machine.log.error(`could not stop what goes on in the background of ${protocol}`, {
        error: messageOf(error),
      });
    }
  }

  /** All of them, or none. */
  async #openAll(listeners: readonly Listener[]): Promise<void> {
    const { listening } = this.#machine;
    const before = new Map(listening);
    for (const [i, listener] of listeners.entries())
      try {
        const where = await listener.start();
        this.#where.set(listener, where);
        listening.set(listener.name, where);
      } catch (error) {
        for (const opened of listeners.slice(0, i)) {
          await this.#close(opened);
          // One of its name that it was to replace is open all the same.
          const is = before.get(opened.name);
          if (is !== undefined) listening.set(opened.name, is);
        }
        throw error;
      }
  }

  async #close(listener: Listener): Promise<void> {
    const { listening, log } = this.#machine;
    // Another one of its name may have taken its place.
    if (listening.get(listener.name) === this.#where.get(listener)) listening.delete(listener.name);
    this.#where.delete(listener);
    try {
      await listener.stop();
    } catch (error) {
      log.error(`could not stop ${listener.name}`, { error: messageOf(error) });
    }
  }
}

/** Whether an open one may be in the way of one that is to be opened: on one port, at one address or at all of them, as far as is known. */
function isInTheWay({ place: open }: Listener, { place: wanted }: Listener): boolean {
  if (open === undefined || wanted === undefined) return true;
  // Port 0 is free for whoever asks for it, and may have become any.
  if (wanted.port === 0 || (open.port !== wanted.port && open.port !== 0)) return false;
  return open.host === wanted.host || !isOneAddress(open.host) || !isOneAddress(wanted.host);
}

/** False for names, and for the addresses that mean all. */
function isOneAddress(host: string): boolean {
  return ipFamily(host) !== 0 && !/^[0.:]+$/.test(host);
}
