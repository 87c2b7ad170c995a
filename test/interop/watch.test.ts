// `trilith watch` and `trilith event`, the built program: printed once, run on each change, patient with an agent that is away, and done when told.
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { readFile, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { type RunningAgent, startAgent } from "../support/ground.ts";
import { freePort, ownFolder } from "../support/peers.ts";

const main = resolve(import.meta.dirname, "../../dist/cli/main.js");
const SLOW = { timeout: 20_000, interval: 20 };

let folder: Awaited<ReturnType<typeof ownFolder>>;
let httpPort: number;
let agent: RunningAgent;
const children: ChildProcess[] = [];

beforeEach(async () => {
  await stat(main);
  folder = await ownFolder("watch");
  httpPort = await freePort();
  agent = await startAgent({ httpPort });
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  await agent.stop();
  await folder.remove();
});

const env = (): NodeJS.ProcessEnv => ({ ...process.env, SHELL: "/bin/sh", CONSUL_HTTP_ADDR: `127.0.0.1:${httpPort}` });
const trilith = (...words: string[]): Promise<{ readonly code: unknown; readonly out: string; readonly err: string }> =>
  new Promise((done) => {
    execFile(process.execPath, [main, ...words], { env: env() }, (error, out, err) =>
      done({ code: error === null ? 0 : error.code, out, err }),
    );
  });
/** Starts a watch that goes on; what it says on standard error. */
function start(...words: string[]): { readonly child: ChildProcess; said(): string } {
  let said = "";
  const child = spawn(process.execPath, [main, "watch", ...words], {
    env: env(),
    stdio: ["ignore", "inherit", "pipe"],
  });
  child.stderr?.on("data", (chunk) => {
    said += chunk;
  });
  children.push(child);
  return { child, said: () => said };
}
const linesOf = async (name: string): Promise<string[]> =>
  (await readFile(join(folder.path, name), "utf8").catch(() => "")).split("\n").filter((line) => line !== "");
const set = (key: string, value: string): Promise<boolean> => agent.trilith.kv.set(key, Buffer.from(value));

it("prints once what there is", async () => {
  await set("a/b", "x");
  await agent.trilith.agent.register("api", {
    ...{ id: "w", name: "web", tags: ["v1"], labels: {}, address: "", port: 80, checks: [] },
  });
  const shown = async (...words: string[]): Promise<unknown> => {
    const { code, out, err } = await trilith("watch", ...words);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    return JSON.parse(out);
  };
  expect(await shown("-type", "key", "-key=a/b")).toMatchObject({ Key: "a/b", Value: "eA==" });
  expect(await shown("-type", "key", "-key=none")).toBe(null);
  expect(await shown("-type=keyprefix", "-prefix", "a")).toMatchObject([{ Key: "a/b" }]);
  expect(await shown("-type=services")).toEqual({ consul: [], web: ["v1"] });
  expect(await shown("-type=nodes")).toMatchObject([{ Node: "alpha" }]);
  expect(await shown("-type=service", "-service=web", "-tag=v1", "-passingonly=true")).toMatchObject([
    { Service: { ID: "w" }, Node: { Node: "alpha" } },
  ]);
  expect(await shown("-type=service", "-service=web", "-tag=v2")).toEqual([]);
  expect(await shown("-type=checks", "-state=passing")).toMatchObject([{ CheckID: "serfHealth" }]);
  expect(await shown("-type=event")).toEqual([]);
  expect(await trilith("event", "-name=deploy", "-node=^al", "v2")).toMatchObject({
    code: 0,
    out: expect.stringMatching(/^Event ID: [0-9a-f-]{36}\n$/),
  });
  await trilith("event", "-name", "other", "-node=^beta$");
  expect(await shown("-type=event")).toMatchObject([{ Name: "deploy", Payload: "djI=" }]);
});

it.each([
  [["watch"], 2, "Watch type must be specified"],
  [["watch", "-type=nope"], 2, "Unsupported watch type"],
  [["watch", "-type=key", "-key=a", "-shell=false", "/bin/sh", "-c", "exit 3"], 1, "exit status 3"],
  [["watch", "-type=key", "-key=a", "no-such-program-here"], 1, "Error executing handler"],
  [["watch", "-type=nodes", "-filter=x"], 1, "boolean expression"],
  [["event"], 2, "Event name must be specified"],
  [["event", "-name=x", "-tag=y"], 2, "tag filter without service filter"],
  [["event", "-name=x", "-node=["], 1, "Invalid node filter"],
])("%j fails in words", async (words, code, text) => {
  const outcome = await trilith(...words);
  expect(outcome.code).toBe(code);
  expect(outcome.err).toContain(text);
});

it("runs a program on each change, over the agent's absence, until it is told to end", async () => {
  const { child, said } = start(
    ...["-type", "key", "-key", "a"],
    `cat >>${folder.path}/out; echo $CONSUL_INDEX >>${folder.path}/index`,
  );
  await vi.waitFor(async () => expect(await linesOf("out")).toEqual(["null"]), SLOW);
  await set("a", "1");
  await vi.waitFor(async () => expect(await linesOf("out")).toHaveLength(2), SLOW);
  expect((await linesOf("index"))[1]).toBe(String(agent.trilith.kv.get("a")?.modifyIndex));
  await agent.stop();
  await vi.waitFor(() => expect(said()).toContain("trying again"), SLOW);
  // It has forgotten everything, and counts from the beginning.
  agent = await startAgent({ httpPort });
  await vi.waitFor(async () => expect((await linesOf("out")).slice(2)).toEqual(["null"]), SLOW);
  await set("a", "2");
  await vi.waitFor(async () => expect(await linesOf("out")).toHaveLength(4), SLOW);
  child.kill("SIGTERM");
  expect(await once(child, "exit")).toEqual([0, null]);
});

it("ends, whatever the program that runs makes of it", async () => {
  const { child } = start("-type=nodes", `trap "" TERM; echo $$ >${folder.path}/pid; while :; do sleep 0.05; done`);
  await vi.waitFor(async () => expect(await linesOf("pid")).toHaveLength(1), SLOW);
  const [pid] = await linesOf("pid");
  child.kill("SIGTERM");
  expect(await once(child, "exit")).toEqual([0, null]);
  expect(() => process.kill(Number(pid), 0)).toThrow("ESRCH");
});
