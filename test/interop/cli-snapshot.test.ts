// `trilith snapshot` on a terminal: says how far it got, streams what is large, and refuses what was changed on the way.
import { randomBytes } from "node:crypto";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Command } from "commander";
import { afterAll, beforeAll, expect, it } from "vitest";
import { command } from "../../src/cli/commands/snapshot.ts";
import { type RunningAgent, startAgent } from "../support/ground.ts";
import { ownFolder } from "../support/peers.ts";

const VALUE_BYTES = 400_000;
const KEYS = 16;
let agent: RunningAgent;
let folder: Awaited<ReturnType<typeof ownFolder>>;
beforeAll(async () => {
  agent = await startAgent();
  folder = await ownFolder("cli-snapshot");
  // What cannot be compressed.
  for (let i = 0; i < KEYS; i++)
    await fetch(`${agent.url}/v1/kv/large/${i}`, { method: "PUT", body: randomBytes(VALUE_BYTES) });
});
afterAll(async () => {
  await agent.stop();
  await folder.remove();
});

async function snapshot(
  terminal: boolean,
  ...words: string[]
): Promise<{ readonly out: string; readonly err: string }> {
  const out: string[] = [];
  const err: string[] = [];
  const parser = new Command().exitOverride();
  command.define(
    parser,
    {
      out: (text) => void out.push(text),
      err: (text) => void err.push(text),
      env: (name) => (name === "CONSUL_HTTP_ADDR" ? agent.url : undefined),
      stdin: async () => new Uint8Array(),
      signal: new AbortController().signal,
      terminal,
      close: () => {},
    },
    () => {},
  );
  await parser.parseAsync(words, { from: "user" });
  return { out: out.join(""), err: err.join("") };
}

it("is sent piece by piece, without saying beforehand how large it is", async () => {
  const answer = await fetch(`${agent.url}/v1/snapshot`);
  expect(answer.headers.get("content-length")).toBeNull();
  expect(answer.headers.get("transfer-encoding")).toBe("chunked");
  expect((await answer.arrayBuffer()).byteLength).toBeGreaterThan(KEYS * VALUE_BYTES);
});

it("says on a terminal how far it got, and only there", async () => {
  const file = join(folder.path, "whole.snap");
  const saved = await snapshot(true, "save", file);
  expect(saved.out).toMatch(/^Saved and verified snapshot to index \d+\n$/);
  // Every MiB, each over the last, and nothing of it is left.
  const told = Array.from(saved.err.matchAll(/\rsaving (\d+) MiB/g), (found) => Number(found[1]));
  expect([told[0], told.at(-1), told.length]).toEqual([1, 6, 6]);
  expect(saved.err.endsWith("\r\u001b[K")).toBe(true);
  await fetch(`${agent.url}/v1/kv/large/?recurse`, { method: "DELETE" });
  const restored = await snapshot(true, "restore", file);
  expect(restored.out).toBe("Restored snapshot\n");
  expect(restored.err).toMatch(/^\rrestoring 1 MiB.*\rrestoring 6 MiB\r\u001b\[K$/s);
  expect(await (await fetch(`${agent.url}/v1/kv/large/?keys`)).json()).toHaveLength(KEYS);
  expect(await snapshot(false, "save", file)).toMatchObject({ err: "" });
  expect(await snapshot(false, "restore", file)).toMatchObject({ err: "" });
});

it("inspects as Consul does: JSON, and keys by their beginnings", async () => {
  const file = join(folder.path, "inspected.snap");
  await fetch(`${agent.url}/v1/kv/app/one/a`, { method: "PUT", body: "1" });
  await fetch(`${agent.url}/v1/kv/app/one/b`, { method: "PUT", body: "1" });
  await fetch(`${agent.url}/v1/kv/app/two`, { method: "PUT", body: "1" });
  await snapshot(false, "save", file);
  const inspect = async (...words: string[]) => (await snapshot(false, "inspect", ...words, file)).out;
  const plain = await inspect("--format", "json");
  expect(plain).toMatch(/^\{\n {3}"Meta": \{\n {6}"ID": "[0-9a-f]{16}",\n/);
  const told = JSON.parse(plain) as {
    readonly Stats: { Name: string; Sum: number; Count: number }[];
    TotalSize: number;
  };
  expect(Object.keys(told)).toEqual(["Meta", "Stats", "StatsKV", "TotalSize", "TotalSizeKV"]);
  expect(told).toMatchObject({ Meta: { Term: 1, Version: 1 }, StatsKV: null, TotalSizeKV: 0 });
  expect(told.Stats[0]).toMatchObject({ Name: "KVS", Count: KEYS + 3 });
  expect(told.TotalSize).toBe(told.Stats.reduce((sum, { Sum }) => sum + Sum, 0));

  const detailed = JSON.parse(await inspect("--format=json", "--kvdetails")) as Record<"StatsKV", unknown[]>;
  expect(detailed.StatsKV).toHaveLength(KEYS + 2);
  const few = ["--format=json", "--kvdetails", "--kvdepth=1", "--kvfilter=app/"];
  const app = JSON.parse(await inspect(...few)) as { StatsKV: { Sum: number }[]; TotalSizeKV: number };
  expect(app).toMatchObject({ StatsKV: [{ Name: "app", Count: 3 }], TotalSizeKV: app.StatsKV[0]?.Sum });
  expect(await inspect("--kvdetails", "--kvfilter", "app/")).toMatch(
    /\n Key Name +Count +Size\n.*\n app\/one +2 +\d+B\n app\/two +1 +\d+B\n.*\n Total +\d+B\n$/,
  );
  // Without -kvdetails nobody asked.
  expect(await inspect("--kvfilter", "app/")).not.toContain("Key Name");
  await expect(inspect("--format=yaml")).rejects.toThrow('-format: "yaml": expected pretty or json');
  await expect(inspect("--kvdetails", "--kvdepth=x")).rejects.toThrow('-kvdepth: "x": expected a whole number');
});

it("adds to the file's name what the agent says", async () => {
  const file = join(folder.path, "named.d", "backup.snap");
  await mkdir(join(folder.path, "named.d"), { recursive: true });
  await snapshot(false, "save", "--append-filename", "node,dc,status", file);
  const { Config } = (await (await fetch(`${agent.url}/v1/agent/self`)).json()) as {
    Config: { Datacenter: string; NodeName: string };
  };
  expect(await readdir(join(folder.path, "named.d"))).toEqual([
    `backup-${Config.Datacenter}-${Config.NodeName}-leader.snap`,
  ]);
  const wrong = snapshot(false, "save", "--append-filename=leader", file);
  await expect(wrong).rejects.toThrow('-append-filename: "leader": expected version, dc, node, status');
});

it("says which folder is missing, before it asks anybody", async () => {
  const missing = join(folder.path, "missing");
  const saving = snapshot(false, "save", join(missing, "a.snap"));
  await expect(saving).rejects.toThrow(`${join(missing, "a.snap")}: there is no folder ${missing}`);
});

it("refuses a file in which one bit has changed, and nothing changes", async () => {
  const file = join(folder.path, "changed.snap");
  await snapshot(false, "save", file);
  const bytes = await readFile(file);
  const middle = bytes.length >> 1;
  bytes[middle] = (bytes[middle] as number) ^ 1;
  await writeFile(file, bytes);
  await fetch(`${agent.url}/v1/kv/since`, { method: "PUT", body: "1" });
  await expect(snapshot(false, "restore", file)).rejects.toThrow(/not a snapshot that can be restored/);
  const sent = await fetch(`${agent.url}/v1/snapshot`, { method: "PUT", body: bytes });
  expect([sent.status, await sent.text()]).toEqual([
    500,
    expect.stringContaining("not a snapshot that can be restored"),
  ]);
  expect((await fetch(`${agent.url}/v1/kv/since`)).status).toBe(200);
});
