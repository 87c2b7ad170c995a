// What an answer has to wait for: asked for while the answer is made, fetched, and there when it is made again.

interface Fetched {
  readonly value?: unknown;
  readonly error?: unknown;
}

/**
 * Answers are made without waiting. One that needs what only others know asks its errands for it, goes on as if there were nothing, and is thrown away while
 * something is wanted: `run` fetches it, and the answer is made again from what is known then.
 */
export class Errands {
  #fetched: Map<string, Fetched> | undefined;
  #wanted: Map<string, () => Promise<unknown>> | undefined;

  /** True where the answer made last is to be thrown away. */
  get waiting(): boolean {
    return this.#wanted !== undefined;
  }

  /** What `bring` gave for this key; undefined where it has not been fetched yet. Throws what it threw. */
  get<T>(key: string, bring: () => Promise<T>): { readonly value: T } | undefined {
    const fetched = this.#fetched?.get(key);
    if (fetched !== undefined) {
      if ("error" in fetched) throw fetched.error;
      return fetched as { readonly value: T };
    }
    this.#wanted ??= new Map();
    if (!this.#wanted.has(key)) this.#wanted.set(key, bring);
    return undefined;
  }

  /** Fetches everything that is wanted, all at once. Never rejects. */
  async run(): Promise<void> {
    const wanted = this.#wanted ?? new Map<string, () => Promise<unknown>>();
    this.#wanted = undefined;
    this.#fetched ??= new Map();
    const fetched = this.#fetched;
    await Promise.all(
      [...wanted].map(async ([key, bring]) => {
        try {
          fetched.set(key, { value: await bring() });
        } catch (error) {
          fetched.set(key, { error });
        }
      }),
    );
  }
}
