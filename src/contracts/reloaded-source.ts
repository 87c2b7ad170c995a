// A source whose configuration is read again while the agent runs: the old one ends, and a new one goes on with what is known.
import type { Part } from "./protocol.ts";
import type { Source, SourceHealth, SourceList } from "./source.ts";

/** How a source is made from its configuration, and made anew from another one. */
export interface ReloadedParts<Config> {
  readonly name: string;
  /** Undefined = off. @throws InputError */
  configure(raw: unknown): Config | undefined;
  /** Undefined where this configuration has nothing to bring in. */
  make(config: Config): Source | undefined;
}

/**
 * A source, and what to do on a reload; a configuration that is wrong changes nothing. `source` is absent while there is nothing to bring in: look at it
 * again after a reload.
 */
export function reloadable<Config>(
  parts: ReloadedParts<Config>,
  config: Config,
): Required<Pick<Part, "reload" | "rereads">> & Pick<Part, "source"> {
  const first = parts.make(config);
  let source = first === undefined ? undefined : new ReloadedSource(parts.name, first);
  let last = JSON.stringify(config, plain);
  return {
    get source() {
      return source;
    },
    rereads: true,
    async reload(read) {
      if (read === undefined) return;
      const now = parts.configure(read.raw);
      const text = JSON.stringify(now, plain) ?? "";
      if (text === last) return;
      const next = now === undefined ? undefined : parts.make(now);
      last = text;
      if (next === undefined) source = undefined;
      else if (source === undefined) source = new ReloadedSource(parts.name, next);
      else source.exchange(next);
    },
  };
}

/** Sets are compared by their members. */
const plain = (_key: string, value: unknown): unknown => (value instanceof Set ? [...value] : value);

class ReloadedSource implements Source {
  readonly name: string;
  #source: Source;
  #over = new AbortController();

  constructor(name: string, source: Source) {
    this.name = name;
    this.#source = source;
  }

  state(): SourceHealth {
    return this.#source.state();
  }

  exchange(source: Source): void {
    this.#source = source;
    this.#over.abort(new Error("its configuration is another one"));
  }

  async *watch(signal: AbortSignal): AsyncIterable<SourceList> {
    while (!signal.aborted) {
      const over = new AbortController();
      this.#over = over;
      try {
        yield* this.#source.watch(AbortSignal.any([signal, over.signal]));
      } catch (error) {
        if (!over.signal.aborted) throw error;
      }
    }
  }
}
