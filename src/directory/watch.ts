// Who waits for what: waiters per scope, woken only by a change in their scope.
import type { Index, Scope } from "../model/record.ts";
import type { Touched } from "./tables.ts";

interface Waiter {
  readonly scope: Scope;
  readonly after: Index;
  readonly signal: AbortSignal;
  resolve(at: Index): void;
  reject(reason: unknown): void;
}

/** All that wait under one signal: it gets one listener, however many they are. */
interface Group {
  readonly waiters: Set<Waiter>;
  onAbort(): void;
}

const TREE = "tree:";

/** The waiters of one directory. Costs nothing while nobody changes anything, and per change only what is told to whom. */
export class Waiters {
  readonly #byScope = new Map<Scope, Set<Waiter>>();
  /** How many tree scopes with waiters have a prefix of that length: only such prefixes of a changed key are looked up. */
  readonly #treeLengths = new Map<number, number>();
  readonly #bySignal = new Map<AbortSignal, Group>();
  #count = 0;

  /** How many wait. */
  get count(): number {
    return this.#count;
  }

  /** Resolves at the first change of the scope beyond `after`; rejects with the signal's reason. */
  wait(scope: Scope, after: Index, signal: AbortSignal): Promise<Index> {
    if (signal.aborted) return Promise.reject(signal.reason);
    return new Promise((resolve, reject) => this.#add({ scope, after, signal, resolve, reject }));
  }

  /** Wakes who waits for one of the scopes. `restarted`: the line of changes began anew, everybody whose scope is named is woken. */
  wake(touched: Touched, restarted = false): void {
    if (this.#count === 0) return;
    const trees = new Map<Scope, Index>();
    for (const [scope, at] of touched) {
      this.#tell(scope, at, restarted);
      if (!scope.startsWith("kv:")) continue;
      const key = scope.slice("kv:".length);
      for (const length of this.#treeLengths.keys()) {
        if (length > key.length) continue;
        const above: Scope = `${TREE}${key.slice(0, length)}`;
        if ((trees.get(above) ?? 0) < at) trees.set(above, at);
      }
    }
    for (const [scope, at] of trees) this.#tell(scope, at, restarted);
  }

  /** Nobody waits any more. */
  end(reason: Error): void {
    for (const waiters of [...this.#byScope.values()])
      for (const waiter of [...waiters]) {
        this.#remove(waiter);
        waiter.reject(reason);
      }
  }

  #tell(scope: Scope, at: Index, restarted: boolean): void {
    for (const waiter of [...(this.#byScope.get(scope) ?? [])]) {
      if (at <= waiter.after && !restarted) continue;
      this.#remove(waiter);
      waiter.resolve(at);
    }
  }

  #add(waiter: Waiter): void {
    let waiters = this.#byScope.get(waiter.scope);
    if (waiters === undefined) {
      waiters = new Set();
      this.#byScope.set(waiter.scope, waiters);
      this.#countTree(waiter.scope, 1);
    }
    waiters.add(waiter);
    this.#count++;
    this.#group(waiter.signal).waiters.add(waiter);
  }

  #remove(waiter: Waiter): void {
    const waiters = this.#byScope.get(waiter.scope);
    if (waiters?.delete(waiter) !== true) return;
    this.#count--;
    const group = this.#group(waiter.signal);
    group.waiters.delete(waiter);
    if (group.waiters.size === 0) {
      this.#bySignal.delete(waiter.signal);
      waiter.signal.removeEventListener("abort", group.onAbort);
    }
    if (waiters.size > 0) return;
    this.#byScope.delete(waiter.scope);
    this.#countTree(waiter.scope, -1);
  }

  #group(signal: AbortSignal): Group {
    let group = this.#bySignal.get(signal);
    if (group === undefined) {
      const waiters = new Set<Waiter>();
      group = {
        waiters,
        onAbort: () => {
          for (const waiter of [...waiters]) {
            this.#remove(waiter);
            waiter.reject(signal.reason);
          }
        },
      };
      this.#bySignal.set(signal, group);
      signal.addEventListener("abort", group.onAbort, { once: true });
    }
    return group;
  }

  #countTree(scope: Scope, by: number): void {
    if (!scope.startsWith(TREE)) return;
    const length = scope.length - TREE.length;
    const count = (this.#treeLengths.get(length) ?? 0) + by;
    if (count === 0) this.#treeLengths.delete(length);
    else this.#treeLengths.set(length, count);
  }
}
