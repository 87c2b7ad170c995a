// A folder under protocols/: one dialect, handed only what it names.
import type { Handler } from "../base/http.ts";
import type { Ground, SourceState } from "./ground.ts";
import type { Lookup } from "./lookup.ts";
import type { Probe } from "./probe.ts";
import type { Source } from "./source.ts";

/** Something that listens. Starting twice = once; stopping before starting = nothing; after `stop` every port is free. */
export interface Listener {
  /** "dns", "http" … as shown at start. */
  readonly name: string;
  /** Where it is to listen, as far as that is known before (port 0 = any): so that a reload closes nothing that is not in the way. */
  readonly place?: { readonly host: string; readonly port: number };
  /** Resolves when it listens, with where ("127.0.0.1:8600"). @throws TrilithError `address-in-use`, `not-allowed` */
  start(): Promise<string>;
  /** Listens no more; resolves when every port is free. */
  stop(): Promise<void>;
}

/** Paths under `prefix` on the agent's HTTP listener belong to this part; the longest prefix wins. */
export interface Route {
  readonly prefix: string;
  readonly handle: Handler;
}

/** What a dialect answers now, in a line. */
export interface Told {
  /** Who is answered so: "everybody", "this host", "hosts on 192.0.2.0/24" … */
  readonly to: string;
  /** The question and its answer, as their dialect spells them: "web.service.consul A: 192.0.2.1". */
  readonly text: string;
}

/** What a protocol puts at the agent's disposal. */
export interface Part {
  readonly listeners?: readonly Listener[];
  readonly routes?: readonly Route[];
  /** Where undefined, there is nothing to bring in. */
  readonly source?: Source | undefined;
  /**
   * Without a `source`: services are registered one by one under the protocol's name (`Agent.register`). They stay while it is on, also over restarts,
   * and go when it is switched off.
   */
  readonly registers?: true;
  /** For what a part brings in without a `source`: how that goes, for the start-up message and doctor. */
  states?(): readonly SourceState[];
  readonly upstream?: Pick<Lookup, "resolve">;
  readonly probes?: readonly Probe[];
  /** What this dialect would answer about a service now, for `why`. Only looks, and takes the way that a real question takes. */
  answers?(service: string, signal: AbortSignal): Promise<readonly Told[]>;
  /**
   * Work that goes on while the agent runs: begun when everything listens, ended before anything else is. "off": the protocol is switched off while the
   * agent runs on, so that what this work put into the world has nobody any more who keeps it true: it is taken back.
   */
  readonly background?: { start(): void; stop(off?: "off"): Promise<void> };
  /**
   * Called on SIGHUP and `reload`. `read`: the protocol's raw configuration as it is now; absent where the agent's is not kept in files.
   * @throws TrilithError `invalid` with the key and what would be right: the configuration before stays
   */
  reload?(read?: { readonly raw: unknown }): Promise<void>;
  /**
   * What becomes of another configuration on a reload. true: `reload` sees to it, or says by name what waits for a restart; afterwards `listeners`,
   * `routes` and `source` may be others, or none. "anew": a part is made with it that takes this one's place: its listeners open (where both want one
   * port, once the old one's are closed), then the old background ends, the source is exchanged, and the new background begins. Absent: it counts after
   * a restart, which is told. A protocol that is switched on or off by it is seen to in every case.
   */
  readonly rereads?: true | "anew";
}

/** A dialect. `needs` lists what `setup` is handed; anything else does not compile. */
export interface Protocol<Config, Needs extends keyof Ground> {
  readonly name: string;
  readonly needs: readonly Needs[];
  /** Checks raw configuration. @throws TrilithError `invalid` with the key and what would be right */
  configure(raw: unknown): Config;
  /** Builds the part; does no I/O of its own beyond what it awaits, starts nothing. Undefined = switched off by configuration. */
  setup(config: Config, ground: Pick<Ground, Needs>): Part | undefined | Promise<Part | undefined>;
}

/** Writes a protocol down with its `needs` checked against what `setup` uses. */
export function defineProtocol<Config, const Needs extends keyof Ground>(
  protocol: Protocol<Config, Needs>,
): Protocol<Config, Needs> {
  return protocol;
}
