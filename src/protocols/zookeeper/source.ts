// The source "zookeeper": members of server sets, by watches; while ZooKeeper is away what was last known stands.
import { Bell } from "../../base/bells.ts";
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { openZooKeeper, ZooKeeper, ZooKeeperNews } from "../../base/zookeeper.ts";
import type { Directory, View } from "../../contracts/directory.ts";
import { lastKnown } from "../../contracts/second-hand.ts";
import type { Source, SourceHealth, SourceList } from "../../contracts/source.ts";
import { healthOf, keysOf } from "../../contracts/source-health.ts";
import { type WholeListParts, wholeLists } from "../../contracts/whole-list.ts";
import { goneKeyOf, type Registration } from "../../model/instance.ts";
import type { ZooKeeperConfig } from "./config.ts";
import { faultText, isRuled, isUnread, nameOf, SOURCE, setOf, sourceListOf, unreadText } from "./registrations.ts";
import { type Picture, readSets } from "./sets.ts";
import { Znodes } from "./znodes.ts";

export interface SourceMachine {
  readonly clock: Clock;
  readonly log: Log;
  readonly directory: Pick<Directory, "view" | "ready" | "changed">;
  readonly open: typeof openZooKeeper;
  /** This host's node. */
  readonly node: string;
}

/** Members that come together are one list. */
const TOGETHER_MS = 20;
const AGAIN_MS = 1000;
/** ZooKeeper keeps events from whoever may not read any more: sets are listed so often besides, to see whether they may. */
const PROBE_MS = 30_000;
/** Before anything was read. */
const NOTHING: Picture = { sets: [], unread: [] };

export class ServerSetSource implements Source {
  readonly name: string = SOURCE;
  readonly #config: ZooKeeperConfig;
  readonly #machine: SourceMachine;
  #picture: Picture | undefined;
  /** What an earlier life stated, of sets that were not read in this one. */
  #remembered: ReadonlyMap<string, Registration> = new Map();
  /** The last list, by `goneKeyOf`. */
  #last: ReadonlyMap<string, Registration> = new Map();
  #connection: Omit<SourceHealth, "entries"> = { ok: true, begun: false, text: "not started" };
  /** Something that was read is no longer true, or the connection is another. */
  readonly #stale = new Bell();

  constructor(config: ZooKeeperConfig, machine: SourceMachine) {
    this.#config = config;
    this.#machine = machine;
  }

  state(): SourceHealth {
    const { ok, text, ...begun } = this.#connection;
    const { sets, unread } = this.#picture ?? NOTHING;
    const missing = sets.filter(({ there }) => !there).map(({ path }) => path);
    const members = this.#last.size;
    const words = [
      `${members} ${members === 1 ? "endpoint" : "endpoints"}${ok ? "" : " last known"} of ${sets.length} server ${sets.length === 1 ? "set" : "sets"}`,
      ...(missing.length === 0 ? [] : [`not there yet: ${missing.join(", ")}`]),
      ...(this.#remembered.size === 0 ? [] : [`${this.#remembered.size} not heard of since the start`]),
    ];
    const faults = sets.flatMap((set) => set.faults.map((each) => `${set.path}/${each.name} ${faultText(each.text)}`));
    const names = new Set([...this.#config.sets, ...sets].map(({ path }) => path));
    const health = healthOf(
      `${text}: ${words.join("; ")}`,
      [...names].map((name) => {
        const one = unread.find((each) => nameOf(each) === name);
        return {
          ...{ name, text: one === undefined ? "" : unreadText(one) },
          tells: () => (one === undefined ? [] : keysOf(this.#last, (r) => isUnread(r, one, sets))),
        };
      }),
      faults,
    );
    // While nobody answers nothing of it is fresh.
    return ok ? { ...health, ...begun } : { ok, text: health.text };
  }

  readonly #news = (news: ZooKeeperNews): void => {
    const { servers } = this.#config;
    if (news.what === "away") {
      this.#connection = { ok: false, text: `ZooKeeper at ${servers} is away (${news.text})` };
      this.#machine.log.warn(`ZooKeeper at ${servers}: ${news.text}; what was last known stands`);
    } else {
      this.#connection = { ok: true, text: `ZooKeeper at ${news.server}` };
      this.#machine.log.info(`ZooKeeper at ${news.server}: session 0x${news.id}, ${news.timeoutMs} ms`);
    }
    this.#stale.ring();
  };

  async *watch(signal: AbortSignal): AsyncIterable<SourceList> {
    if (signal.aborted) return;
    const { clock, directory, open } = this.#machine;
    const { servers, sessionMs, auth } = this.#config;
    this.#picture = undefined;
    this.#connection = { ok: false, text: `ZooKeeper at ${servers} does not answer yet` };
    const zk = await open({
      ...{ servers, clock, sessionTimeoutMs: sessionMs, onNews: this.#news },
      ...(auth === undefined ? {} : { auth }),
    });
    const stop = (): void => {
      zk.abandon();
      this.#stale.ring();
    };
    signal.addEventListener("abort", stop, { once: true });
    const parts: WholeListParts = {
      ...{ clock, directory, scopes: ["nodes", "services"] },
      earlier: { source: SOURCE, node: this.#machine.node, isConfigured: (r) => isRuled(r, this.#config.sets) },
      begin: (view, ring, over) => {
        over.addEventListener("abort", stop, { once: true });
        this.#remember(view);
        return this.#read(zk, ring, over);
      },
      compose: (view) => this.#compose(view),
    };
    try {
      yield* wholeLists(parts, signal);
    } finally {
      signal.removeEventListener("abort", stop);
      stop();
      this.#connection = { ok: true, text: "not running" };
    }
  }

  /** Reads all sets, and again whenever something of them is no longer true. */
  async #read(zk: ZooKeeper, changed: () => void, signal: AbortSignal): Promise<void> {
    const { clock } = this.#machine;
    const znodes = new Znodes(zk, this.#stale.ring);
    const probing = this.#probe(zk, znodes, signal);
    try {
      while (!signal.aborted) {
        // Before the first connection nothing can be read, and nobody shall wait for it.
        if (zk.session() !== "" || this.#picture !== undefined) {
          this.#picture = await readSets(this.#config.sets, znodes, this.#picture);
          znodes.sweep();
          changed();
        }
        const again =
          (this.#picture ?? NOTHING).unread.length > 0 ? clock.after(AGAIN_MS, this.#stale.ring) : undefined;
        await this.#stale.heard();
        again?.cancel();
        await clock.sleep(TOGETHER_MS, signal);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      await probing;
    }
  }

  async #probe(zk: ZooKeeper, znodes: Znodes, signal: AbortSignal): Promise<void> {
    const { clock } = this.#machine;
    while (!signal.aborted) {
      await clock.sleep(PROBE_MS, signal).catch(() => {});
      if (!signal.aborted && zk.session() !== "") await znodes.probe();
    }
  }

  /** What an earlier life of this agent (or of this source) stated stands until it is read. */
  #remember(view: View): void {
    const known = [...lastKnown(view, SOURCE, this.#machine.node), ...this.#last.values()];
    this.#remembered = new Map(
      known.filter((r) => isRuled(r, this.#config.sets)).map((r) => [goneKeyOf(r), r] as const),
    );
  }

  #compose(view: View): SourceList {
    const { clock } = this.#machine;
    const picture = this.#picture;
    if (picture !== undefined) {
      // Of sets that could be read nothing is to be remembered any more.
      const { sets, unread } = picture;
      const read = new Set(sets.map(({ path }) => path));
      const left = [...this.#remembered].filter(
        ([, r]) => !read.has(setOf(r)) && unread.some((one) => isUnread(r, one, sets)),
      );
      if (left.length < this.#remembered.size) {
        this.#last = new Map([...this.#remembered, ...this.#last]);
        this.#remembered = new Map(left);
      }
    }
    const told = sourceListOf(picture ?? NOTHING, view, this.#last, clock.now());
    const list = new Map([...this.#remembered, ...told.list.map((r) => [goneKeyOf(r), r] as const)]);
    const gone = new Map([...(told.gone ?? [])].filter(([key]) => !list.has(key)));
    this.#last = list;
    return { ...told, list: [...list.values()], gone };
  }
}
