// What `createTrilith` takes and gives: the machine below an agent, and the agent in this process.
import type { Clock } from "../base/clock.ts";
import type { Disk } from "../base/disk.ts";
import type { Http } from "../base/http.ts";
import type { Log } from "../base/log.ts";
import type { Net } from "../base/net.ts";
import type { Processes } from "../base/process.ts";
import type { Random } from "../base/random.ts";
import type { Agent } from "../contracts/agent.ts";
import type { Connector } from "../contracts/connect.ts";
import type { Directory } from "../contracts/directory.ts";
import type { Events } from "../contracts/event.ts";
import type { Self, SourceState } from "../contracts/ground.ts";
import type { Kv } from "../contracts/kv.ts";
import type { Lookup } from "../contracts/lookup.ts";
import type { Magic } from "../contracts/magic.ts";
import type { Prepared } from "../contracts/prepared.ts";
import type { Sessions } from "../contracts/session.ts";
import type { Settings } from "../contracts/settings.ts";

/** The machine an agent runs on; tests bring their own pieces. */
export interface TrilithOptions {
  readonly log?: Log;
  readonly clock?: Clock;
  readonly random?: Random;
  readonly disk?: Disk;
  readonly net?: Net;
  readonly http?: Http & { close(): Promise<void> };
  readonly processes?: Processes;
  /** Reads the settings again, on a reload; absent = they are what they were. */
  readonly reread?: () => Promise<Partial<Settings>>;
}

/** An agent in this process. */
export interface Trilith {
  readonly self: Self;
  readonly settings: Settings;
  readonly directory: Directory;
  readonly agent: Agent;
  readonly lookup: Lookup;
  readonly kv: Kv;
  readonly sessions: Sessions;
  readonly events: Events;
  readonly prepared: Prepared;
  readonly magic: Magic;
  readonly connector: Connector;
  /** What was accepted at start without having an effect, and other things worth a look. */
  readonly warnings: readonly string[];
  sources(): readonly SourceState[];
  /** Resolves when every source has told its first list, or after `limitMs`: some have nothing to tell yet. */
  settled(limitMs: number): Promise<void>;
  /** Starts once. @throws TrilithError and leaves nothing behind when a part cannot start */
  start(): Promise<void>;
  /**
   * Has every part read its files and take its configuration again; what of it needs a restart is logged by name.
   * @throws TrilithError what the first that could not be taken failed with; it stays as it was, everything else is taken
   */
  reload(): Promise<void>;
  /** Resolves when somebody asked the agent to stop (a leave over HTTP) or the signal is aborted. */
  stopped(signal?: AbortSignal): Promise<void>;
  /** Stops once; afterwards every port, timer, file and socket is released. */
  stop(): Promise<void>;
}
