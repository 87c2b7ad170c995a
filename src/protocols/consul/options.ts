// Query options that all reading endpoints share: consistency, datacenter, waiting.
import { InputError } from "../../base/error.ts";
import { parseGoDuration } from "../../wire/duration.ts";
import { type CacheControl, readCacheControl } from "./cache.ts";
import type { Call } from "./call.ts";
import { Refusal } from "./errors.ts";
import { parseUint } from "./query.ts";

/** How a read wants to be answered. */
export interface Options {
  /** 0 = at once. */
  readonly minIndex: number;
  /** How long a blocking query waits, jitter included. */
  readonly waitMs: number;
  readonly consistency: "leader" | "stale" | "consistent";
  readonly cached: boolean;
  /** How a cached answer may be; read, and refused where it cannot be read, whether it counts or not. */
  readonly cacheControl: CacheControl;
  /** How old the answer may be while the store is away; no limit when absent. */
  readonly maxStaleMs?: number;
  /** "" = this one. */
  readonly datacenter: string;
}

/** @throws Refusal 400 for values and combinations that Consul refuses */
export function readOptions(call: Call, enterprise: Enterprise = "all"): Options {
  const { query } = call;
  refuseEnterprise(call, enterprise);
  let stale = query.has("stale");
  const consistent = query.has("consistent");
  const cached = call.config.cache && query.has("cached");
  const maxStale = query.get("max_stale");
  let maxStaleMs: number | undefined;
  if (maxStale !== "") {
    maxStaleMs = durationMs(maxStale, `Invalid max_stale value ${JSON.stringify(maxStale)}`);
    if (maxStaleMs > 0) stale = true;
  }
  if (stale && consistent) throw new Refusal(400, "Cannot specify ?stale with ?consistent, conflicting semantics.");
  if (cached && consistent) throw new Refusal(400, "Cannot specify ?cached with ?consistent, conflicting semantics.");
  const cacheControl = readCacheControl(call.request.headers["cache-control"]);
  return {
    waitMs: readWait(call),
    minIndex: readIndex(call),
    consistency: consistent ? "consistent" : stale ? "stale" : "leader",
    cached,
    cacheControl,
    ...(maxStaleMs === undefined || maxStaleMs <= 0 ? {} : { maxStaleMs }),
    datacenter: datacenterOf(call),
  };
}

/** `?index=`; 0 where none is given. @throws Refusal 400 */
export function readIndex({ query }: Call): number {
  const index = query.get("index");
  if (index === "") return 0;
  const parsed = parseUint(index);
  if (!parsed.ok) throw new Refusal(400, "Invalid index");
  return Number(parsed.value);
}

/** `?wait=`, limited and with up to a sixteenth added at random, so that many waiters do not come back at one moment. */
export function readWait(call: Call): number {
  const text = call.query.get("wait");
  const asked = text === "" ? 0 : durationMs(text, "Invalid wait time");
  const { defaultWaitMs, maxWaitMs } = call.config;
  const waitMs = Math.min(asked > 0 ? asked : defaultWaitMs, maxWaitMs);
  return waitMs + (call.ground.random.fraction() * waitMs) / 16;
}

function durationMs(text: string, refusal: string): number {
  try {
    return parseGoDuration(text);
  } catch (error) {
    if (error instanceof InputError) throw new Refusal(400, refusal);
    throw error;
  }
}

/** For requests that know no other option than where to: the datacenter, "" = this one. @throws Refusal 400 */
export function readDatacenter(call: Call, enterprise: Enterprise = "all"): string {
  refuseEnterprise(call, enterprise);
  return datacenterOf(call);
}

function datacenterOf({ query, ground }: Call): string {
  const named = query.get("dc") !== "" ? query.get("dc") : query.get("datacenter");
  return named.toLowerCase() === ground.self.datacenter.toLowerCase() ? "" : named;
}

/** @throws Refusal 500 when another datacenter was asked for */
export function ownDatacenterOnly(datacenter: string, headers: Readonly<Record<string, string>> = {}): void {
  if (datacenter !== "") throw new Refusal(500, "No path to datacenter", headers);
}

/** What of Consul's Enterprise edition an endpoint refuses: what concerns nodes only never looks at namespaces, some look at neither. */
export type Enterprise = "all" | "partition" | "none";

/** @throws Refusal 400 for namespaces and partitions, which no open-source Consul has */
export function refuseEnterprise({ query, request }: Call, enterprise: Enterprise = "all"): void {
  if (enterprise === "none") return;
  for (const [name, header, what] of [
    ["ns", "X-Consul-Namespace", "Namespaces"],
    ["partition", "X-Consul-Partition", "Partitions"],
  ] as const) {
    if (name === "ns" && enterprise === "partition") continue;
    if ((request.headers[header.toLowerCase()] ?? "") !== "")
      throw new Refusal(400, `Invalid header: "${header}" - ${what} are a Consul Enterprise feature`);
    if (query.get(name) !== "")
      throw new Refusal(400, `Invalid query parameter: "${name}" - ${what} are a Consul Enterprise feature`);
  }
}
