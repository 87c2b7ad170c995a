// Runs the Consul conformance kit against the built agent, started anew for each scenario with the arguments that are wanted.
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { freePort, ownFolder } from "./peers.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const kit = join(root, "test", "conformance", "consul");
const program = join(root, "dist", "cli", "main.js");

/** These wait for seconds again and again: they are dealt out first. */
const SLOW = ["check-http", "check-thresholds", "blocking-kv", "blocking-health", "session-ttl", "check-http-options"];
const LANES = 3;

interface Row {
  readonly name: string;
  readonly passed: number;
  readonly failed: number;
  readonly failures: readonly {
    readonly step: string;
    readonly what: string;
    readonly differences: readonly string[];
  }[];
}

/** What came of one scenario. */
export interface Replayed {
  readonly passed: number;
  /** Each step that differs, in one line. */
  readonly differences: readonly string[];
}

/** The names of all scenarios, slow ones first. */
export const scenarios: readonly string[] = (await readdir(join(kit, "scenarios")))
  .map((file) => file.replace(/\.json$/, ""))
  .sort((a, b) => Number(SLOW.includes(b)) - Number(SLOW.includes(a)) || (a < b ? -1 : 1));

/** All scenarios, replayed. */
export interface Replays {
  /** What came of a scenario. Whoever asks once more tries once more: it is replayed by itself then. @throws Error where it was not run */
  of(scenario: string): Promise<Replayed>;
}

/**
 * Replays all scenarios, some at a time, a fresh agent for each.
 * @param flags of the agent, instead of `-dev`; the replayer's shell reads them: `$$` is another number for each agent, {folder} a folder that is removed in the end
 */
export async function replayAll(flags: string): Promise<Replays> {
  if (!existsSync(program)) throw new Error("dist/ is missing: npm run build");
  const lanes = Array.from({ length: LANES }, (_, lane) => scenarios.filter((_, i) => i % LANES === lane));
  const first = new Map(await replay(flags, lanes));
  return {
    async of(scenario) {
      const row = first.get(scenario) ?? (await replay(flags, [[scenario]])).get(scenario);
      first.delete(scenario);
      if (row === undefined) throw new Error(`${scenario} was not run`);
      return row;
    },
  };
}

/** Replays the scenarios of each lane one after the other, all lanes at once. */
async function replay(flags: string, lanes: readonly (readonly string[])[]): Promise<ReadonlyMap<string, Replayed>> {
  const folder = await ownFolder("conformance");
  const rows = new Map<string, Replayed>();
  const one = async (only: readonly string[], lane: number): Promise<void> => {
    const [http, dns, aux] = [await freePort(), await freePort(), await freePort()];
    const result = join(folder.path, `lane-${lane}.json`);
    const start = [
      `${process.execPath} ${program} agent ${flags.replaceAll("{folder}", folder.path)}`,
      "-compat consul -node=alpha -client 127.0.0.1 -bind 127.0.0.1 -config-file {config}",
    ].join(" ");
    const child = spawn(
      process.execPath,
      [
        join(kit, "replay.mjs"),
        ...["--http", `http://127.0.0.1:${http}`, "--dns", `127.0.0.1:${dns}`, "--aux-port", String(aux)],
        ...["--only", only.join(","), "--start", start],
        ...["--ready-timeout", "60000", "--json", result, "--log", join(folder.path, `lane-${lane}.log`), "--quiet"],
      ],
      { stdio: ["ignore", "pipe", "pipe"] },
    );
    let output = "";
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (chunk) => {
        output += chunk;
      });
    await new Promise<void>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", () => resolve());
    });
    if (!existsSync(result)) throw new Error(`the replayer left no result: ${output}`);
    for (const row of (JSON.parse(await readFile(result, "utf8")) as { scenarios: Row[] }).scenarios)
      rows.set(row.name, {
        passed: row.passed,
        differences: row.failures.map(({ step, what, differences }) => `${step} ${what}: ${differences.join("; ")}`),
      });
  };
  try {
    await Promise.all(lanes.map(one));
    return rows;
  } finally {
    await folder.remove();
  }
}
