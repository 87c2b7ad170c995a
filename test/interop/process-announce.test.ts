// `trilith announce` as scripts and systemd's ExecStartPost call it, and `advertise()` through everything that may befall an agent.
import { type ChildProcess, spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, it } from "vitest";
import { type RunningAgent, startAgent } from "../support/ground.ts";
import { eventually, freePort, ownFolder } from "../support/peers.ts";
import { type Done, runToEnd } from "../support/program.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const main = `${root}src/cli/main.ts`;
const node = [process.execPath, "--import", "tsx"];
const cleanUp: (() => Promise<unknown> | unknown)[] = [];
afterEach(async () => {
  for (const step of cleanUp.splice(0).reverse()) await step();
});

async function agentAt(port: number, settings: Parameters<typeof startAgent>[0] = {}): Promise<RunningAgent> {
  const agent = await startAgent({ httpPort: port, ...settings, protocols: { process: { environ: false } } });
  cleanUp.push(() => agent.stop());
  return agent;
}
const announce = (url: string, ...words: readonly string[]): Promise<Done> =>
  runToEnd([...node, main, "announce", ...words], { TRILITH_HTTP_ADDR: url });
function start(words: readonly string[], env: Readonly<Record<string, string>> = {}): ChildProcess {
  const [file = "", ...args] = words;
  const child = spawn(file, args, { stdio: ["pipe", "pipe", "pipe"], cwd: root, env: { ...process.env, ...env } });
  cleanUp.push(async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const over = new Promise((resolve) => child.once("exit", resolve));
    child.kill("SIGKILL");
    await over;
  });
  return child;
}
const held = (agent: RunningAgent, name: string) =>
  [...agent.trilith.agent.services().values()].filter(({ instance }) => instance.name === name);
const found = (agent: RunningAgent, name: string): number =>
  agent.trilith.lookup.resolveNow({ service: name }).endpoints.length;
const settingsIn = (path: string) => ({ dev: false, dataDir: path, storage: "lmdb" }) as const;

describe("trilith announce", () => {
  it("registers what a unit's ExecStartPost says, and takes it out with the unit's process", async () => {
    const agent = await agentAt(0);
    // ExecStart=/bin/sleep 60, ExecStartPost=trilith announce --name unit --port 80 … --pid $MAINPID
    const unit = start(["sleep", "60"]);
    const said = await announce(
      agent.url,
      ...["--name", "unit", "--port", "80", "--tag", "a", "--label", "team=shop", "--pid", `${unit.pid}`],
    );
    expect(said).toMatchObject({ exitCode: 0, out: `Announced unit as unit:80, until process ${unit.pid} ends\n` });
    expect(held(agent, "unit")[0]?.instance).toMatchObject({
      id: "unit:80",
      port: 80,
      address: "",
      tags: ["a"],
      labels: { team: "shop" },
      origin: { source: "announce", text: `announced for process ${unit.pid}, port 80/tcp` },
    });
    unit.kill("SIGKILL");
    await eventually("it is gone", () => held(agent, "unit").length === 0);
    expect(agent.trilith.agent.history("unit")[0]?.text).toContain(
      `process ${unit.pid}, for which it was announced, ended`,
    );
    const late = await announce(agent.url, "--name", "unit", "--port", "80", "--pid", `${unit.pid}`);
    expect(late.exitCode).toBe(2);
    expect(late.err).toContain(`there is no process ${unit.pid}`);
  });

  it("keeps an announcement over a restart of the agent while its process lives, and knows when it ended meanwhile", async () => {
    const folder = await ownFolder("announce");
    cleanUp.push(() => folder.remove());
    const [port, lasting, fleeting] = [await freePort(), start(["sleep", "60"]), start(["sleep", "60"])];
    const first = await agentAt(port, settingsIn(folder.path));
    await announce(first.url, "--name", "lasting", "--port", "81", "--pid", `${lasting.pid}`);
    await announce(first.url, "--name", "fleeting", "--port", "82", "--pid", `${fleeting.pid}`);
    await first.stop();
    fleeting.kill("SIGKILL");
    const second = await agentAt(port, settingsIn(folder.path));
    await eventually("the one that ended is gone", () => held(second, "fleeting").length === 0);
    expect(held(second, "lasting")).toHaveLength(1);
    expect(second.trilith.agent.history("lasting")).toEqual([]);
    lasting.kill("SIGKILL");
    await eventually("the other one, too", () => held(second, "lasting").length === 0);
  });

  it("with --ttl is critical when it was not announced again, and back when it was", async () => {
    const agent = await agentAt(0);
    const again = (): Promise<Done> => announce(agent.url, "--name", "beat", "--port", "83", "--ttl", "2s");
    expect((await again()).out).toBe("Announced beat as beat:83, to be announced again within 2s\n");
    expect(found(agent, "beat")).toBe(1);
    await eventually("it ran out", () => found(agent, "beat") === 0);
    expect(held(agent, "beat")).toHaveLength(1);
    expect(held(agent, "beat")[0]?.checks[0]).toMatchObject({ ttlMs: 2000, deregisterAfterMs: 60_000 });
    await again();
    await eventually("it is back", () => found(agent, "beat") === 1);
    expect(held(agent, "beat")).toHaveLength(1);
  });

  it("else lives until it is taken back, waits for an agent that is not there yet, and refuses nonsense", async () => {
    const port = await freePort();
    const url = `http://127.0.0.1:${port}`;
    const early = announce(url, "--name", "free", "--port", "84", "--check", "tcp:127.0.0.1:1", "--wait", "30s");
    const agent = await agentAt(port);
    expect((await early).out).toBe(
      "Announced free as free:84, until it is taken back: trilith announce --withdraw --id free:84\n",
    );
    expect(held(agent, "free")[0]?.checks[0]).toMatchObject({ kind: "tcp", intervalMs: 10_000 });
    expect((await announce(url, "--withdraw", "--name", "free", "--port", "84")).out).toBe("Taken back: free:84\n");
    expect(held(agent, "free")).toEqual([]);
    const nothing = await announce(url, "--withdraw", "--id", "free:84");
    expect([nothing.exitCode, nothing.err]).toEqual([
      1,
      expect.stringContaining('nothing is announced under the ID "free:84"'),
    ]);
    for (const [words, text] of [
      [["--name", "x"], "--port: missing: which port does it listen on?"],
      [["--port", "1"], "--name: missing: trilith announce --name web --port 80"],
      [["--name", "x", "--port", "1", "--ttl", "5"], '--ttl: time: missing unit in duration "5"; right would be "10s"'],
      [["--name", "x", "--port", "1", "--check", "script:true"], "expected http:/path"],
    ] as const)
      expect(await announce(url, ...words)).toMatchObject({ exitCode: 2, err: expect.stringContaining(text) });
    // Whoever deregisters it means it; who announces it again, too.
    await announce(url, "--name", "free", "--port", "84");
    await agent.trilith.agent.deregister("api", "free:84");
    await announce(url, "--name", "free", "--port", "84");
    expect(held(agent, "free")).toHaveLength(1);
    const nobody = await announce(`http://127.0.0.1:${await freePort()}`, "--name", "x", "--port", "1", "--wait", "0");
    expect(nobody.err).toContain("no agent answers");
  });

  it("with --stay lives as long as the command, whatever ends it", async () => {
    const agent = await agentAt(0);
    const words = [...node, main, "announce", "--name", "sidekick", "--port", "85", "--stay"];
    for (const signal of ["SIGTERM", "SIGKILL"] as const) {
      const sidekick = start(words, { TRILITH_HTTP_ADDR: agent.url });
      const ended = new Promise((resolve) => sidekick.once("exit", resolve));
      await eventually("it is there", () => found(agent, "sidekick") === 1);
      sidekick.kill(signal);
      await eventually("it is gone", () => held(agent, "sidekick").length === 0);
      const code = await ended;
      if (signal === "SIGTERM") expect(code).toBe(0);
    }
  });

  it("does what the README shows", async () => {
    const agent = await agentAt(0);
    const readme = await readFile(`${root}src/protocols/process/README.md`, "utf8");
    const [say = "", back = ""] = (/example: announce -->\n+```sh\n([^`]*)```/.exec(readme)?.[1] ?? "")
      .trim()
      .split("\n");
    const shell = (line: string): Promise<Done> =>
      runToEnd(["/bin/sh", "-c", line.replace(/^trilith /, `"${process.execPath}" --import tsx "${main}" `)], {
        TRILITH_HTTP_ADDR: agent.url,
      });
    expect(await shell(say)).toMatchObject({ exitCode: 0, err: "" });
    expect(held(agent, "shop")[0]?.checks.map(({ kind }) => kind)).toEqual(["tcp", "ttl"]);
    expect(await shell(back)).toMatchObject({ exitCode: 0, out: "Taken back: shop:8080\n" });
    expect(held(agent, "shop")).toEqual([]);
  });

  it("takes announcements from this host's programs only", async () => {
    const agent = await agentAt(0);
    const body = JSON.stringify({ name: "x", port: 1 });
    const post = (headers: Record<string, string>) =>
      fetch(`${agent.url}/v1/trilith/announce`, { method: "POST", body, headers });
    expect((await post({ origin: "http://evil.example" })).status).toBe(403);
    expect((await post({ "x-forwarded-for": "192.0.2.1" })).status).toBe(403);
    expect((await fetch(`${agent.url}/v1/trilith/announce`)).status).toBe(405);
    expect((await fetch(`${agent.url}/v1/trilith/announce`, { method: "POST", body: "{" })).status).toBe(400);
    expect(held(agent, "x")).toEqual([]);
    expect((await post({})).status).toBe(200);
  });
});

describe("advertise()", () => {
  /** A program that advertises itself, tells its states, and stops when told to. */
  function program(agent: string, more = ""): ChildProcess & { readonly said: () => string } {
    const script = `
      import { advertise } from "${root}src/index.ts";
      const advertised = await advertise({ name: "library", port: 4000, agent: "${agent}", checks: ["tcp:127.0.0.1:1"], intervalMs: 60000,
        onState: (state) => console.log(state), ${more} });
      console.log("ready", advertised.registered);
      process.stdin.once("data", async () => { await advertised.stop(); console.log("stopped"); process.stdin.destroy(); });`;
    const child = start([...node, "--input-type=module", "-e", script]);
    let said = "";
    child.stdout?.on("data", (bytes) => {
      said += bytes;
    });
    return Object.assign(child, { said: () => said });
  }

  it("is there again after an agent's restart, one with empty data, and one that was away at the start", async () => {
    const port = await freePort();
    const child = program(`127.0.0.1:${port}`);
    await eventually("it runs without an agent", () => child.said().includes("ready false"));
    const folder = await ownFolder("advertise");
    cleanUp.push(() => folder.remove());
    const first = await agentAt(port, settingsIn(folder.path));
    await eventually("it is there", () => held(first, "library").length === 1);
    expect(held(first, "library")[0]?.checks[0]).toMatchObject({ kind: "tcp", intervalMs: 60_000 });
    await first.stop();
    const second = await agentAt(port, settingsIn(folder.path));
    expect(held(second, "library")).toHaveLength(1);
    await eventually("it is connected again", () => child.said().match(/connected/g)?.length === 2);
    expect(second.trilith.agent.history("library")).toEqual([]);
    await second.stop();
    // Without an address of its own it is at its node's, whatever that is by now.
    const empty = await agentAt(port, { advertiseAddress: "192.0.2.9" });
    await eventually("it registered again", () => held(empty, "library").length === 1);
    const health = await fetch(`${empty.url}/v1/health/service/library`);
    expect(await health.json()).toMatchObject([
      { Node: { Address: "192.0.2.9" }, Service: { Address: "", Port: 4000 } },
    ]);
    const [found] = empty.trilith.lookup.resolveNow({ service: "library", health: "any" }).endpoints;
    expect(found).toMatchObject({ address: "192.0.2.9", port: 4000 });
    child.stdin?.write("\n");
    await eventually("it is gone", () => held(empty, "library").length === 0);
    // Nothing of it keeps the program running.
    await eventually("the program ended", () => child.exitCode === 0);
    expect(child.said()).toContain("stopped");
  });

  it("goes with its process, however that ends", async () => {
    const agent = await agentAt(0);
    const child = program(agent.url.slice("http://".length));
    await eventually("it is there", () => held(agent, "library").length === 1);
    child.kill("SIGKILL");
    await eventually("it is gone", () => held(agent, "library").length === 0);
    expect(agent.trilith.agent.history("library")[0]?.text).toContain(`process ${child.pid} is gone`);
  });
});
