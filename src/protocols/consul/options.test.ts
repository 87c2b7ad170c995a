// What the options of a request come to: how long it waits, what it wants answered how, where it is to be answered.
import { describe, expect, it } from "vitest";
import type { Call } from "./call.ts";
import { configure } from "./config.ts";
import { readOptions, readWait } from "./options.ts";
import { Query } from "./query.ts";

function call(query: string, config: object = {}, fraction = 0, headers: Record<string, string> = {}): Call {
  return {
    query: new Query(query),
    config: configure(config),
    request: { headers },
    ground: { random: { fraction: () => fraction }, self: { datacenter: "dc1" } },
  } as unknown as Call;
}

describe("a wait", () => {
  it.each<[query: string, config: object, fraction: number, ms: number]>([
    ["", {}, 0, 300_000],
    ["wait=0s", {}, 0, 300_000],
    ["wait=-5s", {}, 0, 300_000],
    ["wait=10s", {}, 0, 10_000],
    ["wait=10s", {}, 1, 10_625],
    ["wait=10m", {}, 0, 600_000],
    ["wait=1h", {}, 0, 600_000],
    ["wait=1h", {}, 1, 637_500],
    ["wait=1h", { maxWaitMs: 20_000 }, 0, 20_000],
    ["", { maxWaitMs: 20_000 }, 0, 20_000],
    ["", { defaultWaitMs: 7_000 }, 0, 7_000],
    ["wait=9s", { defaultWaitMs: 7_000 }, 0, 9_000],
  ])("%s %o lasts", (query, config, fraction, ms) => expect(readWait(call(query, config, fraction))).toBe(ms));
});

describe("options", () => {
  it.each<[query: string, config: object, found: object]>([
    ["", {}, { consistency: "leader", cached: false, minIndex: 0, datacenter: "" }],
    ["stale", {}, { consistency: "stale" }],
    ["stale=false", {}, { consistency: "stale" }],
    ["consistent", {}, { consistency: "consistent" }],
    ["max_stale=5s", {}, { consistency: "stale", maxStaleMs: 5000 }],
    ["cached", {}, { cached: true }],
    ["cached", { cache: false }, { cached: false }],
    ["cached&consistent", { cache: false }, { cached: false, consistency: "consistent" }],
    ["dc=DC1", {}, { datacenter: "" }],
    ["dc=dc2&datacenter=dc3", {}, { datacenter: "dc2" }],
    ["index=7&index=9", {}, { minIndex: 7 }],
  ])("%s %o", (query, config, found) => expect(readOptions(call(query, config))).toMatchObject(found));

  it("take no age from max_stale=0s", () => {
    expect(readOptions(call("max_stale=0s"))).toMatchObject({ consistency: "leader" });
    expect(readOptions(call("max_stale=0s"))).not.toHaveProperty("maxStaleMs");
  });

  it.each([
    ["stale&consistent", "Cannot specify ?stale with ?consistent, conflicting semantics."],
    ["max_stale=1s&consistent", "Cannot specify ?stale with ?consistent, conflicting semantics."],
    ["cached&consistent", "Cannot specify ?cached with ?consistent, conflicting semantics."],
    ["max_stale=soon", 'Invalid max_stale value "soon"'],
    ["wait=1&index=x", "Invalid wait time"],
    ["index=-1", "Invalid index"],
    ["index=18446744073709551616", "Invalid index"],
    ["partition=x", 'Invalid query parameter: "partition" - Partitions are a Consul Enterprise feature'],
  ])("%s is refused", (query, text) => {
    expect(() => readOptions(call(query))).toThrow(expect.objectContaining({ status: 400, message: text }));
  });
});
