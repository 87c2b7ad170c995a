// `?cached` as Consul's agents answer it. The whole directory is here anyway: what counts is how old it may be, and what the headers say.
import type { View } from "../../contracts/directory.ts";
import type { Call, ConsulGround } from "./call.ts";
import { Refusal } from "./errors.ts";

/** What `Cache-Control` asks of a cached answer. Times in milliseconds. */
export interface CacheControl {
  readonly mustRevalidate: boolean;
  readonly maxAgeMs?: number;
  readonly staleIfErrorMs?: number;
}

/** @throws Refusal 400, as Consul answers what it cannot read */
export function readCacheControl(header: string | undefined): CacheControl {
  let control: CacheControl = { mustRevalidate: false };
  for (const part of (header ?? "").toLowerCase().split(",")) {
    const directive = part.trim();
    if (directive === "must-revalidate") control = { ...control, mustRevalidate: true };
    else if (directive.startsWith("max-age=")) {
      const maxAgeMs = seconds(directive.slice("max-age=".length));
      control = { ...control, maxAgeMs, mustRevalidate: control.mustRevalidate || maxAgeMs === 0 };
    } else if (directive.startsWith("stale-if-error="))
      control = { ...control, staleIfErrorMs: seconds(directive.slice("stale-if-error=".length)) };
  }
  return control;
}

function seconds(text: string): number {
  if (!/^[+-]?\d+$/.test(text)) throw new Refusal(400, "Invalid Cache-Control header.");
  return Number(text) * 1000;
}

const KEPT_MS = 3 * 24 * 3_600_000;
const MOST = 10_000;
/** Parameters that say how to wait and how to print, not what is asked. */
const NOT_PART: ReadonlySet<string> = new Set(["index", "wait", "cached", "pretty", "stale", "token", "hash"]);

/** Which questions were asked before, so that the first one is told MISS and the others HIT. Bounded in number and time. */
export class AskedBefore {
  readonly #seen = new Map<string, number>();
  readonly #clock: ConsulGround["clock"];
  constructor(clock: ConsulGround["clock"]) {
    this.#clock = clock;
  }

  /** True where the question was asked within three days. */
  ask({ path, query }: Pick<Call, "path" | "query">): boolean {
    const parameters = query
      .encode()
      .split("&")
      .filter((pair) => !NOT_PART.has(pair.split("=", 1)[0] as string));
    const key = `${path}?${parameters.join("&")}`;
    const now = this.#clock.monotonic();
    const before = this.#seen.get(key);
    this.#seen.delete(key);
    this.#seen.set(key, now);
    for (const [oldest, at] of this.#seen) {
      if (this.#seen.size <= MOST && now - at <= KEPT_MS) break;
      this.#seen.delete(oldest);
    }
    return before !== undefined && now - before <= KEPT_MS;
  }
}

/**
 * Makes sure that the view may be told under `control`, and says with which headers. What is too old is asked of the store again;
 * where the store is away the old answer serves as long as `stale-if-error` allows. `streams`: kept up to date by itself, so that
 * there is nothing to revalidate.
 * @throws TrilithError `unavailable` where neither works
 */
export async function cacheHeaders(
  call: Call,
  control: CacheControl,
  streams: boolean,
): Promise<(view: View) => Readonly<Record<string, string>>> {
  const { directory, clock } = call.ground;
  const ageMs = (view: View): number => (view.fresh ? 0 : Math.max(0, clock.now() - view.asOfMs));
  let hit = call.askedBefore.ask(call);
  const view = directory.view();
  const tooOld = control.maxAgeMs !== undefined && ageMs(view) > control.maxAgeMs;
  if (tooOld || (control.mustRevalidate && !(streams && view.fresh))) {
    try {
      await directory.barrier(call.signal);
      hit = false;
    } catch (error) {
      if (call.signal.aborted || control.staleIfErrorMs === undefined || ageMs(view) > control.staleIfErrorMs)
        throw error;
    }
  }
  return (view) => (hit ? { "X-Cache": "HIT", Age: String(Math.floor(ageMs(view) / 1000)) } : { "X-Cache": "MISS" });
}
