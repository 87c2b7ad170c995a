// When files are made: everything they ask for is followed, bursts are waited for, and what fails is tried again.
import type { Clock, Timer } from "../base/clock.ts";
import { messageOf } from "../base/error.ts";
import { type Known, type KnownOf, type Need, needKey, needText, type Reading } from "./needs.ts";
import type { Content } from "./template.ts";
import { type FileRule, type WriteMachine, writeFile } from "./write.ts";

/** A file, what it holds, and how long a burst is waited for. */
export interface Rendered {
  readonly rule: FileRule;
  readonly content: Content;
  /** Changes are written when none came for this long. */
  readonly waitMs: number;
  /** And at the latest after this long. */
  readonly waitMostMs: number;
}

/** Something that happened, for people and for programs. */
export type RenderEvent =
  | { readonly event: "written" | "unchanged"; readonly path: string }
  | { readonly event: "dry"; readonly path: string; readonly text: string }
  | { readonly event: "failed"; readonly path: string; readonly text: string }
  | { readonly event: "waiting"; readonly path: string; readonly text: string }
  | { readonly event: "held"; readonly service: string; readonly text: string }
  | { readonly event: "released"; readonly service: string }
  | { readonly event: "away" | "back" | "note"; readonly text: string };

/** What is known about anything that a file may be made from, at once and on each change; it never ends before `signal` is aborted. */
export type Follow = (need: Need, signal: AbortSignal, told: (known: Known[Need["kind"]]) => void) => Promise<void>;

export interface RendererMachine extends WriteMachine {
  readonly clock: Clock;
  readonly follow: Follow;
  readonly onEvent: (event: RenderEvent) => void;
}

export interface Manner {
  /** Ends when every file has been written once; what fails is not tried again. */
  readonly once: boolean;
  /** Writes nothing, runs nothing. */
  readonly dry: boolean;
}

const RETRY_FIRST_MS = 5_000;
const RETRY_LONGEST_MS = 300_000;
/** Whoever waits for longer is told what for. */
const SAY_WAITING_MS = 3_000;
/** For so long after the beginning no file that is there is emptied: after a boot the agent may not have found anybody yet. */
const FRESH_MS = 60_000;

interface Followed {
  readonly need: Need;
  readonly stop: AbortController;
  known?: { readonly value: Known[Need["kind"]] };
}

/** One file's state. */
interface Standing {
  readonly file: Rendered;
  /** The needs of its last making. */
  needs: ReadonlySet<string>;
  min?: Timer | undefined;
  most?: Timer | undefined;
  retry?: Timer | undefined;
  failures: number;
  /** What was last said about it, so that nothing is said twice. */
  said?: string | undefined;
  waiting?: Timer | undefined;
  /** What was not there when it was last made. */
  waitsFor?: { readonly open: readonly Followed[]; readonly lacking: readonly string[] };
  done: boolean;
}

/** Keeps files as what they are made from says. */
export class Renderer {
  readonly #machine: RendererMachine;
  readonly #manner: Manner;
  readonly #followed = new Map<string, Followed>();
  readonly #stop = new AbortController();
  /** Why a service's instances are held, by who says so: each need of it, and the files that may not be emptied yet. */
  readonly #held = new Map<string, Map<string, string>>();
  /** What was last said of it. */
  readonly #heldSaid = new Map<string, string>();
  /** Needs of which nobody is known so soon after the beginning. */
  readonly #nobodyYet = new Map<string, string>();
  #isFresh: boolean;
  #freshness?: Timer;
  #standings: Standing[] = [];
  #turn: Promise<void> = Promise.resolve();
  #failed = false;
  readonly #ended: Promise<void>;
  #end: (error?: unknown) => void = () => {};

  constructor(machine: RendererMachine, manner: Manner) {
    this.#machine = machine;
    this.#manner = manner;
    this.#isFresh = !manner.once && !manner.dry;
    this.#ended = new Promise((resolve, reject) => {
      this.#end = (error) => (error === undefined ? resolve() : reject(error));
    });
    // Whoever asks is told; nobody has to.
    this.#ended.catch(() => {});
  }

  /** Resolves when every file was made once, or after `stop`: to whether all went well. @throws what no file can be made without */
  async ended(): Promise<boolean> {
    await this.#ended;
    return !this.#failed && (!this.#manner.once || this.#standings.every(({ done }) => done));
  }

  /** These files from now on; what is followed for others goes on where these need it, too. */
  set(files: readonly Rendered[]): void {
    for (const standing of this.#standings) quiet(standing);
    this.#standings = files.map((file) => ({ file, needs: new Set(), failures: 0, done: false }));
    for (const standing of this.#standings) this.#queue(standing);
    if (this.#isFresh) this.#freshness ??= this.#machine.clock.after(FRESH_MS, () => this.#believe());
    if (files.length === 0) this.#end();
  }

  /** Ends what runs; files stay. */
  async stop(): Promise<void> {
    this.#stop.abort();
    this.#freshness?.cancel();
    for (const standing of this.#standings) quiet(standing);
    for (const { stop } of this.#followed.values()) stop.abort();
    await this.#turn;
    this.#end();
  }

  /** Makes a file as soon as those before it are made: one at a time. */
  #queue(standing: Standing): void {
    standing.min?.cancel();
    standing.most?.cancel();
    standing.min = standing.most = undefined;
    this.#turn = this.#turn.then(async () => {
      if (!this.#stop.signal.aborted && this.#standings.includes(standing)) await this.#make(standing);
    });
  }

  async #make(standing: Standing): Promise<void> {
    standing.retry?.cancel();
    standing.retry = undefined;
    const { path } = standing.file.rule;
    const needs = new Set<string>();
    const open: Followed[] = [];
    const lacking: string[] = [];
    const reading: Reading = {
      get: <N extends Need>(need: N) => {
        const key = needKey(need);
        needs.add(key);
        const followed = this.#followed.get(key) ?? this.#begin(key, need);
        if (followed.known === undefined) open.push(followed);
        return followed.known as { readonly value: KnownOf<N> } | undefined;
      },
      lacks: (what) => void lacking.push(what),
    };
    let text: string;
    try {
      text = standing.file.content(reading);
    } catch (error) {
      standing.needs = needs;
      // It may only be that not everything is there yet.
      if (open.length + lacking.length > 0) this.#wait(standing, open, lacking);
      else this.#fail(standing, `${path} stays as it was: ${messageOf(error)}`, true);
      return;
    }
    standing.needs = needs;
    if (open.length + lacking.length > 0) {
      this.#wait(standing, open, lacking);
      return;
    }
    standing.waiting?.cancel();
    standing.waiting = undefined;
    this.#forget();
    try {
      if (await this.#isTooSoon(standing, text)) return;
      if (this.#manner.dry) this.#machine.onEvent({ event: "dry", path, text });
      else {
        const written = await writeFile(standing.file.rule, text, this.#machine, this.#stop.signal);
        // Whoever was told that it failed is told that it is well again.
        if (written || !standing.done || standing.said !== undefined)
          this.#machine.onEvent({ event: written ? "written" : "unchanged", path });
      }
      standing.failures = 0;
      standing.said = undefined;
      this.#done(standing);
    } catch (error) {
      // The system's own errors need not say which file they are about.
      const text = messageOf(error);
      if (!this.#stop.signal.aborted) this.#fail(standing, text.includes(path) ? text : `${path}: ${text}`, false);
    }
  }

  /** Whether a file would lose a service's instances only because nobody has been found yet. */
  async #isTooSoon({ done, file, needs }: Standing, text: string): Promise<boolean> {
    if (!this.#isFresh || done) return false;
    const nobody = () =>
      [...needs].flatMap((key) => {
        const { need, known } = this.#followed.get(key) ?? {};
        const isNobody =
          need?.kind === "service" && (known?.value as Known["service"] | undefined)?.answer.length === 0;
        return isNobody ? [[key, need.service] as const] : [];
      });
    const { path } = file.rule;
    const { disk } = this.#machine;
    if (nobody().length === 0 || (await disk.info(path))?.isFile !== true || (await disk.readText(path)) === text)
      return false;
    // Whether it has lasted by now, or somebody has come while the file was looked at: it is made again for that.
    if (!this.#isFresh) return true;
    for (const [key, service] of nobody()) {
      if (this.#nobodyYet.has(key)) continue;
      this.#nobodyYet.set(key, service);
      this.#sayHeld(service, key, `nobody is there yet; ${path} stays as it is until that has lasted`);
    }
    return true;
  }

  /** From now on nobody means nobody. */
  #believe(): void {
    this.#isFresh = false;
    for (const [key, service] of this.#nobodyYet) this.#sayHeld(service, key, undefined);
    this.#nobodyYet.clear();
    for (const standing of this.#standings) if (!standing.done) this.#queue(standing);
  }

  #done(standing: Standing): void {
    standing.done = true;
    if (this.#manner.once && this.#standings.every(({ done }) => done)) this.#end();
  }

  #fail(standing: Standing, text: string, onlyOnChange: boolean): void {
    // Of files that are not wanted any more nothing is tried again.
    if (!this.#standings.includes(standing)) return;
    standing.waiting?.cancel();
    standing.waiting = undefined;
    this.#failed = true;
    const said = lasting(text);
    if (standing.said !== said) this.#machine.onEvent({ event: "failed", path: standing.file.rule.path, text });
    standing.said = said;
    if (this.#manner.once) {
      this.#done(standing);
      return;
    }
    if (onlyOnChange) return;
    const pauseMs = Math.min(RETRY_FIRST_MS * 2 ** standing.failures++, RETRY_LONGEST_MS);
    standing.retry = this.#machine.clock.after(pauseMs, () => this.#queue(standing), true);
  }

  #wait(standing: Standing, open: readonly Followed[], lacking: readonly string[]): void {
    standing.waitsFor = { open, lacking };
    // Counted from the first time: what else changes meanwhile must not put it off.
    standing.waiting ??= this.#machine.clock.after(SAY_WAITING_MS, () => {
      standing.waiting = undefined;
      const { path } = standing.file.rule;
      const waitsFor = standing.waitsFor ?? { open: [], lacking: [] };
      // Some of it has come meanwhile.
      const still = waitsFor.open.filter(({ known }) => known === undefined).map(({ need }) => needText(need));
      const all = new Set([...still, ...waitsFor.lacking]);
      if (all.size === 0) return;
      const text = `${path} waits for ${[...all].join(", ")}`;
      if (standing.said !== text) this.#machine.onEvent({ event: "waiting", path, text });
      standing.said = text;
    });
  }

  #begin(key: string, need: Need): Followed {
    const followed: Followed = { need, stop: new AbortController() };
    this.#followed.set(key, followed);
    this.#machine
      .follow(need, followed.stop.signal, (value) => {
        if (followed.stop.signal.aborted) return;
        const first = followed.known === undefined;
        followed.known = { value };
        if (need.kind === "service") {
          const { answer, held } = value as Known["service"];
          if (answer.length > 0) this.#nobodyYet.delete(key);
          if (!this.#nobodyYet.has(key)) this.#sayHeld(need.service, key, held);
        }
        for (const standing of this.#standings) if (standing.needs.has(key)) this.#changed(standing, first);
      })
      .catch((error: unknown) => {
        if (!followed.stop.signal.aborted) this.#end(error);
      });
    return followed;
  }

  /** A change that the file is made from; the first answer is only waited for with others that are to come. */
  #changed(standing: Standing, first: boolean): void {
    if (this.#stop.signal.aborted) return;
    if (first && !standing.done) {
      // Known for the first time: nothing is written before all of it is.
      const isOpen = [...standing.needs].some((key) => this.#followed.get(key)?.known === undefined);
      if (!isOpen) this.#queue(standing);
      return;
    }
    const { clock } = this.#machine;
    const go = (): void => this.#queue(standing);
    standing.min?.cancel();
    standing.min = clock.after(standing.file.waitMs, go, true);
    standing.most ??= clock.after(standing.file.waitMostMs, go, true);
  }

  /** What no file needs any more is followed no more. */
  #forget(): void {
    if (this.#standings.some(({ done, needs }) => !done && needs.size === 0)) return;
    for (const [key, { need, stop }] of this.#followed) {
      if (this.#standings.some(({ needs }) => needs.has(key))) continue;
      stop.abort();
      this.#followed.delete(key);
      this.#nobodyYet.delete(key);
      if (need.kind === "service") this.#sayHeld(need.service, key, undefined);
    }
  }

  /** `who` says why a service's instances are held, or that they are not; told on is only what is new. */
  #sayHeld(service: string, who: string, why: string | undefined): void {
    const held = this.#held.get(service) ?? new Map<string, string>();
    if (why === undefined) held.delete(who);
    else held.set(who, why);
    if (held.size === 0) this.#held.delete(service);
    else this.#held.set(service, held);
    const [text] = held.values();
    if (text === this.#heldSaid.get(service)) return;
    if (text === undefined) {
      this.#heldSaid.delete(service);
      this.#machine.onEvent({ event: "released", service });
      return;
    }
    this.#heldSaid.set(service, text);
    this.#machine.onEvent({ event: "held", service, text });
  }
}

/** What a failure says, without what is another at each try: times and numbers of processes. */
const lasting = (text: string): string => text.replace(/\d+/g, "0");

function quiet(standing: Standing): void {
  for (const timer of [standing.min, standing.most, standing.retry, standing.waiting]) timer?.cancel();
}
