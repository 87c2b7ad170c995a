// An agent as a process of its own, built from settings, so that it can be killed, paused and started again on the same data.
import { fileURLToPath } from "node:url";
import type { Settings } from "../../src/contracts/settings.ts";
import { eventually, freePort, ownFolder, startProgram } from "./peers.ts";

const TRILITH = fileURLToPath(new URL("../../src/trilith.ts", import.meta.url));
const PROGRAM = `
  const { createTrilith } = await import(${JSON.stringify(TRILITH)});
  const trilith = createTrilith(JSON.parse(process.argv[1]));
  process.once("SIGTERM", () => trilith.stop().then(() => process.exit(0)));
  await trilith.start();
`;

/** What disturbs tests that are about something else. */
export const QUIET: Settings["protocols"] = { docker: false, process: false, file: false, dns: false };

export interface AgentProcess {
  readonly url: string;
  /** Resolves when it answers. */
  start(): Promise<void>;
  /** Goes on first where it was paused. */
  stop(signal: NodeJS.Signals): Promise<void>;
  signal(signal: NodeJS.Signals): void;
  /** Ends it and removes its data. */
  remove(): Promise<void>;
}

/**
 * Starts it with a data folder and an HTTP port of its own. `more.program` runs after the start, with `trilith` in scope and
 * `more.args` as `process.argv[2]` and following.
 */
export async function startAgentProcess(
  settings: Partial<Settings> & Required<Pick<Settings, "protocols">> & { readonly node: string },
  more: { readonly program?: string; readonly args?: readonly string[] } = {},
): Promise<AgentProcess> {
  const folder = await ownFolder(`agent-${settings.node}`);
  const httpPort = await freePort();
  const url = `http://127.0.0.1:${httpPort}`;
  const all = { dataDir: `${folder.path}/data`, httpPort, advertiseAddress: "127.0.0.1", ...settings };
  let program: Awaited<ReturnType<typeof startProgram>> | undefined;
  const agent: AgentProcess = {
    url,
    async start() {
      const node = [process.execPath, "--import", "tsx", "--input-type=module", "-e", PROGRAM + (more.program ?? "")];
      program = await startProgram([...node, JSON.stringify(all), ...(more.args ?? [])], `${folder.path}/log`);
      await eventually(`agent ${settings.node} answers`, async () => (await fetch(`${url}/v1/agent/self`)).ok, 60_000);
    },
    async stop(signal) {
      const ending = program;
      program = undefined;
      if (ending === undefined) return;
      try {
        process.kill(ending.pid, "SIGCONT");
      } catch {
        // It ended by itself.
      }
      await ending.stop(signal);
    },
    signal: (signal) => void (program !== undefined && process.kill(program.pid, signal)),
    async remove() {
      await agent.stop("SIGKILL");
      await folder.remove();
    },
  };
  try {
    await agent.start();
  } catch (error) {
    await agent.remove();
    throw error;
  }
  return agent;
}
