// The answers for many services, or all there are, kept up to date: for whoever writes the whole directory down somewhere.
import { codeOf } from "../base/error.ts";
import type { Answer, Query } from "../model/query.ts";
import type { Directory } from "./directory.ts";
import type { Lookup } from "./lookup.ts";

/** What services are followed with, and who is told. */
export interface FollowParts {
  readonly directory: Pick<Directory, "view" | "changed">;
  readonly lookup: Pick<Lookup, "resolveNow" | "follow">;
  /** Names of services; undefined = every one. */
  readonly services: readonly string[] | undefined;
  /** What else is asked of each. */
  readonly query: Omit<Query, "service">;
  /** Called when an answer is another one. */
  readonly changed: () => void;
}

/** One `follow` per service. A service that is gone from the directory is followed as long as it is answered (the guard may hold it). */
export class FollowedServices {
  readonly #parts: FollowParts;
  readonly #answers = new Map<string, Answer>();
  readonly #following = new Map<string, { readonly over: AbortController; readonly done: Promise<void> }>();

  constructor(parts: FollowParts) {
    this.#parts = parts;
  }

  /** By the service's name in lower case, in the order of the names. */
  answers(): ReadonlyMap<string, Answer> {
    return new Map([...this.#answers].sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  /** Follows until the signal (or the directory's end); resolves when nothing is followed any more. */
  async run(signal: AbortSignal): Promise<void> {
    const { directory } = this.#parts;
    const broken = new AbortController();
    const either = AbortSignal.any([signal, broken.signal]);
    try {
      while (!signal.aborted) {
        const at = directory.view().at("services");
        this.#bring(either, (error) => broken.abort(error));
        await directory.changed("services", at, either);
      }
    } catch (error) {
      if (!signal.aborted && codeOf(error) !== "stopped") throw error;
    } finally {
      const done = [...this.#following.values()].map((each) => {
        each.over.abort(new Error("no longer followed"));
        return each.done;
      });
      await Promise.all(done);
    }
  }

  #bring(signal: AbortSignal, fail: (error: unknown) => void): void {
    const names = this.#names();
    for (const name of names) {
      if (this.#following.has(name)) continue;
      const query = { ...this.#parts.query, service: name };
      this.#answers.set(name, this.#parts.lookup.resolveNow(query));
      const over = new AbortController();
      const done = this.#follow(name, query, AbortSignal.any([signal, over.signal])).catch(fail);
      this.#following.set(name, { over, done });
      this.#parts.changed();
    }
    for (const name of this.#following.keys()) this.#drop(name, names);
  }

  #names(): ReadonlySet<string> {
    const { services, directory } = this.#parts;
    return new Set([...(services ?? directory.view().serviceNames())].map((name) => name.toLowerCase()));
  }

  #drop(name: string, names: ReadonlySet<string>): void {
    if (names.has(name) || (this.#answers.get(name)?.endpoints.length ?? 0) > 0) return;
    this.#following.get(name)?.over.abort(new Error("no longer followed"));
    this.#following.delete(name);
    this.#answers.delete(name);
    this.#parts.changed();
  }

  async #follow(name: string, query: Query, signal: AbortSignal): Promise<void> {
    try {
      for await (const answer of this.#parts.lookup.follow(query, signal)) {
        if (signal.aborted) return;
        this.#answers.set(name, answer);
        this.#parts.changed();
        if (answer.endpoints.length === 0) this.#drop(name, this.#names());
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    }
  }
}
