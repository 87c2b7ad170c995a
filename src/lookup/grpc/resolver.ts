// A name resolver for @grpc/grpc-js: endpoints are pushed into a channel as they change, with how near they are; what fails keeps the last ones.
import type { ChannelOptions, experimental, Metadata } from "@grpc/grpc-js";
import type { Clock, Timer } from "../../base/clock.ts";
import { messageOf } from "../../base/error.ts";
import { jitter, type Random } from "../../base/random.ts";
import { connectWishes } from "../../wire/connect-labels.ts";
import { inOneOrder, type NameEndpoint, type NameSource, type Names, type Sought } from "./names.ts";
import { type GroupedEndpoint, NEAREST, type NearestConfig } from "./nearest.ts";
import { readTarget } from "./target.ts";

/** What is needed of the caller's own @grpc/grpc-js. */
export interface ResolverModule {
  readonly status: { readonly UNAVAILABLE: number };
  readonly Metadata: new () => Metadata;
  readonly experimental: Pick<typeof experimental, "registerResolver" | "statusOrFromValue" | "statusOrFromError">;
}

type Listener = experimental.ResolverListener;
type ResolverClass = Parameters<typeof experimental.registerResolver>[1];

export interface ResolverMachine {
  readonly clock: Pick<Clock, "after">;
  readonly random: Pick<Random, "fraction">;
}

const FIRST_RETRY_MS = 100;
const SLOWEST_RETRY_MS = 5_000;
/** So long the last endpoints stay where a source that is back knows nobody. */
const DOUBT_MS = 10_000;

/** Builds the class that a channel makes one of for each target. `sourceFor` is called once a target. */
export function resolverClass(
  grpc: ResolverModule,
  { clock, random }: ResolverMachine,
  sourceFor: () => NameSource,
): ResolverClass {
  return class TrilithResolver {
    readonly #sought: Sought;
    readonly #listener: Listener;
    /** The channel has a service config of its own. */
    readonly #isConfigured: boolean;
    #balancing: Parameters<Listener>[2] = null;
    readonly #source: NameSource;
    #running: AbortController | undefined;
    #hurry: (() => void) | undefined;
    #told: string | undefined;
    /** True while the channel has endpoints. */
    #has = false;
    #doubt: Timer | undefined;

    constructor(target: experimental.GrpcUri, listener: Listener, options: ChannelOptions) {
      this.#sought = readTarget(target as Parameters<typeof readTarget>[0]);
      this.#listener = listener;
      this.#isConfigured = options["grpc.service_config"] !== undefined;
      this.#source = sourceFor();
    }

    static getDefaultAuthority(target: experimental.GrpcUri): string {
      return readTarget(target as Parameters<typeof readTarget>[0]).service;
    }

    /** The channel wants news: changes come by themselves, so only a pause after a failure is cut short. */
    updateResolution(): void {
      if (this.#running === undefined) {
        const running = new AbortController();
        this.#running = running;
        this.#told = undefined;
        void this.#run(running.signal);
      } else this.#hurry?.();
    }

    destroy(): void {
      this.#running?.abort(new Error("the channel is closed or idle"));
      this.#running = undefined;
      this.#doubt?.cancel();
      this.#has = false;
    }

    async #run(signal: AbortSignal): Promise<void> {
      let pauseMs = FIRST_RETRY_MS;
      while (!signal.aborted) {
        let first = true;
        try {
          for await (const names of this.#source.follow(this.#sought, signal)) {
            if (signal.aborted) return;
            pauseMs = FIRST_RETRY_MS;
            this.#tell(names, first);
            first = false;
          }
        } catch (error) {
          if (!signal.aborted) this.#fail(messageOf(error));
        }
        if (signal.aborted) return;
        await this.#pause(jitter(pauseMs, 0.2, random), signal);
        pauseMs = Math.min(pauseMs * 2, SLOWEST_RETRY_MS);
      }
    }

    /** `first`: the first answer of a source that was away or was never asked. */
    #tell({ endpoints: known, fresh }: Names, first: boolean): void {
      this.#doubt?.cancel();
      // An instance of which no port is known (a hosts file tells none) cannot be called.
      const endpoints = known.filter(({ addresses }) => addresses.some(({ port }) => port !== 0));
      if (endpoints.length === 0) {
        if (!fresh) this.#fail(`${this.#what()}: nothing is known, and not everybody answers`);
        // Who has just started may not have heard of anybody yet.
        else if (first && this.#has) this.#doubt = clock.after(DOUBT_MS, () => this.#none());
        else this.#none();
        return;
      }
      const { grouped, config } = groupedEndpoints(endpoints);
      const told = JSON.stringify([grouped, config]);
      // The same list again would shuffle a channel's turns.
      if (told === this.#told) return;
      this.#told = told;
      if (!this.#isConfigured)
        this.#balancing = grpc.experimental.statusOrFromValue({
          loadBalancingConfig: [{ [NEAREST]: config }],
          methodConfig: [],
        });
      this.#give(grouped);
    }

    /** Nobody there is a fact: nobody is called any more. */
    #none(): void {
      this.#give([]);
      this.#fail(`${this.#what()}: there is none`);
    }

    #give(endpoints: readonly GroupedEndpoint[]): void {
      const { statusOrFromValue } = grpc.experimental;
      this.#has = endpoints.length > 0;
      this.#listener(
        statusOrFromValue([...endpoints]),
        {},
        this.#balancing,
        `${this.#what()} from ${this.#source.name}`,
      );
    }

    /** Calls fail with this as long as no endpoint is known; a channel that has some keeps them. */
    #fail(details: string): void {
      this.#told = undefined;
      const error = { code: grpc.status.UNAVAILABLE, details, metadata: new grpc.Metadata() };
      this.#listener(grpc.experimental.statusOrFromError(error), {}, this.#balancing, details);
    }

    #what(): string {
      const labels = Object.entries(this.#sought.labels).map(([key, value]) => ` ${key}=${value}`);
      return `service "${this.#sought.service}"${labels.join("")}`;
    }

    #pause(ms: number, signal: AbortSignal): Promise<void> {
      if (signal.aborted) return Promise.resolve();
      return new Promise((resolve) => {
        const done = (): void => {
          timer.cancel();
          signal.removeEventListener("abort", done);
          this.#hurry = undefined;
          resolve();
        };
        let timer = clock.after(ms, done);
        signal.addEventListener("abort", done, { once: true });
        // A channel that fails asks again and again; so much patience there is.
        this.#hurry = () => {
          this.#hurry = undefined;
          timer.cancel();
          timer = clock.after(FIRST_RETRY_MS, done);
        };
      });
    }
  } as ResolverClass;
}

/**
 * Each endpoint once, with its group (docs/balancing.md): those with a weight first, in both the nearest first. What instances ask for in their labels
 * chooses inside a group, as far as gRPC can: "first" is pick_first, everything else takes turns.
 */
export function groupedEndpoints(endpoints: readonly NameEndpoint[]): {
  readonly grouped: readonly GroupedEndpoint[];
  readonly config: NearestConfig;
} {
  const { policy, tryMs, locality } = connectWishes(endpoints.map(({ labels }) => labels));
  const groups = new Map<string, GroupedEndpoint>();
  for (const { addresses, weight, tier = 2 } of endpoints) {
    if (addresses.length === 0) continue;
    const group = (weight === 0 ? 3 : 0) + (locality === false ? 2 : tier);
    const key = JSON.stringify(addresses);
    if (group < (groups.get(key)?.group ?? Number.POSITIVE_INFINITY))
      groups.set(key, { addresses: addresses.map((each) => ({ ...each })), group });
  }
  const first = ({ addresses }: GroupedEndpoint) => addresses[0] as { readonly host: string; readonly port: number };
  return {
    grouped: [...groups.values()].sort((a, b) => inOneOrder(first(a), first(b))),
    config: {
      childPolicy: [policy === "first" ? { pick_first: {} } : { round_robin: {} }],
      ...(tryMs === undefined ? {} : { tryMs }),
    },
  };
}
