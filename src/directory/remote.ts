// The store of a client host: another agent's directory, a Trilith's or a real Consul's, followed over HTTP and written to over HTTP.
import type { Clock } from "../base/clock.ts";
import type { Durable } from "../base/durable.ts";
import { codeOf, messageOf, TrilithError } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import { jitter, type Random } from "../base/random.ts";
import type { Servers } from "../base/servers.ts";
import type { Written } from "../contracts/directory.ts";
import type { Batch, Commit, Storage } from "../contracts/storage.ts";
import type { Index } from "../model/record.ts";
import { ConsulFeed } from "./remote/consul-feed.ts";
import { Copy } from "./remote/copy.ts";
import { Keeper } from "./remote/keep.ts";
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
  Required<Pick<Storage, "clearedElsewhere" | "follow" | "latest" | "alive">> & {
    /** True while the server is a real Consul. */
    ofConsul(): boolean;
    /** Who is followed, or that nobody answers. */
    state(): { readonly ok: boolean; readonly text: string };
    /** The nodes through which the directory comes here, the nearest first; empty while that is not known. */
    via(): readonly string[];
  };

/** Ends a connection so that the same server's content is read anew. */
class ReadAnew extends Error {}

const RETRY = { firstMs: 50, lastMs: 5000 } as const;
/** What the commonest reason for a refused connection is. */
const NOT_LISTENING = "an agent listens on loopback only, unless its --client names the address that this host reaches";
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
  /** Removals are remembered where the change is made; clearing old ones away is the server's business, too. */
  readonly clearedElsewhere = true;
  readonly maxChanges = MAX_CHANGES;
  readonly #options: RemoteOptions;
  readonly #log: Log;
  readonly #copy: Copy;
  readonly #keeper: Keeper;
  readonly #closing = new AbortController();
  /** Ends the connection of this moment, so that everything is read anew. */
  #again = new AbortController();
  /** Why nobody is connected; "" = nothing has failed yet. */
  #trouble = "";
  /** True where the trouble is that this host may not join. */
  #refused = false;
  /** What was said last of servers that are away or do not let this host in, until one of them does. */
  readonly #troubles = new Map<string, string>();
  readonly #position: Position = { line: "", index: 0, resumed: false, via: [] };
  /** A connection that was opened and goes on in `follow`. */
  #opened: AsyncGenerator<Batch> | undefined;
  /** What stands behind the connection of this moment; undefined = there is none. */
  #live: Live | undefined;
  #loaded = false;

  constructor(options: RemoteOptions) {
    this.#options = options;
    this.#log = options.log.part("remote");
    this.#copy = new Copy(options.durable, options.clock, this.#log, options.servers.urls);
    this.#keeper = new Keeper(options.node, options.clock, this.#log, () => this.#again.abort(new ReadAnew()));
  }

  async *open(signal?: AbortSignal): AsyncGenerator<Batch> {
    if (!this.#loaded) {
      this.#loaded = true;
      const remembered = await this.#copy.load();
      if (remembered !== undefined) {
        const { rows, index, asOfMs } = remembered;
        this.#keeper.remember(rows, asOfMs);
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
          throw new TrilithError("unavailable", this.#nobody());
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
      // It may have been said while nobody was connected: who goes on where it left off hears only what has changed since.
      if (this.#again.signal.aborted) this.#position.line = "";
      this.#again = new AbortController();
      try {
        for await (const batch of this.#connection(url, AbortSignal.any([signal, this.#again.signal]))) {
          if (failures > 0 || this.#live?.url !== url) this.#log.info(`following the directory of ${url}`);
          failures = 0;
          this.#troubles.clear();
          yield* this.#handOn(batch);
        }
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof ReadAnew) continue;
        const refused = codeOf(error) === "not-allowed";
        this.#trouble = messageOf(error);
        this.#refused = refused;
        // Told once: it stays as it is until somebody does something about it.
        if (this.#trouble !== this.#troubles.get(url)) {
          this.#troubles.set(url, this.#trouble);
          this.#log.warn(refused ? `${url} does not let this host in` : `the directory of ${url} is away`, {
            error: this.#trouble,
            ...(this.#trouble.includes("ECONNREFUSED") ? { hint: NOT_LISTENING } : {}),
          });
        }
      } finally {
        this.#live = undefined;
        this.#position.via = [];
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

  /** A batch with what is kept; while something is, the directory is told that its content is of that time. */
  *#handOn(batch: Batch): Generator<Batch> {
    const kept = this.#keeper.kept;
    if (batch.kind === "reachable" && batch.reachable && kept !== undefined) return;
    this.#copy.take(batch, kept?.goodMs);
    yield batch;
    if (batch.kind !== "reachable" && kept !== undefined)
      yield { kind: "reachable", reachable: false, atMs: kept.goodMs };
  }

  /** The batches of one connection; ends by throwing. */
  async *#connection(url: string, signal: AbortSignal): AsyncGenerator<Batch> {
    const { servers, livenessMs, datacenter, clock } = this.#options;
    const how = { beatMs: livenessMs / 3, datacenter, node: this.#options.node, nowMs: () => clock.now() };
    const position = this.#position;
    try {
      for await (const batch of streamOf(servers, url, position, how, signal)) {
        this.#live ??= { url, consul: undefined };
        yield this.#keeper.take(batch, position.resumed, url);
      }
    } catch (error) {
      if (!(error instanceof NotTrilith)) throw error;
    }
    const consul = new ConsulFeed({ ...this.#options, url, after: position.index });
    for await (const batch of consul.batches(signal)) {
      this.#live ??= { url, consul };
      position.line = "";
      position.via = [];
      if (batch.kind !== "reachable") position.index = batch.index;
      yield this.#keeper.take(batch, false, url);
    }
  }

  ofConsul(): boolean {
    return this.#live?.consul !== undefined;
  }

  state(): { readonly ok: boolean; readonly text: string } {
    const live = this.#live;
    if (live === undefined) {
      const why = this.#trouble === "" || this.#refused ? "" : ` (${this.#trouble})`;
      return { ok: false, text: `${this.#nobody()}${why}; what is known is the last known good` };
    }
    const kept = this.#keeper.kept;
    if (kept !== undefined)
      return {
        ok: false,
        text: `${live.url} no longer knows ${kept.missing} of ${kept.known} instances: they are kept until ${new Date(kept.untilMs).toISOString()}, or until most are back`,
      };
    return { ok: true, text: `client host of ${live.url} (${live.consul === undefined ? "Trilith" : "Consul"})` };
  }

  via(): readonly string[] {
    return this.#position.via;
  }

  #nobody(): string {
    return this.#refused ? this.#trouble : `none of ${this.#options.servers.urls.join(", ")} answers`;
  }

  #connected(): Live {
    if (this.#live !== undefined) return this.#live;
    throw new TrilithError("unavailable", `none of ${this.#options.servers.urls.join(", ")} is connected`);
  }

  async commit(commit: Commit, signal?: AbortSignal): Promise<Written> {
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
        if (this.#keeper.kept === undefined) this.#copy.stillTrue();
        this.#keeper.stillTrue();
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
    this.#keeper.stop();
    await this.#copy.close();
  }

  #until(signal: AbortSignal | undefined): AbortSignal {
    return signal === undefined ? this.#closing.signal : AbortSignal.any([signal, this.#closing.signal]);
  }
}
