// The differ of the command line: what containers ask for, against what was written; level-triggered, so that nothing is lost on the way.
import type { Clock, Timer } from "../../../base/clock.ts";
import { codeOf, messageOf } from "../../../base/error.ts";
import { jitter, type Random } from "../../../base/random.ts";
import { type Backend, type Entry, each } from "./backend.ts";
import { fingerprint, type Memory } from "./memory.ts";

export interface WriterOptions {
  /** A line for the log, in Registrator's words. */
  readonly say: (text: string) => void;
  /** How often entries are kept alive; 0 = never. */
  readonly refreshMs: number;
  /** `-resync`: how often everything is looked at again, and that is said; 0 = every half minute, silently. */
  readonly resyncMs: number;
  /** `-cleanup`: entries whose ID has this host's form and no container go, too. Undefined = only what this program wrote. */
  readonly cleanup: { readonly hostname: string } | undefined;
}

const VERIFY_MS = 30_000;
const RETRY_MIN_MS = 200;
const RETRY_MAX_MS = 15_000;
const JITTER = 0.2;
/** Refused for what it is: another attempt is made with the next look at everything. */
const REFUSED: ReadonlySet<string> = new Set(["invalid", "too-large", "not-allowed"]);

/** Registrator's own ID form: host, container (two characters at least), port. */
const OWN_ID = /^(.+?):([a-zA-Z0-9][a-zA-Z0-9_.-]+):[0-9]+(?::udp)?$/;

/** Brings a backend to what is wanted, and keeps it there. */
export class Writer {
  readonly #backend: Backend;
  readonly #memory: Memory;
  readonly #machine: { readonly clock: Clock; readonly random: Random };
  readonly #options: WriterOptions;
  #wanted: Map<string, Entry> | undefined;
  /** What stands for sure, as this run wrote or found it. */
  readonly #standing = new Map<string, Entry>();
  readonly #refused = new Map<string, string>();
  readonly #said = new Map<string, string>();
  #verify = true;
  #resync = false;
  #refresh = false;
  #wake: (() => void) | undefined;
  #rung = false;
  #retryMs = RETRY_MIN_MS;
  readonly #timers = new Map<string, Timer>();

  constructor(
    backend: Backend,
    memory: Memory,
    machine: { readonly clock: Clock; readonly random: Random },
    options: WriterOptions,
  ) {
    this.#backend = backend;
    this.#memory = memory;
    this.#machine = machine;
    this.#options = options;
  }

  /** States the whole list. Of two entries for one place the first counts. */
  want(entries: readonly Entry[]): void {
    const wanted = new Map<string, Entry>();
    for (const entry of entries) {
      const place = this.#backend.place(entry);
      const first = wanted.get(place);
      if (first === undefined) wanted.set(place, entry);
      else
        this.#complain(`${place} ${entry.id}`, `${entry.id} is not registered: ${first.id} stands at ${place} already`);
    }
    if (this.#wanted === undefined) this.#syncing(wanted);
    // What runs again may have run out meanwhile.
    for (const [place, entry] of wanted) if (!entry.ended && this.#wanted?.get(place)?.ended) this.#verify = true;
    this.#wanted = wanted;
    this.#ring();
  }

  /** Has everything looked at again: what was written may be lost. */
  check(): void {
    this.#verify = true;
    this.#ring();
  }

  /** Works until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    const onAbort = (): void => this.#ring();
    signal.addEventListener("abort", onAbort, { once: true });
    const { resyncMs, refreshMs } = this.#options;
    this.#every("verify", resyncMs || VERIFY_MS, () => {
      this.#verify = true;
      this.#resync = resyncMs > 0;
    });
    if (refreshMs > 0)
      this.#every("refresh", refreshMs, () => {
        this.#refresh = true;
      });
    try {
      while (!signal.aborted) {
        if (!this.#rung)
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
        this.#wake = undefined;
        this.#rung = false;
        if (signal.aborted) return;
        await this.#pass(signal);
      }
    } finally {
      signal.removeEventListener("abort", onAbort);
      for (const timer of this.#timers.values()) timer.cancel();
    }
  }

  #ring(): void {
    this.#rung = true;
    this.#wake?.();
  }

  #every(name: string, ms: number, set: () => void): void {
    const again = (): void => {
      this.#timers.set(
        name,
        this.#machine.clock.after(
          ms,
          () => {
            set();
            this.#ring();
            again();
          },
          true,
        ),
      );
    };
    again();
  }

  #syncing(wanted: ReadonlyMap<string, Entry>): void {
    const containers = new Set([...wanted.values()].map(({ containerId }) => containerId)).size;
    this.#options.say(`Syncing services on ${containers} containers`);
  }

  /** Says something about a place once, until it is something else. */
  #complain(about: string, text: string): void {
    if (this.#said.get(about) === text) return;
    this.#said.set(about, text);
    this.#options.say(text);
  }

  /** Never rejects, but for the signal's sake: what failed is tried again. */
  async #pass(signal: AbortSignal): Promise<void> {
    const wanted = this.#wanted;
    if (wanted === undefined) return;
    const verify = this.#verify;
    const refresh = this.#refresh;
    if (this.#resync) this.#syncing(wanted);
    this.#verify = false;
    this.#refresh = false;
    this.#resync = false;
    try {
      if (verify) this.#refused.clear();
      await this.#bring(wanted, verify, refresh, signal);
      if (this.#said.delete("backend")) this.#options.say(`${this.#backend.scheme}: answers again`);
      this.#retryMs = RETRY_MIN_MS;
    } catch (error) {
      if (signal.aborted) return;
      // Once an outage, whatever the next attempts die of.
      if (!this.#said.has("backend"))
        this.#complain("backend", `${this.#backend.scheme}: trying again: ${messageOf(error)}`);
      // It may have lost everything meanwhile.
      this.#verify = true;
      this.#refresh ||= refresh;
      this.#timers.get("retry")?.cancel();
      const ms = jitter(this.#retryMs, JITTER, this.#machine.random);
      this.#timers.set(
        "retry",
        this.#machine.clock.after(ms, () => this.#ring(), true),
      );
      this.#retryMs = Math.min(RETRY_MAX_MS, this.#retryMs * 2);
    } finally {
      await this.#memory.save();
    }
  }

  async #bring(
    wanted: ReadonlyMap<string, Entry>,
    verify: boolean,
    refresh: boolean,
    signal: AbortSignal,
  ): Promise<void> {
    const backend = this.#backend;
    const { places } = this.#memory;
    const known = [...new Set([...wanted.keys(), ...places.keys()])];
    const held = verify && known.length > 0 ? await backend.read(known, signal) : undefined;
    const writes: { readonly place: string; readonly entry: Entry; readonly print: string }[] = [];
    for (const [place, entry] of wanted) {
      const print = this.#print(entry);
      const changed = places.get(place) !== print;
      const missing = held !== undefined && held.get(place) !== backend.content(entry);
      if (entry.ended) {
        // It may run out, which is no reason to write it again.
        const before = this.#standing.get(place);
        if (before !== undefined) this.#standing.set(place, entry);
      } else if (!changed && !missing) this.#stands(place, entry);
      else if (this.#refused.get(place) !== print) writes.push({ place, entry, print });
    }
    const removals = [...places.keys()].filter((place) => !wanted.has(place));

    // Remembered before it is written: whatever happens in between, nothing stands there unknown.
    for (const { place } of writes) if (!places.has(place)) places.set(place, "");
    await this.#memory.save();
    const work: (() => Promise<void>)[] = [
      ...writes.map(
        ({ place, entry, print }) =>
          () =>
            this.#write(place, entry, print, signal),
      ),
      ...removals.map((place) => () => this.#remove(place, signal)),
    ];
    if (refresh) {
      const written = new Set(writes.map(({ place }) => place));
      for (const [place, entry] of this.#standing)
        if (wanted.has(place) && !written.has(place) && !entry.ended)
          work.push(async () => {
            await backend.refresh(entry, signal);
            this.#options.say(`refreshed: ${entry.containerId.slice(0, 12)} ${entry.id}`);
          });
    }
    await each(work, (one) => one());
    if (verify && this.#options.cleanup !== undefined)
      await this.#cleanUp(wanted, this.#options.cleanup.hostname, signal);
  }

  #print(entry: Entry): string {
    const { ended: _, ...facts } = entry;
    return fingerprint(JSON.stringify([this.#backend.content(entry), facts, this.#options.refreshMs > 0]));
  }

  #stands(place: string, entry: Entry): void {
    const before = this.#standing.get(place);
    this.#standing.set(place, entry);
    this.#said.delete(place);
    if (before === undefined) this.#options.say(`added: ${entry.containerId.slice(0, 12)} ${entry.id}`);
  }

  async #write(place: string, entry: Entry, print: string, signal: AbortSignal): Promise<void> {
    try {
      await this.#backend.write(entry, signal);
    } catch (error) {
      if (signal.aborted || !REFUSED.has(codeOf(error))) throw error;
      this.#refused.set(place, print);
      this.#complain(place, `register failed: ${entry.id} ${messageOf(error)}`);
      return;
    }
    this.#memory.places.set(place, print);
    // A container that came back under the same name is another one.
    if (this.#standing.get(place)?.containerId !== entry.containerId) this.#standing.delete(place);
    this.#stands(place, entry);
  }

  async #remove(place: string, signal: AbortSignal): Promise<void> {
    const entry = this.#standing.get(place);
    try {
      await this.#backend.remove(place, signal);
    } catch (error) {
      if (signal.aborted || !REFUSED.has(codeOf(error))) throw error;
      this.#complain(place, `deregister failed: ${entry?.id ?? place} ${messageOf(error)}`);
      return;
    }
    this.#memory.places.delete(place);
    this.#standing.delete(place);
    this.#refused.delete(place);
    this.#said.delete(place);
    this.#options.say(
      entry === undefined
        ? `removed: ${place} (its container ended while nobody looked)`
        : `removed: ${entry.containerId.slice(0, 12)} ${entry.id}`,
    );
  }

  async #cleanUp(wanted: ReadonlyMap<string, Entry>, hostname: string, signal: AbortSignal): Promise<void> {
    const { say } = this.#options;
    say("Listing non-exited containers");
    say("Cleaning up dangling services");
    const running = new Set([...wanted.values()].map(({ id, name }) => `${name} ${OWN_ID.exec(id)?.[2] ?? id}`));
    for (const { place, id, name } of await this.#backend.list(signal)) {
      const [, host, container] = OWN_ID.exec(id) ?? [];
      if (host !== hostname || container === undefined || wanted.has(place) || running.has(`${name} ${container}`))
        continue;
      say(`dangling: ${id}`);
      await this.#backend.remove(place, signal);
      say(`${id} removed`);
    }
  }
}
