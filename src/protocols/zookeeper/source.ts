// The source "zookeeper": members of server sets, by watches; while ZooKeeper is away what was last known stands.
import type { Clock, Timer } from "../../base/clock.ts";
import { codeOf } from "../../base/error.ts";
import type { Log } from "../../base/log.ts";
import type { openZooKeeper, ZooKeeperNews } from "../../base/zookeeper.ts";
import type { Directory } from "../../contracts/directory.ts";
import { lastKnown } from "../../contracts/second-hand.ts";
import type { Source, SourceList } from "../../contracts/source.ts";
import { goneKeyOf, type Registration } from "../../model/instance.ts";
import type { ZooKeeperConfig } from "./config.ts";
import { isRuled, SOURCE, sourceListOf } from "./registrations.ts";
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
/** Changes of the directory, of which most concern nobody here, are looked at so much later. */
const LOOK_MS = 250;
const AGAIN_MS = 1000;

export class ServerSetSource implements Source {
  readonly name: string = SOURCE;
  readonly #config: ZooKeeperConfig;
  readonly #machine: SourceMachine;
  #picture: Picture | undefined;
  /** What an earlier life stated, of sets that were not read in this one. */
  #remembered: ReadonlyMap<string, Registration> = new Map();
  /** The last list, by `goneKeyOf`. */
  #last: ReadonlyMap<string, Registration> = new Map();
  #connection: { readonly ok: boolean; readonly text: string } = { ok: true, text: "not started" };
  #rung = false;
  #wake: (() => void) | undefined;

  constructor(config: ZooKeeperConfig, machine: SourceMachine) {
    this.#config = config;
    this.#machine = machine;
  }

  state(): { readonly ok: boolean; readonly text: string } {
    const { ok, text } = this.#connection;
    const { sets = [], unread = new Map<never, string>() } = this.#picture ?? {};
    const [first] = [...unread].map(([rule, why]) => `${(rule as { path: string }).path}: ${why}`);
    const missing = sets.filter(({ there }) => !there).map(({ path }) => path);
    const faults = sets.reduce((sum, set) => sum + set.faults.length, 0);
    const members = this.#last.size;
    const words = [
      `${members} ${members === 1 ? "endpoint" : "endpoints"}${ok ? "" : " last known"} of ${sets.length} server ${sets.length === 1 ? "set" : "sets"}`,
      ...(missing.length === 0 ? [] : [`not there yet: ${missing.join(", ")}`]),
      ...(faults === 0 ? [] : [`${faults} members are left out`]),
      ...(this.#remembered.size === 0 ? [] : [`${this.#remembered.size} not heard of since the start`]),
      ...(first === undefined ? [] : [first]),
    ];
    return { ok: ok && first === undefined, text: `${text}: ${words.join("; ")}` };
  }

  readonly #ring = (): void => {
    this.#rung = true;
    this.#wake?.();
  };

  readonly #news = (news: ZooKeeperNews): void => {
    const { servers } = this.#config;
    if (news.what === "away") {
      this.#connection = { ok: false, text: `ZooKeeper at ${servers} is away (${news.text})` };
      this.#machine.log.warn(`ZooKeeper at ${servers}: ${news.text}; what was last known stands`);
    } else {
      this.#connection = { ok: true, text: `ZooKeeper at ${news.server}` };
      this.#machine.log.info(`ZooKeeper at ${news.server}: session 0x${news.id}, ${news.timeoutMs} ms`);
    }
    this.#ring();
  };

  async *watch(signal: AbortSignal): AsyncIterable<SourceList> {
    if (signal.aborted) return;
    const { clock, directory, open } = this.#machine;
    const { servers, sessionMs, auth, sets: rules } = this.#config;
    const over = new AbortController();
    const either = AbortSignal.any([signal, over.signal]);
    let following: readonly Promise<void>[] = [];
    this.#connection = { ok: false, text: `ZooKeeper at ${servers} does not answer yet` };
    const zk = await open({
      ...{ servers, clock, sessionTimeoutMs: sessionMs, onNews: this.#news },
      ...(auth === undefined ? {} : { auth }),
    });
    const znodes = new Znodes(zk, this.#ring);
    const stop = (): void => {
      zk.abandon();
      this.#ring();
    };
    signal.addEventListener("abort", stop, { once: true });
    try {
      await directory.ready(signal);
      this.#remember();
      following = (["nodes", "services"] as const).map((scope) => this.#follow(scope, either));
      let last: string | undefined;
      while (!signal.aborted) {
        this.#rung = false;
        // Before the first connection nothing is known, and nobody shall wait for it.
        if (zk.session() !== "" || this.#picture !== undefined) {
          this.#picture = await readSets(rules, znodes, this.#picture);
          znodes.sweep();
        }
        const list = this.#compose();
        const text = JSON.stringify([list.list, list.complaints]);
        if (text !== last) {
          last = text;
          yield list;
        }
        await this.#bell(signal);
        if (!signal.aborted) await clock.sleep(TOGETHER_MS, signal);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      signal.removeEventListener("abort", stop);
      over.abort(new Error("no longer read"));
      this.#connection = { ok: true, text: "not running" };
      await zk.close();
      await Promise.all(following);
    }
  }

  /** What an earlier life of this agent (or of this source) stated stands until it is read. */
  #remember(): void {
    const { directory, node } = this.#machine;
    this.#picture = undefined;
    const known = [...lastKnown(directory.view(), SOURCE, node), ...this.#last.values()];
    this.#remembered = new Map(
      known.filter((r) => isRuled(r, this.#config.sets)).map((r) => [goneKeyOf(r), r] as const),
    );
  }

  #compose(): SourceList {
    const { directory, clock } = this.#machine;
    const picture = this.#picture;
    if (picture !== undefined) {
      // Of sets that could be read nothing is to be remembered any more.
      const unread = [...picture.unread.keys()];
      const read = new Set(picture.sets.map(({ path }) => path));
      const left = [...this.#remembered].filter(
        ([, r]) => isRuled(r, unread) && !read.has(r.labels["zookeeper-set"] ?? ""),
      );
      if (left.length < this.#remembered.size) {
        this.#last = new Map([...this.#remembered, ...this.#last]);
        this.#remembered = new Map(left);
      }
    }
    const told = sourceListOf(picture ?? { sets: [], unread: new Map() }, directory.view(), this.#last, clock.now());
    const list = new Map([...this.#remembered, ...told.list.map((r) => [goneKeyOf(r), r] as const)]);
    const gone = new Map([...(told.gone ?? [])].filter(([key]) => !list.has(key)));
    this.#last = list;
    return { ...told, list: [...list.values()], gone };
  }

  /** Rings after changes of the directory: an instance may be known at first hand now, or no more. */
  async #follow(scope: "nodes" | "services", signal: AbortSignal): Promise<void> {
    const { clock, directory } = this.#machine;
    try {
      let at = directory.view().at(scope);
      while (!signal.aborted) {
        at = await directory.changed(scope, at, signal);
        await clock.sleep(LOOK_MS, signal);
        at = Math.max(at, directory.view().at(scope));
        this.#ring();
      }
    } catch (error) {
      if (!signal.aborted && codeOf(error) !== "stopped") throw error;
    }
  }

  async #bell(signal: AbortSignal): Promise<void> {
    if (this.#rung || signal.aborted) return;
    let timer: Timer | undefined;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      if ((this.#picture?.unread.size ?? 0) > 0) timer = this.#machine.clock.after(AGAIN_MS, resolve);
    });
    this.#wake = undefined;
    timer?.cancel();
  }
}
