// A watch in Consul's sense: one read that is asked again and again, and whoever handles what it shows, told on each change.
import type { Clock } from "../../base/clock.ts";
import { InputError, messageOf, TrilithError } from "../../base/error.ts";
import { jitter, type Random } from "../../base/random.ts";
import { encodeExactJson } from "./json.ts";

/** What is watched, in the words of Consul's flags and files. */
export interface WatchParams {
  readonly type: string;
  readonly key?: string;
  readonly prefix?: string;
  readonly service?: string;
  readonly tags?: readonly string[];
  readonly passingOnly?: boolean;
  readonly state?: string;
  readonly name?: string;
  readonly filter?: string;
  readonly stale?: boolean;
  readonly datacenter?: string;
}

/** The types of watches. */
const WATCH_TYPES: readonly string[] = ["key", "keyprefix", "services", "nodes", "service", "checks", "event"];

/** How a watch is read. */
export interface WatchPlan {
  /** Path and query of the read, without index. */
  readonly path: string;
  /** What a handler is told of an answer; `lastIndex` is the index of the answer before, undefined for the first. */
  shown(status: number, json: unknown, lastIndex: string | undefined): unknown;
  /** True: all there is is shown, by indexes that grow; a smaller one means that counting began anew. False: only what is new. */
  readonly grows: boolean;
}

/** @throws InputError in Consul's words */
export function planOf(params: WatchParams): WatchPlan {
  const { type, key = "", prefix = "", service = "", state = "", name = "", tags = [] } = params;
  const wrong = (text: string): never => {
    throw new InputError("", text);
  };
  if (type === "") wrong("Watch type must be specified");
  const query: string[] = [];
  const add = (parameter: string, value?: string): void =>
    void query.push(value === undefined ? parameter : `${parameter}=${encodeURIComponent(value)}`);
  if (params.datacenter !== undefined && params.datacenter !== "") add("dc", params.datacenter);
  if (params.stale === true && type !== "event") add("stale");
  if (params.filter !== undefined && params.filter !== "") add("filter", params.filter);
  const made = (path: string, shown: WatchPlan["shown"] = (_status, json) => json, grows = true): WatchPlan => ({
    path: query.length === 0 ? path : `${path}?${query.join("&")}`,
    shown,
    grows,
  });
  const kv = (path: string): string => `/v1/kv/${path.replace(/^\//, "").split("/").map(encodeURIComponent).join("/")}`;
  switch (type) {
    case "key":
      if (key === "") wrong("Must specify a single key to watch");
      return made(kv(key), (status, json) => (status === 404 ? null : (json as readonly unknown[])[0]));
    case "keyprefix":
      if (prefix === "") wrong("Must specify a single prefix to watch");
      add("recurse");
      return made(kv(prefix), (status, json) => (status === 404 ? null : json));
    case "services":
      return made("/v1/catalog/services");
    case "nodes":
      return made("/v1/catalog/nodes");
    case "service":
      if (service === "") wrong("Must specify a single service to watch");
      for (const tag of tags) add("tag", tag);
      if (params.passingOnly === true) add("passing", "1");
      return made(`/v1/health/service/${encodeURIComponent(service)}`);
    case "checks":
      if (service !== "" && state !== "") wrong("Cannot specify service and state");
      if (service !== "") return made(`/v1/health/checks/${encodeURIComponent(service)}`);
      return made(`/v1/health/state/${encodeURIComponent(state === "" ? "any" : state)}`);
    case "event":
      if (name !== "") add("name", name);
      return made(
        "/v1/event/list",
        (_status, json, lastIndex) => eventsAfter(json as readonly EventJson[], lastIndex),
        false,
      );
    default:
      return wrong(`Unsupported watch type: ${type} (there are ${WATCH_TYPES.join(", ")})`);
  }
}

interface EventJson {
  readonly ID: string;
}

/** Only what came after the event whose index is known. */
function eventsAfter(events: readonly EventJson[], lastIndex: string | undefined): readonly EventJson[] {
  const at = events.findIndex(({ ID }) => eventIndex(ID) === lastIndex);
  return at === -1 ? events : events.slice(at + 1);
}

/** The index that belongs to an event's UUID: its halves laid over each other. */
export function eventIndex(id: string): string {
  const digits = id.replaceAll("-", "");
  if (!/^[0-9a-f]{32}$/i.test(digits)) return "";
  return String(BigInt(`0x${digits.slice(0, 16)}`) ^ BigInt(`0x${digits.slice(16)}`));
}

/** An answer to a plan's path. `index` is X-Consul-Index; numbers beyond 2^53 are bigints. */
export interface Fetched {
  readonly status: number;
  readonly index: string | undefined;
  readonly json: unknown;
}

export interface Following {
  /** @throws whatever says that the agent could not be asked */
  readonly ask: (path: string, signal: AbortSignal) => Promise<Fetched>;
  readonly clock: Clock;
  readonly random: Random;
  readonly signal: AbortSignal;
  /** Told of every failed attempt and how long is waited now. May throw to end the watch. */
  readonly onFailure: (error: unknown, pauseMs: number) => void;
}

const PAUSE_FIRST_MS = 1000;
const PAUSE_LONGEST_MS = 60_000;
/** An answer that says nothing new should have taken its time: one that did not is not asked for again at once. */
const QUICK_MS = 100;

/**
 * Tells `handle` what the plan shows: at once, and on each change. One call at a time; what changes meanwhile is told together afterwards.
 * Ends when `handle` returns false or the signal is aborted; never rejects but by what `handle` and `onFailure` throw.
 */
export async function follow(
  plan: WatchPlan,
  { ask, clock, random, signal, onFailure }: Following,
  handle: (index: string, data: unknown) => Promise<boolean>,
): Promise<void> {
  /** What is waited for; undefined = whatever there is now. */
  let index: string | undefined;
  let lastIndex: string | undefined;
  let last: string | undefined;
  let failures = 0;
  const pause = async (ms: number): Promise<void> => {
    await clock.sleep(ms, signal).catch(() => {});
  };
  while (!signal.aborted) {
    const began = clock.monotonic();
    let fetched: Fetched;
    let data: unknown;
    try {
      const separator = plan.path.includes("?") ? "&" : "?";
      fetched = await ask(index === undefined ? plan.path : `${plan.path}${separator}index=${index}`, signal);
      if (fetched.index === undefined || !/^\d+$/.test(fetched.index))
        throw new TrilithError("unavailable", `the answer to ${plan.path} has no X-Consul-Index: it cannot be watched`);
      data = plan.shown(fetched.status, fetched.json, lastIndex) ?? null;
    } catch (error) {
      if (signal.aborted) return;
      // An agent that starts anew may count from the beginning, and would keep whoever waits for an old index waiting.
      index = undefined;
      failures++;
      const pauseMs = jitter(Math.min(PAUSE_FIRST_MS * failures ** 2, PAUSE_LONGEST_MS), 0.2, random);
      onFailure(error, pauseMs);
      await pause(pauseMs);
      continue;
    }
    failures = 0;
    if (fetched.index === index) {
      if (clock.monotonic() - began < QUICK_MS) await pause(PAUSE_FIRST_MS);
      continue;
    }
    index = plan.grows && index !== undefined && BigInt(fetched.index) < BigInt(index) ? undefined : fetched.index;
    const text = encodeExactJson(data, 0);
    const isNews = last === undefined || (plan.grows ? text !== last : text !== "[]");
    lastIndex = fetched.index;
    last = text;
    if (isNews && !(await handle(fetched.index, data))) return;
  }
}

/** What a handler reads: JSON on one line. */
export function handlerInput(data: unknown): string {
  return `${encodeExactJson(data, 0)}\n`;
}

/** JSON for people. */
export function printed(data: unknown): string {
  return `${encodeExactJson(data, 4)}\n`;
}

/** JSON of an agent's answer, flags of keys (64 bits) kept exactly. @throws TrilithError `unavailable` */
export function parseExact(text: string): unknown {
  // A quote within a text is escaped, so that this is never found within one.
  const marked = text.replace(/"Flags":(\s*)(\d{16,})/g, '"Flags":$1"\\u0000$2"');
  try {
    // Looking at each value takes several times as long.
    if (marked === text) return JSON.parse(text);
    return JSON.parse(marked, (key, value) =>
      key === "Flags" && typeof value === "string" && value.startsWith("\u0000") ? BigInt(value.slice(1)) : value,
    );
  } catch (error) {
    throw new TrilithError("unavailable", `the answer is not JSON: ${messageOf(error)}`, error);
  }
}
