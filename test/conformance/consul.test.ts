// Trilith's agent held against the recorded answers of a real Consul 1.19.2, scenario by scenario (test/conformance/consul/README.md).
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { freePort, ownFolder } from "../support/peers.ts";

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

const names = (await readdir(join(kit, "scenarios")))
  .map((file) => file.replace(/\.json$/, ""))
  .sort((a, b) => Number(SLOW.includes(b)) - Number(SLOW.includes(a)) || (a < b ? -1 : 1));

const rows = new Map<string, Row>();
let folder: Awaited<ReturnType<typeof ownFolder>>;

/** Replays scenarios one after the other, a fresh agent for each. */
async function replay(lane: number, only: readonly string[]): Promise<void> {
  const [http, dns, aux] = [await freePort(), await freePort(), await freePort()];
  const result = join(folder.path, `lane-${lane}.json`);
  const start = `${process.execPath} ${program} agent -dev -compat consul -node=alpha -client 127.0.0.1 -bind 127.0.0.1 -config-file {config}`;
  const child = spawn(
    process.execPath,
    [
      join(kit, "replay.mjs"),
      ...["--http", `http://127.0.0.1:${http}`, "--dns", `127.0.0.1:${dns}`, "--aux-port", String(aux)],
      ...["--only", only.join(","), "--start", start, "--json", result, "--log", join(folder.path, `lane-${lane}.log`)],
      "--quiet",
    ],
    { stdio: ["ignore", "pipe", "pipe"] },
  );
  let output = "";
  child.stdout.on("data", (chunk) => {
    output += chunk;
  });
  child.stderr.on("data", (chunk) => {
    output += chunk;
  });
  await new Promise<void>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", () => resolve());
  });
  if (!existsSync(result)) throw new Error(`the replayer left no result: ${output}`);
  for (const row of (JSON.parse(await readFile(result, "utf8")) as { scenarios: Row[] }).scenarios)
    rows.set(row.name, row);
}

beforeAll(async () => {
  if (!existsSync(program)) throw new Error("dist/ is missing: npm run build");
  folder = await ownFolder("conformance");
  const lanes = Array.from({ length: LANES }, (_, lane) => names.filter((_, i) => i % LANES === lane));
  await Promise.all(lanes.map((only, lane) => replay(lane, only)));
});
afterAll(() => folder.remove());

describe("as Consul 1.19.2 answered", () => {
  it.each(names)("%s", (name) => {
    const row = rows.get(name);
    expect(row, `${name} was not run`).toBeDefined();
    expect(row?.failures.map(({ step, what, differences }) => `${step} ${what}: ${differences.join("; ")}`)).toEqual(
      [],
    );
    expect(row?.passed).toBeGreaterThan(0);
  });
});
