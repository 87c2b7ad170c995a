// How far the other datacenters are, measured now and then, so that "the nearest ones" are those.
import type { Clock } from "../../base/clock.ts";
import { codeOf, TrilithError } from "../../base/error.ts";
import type { Net } from "../../base/net.ts";
import { jitter, type Random } from "../../base/random.ts";
import { roundTripMs } from "../../base/round-trip.ts";

/** Every datacenter is asked so often, varied by a fifth; the first time at once. */
const EVERY_MS = 60_000;
/** A server that is not there is no way to its datacenter, however near its host may be. */
const PROBE = { timeoutMs: 2000, evenRefused: false } as const;
/** Of the last round trips the median counts. */
const MEDIAN_OF = 3;

export interface DistancesOptions {
  /** The URLs of the other datacenters' servers, by name, in the order in which they were told. */
  readonly datacenters: Readonly<Record<string, readonly string[]>>;
  readonly net: Pick<Net, "connect">;
  readonly clock: Clock;
  readonly random: Random;
}

/** Runs between `start` and `stop`; with fewer than two datacenters there is nothing to measure. */
export interface Distances {
  /** The names, the nearest first; where nothing is known, as they were told. */
  nearestFirst(): readonly string[];
  start(): void;
  stop(): Promise<void>;
}

/** Builds it; nothing runs before `start`. */
export function createDistances({ datacenters, net, clock, random }: DistancesOptions): Distances {
  const names = Object.keys(datacenters);
  const stop = new AbortController();
  const { signal } = stop;
  const latest = new Map<string, readonly number[]>();
  let running: Promise<void> | undefined;

  async function measure(name: string): Promise<void> {
    for (const url of datacenters[name] ?? []) {
      const { hostname, port, protocol } = new URL(url);
      const to = {
        host: hostname.replace(/^\[(.*)\]$/, "$1"),
        port: port === "" ? (protocol === "https:" ? 443 : 80) : Number(port),
      };
      const tookMs = await roundTripMs({ net, clock }, to, PROBE, signal);
      if (tookMs === undefined) continue;
      latest.set(name, [...(latest.get(name) ?? []), tookMs].slice(-MEDIAN_OF));
      return;
    }
    latest.delete(name);
  }

  async function run(): Promise<void> {
    try {
      for (;;) {
        await Promise.all(names.map(measure));
        await clock.sleep(jitter(EVERY_MS, 0.2, random), signal);
      }
    } catch (error) {
      if (!signal.aborted && codeOf(error) !== "stopped") throw error;
    }
  }

  const farMs = (name: string): number => {
    const samples = (latest.get(name) ?? []).toSorted((a, b) => a - b);
    return samples[samples.length >> 1] ?? Number.POSITIVE_INFINITY;
  };
  return {
    nearestFirst: () =>
      names
        .map((name) => ({ name, ms: farMs(name) }))
        // Not by subtraction: two infinities would make NaN.
        .sort((a, b) => (a.ms === b.ms ? 0 : a.ms < b.ms ? -1 : 1))
        .map(({ name }) => name),
    start() {
      if (names.length > 1 && !signal.aborted) running ??= run();
    },
    async stop() {
      stop.abort(new TrilithError("stopped", "measuring is stopping"));
      await running;
    },
  };
}
