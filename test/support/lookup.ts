// A lookup in a small world for tests: one host, a directory under control, a clock that stands still, and a source that may lie.

import { type Durable, memoryDurable } from "../../src/base/durable.ts";
import { callbackLog, silentLog } from "../../src/base/log.ts";
import { createMetrics, type Metrics } from "../../src/base/metrics.ts";
import type { Interface } from "../../src/base/net.ts";
import type { Random } from "../../src/base/random.ts";
import type { Directory } from "../../src/contracts/directory.ts";
import type { Lookup } from "../../src/contracts/lookup.ts";
import type { Magic } from "../../src/contracts/magic.ts";
import type { Prepared } from "../../src/contracts/prepared.ts";
import { defaultSettings } from "../../src/contracts/settings.ts";
import { createPrepared } from "../../src/directory/prepared.ts";
import { createMagic } from "../../src/lookup/connect/magic.ts";
import { createLookup, type LookupParts, type RunningLookup } from "../../src/lookup/lookup.ts";
import type { Instance } from "../../src/model/instance.ts";
import type { Endpoint } from "../../src/model/query.ts";
import type { Reason } from "../../src/model/reason.ts";
import { type FakeClock, fakeClock } from "../simulated/clock.ts";
import { goneChange, nodeChange, serviceChange, type TestDirectory, testDirectory } from "./directory.ts";

/** Repeatable randomness: mulberry32. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  const fraction = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    fraction,
    below: (below) => Math.floor(fraction() * below),
    uuid: () =>
      `00000000-0000-4000-8000-${Math.floor(fraction() * 2 ** 48)
        .toString(16)
        .padStart(12, "0")}`,
    bytes: (count) => Uint8Array.from({ length: count }, () => Math.floor(fraction() * 256)),
  };
}

export const INTERFACES: readonly Interface[] = [
  { name: "lo", address: "127.0.0.1", family: 4, cidr: "127.0.0.1/8", internal: true },
  { name: "lo", address: "::1", family: 6, cidr: "::1/128", internal: true },
  { name: "eth0", address: "10.1.0.1", family: 4, cidr: "10.1.0.1/16", internal: false },
  { name: "docker0", address: "172.17.0.1", family: 4, cidr: "172.17.0.1/16", internal: false },
];

export interface World {
  readonly clock: FakeClock;
  readonly directory: TestDirectory;
  readonly lookup: RunningLookup;
  readonly prepared: Prepared;
  readonly magic: Magic;
  readonly metrics: Metrics;
  readonly lines: string[];
  /** States a source's whole list, as the agent's differ does: second-hand unless told. */
  list(service: string, ids: readonly string[], options?: ListOptions): Promise<void>;
}

interface ListOptions {
  readonly authority?: "first-hand" | "second-hand";
  readonly node?: string;
  readonly why?: Omit<Reason, "atMs">;
  readonly more?: Partial<Instance>;
}

/** Magic addresses in the usual range that are kept in memory. */
export function magicInMemory(durable: Durable = memoryDurable()): Promise<Magic> {
  return createMagic({ durable, random: seededRandom(3), settings: {}, interfaces: () => [] });
}

/** Prepared queries where nobody is nearer than anybody else, and there is no other datacenter. */
export function preparedOf(directory: Directory, lookup: Pick<Lookup, "resolve" | "resolveNow">): Prepared {
  return createPrepared({
    ...{ directory, lookup, random: seededRandom(5), log: silentLog },
    ...{ node: "home", datacenter: "dc1", datacenters: [], nearestFirst: (_view, _near, items) => items },
    elsewhere: () => undefined,
  });
}

/** This host is node "home" at 10.1.0.1. Member `mN` of a source listens at 10.9.0.N, port 7000 + N. */
export async function world(
  given: Partial<LookupParts> & { clock?: FakeClock; directory?: TestDirectory } = {},
): Promise<World> {
  const clock = given.clock ?? fakeClock();
  const directory = given.directory ?? testDirectory(clock);
  const metrics = createMetrics();
  const lines: string[] = [];
  const lookup = createLookup({
    random: seededRandom(7),
    log: callbackLog((level, part, text) => void lines.push(`${level} ${part}: ${text}`)),
    metrics,
    guard: defaultSettings.guard,
    node: "home",
    datacenter: "dc1",
    interfaces: () => INTERFACES,
    shared: false,
    ...given,
    clock,
    directory,
  });
  if (given.directory === undefined) await directory.write([nodeChange("home", "10.1.0.1")]);
  return {
    clock,
    directory,
    lookup,
    prepared: preparedOf(directory, lookup),
    magic: await magicInMemory(),
    metrics,
    lines,
    async list(service, ids, options = {}) {
      const node = options.node ?? "home";
      const authority = options.authority ?? "second-hand";
      const source = authority === "second-hand" ? "zookeeper" : "docker";
      const before = [...directory.view().residents(service)].filter(
        ({ instance }) => instance.origin.source === source && instance.node === node,
      );
      await directory.write([
        ...before
          .filter(({ instance }) => !ids.includes(instance.id))
          .map(({ instance }) =>
            goneChange(
              node,
              instance.id,
              options.why ?? {
                code: "missing",
                text: `not listed by ${source}`,
                confirmed: authority === "first-hand",
              },
            ),
          ),
        ...ids.map((id) => {
          const number = Number(id.slice(1));
          return serviceChange(node, id, service, {
            address: `10.9.0.${number}`,
            port: 7000 + number,
            origin: { source, authority, foreignId: id },
            ...options.more,
          });
        }),
      ]);
    },
  };
}

/** IDs of an answer's endpoints, in order of their names. */
export function ids(endpoints: readonly Endpoint[]): string[] {
  return endpoints.map(({ resident }) => resident.instance.id).sort();
}

/** IDs of the held ones. */
export function heldIds(endpoints: readonly Endpoint[]): string[] {
  return ids(endpoints.filter(({ held }) => held === true));
}
