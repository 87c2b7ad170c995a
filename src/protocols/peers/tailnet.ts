// The tailnet: this host's own is shown at its address there, and every host that is online is asked at the same port.
import { codeOf, messageOf, TrilithError } from "../../base/error.ts";
import type { Handler } from "../../base/http.ts";
import type { Log } from "../../base/log.ts";
import { hostPort, type Listening } from "../../base/net.ts";
import { jitter } from "../../base/random.ts";
import { createLocalApi, speakingAddress, troubleOf } from "../../base/tailnet.ts";
import type { Ground, SourceState } from "../../contracts/ground.ts";

export interface TailnetOptions extends Pick<Ground, "clock" | "random" | "http"> {
  readonly log: Log;
  /** tailscaled's unix socket. */
  readonly socket: string | undefined;
  readonly port: number;
  readonly handle: Handler;
  /** The hosts that are online at this moment, as `host:port`. */
  readonly found: (places: readonly string[]) => void;
}

/** How often tailscaled is asked; sooner until it has an address. */
const STATUS_MS = 3_000;
const HURRY_MS = 1_000;

/** Runs between `start` and `stop`. */
export class TailnetWatch {
  readonly #options: TailnetOptions;
  readonly #stop = new AbortController();
  #running: Promise<void> | undefined;
  #listening: Listening | undefined;
  #trouble: string | undefined = "tailscaled was not asked yet";

  constructor(options: TailnetOptions) {
    this.#options = options;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** Asks no more; what listens goes on listening until `close`. */
  async stop(): Promise<void> {
    this.#stop.abort(new TrilithError("stopped", "the agent is stopping"));
    await this.#running;
  }

  async close(): Promise<void> {
    const listening = this.#listening;
    this.#listening = undefined;
    await listening?.close();
  }

  state(): SourceState {
    const at = this.#listening;
    const shown = at === undefined ? "" : `this host's own is shown at ${hostPort(at.host, at.port)}`;
    return {
      name: "peers on the tailnet",
      ok: this.#trouble === undefined,
      text: [this.#trouble, shown].filter((part) => part !== undefined && part !== "").join("; "),
    };
  }

  async #run(): Promise<void> {
    const { clock, random, http, socket, log, found, port } = this.#options;
    const { signal } = this.#stop;
    const localApi = createLocalApi(http, socket);
    while (!signal.aborted) {
      const before = this.#trouble;
      try {
        const tailnet = await localApi.status(signal);
        const own = speakingAddress(tailnet.own);
        this.#trouble =
          troubleOf(tailnet, localApi.path) ??
          (tailnet.tun
            ? undefined
            : `tailscaled at ${localApi.path} runs with userspace networking, through which other hosts cannot be asked: give it a TUN device`);
        // While it is stopped or logged out the last hosts are kept: who is gone falls silent by himself.
        if (this.#trouble === undefined && own !== undefined) {
          await this.#listenAt(own);
          found(
            tailnet.peers.flatMap((host) => {
              const address = speakingAddress(host);
              return host.online && address !== undefined ? [hostPort(address, port)] : [];
            }),
          );
        }
      } catch (error) {
        if (signal.aborted) return;
        this.#trouble = codeOf(error) === "not-found" ? `there is no tailscaled at ${localApi.path}` : messageOf(error);
      }
      if (this.#trouble !== before && this.#trouble !== undefined) log.warn(`the tailnet: ${this.#trouble}`);
      const waitMs = this.#trouble === undefined ? STATUS_MS : HURRY_MS;
      await clock.sleep(jitter(waitMs, 0.1, random), signal).catch(() => {});
    }
  }

  /** A host may get another address: a new login, another tailnet. */
  async #listenAt(host: string): Promise<void> {
    const { http, port, handle, log } = this.#options;
    if (this.#listening?.host === host) return;
    await this.close();
    this.#listening = await http.serve({ host, port }, handle);
    log.info(`this host's own is shown at ${hostPort(host, port)}`);
  }
}
