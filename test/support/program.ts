// The built program as people use it: an agent on free ports, and commands that ask it.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { eventually, freePort, ownFolder, startProgram } from "./peers.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** The program's file. */
export const program: string = process.env["TRILITH_PROGRAM"] ?? join(root, "dist", "cli", "main.js");

/** How a command ended. */
export interface Done {
  readonly exitCode: number | null;
  readonly out: string;
  readonly err: string;
}

/** Runs any command to its end. */
export function runToEnd(
  command: readonly string[],
  env: Readonly<Record<string, string>> = {},
  input = "",
): Promise<Done> {
  const [file = "", ...args] = command;
  const child = spawn(file, args, { stdio: ["pipe", "pipe", "pipe"], env: { ...process.env, ...env } });
  let out = "";
  let err = "";
  child.stdout.on("data", (chunk) => {
    out += chunk;
  });
  child.stderr.on("data", (chunk) => {
    err += chunk;
  });
  child.stdin.on("error", () => {});
  child.stdin.end(input);
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (exitCode) => resolve({ exitCode, out, err }));
  });
}

/** An agent that runs. */
export interface RunningAgent {
  readonly url: string;
  /** Runs `trilith …` against it. */
  trilith(args: readonly string[], input?: string): Promise<Done>;
  stop(): Promise<void>;
}

/** Starts `trilith agent` with these flags besides its own ports; resolves when it answers. */
export async function startAgent(flags: readonly string[]): Promise<RunningAgent> {
  if (!existsSync(program)) throw new Error(`${program} is missing: npm run build`);
  const folder = await ownFolder("agent");
  const [http, dns] = [await freePort(), await freePort()];
  const url = `http://127.0.0.1:${http}`;
  // Neither containers nor processes of other tests are this one's.
  const own = ["--http-port", `${http}`, "--dns-port", `${dns}`, "--docker-host", "off", "--environ", "off"];
  const agent = await startProgram([process.execPath, program, "agent", ...own, ...flags], join(folder.path, "log"));
  await eventually("the agent answers", async () => {
    const response = await fetch(`${url}/v1/health/service/consul`);
    return response.ok && ((await response.json()) as unknown[]).length > 0;
  }).catch(async (error: unknown) => {
    await agent.stop("SIGKILL");
    throw error;
  });
  return {
    url,
    trilith: (args, input) => runToEnd([process.execPath, program, ...args], { CONSUL_HTTP_ADDR: url }, input),
    async stop() {
      await agent.stop();
      await folder.remove();
    },
  };
}
