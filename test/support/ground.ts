// A whole agent in this process for tests: nothing on disk, HTTP on a free port, what it logs as errors is kept.
import { vi } from "vitest";
import { callbackLog } from "../../src/base/log.ts";
import type { Settings } from "../../src/contracts/settings.ts";
import { createTrilith, type Trilith, type TrilithOptions } from "../../src/trilith.ts";
import { eventually } from "./peers.ts";

export interface RunningAgent {
  readonly trilith: Trilith;
  /** `http://127.0.0.1:PORT` */
  readonly url: string;
  /** What was logged at level error. */
  readonly errors: readonly string[];
  stop(): Promise<void>;
}

/** Starts an agent called "alpha" without sources and DNS, unless the settings (and what is read again for a reload) say otherwise. */
export async function startAgent(
  settings: Partial<Settings> = {},
  options: TrilithOptions = {},
): Promise<RunningAgent> {
  const errors: string[] = [];
  const told = (own: Partial<Settings>): Partial<Settings> => ({
    dev: true,
    node: "alpha",
    httpPort: 0,
    ...own,
    protocols: { docker: false, process: false, file: false, dns: { port: -1 }, ...own.protocols },
  });
  const { reread } = options;
  const trilith = createTrilith(told(settings), {
    log: callbackLog((level, part, text, fields) => {
      if (level === "error") errors.push(`${part}: ${text} ${JSON.stringify(fields)}`);
    }),
    ...options,
    ...(reread === undefined ? {} : { reread: async () => told(await reread()) }),
  });
  await trilith.start();
  return {
    trilith,
    url: `http://${trilith.self.listening.get("http")}`,
    errors,
    stop: () => trilith.stop(),
  };
}

/** Resolves when somebody begins to wait for a change in `scope`. */
export function somebodyWaits({ trilith }: RunningAgent, scope: string): Promise<unknown> {
  const { calls } = vi.spyOn(trilith.directory, "changed").mock;
  const before = calls.length;
  return eventually(`somebody waits for ${scope}`, () => calls.slice(before).some(([each]) => each === scope));
}
