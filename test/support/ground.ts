// A whole agent in this process for tests: nothing on disk, HTTP on a free port, what it logs as errors is kept.
import { callbackLog } from "../../src/base/log.ts";
import type { Settings } from "../../src/contracts/settings.ts";
import { createTrilith, type Trilith, type TrilithOptions } from "../../src/trilith.ts";

export interface RunningAgent {
  readonly trilith: Trilith;
  /** `http://127.0.0.1:PORT` */
  readonly url: string;
  /** What was logged at level error. */
  readonly errors: readonly string[];
  stop(): Promise<void>;
}

/** Starts an agent called "alpha" without sources and DNS, unless the settings say otherwise. */
export async function startAgent(
  settings: Partial<Settings> = {},
  options: TrilithOptions = {},
): Promise<RunningAgent> {
  const errors: string[] = [];
  const trilith = createTrilith(
    {
      dev: true,
      node: "alpha",
      httpPort: 0,
      ...settings,
      protocols: { docker: false, process: false, file: false, dns: { port: -1 }, ...settings.protocols },
    },
    {
      log: callbackLog((level, part, text, fields) => {
        if (level === "error") errors.push(`${part}: ${text} ${JSON.stringify(fields)}`);
      }),
      ...options,
    },
  );
  await trilith.start();
  return {
    trilith,
    url: `http://${trilith.self.listening.get("http")}`,
    errors,
    stop: () => trilith.stop(),
  };
}
