// The LAN: this host is announced as one that shows its own, and others that say so are asked; the key tells who is one of ours.
import { messageOf, TrilithError } from "../../base/error.ts";
import type { Log } from "../../base/log.ts";
import type { Ground } from "../../contracts/ground.ts";
import { AGENTS_TYPE, type Nearby } from "../../contracts/nearby.ts";

const AGAIN_MS = 5_000;
/** A label of DNS holds so many bytes. */
const LONGEST_NAME = 63;

export interface LanOptions extends Pick<Ground, "clock"> {
  readonly nearby: Nearby;
  readonly log: Log;
  readonly node: string;
  readonly port: number;
  /** Where others are at this moment, as `host:port`. */
  readonly found: (places: readonly string[]) => void;
}

/** Runs between `start` and `stop`. */
export class LanWatch {
  readonly #options: LanOptions;
  readonly #stop = new AbortController();
  #running: Promise<void> | undefined;

  constructor(options: LanOptions) {
    this.#options = options;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  async stop(): Promise<void> {
    this.#stop.abort(new TrilithError("stopped", "the agent is stopping"));
    await this.#running;
  }

  async #run(): Promise<void> {
    const { clock, nearby, log, node, port, found } = this.#options;
    const { signal } = this.#stop;
    const name = node.length <= LONGEST_NAME ? node : node.slice(0, LONGEST_NAME);
    while (!signal.aborted) {
      try {
        for await (const places of nearby.meet({ type: AGENTS_TYPE, port, name }, signal)) found(places);
      } catch (error) {
        if (signal.aborted) return;
        log.warn("looking for others on the LAN, trying again", { error: messageOf(error) });
      }
      await clock.sleep(AGAIN_MS, signal).catch(() => {});
    }
  }
}
