// The store of a client host: another agent's directory, a Trilith's or a real Consul's, followed over HTTP and written to over HTTP.
import type { Clock } from "../base/clock.ts";
import type { Durable } from "../base/durable.ts";
import { messageOf, TrilithError } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import { jitter, type Random } from "../base/random.ts";
import type { Written } from "../contracts/directory.ts";
import type { Batch, Commit, Storage } from "../contracts/storage.ts";
import type { Index } from "../model/record.ts";
import { ConsulFeed } from "./remote/consul-feed.ts";
import { Copy } from "./remote/copy.ts";
import type { Servers } from "./remote/servers.ts";
import { beatTo, commitTo, latestOf, NotTrilith, type Position, streamOf } from "./remote/trilith-feed.ts";

export interface RemoteOptions {
  readonly servers: Servers;
  /** This host's node. */
  readonly node: string;
  readonly datacenter: string;
  /** Without a sign of life for so long this host counts as gone. */
  readonly livenessMs: number;
  /** Where the last known good is kept. */
  readonly durable: Durable;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** The store with what is optional in the contract. */
export type RemoteStorage = Storage &
  Required<Pick<Storage, "follow" | "latest" | "alive">> & {
    /** True while the server is a real Consul. */
    ofConsul(): boolean;
    /** Who is followed, or that nobody answers. */
    state(): { readonly ok: boolean; readonly text: string };
  };

const RETRY = { firstMs: 50, lastMs: 5000 } as const;
/** Below the limit of Consul's transactions. */
const MAX_CHANGES = 100;

/** Builds the store; nothing is asked before `open`. */
export function createRemoteStorage(options: RemoteOptions): RemoteStorage {
  return new Remote(options);
}

/** A connection that stands. */
interface Live {
  readonly url: string;
  /** Undefined = it is a Trilith agent. */
  readonly consul: ConsulFeed | undefined;
}

class Remote implements RemoteStorage {
  readonly name = "remote";
  readonly shared = true;
  readonly maxChanges = MAX_CHANGES;
  readonly #options: RemoteOptions;
  readonly #log: Log;
  readonly #copy: Copy;
  readonly #closing = new AbortController();
  readonly #position: Position = { line: "", index: 0 };
  /** A connection that was opened and goes on in `follow`. */
  #opened: AsyncGenerator<Batch> | undefined;
  /** What stands behind the connection of this moment; undefined = there is none. */
  #live: Live | undefined;
  #loaded = false;

  constructor(options: RemoteOptions) {
    this.#options = options;
    this.#log = options.log.part("remote");
    this.#copy = new Copy(options.durable, options.clock, this.#log, options.servers.urls);
  }

  async *open(signal?: AbortSignal): AsyncGenerator<Batch> {
    if (!this.#loaded) {
      this.#loaded = true;
      const remembered = await this.#copy.load();
      if (remembered !== undefined) {
        const { rows, index, asOfMs } = remembered;
        yield { kind: "snapshot", index, rows, complete: true };
        yield { kind: "reachable", reachable: false, atMs: asOfMs };
        return;
      }
    }
    const batches = this.#batches(this.#until(signal));
    for (let batch = await batches.next(); batch.done !== true; batch = await batches.next()) {
      if (batch.value.kind === "reachable") {
        if (!batch.value.reachable) {
          await batches.return(undefined);
          throw new TrilithError("unavailable", `none of ${this.#options.servers.urls.join(", ")} answers`);
        }
        continue;
      }
      yield batch.value;
      if (batch.value.kind === "snapshot" && batch.value.complete) break;
    }
    this.#opened = batches;
  }

  async *follow(_after: Index, signal: AbortSignal): AsyncGenerator<Batch> {
    const batches = this.#opened ?? this.#batches(this.#until(signal));
    this.#opened = undefined;
    try {
      yield* batches;
    } finally {
      await batches.return(undefined);
    }
  }

  /** Batches for ever: one connection after the other. */
  async *#batches(signal: AbortSignal): AsyncGenerator<Batch> {
    const { servers, clock, random } = this.#options;
    for (let failures = 0; !signal.aborted; ) {
      const url = servers.current;
      try {
        for await (const batch of this.#connection(url, signal)) {
          if (failures > 0 || this.#live?.url !== url) this.#log.info(`following the directory of ${url}`);
          failures = 0;
          this.#copy.take(batch);
          yield batch;
        }
      } catch (error) {
        if (signal.aborted) return;
        this.#log.warn(`the directory of ${url} is away`, { error: messageOf(error) });
      } finally {
        this.#live = undefined;
      }
      servers.turnFrom(url);
      failures++;
      // Every server gets its chance before anything is said.
      if (failures % servers.urls.length !== 0) continue;
      yield { kind: "reachable", reachable: false, atMs: clock.now() };
      const round = failures / servers.urls.length - 1;
      await clock
        .sleep(jitter(Math.min(RETRY.lastMs, RETRY.firstMs * 2 ** Math.min(round, 10)), 0.3, random), signal)
        .catch(() => {});
    }
  }

  /** The batches of one connection; ends by throwing. */
  async *#connection(url: string, signal: AbortSignal): AsyncGenerator<Batch> {
    const { servers, livenessMs, datacenter, clock } = this.#options;
    const how = { beatMs: livenessMs / 3, datacenter, nowMs: () => clock.now() };
    try {
      for await (const batch of streamOf(servers, url, this.#position, how, signal)) {
        this.#live ??= { url, consul: undefined };
        yield batch;
      }
    } catch (error) {
      if (!(error instanceof NotTrilith)) throw error;
    }
    const consul = new ConsulFeed({ ...this.#options, url, log: this.#log, after: this.#position.index });
    for await (const batch of consul.batches(signal)) {
      this.#live ??= { url, consul };
      this.#position.line = "";
      if (batch.kind !== "reachable") this.#position.index = batch.index;
      yield batch;
    }
  }

  ofConsul(): boolean {
    return this.#live?.consul !== undefined;
  }

  state(): { readonly ok: boolean; readonly text: string } {
    const live = this.#live;
    if (live === undefined)
      return {
        ok: false,
        text: `none of ${this.#options.servers.urls.join(", ")} answers; what is known is the last known good`,
      };
    return { ok: true, text: `client host of ${live.url} (${live.consul === undefined ? "Trilith" : "Consul"})` };
  }

  #connected(): Live {
    if (this.#live !== undefined) return this.#live;
    throw new TrilithError("unavailable", `none of ${this.#options.servers.urls.join(", ")} is connected`);
  }

  async commit(commit: Commit, signal?: AbortSignal): Promise<Written> {
    // Removals are remembered where the change is made; clearing old ones away is the server's business, too.
    if (commit.changes.every(({ table }) => table === "grave")) return { result: "expectation-failed" };
    for (const { table } of commit.changes)
      if (table === "kv" || table === "session" || table === "kept")
        throw new TrilithError(
          "unsupported",
          `this host is only a client: "${table}" is kept by ${this.#options.servers.current}, ask there (Consul's HTTP API here hands such requests on)`,
        );
    const { url, consul } = this.#connected();
    const until = this.#until(signal);
    return consul === undefined ? commitTo(this.#options.servers, url, commit, until) : consul.commit(commit, until);
  }

  async latest(signal?: AbortSignal): Promise<Index> {
    const { url, consul } = this.#connected();
    const until = this.#until(signal);
    return consul === undefined ? latestOf(this.#options.servers, url, until) : consul.latest(until);
  }

  async alive(node: string, life: string, ttlMs: number, signal: AbortSignal): Promise<void> {
    const { servers, clock, random } = this.#options;
    const until = this.#until(signal);
    let complaint = "";
    while (!until.aborted) {
      const live = this.#live;
      try {
        if (live?.consul !== undefined) await live.consul.alive(node, life, ttlMs, until);
        else await beatTo(servers, live?.url ?? servers.current, node, life, ttlMs, until);
        complaint = "";
        this.#copy.stillTrue();
      } catch (error) {
        if (until.aborted) return;
        if (messageOf(error) !== complaint)
          this.#log.warn("no sign of life could be given", { error: messageOf(error) });
        complaint = messageOf(error);
      }
      // The server counts half of the time; three signs fit into that.
      await clock.sleep(jitter(ttlMs / (complaint === "" ? 6 : 20), 0.1, random), until).catch(() => {});
    }
  }

  async close(): Promise<void> {
    this.#closing.abort(new TrilithError("stopped", "the connection to the servers is closed"));
    await this.#copy.close();
  }

  #until(signal: AbortSignal | undefined): AbortSignal {
    return signal === undefined ? this.#closing.signal : AbortSignal.any([signal, this.#closing.signal]);
  }
}
