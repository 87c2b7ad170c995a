// The durable copy of this host's list: what was registered, with the statuses that must survive a restart.
import type { Durable, DurableWrite } from "../base/durable.ts";
import { messageOf } from "../base/error.ts";
import type { CheckSpec, Status } from "../model/check.ts";
import type { Registration } from "../model/instance.ts";
import type { Override } from "../model/override.ts";
import type { Authority, Reason } from "../model/reason.ts";

/** A service as it is kept. */
export interface KeptService {
  readonly from: string;
  readonly authority: Authority;
  readonly registration: Registration;
  /** Tags that others gave it in the catalog (`enableTagOverride`). */
  readonly tags?: readonly string[];
  /** Why it drains, where somebody asked for that. */
  readonly draining?: Reason;
}

/** A check as it is kept. Its status is as of its last change; an output that changed alone is not kept at once. */
export interface KeptCheck {
  readonly from: string;
  readonly serviceId: string;
  readonly spec: CheckSpec;
  readonly status: Status;
  readonly output: string;
  /**
   * When a pushed check runs out unless somebody reports, milliseconds since the epoch. After a life that did not end properly this may be
   * too early by `keepAfterMs`.
   */
  readonly expiresAtMs?: number;
}

/** How long it may take until a report that changed nothing is kept: heartbeats are not worth a write each. */
export function keepAfterMs(ttlMs: number): number {
  return Math.max(1000, ttlMs / 10);
}

const SERVICES = "agent.service";
const CHECKS = "agent.check";
/** What operators said about services, by its target. */
const OVERRIDES = "agent.override";
/** What sources' lists say about services of any source, by the source's name. */
const STATED = "agent.override.stated";
/** Services that callers registered and an override hides. */
const HIDDEN = "agent.hidden";
/** Holds `STOPPED` while no agent runs, if the last one ended properly. */
const LIFE = "agent.life";
const STOPPED = "stopped";

/** Everything kept, and what could not be read. */
export interface Kept {
  readonly services: ReadonlyMap<string, KeptService>;
  readonly checks: ReadonlyMap<string, KeptCheck>;
  readonly overrides: ReadonlyMap<string, Override>;
  readonly stated: ReadonlyMap<string, readonly Override[]>;
  readonly hidden: ReadonlyMap<string, KeptService>;
  /** True where the agent before this one came to its end and kept everything as it stood then. */
  readonly complete: boolean;
  readonly damaged: readonly { readonly about: string; readonly text: string }[];
}

/** Writes of one turn go to the durable store as one; the last one for a key wins. */
export class HostList {
  readonly #durable: Durable;
  #gathering: Map<string, DurableWrite> | undefined;
  #batch: Promise<void> = Promise.resolve();
  readonly #underWay = new Set<Promise<void>>();

  constructor(durable: Durable) {
    this.#durable = durable;
  }

  async load(): Promise<Kept> {
    const damaged: { about: string; text: string }[] = [];
    const read = async <T>(table: string): Promise<Map<string, T>> => {
      const found = new Map<string, T>();
      const decoder = new TextDecoder("utf-8", { fatal: true });
      for await (const [key, bytes] of this.#durable.entries(table))
        try {
          found.set(key, JSON.parse(decoder.decode(bytes)) as T);
        } catch (error) {
          damaged.push({
            about: key,
            text: `"${key}" in table ${table} of the data folder cannot be read and was left out: ${messageOf(error)}`,
          });
        }
      return found;
    };
    const complete = this.#durable.get(LIFE, STOPPED) !== undefined;
    if (complete) await this.#durable.write([{ table: LIFE, key: STOPPED, value: undefined }]);
    return {
      services: await read<KeptService>(SERVICES),
      checks: await read<KeptCheck>(CHECKS),
      overrides: await read<Override>(OVERRIDES),
      stated: await read<readonly Override[]>(STATED),
      hidden: await read<KeptService>(HIDDEN),
      complete,
      damaged,
    };
  }

  /** Says that everything is kept as it stands now, and nothing comes after it. */
  async end(): Promise<void> {
    await this.settled();
    await this.#durable.write([{ table: LIFE, key: STOPPED, value: new TextEncoder().encode("true") }]);
  }

  /** Keeps or forgets (undefined) a service. Resolves when the turn's writes are durable. */
  service(id: string, kept: KeptService | undefined): Promise<void> {
    return this.#add(SERVICES, id, kept);
  }

  /** Keeps or forgets (undefined) a check. */
  check(id: string, kept: KeptCheck | undefined): Promise<void> {
    return this.#add(CHECKS, id, kept);
  }

  /** Keeps or forgets (undefined) an override. */
  override(target: string, kept: Override | undefined): Promise<void> {
    return this.#add(OVERRIDES, target, kept);
  }

  /** Keeps or forgets (undefined) what a source states about services of any source. */
  stated(from: string, kept: readonly Override[] | undefined): Promise<void> {
    return this.#add(STATED, from, kept);
  }

  /** Keeps or forgets (undefined) a service that is hidden. */
  hidden(id: string, kept: KeptService | undefined): Promise<void> {
    return this.#add(HIDDEN, id, kept);
  }

  /** Resolves when everything given so far is durable; rejects where a write of it fails. */
  async settled(): Promise<void> {
    await Promise.all(this.#underWay);
  }

  #add(table: string, key: string, value: object | undefined): Promise<void> {
    if (this.#gathering === undefined) {
      const gathering = new Map<string, DurableWrite>();
      this.#gathering = gathering;
      // A microtask: still the same turn, so that the directory's write and this one share a sync.
      const batch = Promise.resolve().then(() => {
        this.#gathering = undefined;
        return this.#durable.write([...gathering.values()]);
      });
      this.#batch = batch;
      this.#underWay.add(batch);
      const over = (): void => void this.#underWay.delete(batch);
      batch.then(over, over);
    }
    this.#gathering.set(`${table}\0${key}`, {
      table,
      key,
      value: value === undefined ? undefined : new TextEncoder().encode(JSON.stringify(value)),
    });
    return this.#batch;
  }
}
