// The agent's own watches, from its configuration files: each follows its read by itself, and tells its script or URL of every change.
import type { Clock } from "../../base/clock.ts";
import { messageOf, TrilithError } from "../../base/error.ts";
import type { Http } from "../../base/http.ts";
import type { Log } from "../../base/log.ts";
import type { Processes } from "../../base/process.ts";
import type { Random } from "../../base/random.ts";
import type { WatchConfig, WatchHandler } from "./watch-config.ts";
import { type Fetched, follow, handlerInput, planOf } from "./watch-plan.ts";

export interface WatchesBase {
  readonly ask: (path: string, signal: AbortSignal) => Promise<Fetched>;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly processes: Pick<Processes, "run" | "env">;
  readonly http: Pick<Http, "request">;
  /** False: handlers that are scripts are not run. */
  readonly scripts: boolean;
}

/** Watches that run. */
export interface Watches {
  /** From now on these; those that were there already go on as they are. */
  replace(watches: readonly WatchConfig[]): void;
  /** Ends all of them. Handlers that run are told to end; nobody waits for one that does not. */
  stop(): Promise<void>;
}

const OUTPUT_MAX_BYTES = 4096;
/** How long a script that was told to end may take before it is killed. */
const GRACE_MS = 1000;
/** A handler that takes longer than this is worth a line in the log: until it ends, its watch tells nothing. */
const LONG_MS = 60_000;

interface Running {
  readonly stop: AbortController;
  readonly done: Promise<void>;
}

/** No watches yet. */
export function createWatches(base: WatchesBase): Watches {
  const log = base.log.part("watch");
  const running = new Map<string, Running>();

  const run = async (watch: WatchConfig, signal: AbortSignal): Promise<void> => {
    const what = nameOf(watch);
    await follow(
      planOf(watch.params),
      {
        ...base,
        signal,
        onFailure: (error, pauseMs) =>
          log.error(`${what} failed, trying again in ${Math.round(pauseMs)} ms`, { error: messageOf(error) }),
      },
      async (index, data) => {
        const slow = base.clock.after(LONG_MS, () =>
          log.warn(`the handler of ${what} has been running for ${LONG_MS / 1000} s: nothing is told until it ends`),
        );
        try {
          if (watch.handler.kind === "script") await runScript(watch.handler, what, index, data, signal);
          else await send(watch.handler, what, index, data, signal);
        } catch (error) {
          if (!signal.aborted) log.error(`the handler of ${what} failed`, { error: messageOf(error) });
        } finally {
          slow.cancel();
        }
        return true;
      },
    );
  };

  async function runScript(
    { command }: WatchHandler & { readonly kind: "script" },
    what: string,
    index: string,
    data: unknown,
    signal: AbortSignal,
  ): Promise<void> {
    const shell = base.processes.env("SHELL") || "/bin/sh";
    const ended = await base.processes.run(typeof command === "string" ? [shell, "-c", command] : command, {
      signal,
      keepBytes: OUTPUT_MAX_BYTES,
      graceMs: GRACE_MS,
      env: { CONSUL_INDEX: index, TRILITH_INDEX: index },
      input: handlerInput(data),
    });
    const output = Buffer.from(ended.output).toString("utf8");
    if (ended.exitCode === 0) log.debug(`the handler of ${what} ran`, { output });
    else
      log.error(
        `the handler of ${what} ended with ${ended.exitCode === null ? `signal ${ended.signal}` : `exit status ${ended.exitCode}`}`,
        { output },
      );
  }

  async function send(
    { url, method, headers, timeoutMs, skipVerify }: WatchHandler & { readonly kind: "http" },
    what: string,
    index: string,
    data: unknown,
    signal: AbortSignal,
  ): Promise<void> {
    const limit = new AbortController();
    const onStop = (): void => limit.abort(signal.reason);
    signal.addEventListener("abort", onStop, { once: true });
    const timer = base.clock.after(timeoutMs, () =>
      limit.abort(new TrilithError("timeout", `${url} did not answer within ${timeoutMs} ms`)),
    );
    try {
      const response = await base.http.request({
        url,
        method,
        headers: { ...headers, "Content-Type": "application/json", "X-Consul-Index": index },
        body: handlerInput(data),
        signal: limit.signal,
        ...(skipVerify ? { tls: { skipVerify } } : {}),
      });
      const output = (await response.text()).slice(0, OUTPUT_MAX_BYTES);
      if (response.status >= 200 && response.status < 300) log.debug(`${url} was told of ${what}`, { output });
      else log.error(`${url} was told of ${what} and answered with status ${response.status}`, { output });
    } finally {
      timer.cancel();
      signal.removeEventListener("abort", onStop);
    }
  }

  return {
    replace(watches) {
      const wanted = new Map<string, WatchConfig>();
      for (const watch of watches) {
        if (watch.handler.kind === "script" && !base.scripts)
          log.error(
            `${nameOf(watch)} does not run: its handler is a script, and scripts of files are off (enable_local_script_checks switches them on)`,
          );
        else wanted.set(JSON.stringify(watch), watch);
      }
      for (const [key, { stop }] of running)
        if (!wanted.has(key)) {
          stop.abort(new TrilithError("stopped", "the watch is not configured any more"));
          running.delete(key);
        }
      for (const [key, watch] of wanted) {
        if (running.has(key)) continue;
        const stop = new AbortController();
        const done = run(watch, stop.signal).catch((error: unknown) => {
          log.error(`${nameOf(watch)} ended`, { error: messageOf(error) });
        });
        running.set(key, { stop, done });
      }
    },
    async stop() {
      const all = [...running.values()];
      running.clear();
      for (const { stop } of all) stop.abort(new TrilithError("stopped", "the agent is stopping"));
      await Promise.all(all.map(({ done }) => done));
    },
  };
}

/** A watch in a few words, for the log. */
function nameOf({ params }: WatchConfig): string {
  const of = params.key ?? params.prefix ?? params.service ?? params.name ?? params.state;
  return `the watch of type ${params.type}${of === undefined ? "" : ` of ${JSON.stringify(of)}`}`;
}
