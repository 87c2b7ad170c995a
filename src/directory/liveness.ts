// Who lives: keeps this node's sign of life in a shared store, and says of others whose sign is gone that they are.
import type { Clock } from "../base/clock.ts";
import { codeOf, messageOf, TrilithError } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import { jitter, type Random } from "../base/random.ts";
import type { Directory, View } from "../contracts/directory.ts";
import type { Storage } from "../contracts/storage.ts";
import { type Check, NODE_ALIVE_CHECK, NODE_DEAD_OUTPUT, NODE_DEAD_SOURCE } from "../model/check.ts";
import type { Node } from "../model/node.ts";
import { type Entry, keyOf } from "../model/record.ts";

/** A dead node and everything on it is removed after so long, as in Consul. */
const REAP_AFTER_MS = 72 * 3_600_000;
/** The longest pause between a lost sign and the verdict: time to notice that one's own sign is lost, too. */
const SECOND_LOOK_MS = 300;

/** What liveness needs. */
export interface LivenessOptions {
  readonly directory: Directory;
  readonly storage: Pick<Required<Storage>, "alive">;
  /** This node's name and ID. */
  readonly node: string;
  readonly nodeId: string;
  /** This start of the agent; another text after each start. */
  readonly life: string;
  /** Without a sign of life for so long a node counts as gone. */
  readonly ttlMs: number;
  /** A node that is dead for so long is removed with everything on it; 72 h unless told. */
  readonly reapAfterMs?: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** Runs between `start` and `stop`. Starting twice = once; stopping before starting = nothing. */
export interface Liveness {
  start(): void;
  /** Ends all work and revokes nothing: a restart within the time to live is not seen by anybody. */
  stop(): Promise<void>;
}

/** A node whose sign is missing. */
interface Missing {
  readonly dueAt: number;
}

/** Builds it; nothing runs before `start`. */
export function createLiveness(options: LivenessOptions): Liveness {
  return new Watchman(options);
}

class Watchman implements Liveness {
  readonly #options: LivenessOptions;
  readonly #log: Log;
  readonly #own: string;
  readonly #stop = new AbortController();
  #running: Promise<unknown> | undefined;
  /** Nodes whose sign was seen, by key. */
  readonly #living = new Set<string>();
  readonly #missing = new Map<string, Missing>();
  /** Until then nobody is declared dead: this process itself was cut off a moment ago. */
  #doubtUntil = 0;

  constructor(options: LivenessOptions) {
    this.#options = options;
    this.#log = options.log.part("liveness");
    this.#own = keyOf.node(options.node);
  }

  start(): void {
    if (this.#stop.signal.aborted) return;
    const { signal } = this.#stop;
    this.#running ??= Promise.all([
      this.#forEver("keeping the sign of life", signal, () => this.#keep(signal)),
      this.#forEver("watching signs of life", signal, () => this.#watch(signal)),
    ]);
  }

  async stop(): Promise<void> {
    this.#stop.abort(new TrilithError("stopped", "liveness is stopping"));
    await this.#running;
  }

  /** Starts work again that broke for a reason that may pass. */
  async #forEver(what: string, signal: AbortSignal, work: () => Promise<void>): Promise<void> {
    const { clock, random } = this.#options;
    for (let pauseMs = 200; !signal.aborted; pauseMs = Math.min(pauseMs * 2, 10_000)) {
      try {
        await work();
      } catch (error) {
        if (signal.aborted || codeOf(error) === "stopped") return;
        this.#log.warn(`${what}: ${messageOf(error)}`);
      }
      await clock.sleep(jitter(pauseMs, 0.2, random), signal).catch(() => {});
    }
  }

  /** This node's sign of life, unless another live host has the node's name. */
  async #keep(signal: AbortSignal): Promise<void> {
    const { directory, storage, node, life, ttlMs } = this.#options;
    await directory.ready(signal);
    await this.#barrier(signal);
    for (let complained = false; ; complained = true) {
      const view = directory.view();
      const rival = this.#rival(view);
      if (rival === undefined) break;
      if (!complained)
        this.#log.error(
          `another live host is called "${node}" (node ID ${rival.id} at ${rival.address}); this one gives no sign of life until that one is gone`,
        );
      await directory.changed("alive", view.at("alive"), signal);
    }
    await storage.alive(node, life, ttlMs, signal);
  }

  #rival(view: View): Node | undefined {
    const { nodeId, life } = this.#options;
    const sign = view.get("alive", keyOf.alive(this.#own));
    const holder = view.get("node", this.#own);
    if (sign === undefined || sign.life === life || holder === undefined) return undefined;
    return holder.id !== "" && holder.id !== nodeId ? holder : undefined;
  }

  async #watch(signal: AbortSignal): Promise<void> {
    const { directory, clock, random, ttlMs } = this.#options;
    await directory.ready(signal);
    await this.#barrier(signal);
    while (!signal.aborted) {
      const view = directory.view();
      const nextMs = await this.#look(view, signal);
      const wake = new AbortController();
      const timer = clock.after(Math.min(nextMs, jitter(ttlMs / 3, 0.2, random)), () => wake.abort());
      try {
        await directory.changed("alive", view.at("alive"), AbortSignal.any([signal, wake.signal]));
      } catch (error) {
        if (signal.aborted || !wake.signal.aborted) throw error;
      } finally {
        timer.cancel();
      }
    }
  }

  /** Everything acknowledged so far is in the view; given up after a while, so that an absent store holds up nothing. */
  async #barrier(signal: AbortSignal): Promise<void> {
    const { directory, clock, ttlMs } = this.#options;
    const late = new AbortController();
    const timer = clock.after(ttlMs, () =>
      late.abort(new TrilithError("timeout", `the store did not answer within ${ttlMs} ms`)),
    );
    try {
      await directory.barrier(AbortSignal.any([signal, late.signal]));
    } finally {
      timer.cancel();
    }
  }

  /** Declares dead who is; returns in how many milliseconds the next verdict is due at the latest. */
  async #look(view: View, signal: AbortSignal): Promise<number> {
    const { clock, random, ttlMs } = this.#options;
    const now = clock.monotonic();
    // Whoever is cut off himself knows nothing of others; when it is back, they need a moment to be back, too.
    if (!view.fresh || view.get("alive", keyOf.alive(this.#own)) === undefined) this.#doubtUntil = now + ttlMs / 2;
    const present = new Set<string>();
    const due: Entry<"node">[] = [];
    let next = Number.POSITIVE_INFINITY;
    const spreadMs = Math.min(500, view.count("node"));
    for (const node of view.list("node")) {
      const key = keyOf.node(node.name);
      if (key === this.#own || node.external === true) continue;
      if (view.get("alive", keyOf.alive(node.name)) !== undefined) {
        this.#living.add(key);
        continue;
      }
      const check = view.get("check", keyOf.check(node.name, NODE_ALIVE_CHECK));
      if (check === undefined) continue;
      if (check.status === "critical") {
        this.#living.delete(key);
        next = Math.min(next, await this.#reapIfDue(node, check, signal).catch(this.#later(node.name, signal)));
        continue;
      }
      present.add(key);
      let missing = this.#missing.get(key);
      if (missing === undefined) {
        // A sign that was there and went is a verdict; one that never was may be on its way.
        const waitMs = this.#living.delete(key) ? Math.min(SECOND_LOOK_MS, ttlMs / 10) : ttlMs;
        missing = { dueAt: now + waitMs + random.fraction() * spreadMs };
        this.#missing.set(key, missing);
      }
      const dueAt = Math.max(missing.dueAt, this.#doubtUntil);
      if (dueAt <= now) due.push(node);
      else next = Math.min(next, dueAt - now);
    }
    for (const key of this.#missing.keys()) if (!present.has(key)) this.#missing.delete(key);
    if (due.length > 0) {
      // This process may have slept: what it saw may be long past.
      await this.#barrier(signal);
      for (const node of due) await this.#declareDead(node.name, signal);
      next = 0;
    }
    return next;
  }

  async #declareDead(name: string, signal: AbortSignal): Promise<void> {
    const { directory, clock, node: self } = this.#options;
    const view = directory.view();
    const checkKey = keyOf.check(name, NODE_ALIVE_CHECK);
    const check = view.get("check", checkKey);
    if (check === undefined || check.status === "critical" || !view.fresh) return;
    if (view.get("alive", keyOf.alive(name)) !== undefined) return;
    const atMs = clock.now();
    const value: Check = {
      ...check,
      status: "critical",
      output: NODE_DEAD_OUTPUT,
      origin: {
        source: NODE_DEAD_SOURCE,
        authority: "second-hand",
        foreignId: String(atMs),
        text: `no sign of life since ${new Date(atMs).toISOString()}, noticed by node "${self}"`,
      },
    };
    const written = await directory.write(
      [{ op: "put", table: "check", key: checkKey, value }],
      [
        { table: "check", key: checkKey, at: check.modifyIndex },
        { table: "alive", key: keyOf.alive(name), at: 0 },
      ],
      signal,
    );
    if (written.result === "written") this.#log.warn(`node "${name}" gives no sign of life: its check is critical now`);
    else this.#log.debug(`node "${name}" was not declared dead: ${written.result}`);
  }

  /** What goes wrong with one removal does not keep others waiting. */
  #later(name: string, signal: AbortSignal): (error: unknown) => number {
    return (error) => {
      if (signal.aborted) throw error;
      this.#log.warn(`node "${name}" is dead for too long but could not be removed`, { error: messageOf(error) });
      return this.#options.ttlMs;
    };
  }

  /** Removes a node that is dead for too long; returns in how many milliseconds that is due. */
  async #reapIfDue(node: Entry<"node">, check: Entry<"check">, signal: AbortSignal): Promise<number> {
    const { directory, clock, reapAfterMs = REAP_AFTER_MS, ttlMs } = this.#options;
    if (check.origin?.source !== NODE_DEAD_SOURCE) return Number.POSITIVE_INFINITY;
    const diedMs = Number(check.origin.foreignId);
    if (!Number.isFinite(diedMs)) return Number.POSITIVE_INFINITY;
    const deadMs = clock.now() - diedMs;
    if (deadMs < reapAfterMs) return reapAfterMs - deadMs;
    const key = keyOf.node(node.name);
    const written = await directory.write(
      [
        {
          op: "delete",
          table: "node",
          key,
          why: {
            code: "reaped",
            text: `node "${node.name}" gave no sign of life for ${Math.round(deadMs / 60_000)} minutes`,
            confirmed: true,
            atMs: clock.now(),
          },
        },
      ],
      [
        { table: "node", key, at: node.modifyIndex },
        { table: "check", key: keyOf.check(node.name, NODE_ALIVE_CHECK), at: check.modifyIndex },
        { table: "alive", key: keyOf.alive(node.name), at: 0 },
      ],
      signal,
    );
    if (written.result === "written")
      this.#log.warn(`node "${node.name}" was dead for too long and is removed with everything on it`);
    return ttlMs;
  }
}
