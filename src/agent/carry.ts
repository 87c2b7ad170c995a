// Anti-entropy: carries this host's list to the directory, what changed at once and everything again and again, and never blocks on a store that is away.
import type { Clock } from "../base/clock.ts";
import { codeOf, messageOf, TrilithError } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metrics.ts";
import { jitter, type Random } from "../base/random.ts";
import type { Directory, View } from "../contracts/directory.ts";
import type { Check } from "../model/check.ts";
import type { Reason } from "../model/reason.ts";
import { type Change, type Entry, type Index, keyOf, scope, type Tables } from "../model/record.ts";
import { sameRecord } from "./reconcile.ts";

/** The tables in which a host has records of its own. */
export type HostTable = "node" | "service" | "check";

/** A record of this host: its table and its own id (for the node: its name). */
export interface Ref {
  readonly table: HostTable;
  readonly id: string;
}

/** What should stand in the directory. */
interface Truth {
  /** What a record should be, given what the directory holds; undefined = it should not be there. */
  wanted(ref: Ref, now: Entry<HostTable> | undefined): Tables[HostTable] | undefined;
  /** Everything that should be there. */
  all(): Iterable<Ref>;
  /** Called before every whole comparison; undefined = this host may write, else why not (another host has its name). */
  forbidden(view: View): string | undefined;
  /** A change that the directory refuses (`invalid`, `too-large`); it is left out until it is touched again or the next round. */
  refused(ref: Ref, error: TrilithError): void;
  /** Everything refused is about to be tried again. */
  retrying(): void;
}

/** A write in which some changes were refused for good; everything else of it was carried. */
export class RefusedError extends TrilithError {
  readonly refs: readonly Ref[];
  constructor(refs: readonly Ref[], cause: TrilithError) {
    super(cause.code, cause.message, cause);
    this.refs = refs;
  }
}

export interface CarrierOptions {
  readonly directory: Directory;
  readonly node: string;
  readonly truth: Truth;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly metrics: Metrics;
  /** True: the store is in this process, writes may be under way side by side and are waited for. */
  readonly embedded: boolean;
  readonly antiEntropyMs: number;
}

/** Changes in one write: below the smallest limit of a store (etcd: 128 operations, some of which are the store's own). */
const MAX_CHANGES = 100;
const BACKOFF_MS = { first: 500, last: 30_000 } as const;
/** How often a store that is away is looked at, beside the backoff. */
const FRESH_LOOK_MS = 1000;
const JITTER_SHARE = 0.1;
/** Own writes that are remembered, so that they do not count as changes by others. */
const OWN_WRITES = 4096;
/** Refusals that no retry mends. */
const FOR_GOOD: ReadonlySet<string> = new Set(["invalid", "too-large"]);

const nameOf = (ref: Ref): string => `${ref.table}\0${ref.id}`;

interface Waiting {
  readonly names: ReadonlySet<string>;
  resolve(): void;
  reject(error: unknown): void;
}

/** One host's records on their way to the directory. */
export class Carrier {
  readonly #options: CarrierOptions;
  /** What may differ, with the reason of what goes. */
  readonly #dirty = new Map<string, { readonly ref: Ref; readonly why?: Reason }>();
  readonly #refused = new Set<string>();
  readonly #waiting: Waiting[] = [];
  readonly #underWay = new Set<Promise<void>>();
  readonly #ownWrites = new Set<Index>();
  readonly #stop = new AbortController();
  readonly #quiet: (() => void)[] = [];
  #started = false;
  #flushPlanned = false;
  #compared = false;
  #failures = 0;
  /** Set while a retry is waited for. */
  #retry: { cancel(): void } | undefined;
  #forbidden: string | undefined;

  constructor(options: CarrierOptions) {
    this.#options = options;
    const { metrics } = options;
    metrics.gauge(
      "agent_directory_pending_records",
      "Records of this host not yet in the directory",
      () => this.#dirty.size,
    );
  }

  /** Why nothing is carried; undefined = nothing stands in the way. */
  get forbidden(): string | undefined {
    return this.#forbidden;
  }

  /** Compares everything, then keeps comparing: after changes by others, and from time to time. */
  start(): void {
    if (this.#started || this.#stop.signal.aborted) return;
    this.#started = true;
    this.compareAll();
    void this.#watch();
    void this.#again();
  }

  /**
   * Says that records may differ now. With an embedded store: resolves when they do no longer, rejects where carrying them fails (it is tried
   * again all the same). With a store elsewhere: resolves at once, nobody has to wait for it.
   */
  touch(refs: Iterable<Ref>, why?: Reason): Promise<void> {
    const names = new Set<string>();
    for (const ref of refs) {
      const name = nameOf(ref);
      names.add(name);
      this.#refused.delete(name);
      this.#dirty.set(name, why === undefined ? { ref } : { ref, why });
    }
    if (names.size === 0 || this.#stop.signal.aborted) return Promise.resolve();
    if (!this.#options.embedded) {
      this.#plan();
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ names, resolve, reject });
      this.#plan();
    });
  }

  /** Resolves when what is under way at this moment has ended, one way or the other. */
  async settled(): Promise<void> {
    while (this.#flushPlanned) await Promise.resolve();
    await Promise.all(this.#underWay);
  }

  /** Resolves when everything held is in the directory. */
  async synced(signal?: AbortSignal): Promise<void> {
    while (!this.#isQuiet()) {
      if (this.#stop.signal.aborted) throw this.#stop.signal.reason;
      await new Promise<void>((resolve, reject) => {
        if (signal?.aborted) return reject(signal.reason);
        const onAbort = (): void => reject(signal?.reason);
        signal?.addEventListener("abort", onAbort, { once: true });
        this.#quiet.push(() => {
          signal?.removeEventListener("abort", onAbort);
          resolve();
        });
      });
    }
  }

  /** Compares everything of this host with the directory and carries what differs. Writes nothing where nothing does. */
  compareAll(): void {
    if (this.#stop.signal.aborted) return;
    const { directory, node, truth, log } = this.#options;
    const view = directory.view();
    const forbidden = truth.forbidden(view);
    if (forbidden !== this.#forbidden && forbidden !== undefined) log.error(forbidden);
    this.#forbidden = forbidden;
    this.#compared = forbidden === undefined && view.fresh;
    if (forbidden !== undefined) return;
    const wanted = new Set<string>();
    for (const ref of truth.all()) {
      const name = nameOf(ref);
      wanted.add(name);
      if (this.#dirty.has(name) || this.#refused.has(name)) continue;
      const entry = entryOf(view, node, ref);
      if (!sameRecord(entry, truth.wanted(ref, entry))) this.#dirty.set(name, { ref });
    }
    const why: Reason = {
      code: "missing",
      text: `is not in the list of its host ${node}`,
      confirmed: true,
      atMs: this.#options.clock.now(),
    };
    for (const table of ["service", "check"] as const)
      for (const { id } of view.list(table, keyOf.ofNode(node))) {
        const ref: Ref = { table, id };
        const name = nameOf(ref);
        if (!wanted.has(name) && !this.#dirty.has(name)) this.#dirty.set(name, { ref, why });
      }
    if (this.#dirty.size > 0) this.#plan();
    else this.#tellQuiet();
  }

  /** Nothing is carried afterwards; resolves when the last write has ended. */
  async stop(): Promise<void> {
    this.#stop.abort(new TrilithError("stopped", "the agent is stopping"));
    this.#retry?.cancel();
    this.#retry = undefined;
    await Promise.all(this.#underWay);
    for (const waiting of this.#waiting.splice(0)) waiting.reject(this.#stop.signal.reason);
    for (const tell of this.#quiet.splice(0)) tell();
  }

  #isQuiet(): boolean {
    return this.#compared && this.#dirty.size === 0 && this.#underWay.size === 0;
  }

  #tellQuiet(): void {
    if (this.#isQuiet()) for (const tell of this.#quiet.splice(0)) tell();
  }

  /** Flushes at the end of this turn, so that changes made together travel together. */
  #plan(): void {
    if (this.#flushPlanned || !this.#started || this.#stop.signal.aborted) return;
    // A store elsewhere gets one write at a time (what comes meanwhile is coalesced), and none while its return is waited for.
    if (!this.#options.embedded && (this.#underWay.size > 0 || this.#retry !== undefined)) return;
    this.#flushPlanned = true;
    void Promise.resolve().then(() => {
      this.#flushPlanned = false;
      this.#flush();
    });
  }

  #flush(): void {
    const { embedded } = this.#options;
    if (this.#stop.signal.aborted) return;
    if (this.#forbidden !== undefined) {
      const error = new TrilithError("conflict", this.#forbidden);
      for (const waiting of this.#waiting.splice(0)) waiting.reject(error);
      return;
    }
    const waiting = this.#waiting.splice(0);
    const writes = this.#takeWrites(embedded ? Number.POSITIVE_INFINITY : 1);
    const failures: { readonly names: ReadonlySet<string>; readonly error: unknown }[] = [];
    const done: Promise<void> = Promise.all(
      writes.map(async (steps) => {
        const error = await this.#write(steps);
        if (error !== undefined) failures.push({ names: new Set(steps.map((step) => nameOf(step.ref))), error });
      }),
    ).then(() => {
      this.#underWay.delete(done);
      for (const { names, resolve, reject } of waiting) {
        const failure = failures.find((one) => [...names].some((name) => one.names.has(name)));
        if (failure === undefined) resolve();
        else reject(failure.error);
      }
      if (this.#dirty.size > 0) this.#plan();
      this.#tellQuiet();
    });
    this.#underWay.add(done);
  }

  /**
   * Takes what is dirty, as writes of a size that every store takes, at most `limit` of them. Each finds what it needs: the node comes first,
   * a service before its checks and, wherever they fit, in one write with them, so that nobody sees it without.
   */
  #takeWrites(limit: number): readonly (readonly Step[])[] {
    const { directory, node, truth } = this.#options;
    const view = directory.view();
    const first: Step[] = [];
    const gone: Step[] = [];
    const groups = new Map<string, Step[]>();
    for (const [name, { ref, why }] of this.#dirty) {
      const entry = entryOf(view, node, ref);
      const value = truth.wanted(ref, entry);
      // With writes under way the view is behind them: what it shows says nothing about what will stand there.
      if (this.#underWay.size === 0 && sameRecord(entry, value)) {
        this.#dirty.delete(name);
        continue;
      }
      const key = keyIn(node, ref);
      if (value === undefined) {
        const change = { op: "delete" as const, table: ref.table, key, ...(why === undefined ? {} : { why }) };
        gone.push({ ref, change, ...(why === undefined ? {} : { why }) });
        continue;
      }
      const step: Step = { ref, change: { op: "put", table: ref.table, key, value } as Change };
      const serviceId = ref.table === "service" ? ref.id : ref.table === "check" ? (value as Check).serviceId : "";
      if (serviceId === "") {
        if (ref.table === "node") first.unshift(step);
        else first.push(step);
        continue;
      }
      const group = groups.get(serviceId);
      if (group === undefined) groups.set(serviceId, [step]);
      else if (ref.table === "service") group.unshift(step);
      else group.push(step);
    }
    const writes: Step[][] = [];
    let last: Step[] | undefined;
    const add = (together: readonly Step[]): void => {
      if (last === undefined || last.length + together.length > MAX_CHANGES) {
        last = [];
        writes.push(last);
      }
      last.push(...together);
    };
    for (const step of [...first, ...gone]) add([step]);
    for (const group of groups.values())
      for (let at = 0; at < group.length; at += MAX_CHANGES) add(group.slice(at, at + MAX_CHANGES));
    const taken = writes.slice(0, limit);
    for (const step of taken.flat()) this.#dirty.delete(nameOf(step.ref));
    return taken;
  }

  /** Writes one piece; what fails is dirty again. Resolves with the failure, never rejects. */
  async #write(steps: readonly Step[]): Promise<unknown> {
    const { directory, metrics, log } = this.#options;
    const before = directory.view().index;
    try {
      const written = await directory.write(
        steps.map((step) => step.change),
        undefined,
        this.#stop.signal,
      );
      if (written.result === "unknown") throw written.cause;
      if (written.result !== "written")
        throw new TrilithError("internal", "a write without expectations failed on one");
      // A write that changed nothing tells an index that may be somebody else's.
      if (written.index > before) {
        this.#remember(written.index);
        this.#tell(steps);
      }
      this.#failures = 0;
      return undefined;
    } catch (error) {
      if (this.#stop.signal.aborted) return this.#stop.signal.reason;
      const code = codeOf(error);
      if (!FOR_GOOD.has(code)) {
        metrics
          .counter("agent_directory_write_failures_total", "Writes to the directory that failed and are retried")
          .add();
        for (const { ref, why } of steps)
          if (!this.#dirty.has(nameOf(ref))) this.#dirty.set(nameOf(ref), why === undefined ? { ref } : { ref, why });
        this.#backOff(error);
        return error;
      }
      const [only] = steps;
      if (steps.length > 1 || only === undefined) {
        // One bad change must not hold up the others of its piece.
        const failures: unknown[] = [];
        for (const step of steps) failures.push(await this.#write([step]));
        const refused = failures.filter((failure) => failure instanceof RefusedError);
        const first = refused[0];
        if (first === undefined) return failures.find((failure) => failure !== undefined);
        return new RefusedError(
          refused.flatMap((failure) => failure.refs),
          first,
        );
      }
      this.#refused.add(nameOf(only.ref));
      const refusal = error instanceof TrilithError ? error : new TrilithError(code, messageOf(error), error);
      log.warn(`the directory refuses ${only.ref.table} "${only.ref.id}"`, { error: refusal.message });
      this.#options.truth.refused(only.ref, refusal);
      return new RefusedError([only.ref], refusal);
    }
  }

  /** What the directory took, in the words that operators of Consul look for in an agent's log. */
  #tell(steps: readonly Step[]): void {
    const { log } = this.#options;
    for (const { ref, change, why } of steps) {
      const reason = why === undefined ? {} : { why: why.text };
      if (change.op === "delete") log.debug(`Deregistered ${ref.table}`, { [ref.table]: ref.id, ...reason });
      else if (ref.table === "node") log.debug("Synced node info");
      else if (ref.table === "check")
        log.debug("Synced check", { check: ref.id, status: (change.value as Check).status });
      else log.debug(`Synced ${ref.table}`, { [ref.table]: ref.id });
    }
  }

  #remember(index: Index): void {
    this.#ownWrites.add(index);
    if (this.#ownWrites.size <= OWN_WRITES) return;
    const [oldest] = this.#ownWrites;
    if (oldest !== undefined) this.#ownWrites.delete(oldest);
  }

  /** Plans the next try: later and later, but soon once the directory is fresh again. */
  #backOff(error: unknown): void {
    if (this.#retry !== undefined || this.#stop.signal.aborted) return;
    const { clock, random, log, directory } = this.#options;
    const waitMs = jitter(
      Math.min(BACKOFF_MS.last, BACKOFF_MS.first * 2 ** Math.min(this.#failures, 10)),
      JITTER_SHARE,
      random,
    );
    this.#failures++;
    log.warn("the directory does not take this host's changes, trying again", {
      error: messageOf(error),
      inMs: Math.round(waitMs),
    });
    const wasFresh = directory.view().fresh;
    const until = clock.monotonic() + waitMs;
    const look = (): void => {
      const leftMs = until - clock.monotonic();
      if (leftMs > 0 && (wasFresh || !directory.view().fresh)) {
        this.#retry = clock.after(Math.min(leftMs, FRESH_LOOK_MS), look);
        return;
      }
      this.#retry = undefined;
      // While the store was away, others may have changed what is ours.
      this.compareAll();
      if (this.#dirty.size > 0) this.#plan();
    };
    this.#retry = clock.after(Math.min(waitMs, FRESH_LOOK_MS), look);
  }

  /** Compares whenever somebody else changed this node's records. */
  async #watch(): Promise<void> {
    const { directory, node, log } = this.#options;
    const mine = scope.node(node);
    let after = directory.view().at(mine);
    try {
      for (;;) {
        after = await directory.changed(mine, after, this.#stop.signal);
        // The change may be seen before its write is known to be ours.
        await this.settled();
        if (this.#stop.signal.aborted) return;
        if (!this.#ownWrites.has(after)) this.compareAll();
      }
    } catch (error) {
      if (!this.#stop.signal.aborted) log.error("watching this node's records ended", { error: messageOf(error) });
    }
  }

  /** Compares from time to time, whatever happened. */
  async #again(): Promise<void> {
    const { clock, random, antiEntropyMs } = this.#options;
    let wake: (() => void) | undefined;
    this.#stop.signal.addEventListener("abort", () => wake?.(), { once: true });
    while (!this.#stop.signal.aborted) {
      await new Promise<void>((resolve) => {
        const timer = clock.after(jitter(antiEntropyMs, JITTER_SHARE, random), resolve);
        wake = () => {
          timer.cancel();
          resolve();
        };
      });
      if (this.#stop.signal.aborted) return;
      // What was refused may have lacked something that is there by now.
      if (this.#refused.size > 0) this.#options.truth.retrying();
      this.#refused.clear();
      this.compareAll();
    }
  }
}

interface Step {
  readonly ref: Ref;
  readonly change: Change;
  readonly why?: Reason;
}

function keyIn(node: string, ref: Ref): string {
  return ref.table === "node" ? keyOf.node(node) : keyOf[ref.table](node, ref.id);
}

function entryOf(view: View, node: string, ref: Ref): Entry<HostTable> | undefined {
  return view.get(ref.table, keyIn(node, ref));
}
