// A source whose configuration is read again while the agent runs: the old one ends, a new one goes on with what is known, and what is no longer asked for goes.
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Directory } from "./directory.ts";
import type { Part } from "./protocol.ts";
import type { Source, SourceHealth, SourceList } from "./source.ts";
import { wholeLists } from "./whole-list.ts";

export interface ReloadedParts<Config> {
  readonly name: string;
  readonly clock: Clock;
  readonly directory: Pick<Directory, "view" | "ready" | "changed">;
  /** This host's node. */
  readonly node: string;
  /** Undefined = off. @throws InputError */
  configure(raw: unknown): Config | undefined;
  /** Undefined where this configuration has nothing to bring in. */
  make(config: Config): Source | undefined;
}

/** A source, and what to do on a reload; a configuration that is wrong changes nothing. What was off at the start stays off. */
export function reloadable<Config>(
  parts: ReloadedParts<Config>,
  config: Config,
): Required<Pick<Part, "reload" | "rereads">> & Pick<Part, "source"> {
  const first = parts.make(config);
  if (first === undefined) return { rereads: true, reload: async () => {} };
  const source = new ReloadedSource(parts.name, first);
  let last = JSON.stringify(config, plain);
  return {
    source,
    rereads: true,
    async reload(read) {
      if (read === undefined) return;
      const now = parts.configure(read.raw);
      const text = JSON.stringify(now, plain) ?? "";
      if (text === last) return;
      const next = now === undefined ? undefined : parts.make(now);
      last = text;
      source.exchange(next ?? nothing(parts));
    },
  };
}

/** A part of a protocol that is off: one that is switched on by a reload has to be told to wait. */
export function offUntilRestart(name: string, log: Pick<Log, "warn">, configure: (raw: unknown) => unknown): Part {
  return {
    rereads: true,
    async reload(read) {
      if (read !== undefined && configure(read.raw) !== undefined)
        log.warn(`${name} was off when this agent started: a restart switches it on`);
    },
  };
}

/** Sets are compared by their members. */
const plain = (_key: string, value: unknown): unknown => (value instanceof Set ? [...value] : value);

/** What is left of a source that is configured no more. */
function nothing({ name, clock, directory, node }: Omit<ReloadedParts<never>, "configure" | "make">): Source {
  const earlier = { source: name, node, isConfigured: () => false };
  const compose = (): SourceList => ({ list: [], authority: "second-hand" });
  return {
    name,
    state: () => ({ ok: true, text: "is not configured any more" }),
    watch: (signal) => wholeLists({ clock, directory, scopes: [], earlier, compose }, signal),
  };
}

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
