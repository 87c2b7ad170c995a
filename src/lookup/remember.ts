// Last known good on disk: what a shared directory said, and when second-hand sources were last heard, for the time after a restart.
import type { Clock, Timer } from "../base/clock.ts";
import type { Durable, DurableWrite } from "../base/durable.ts";
import { messageOf } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import type { Check } from "../model/check.ts";
import type { Resident } from "../model/instance.ts";
import type { Labels } from "../model/node.ts";
import type { Entry } from "../model/record.ts";

/** The durable table. */
export const REMEMBERED_TABLE = "lookup";

const SERVICE = "service\u0000";
const SOURCE = "source\u0000";
const AS_OF = "as-of";

/** Changes wait so long for further ones before they are written. */
const DEBOUNCE_MS = 5_000;
/** How often "still true" is written while nothing changes. */
const STILL_TRUE_MS = 300_000;
/** What is kept of a check's output: enough to say why. */
const OUTPUT_CHARACTERS = 256;

/** A turn of the event loop encodes no more than this. */
const SERVICES_PER_WRITE = 200;

interface Remembered {
  readonly residents: readonly Resident[];
  /** Milliseconds since the epoch at which this was known to be true. */
  readonly asOfMs: number;
}

/** Bounds of what is kept. */
export interface RememberLimits {
  readonly services: number;
  readonly instancesPerService: number;
}

const REMEMBER_LIMITS: RememberLimits = { services: 20_000, instancesPerService: 5_000 };

/**
 * Memory over restarts. Writes are rare: only services whose endpoints differ from what is on disk, gathered for five seconds; and the
 * time at which all that was still true, every five minutes. Ages told after a restart are therefore upper bounds.
 */
export interface Remember {
  /** Reads what the last life left. Rejects only if the disk cannot be read at all; damaged rows are reported and removed. */
  load(): Promise<void>;
  /** What the last life knew; undefined where it knew nothing or was told to `drop` it. */
  get(service: string): Remembered | undefined;
  /** Lets go of what the last life knew: the directory is there. Names not told of again by `note` are removed from disk. */
  drop(): void;
  /** The service stands like this now; empty = gone. */
  note(service: string, residents: readonly Resident[]): void;
  /** Everything noted is true at this moment (milliseconds since the epoch). */
  stillTrue(atMs: number): void;
  /** When a source was last known to be well, in this life or the last. */
  sourceSeen(source: string): number | undefined;
  /** The source is well at this moment. */
  noteSource(source: string, atMs: number): void;
  /** Forgets, on disk as well, when sources were well whose name begins so, but for those in `keep`. */
  forgetSources(beginning: string, keep: ReadonlySet<string>): void;
  /** Writes what waits. */
  flush(): Promise<void>;
  /** Writes what waits, then does nothing more. */
  stop(): Promise<void>;
}

/** `directory` false: only the sources' times are kept, the directory being durable itself. */
export function createRemember(parts: {
  readonly durable: Durable;
  readonly clock: Clock;
  readonly log: Log;
  readonly directory: boolean;
  readonly limits?: RememberLimits;
}): Remember {
  const { durable, clock, log, directory } = parts;
  const limits = parts.limits ?? REMEMBER_LIMITS;
  const lastLife = new Map<string, readonly Resident[]>();
  const onDisk = new Set<string>();
  const dirty = new Map<string, readonly Resident[]>();
  const seen = new Map<string, number>();
  let lastAsOfMs = 0;
  let asOfMs = 0;
  let asOfWritten = 0;
  const seenWritten = new Map<string, number>();
  /** On disk, and not to stay there. */
  const forgotten = new Set<string>();
  let timer: Timer | undefined;
  let writing: Promise<void> = Promise.resolve();
  let stopped = false;
  let full = false;

  const later = (ms: number): void => {
    if (stopped) return;
    timer ??= clock.after(ms, () => {
      timer = undefined;
      void flush();
    });
  };

  const collect = (): { writes: DurableWrite[]; taken: Map<string, readonly Resident[]> } => {
    const taken = new Map<string, readonly Resident[]>();
    const writes: DurableWrite[] = [];
    const put = (key: string, text: string | undefined): void => {
      const value = text === undefined ? undefined : Buffer.from(text);
      const old = durable.get(REMEMBERED_TABLE, key);
      if (value === undefined ? old === undefined : old !== undefined && Buffer.compare(value, old) === 0) return;
      writes.push({ table: REMEMBERED_TABLE, key, value });
    };
    let budget = SERVICES_PER_WRITE;
    for (const [name, residents] of dirty) {
      if (budget-- === 0) break;
      dirty.delete(name);
      taken.set(name, residents);
      const keep = residents.length > 0 && residents.length <= limits.instancesPerService;
      if (keep && !onDisk.has(name) && onDisk.size >= limits.services) {
        if (!full) log.warn(`more than ${limits.services} services: the others are not remembered over a restart`);
        full = true;
        continue;
      }
      if (residents.length > limits.instancesPerService)
        log.warn(`service "${name}" has ${residents.length} instances: too many to be remembered over a restart`);
      put(SERVICE + name, keep ? encodeResidents(residents) : undefined);
      if (keep) onDisk.add(name);
      else onDisk.delete(name);
    }
    if (asOfMs > 0 && (writes.length > 0 || asOfMs - asOfWritten >= STILL_TRUE_MS || stopped)) {
      if (asOfMs !== asOfWritten) put(AS_OF, String(asOfMs));
      asOfWritten = asOfMs;
    }
    for (const source of forgotten) put(SOURCE + source, undefined);
    forgotten.clear();
    for (const [source, atMs] of seen) {
      const before = seenWritten.get(source) ?? 0;
      if (atMs === before || (atMs - before < STILL_TRUE_MS && !stopped && writes.length === 0)) continue;
      put(SOURCE + source, String(atMs));
      seenWritten.set(source, atMs);
    }
    return { writes, taken };
  };

  const flush = (): Promise<void> => {
    timer?.cancel();
    timer = undefined;
    const next = writing.then(async () => {
      do {
        const { writes, taken } = collect();
        try {
          if (writes.length > 0) await durable.write(writes);
        } catch (error) {
          // Answers do not depend on it; only the next start would know less.
          log.error(`remembering the last known endpoints: ${messageOf(error)}`);
          for (const [name, residents] of taken) if (!dirty.has(name)) dirty.set(name, residents);
          for (const { key, value } of writes)
            if (value === undefined && key.startsWith(SOURCE)) forgotten.add(key.slice(SOURCE.length));
          later(STILL_TRUE_MS);
          return;
        }
        if (dirty.size > 0) await clock.yield();
      } while (dirty.size > 0);
    });
    writing = next;
    return next;
  };

  return {
    async load() {
      const damaged: DurableWrite[] = [];
      for await (const [key, value] of durable.entries(REMEMBERED_TABLE)) {
        try {
          const text = Buffer.from(value).toString("utf8");
          if (key.startsWith(SERVICE)) {
            const name = key.slice(SERVICE.length);
            onDisk.add(name);
            if (directory) lastLife.set(name, decodeResidents(text));
          } else {
            const atMs = Number(text);
            if (!Number.isFinite(atMs)) throw new Error(`"${text}" is not a time`);
            if (key === AS_OF) lastAsOfMs = asOfWritten = atMs;
            else if (key.startsWith(SOURCE)) {
              seen.set(key.slice(SOURCE.length), atMs);
              seenWritten.set(key.slice(SOURCE.length), atMs);
            } else throw new Error("unknown key");
          }
        } catch (error) {
          log.warn(
            `what was remembered under ${JSON.stringify(key)} cannot be read and is dropped: ${messageOf(error)}`,
          );
          damaged.push({ table: REMEMBERED_TABLE, key, value: undefined });
          if (key.startsWith(SERVICE)) onDisk.delete(key.slice(SERVICE.length));
        }
      }
      // Left over from a life with a shared store: the directory knows better now.
      if (!directory) {
        for (const name of onDisk) damaged.push({ table: REMEMBERED_TABLE, key: SERVICE + name, value: undefined });
        onDisk.clear();
      }
      if (damaged.length > 0) await durable.write(damaged);
    },
    get(service) {
      if (lastLife.size === 0) return undefined;
      const residents = lastLife.get(service.toLowerCase());
      return residents === undefined ? undefined : { residents, asOfMs: lastAsOfMs };
    },
    drop() {
      lastLife.clear();
      for (const name of onDisk) if (!dirty.has(name)) dirty.set(name, []);
      if (dirty.size > 0) later(DEBOUNCE_MS);
    },
    note(service, residents) {
      if (!directory || stopped) return;
      const name = service.toLowerCase();
      if (residents.length === 0 && !onDisk.has(name)) {
        dirty.delete(name);
        return;
      }
      dirty.set(name, residents);
      later(DEBOUNCE_MS);
    },
    stillTrue(atMs) {
      if (!directory || stopped) return;
      asOfMs = atMs;
      if (atMs - asOfWritten >= STILL_TRUE_MS) later(DEBOUNCE_MS);
    },
    sourceSeen: (source) => seen.get(source),
    noteSource(source, atMs) {
      if (stopped) return;
      seen.set(source, atMs);
      forgotten.delete(source);
      if (atMs - (seenWritten.get(source) ?? 0) >= STILL_TRUE_MS) later(DEBOUNCE_MS);
    },
    forgetSources(beginning, keep) {
      if (stopped) return;
      for (const source of seen.keys()) {
        if (!source.startsWith(beginning) || keep.has(source)) continue;
        seen.delete(source);
        if (seenWritten.delete(source)) forgotten.add(source);
      }
      if (forgotten.size > 0) later(DEBOUNCE_MS);
    },
    flush,
    async stop() {
      if (stopped) return writing;
      stopped = true;
      await flush();
    },
  };
}

function encodeResidents(residents: readonly Resident[]): string {
  return JSON.stringify(
    residents.map(({ instance, node, checks }) => ({
      instance,
      node,
      checks: checks.map((check) => ({ ...check, output: check.output.slice(0, OUTPUT_CHARACTERS) })),
    })),
  );
}

/** @throws Error where the text is not what `encodeResidents` writes */
function decodeResidents(text: string): readonly Resident[] {
  const raw: unknown = JSON.parse(text);
  if (!Array.isArray(raw)) throw new Error("not a list");
  return raw.map((item: { instance?: Entry<"service">; node?: Entry<"node">; checks?: Entry<"check">[] }): Resident => {
    const { instance, node, checks } = item;
    if (
      typeof instance?.id !== "string" ||
      typeof instance.name !== "string" ||
      typeof instance.address !== "string" ||
      typeof instance.port !== "number" ||
      typeof instance.node !== "string" ||
      typeof instance.origin?.source !== "string" ||
      !Array.isArray(instance.tags) ||
      typeof node?.name !== "string" ||
      typeof node.address !== "string" ||
      !Array.isArray(checks) ||
      !checks.every((check: Check) => typeof check?.id === "string" && typeof check.status === "string")
    )
      throw new Error("not a list of instances");
    return {
      instance: { ...instance, labels: bare(instance.labels) },
      node: { ...node, labels: bare(node.labels), taggedAddresses: bare(node.taggedAddresses) },
      checks,
    };
  });
}

/** Without a prototype, so that a label named like a method is only a label. */
function bare(labels: Labels | undefined): Labels {
  return Object.assign(Object.create(null), labels);
}
