// What the command line `registrator` asks of a place to register in: small enough for Consul, key-value stores and ZooKeeper alike.
import type { Clock } from "../../../base/clock.ts";
import type { Disk } from "../../../base/disk.ts";
import type { Http } from "../../../base/http.ts";
import type { CheckSpec } from "../../../model/check.ts";
import type { Labels } from "../../../model/node.ts";

/** A service as backends write it. */
export interface Entry {
  readonly id: string;
  readonly name: string;
  /** "" = the container has none of its own (Consul then takes the node's). */
  readonly ip: string;
  readonly port: number;
  readonly tags: readonly string[];
  /** What Consul takes as Meta: within its limits. */
  readonly labels: Labels;
  /** All left-over attributes, in the order of their keys. */
  readonly attributes: Labels;
  readonly checks: readonly CheckSpec[];
  readonly containerId: string;
  /** The host name inside the container. */
  readonly containerHostname: string;
  readonly exposedPort: number;
  /** True = the container ended with a failure: what stands may run out, and is not refreshed. */
  readonly ended?: boolean;
}

/** Something that stands in a backend. */
export interface Standing {
  readonly place: string;
  readonly id: string;
  readonly name: string;
}

/**
 * Where to register. A place is what an entry is written to (a service ID, a key, a znode); what stands there is told as the same text as
 * `content` makes of the entry, so that equal texts need no write. All calls are bounded in time and may be repeated. Errors: `invalid`,
 * `too-large` and `not-allowed` for what was refused, everything else is worth another attempt.
 */
export interface Backend {
  /** As in the URI: "etcd". */
  readonly scheme: string;
  place(entry: Entry): string;
  content(entry: Entry): string;
  /** Asks for a sign of life. @throws Error with Registrator's words */
  ping(signal: AbortSignal): Promise<void>;
  /** What stands at these places; what is missing in the map is not there. */
  read(places: readonly string[], signal: AbortSignal): Promise<ReadonlyMap<string, string>>;
  /** Everything, for -cleanup. */
  list(signal: AbortSignal): Promise<readonly Standing[]>;
  write(entry: Entry, signal: AbortSignal): Promise<void>;
  /** Keeps an entry with a TTL alive, anew where it ran out; nothing where the backend knows no TTL. */
  refresh(entry: Entry, signal: AbortSignal): Promise<void>;
  /** Takes a place out; nothing where it is gone already. */
  remove(place: string, signal: AbortSignal): Promise<void>;
  /** Lets go of connections. What was registered stays. */
  close(): void;
}

/** What backends are made of. */
export interface BackendGround {
  readonly clock: Clock;
  readonly http: Http;
  readonly disk: Pick<Disk, "readText">;
  readonly env: (name: string) => string | undefined;
  /** A line for the log, in Registrator's words. */
  readonly say: (text: string) => void;
  /** 0 = entries stay until they are removed. */
  readonly ttlSeconds: number;
  /** Called when what was written may be lost (a session is over): it is then looked at again. */
  readonly lost: () => void;
}

/** Answers are awaited for so long. */
export const ANSWER_MS = 10_000;

/** Runs work on each of some items, a few at a time; rejects with the first failure once all have been tried. */
export async function each<T>(items: readonly T[], work: (item: T) => Promise<void>, parallel = 16): Promise<void> {
  const queue = [...items];
  const failures: unknown[] = [];
  await Promise.all(
    Array.from({ length: Math.min(parallel, queue.length) }, async () => {
      for (let item = queue.shift(); item !== undefined; item = queue.shift())
        await work(item).catch((error: unknown) => failures.push(error));
    }),
  );
  if (failures.length > 0) throw failures[0];
}
