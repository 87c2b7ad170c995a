// find, list and advertise without an agent: the program is a peer of the tailnet, hands over to an agent that comes, and says what is missing.
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { advertise, find, list } from "../../src/index.ts";
import { type RunningAgent, startAgent } from "../support/ground.ts";
import {
  type FakeTailscaled,
  fakeTailscaled,
  inside,
  listed,
  names,
  runInTailnet,
  startProcess,
} from "../support/minidisc.ts";
import { ownName } from "../support/own-name.ts";
import { eventually, freePort, havePrograms, ownFolder } from "../support/peers.ts";

const run = promisify(execFile);
const root = join(import.meta.dirname, "../..");
const ready = inside || (await havePrograms("unshare", "ip"));
const suite = inside ? describe : (): void => {};

(inside ? (): void => {} : describe.skipIf(!ready))("on a tailnet", () => {
  it("passes", () => runInTailnet(import.meta.filename, 170_000), 180_000);
});

suite("the library without an agent", () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let tailscaled: FakeTailscaled;
  let other: FakeTailscaled;
  let port: number;
  const before = { socket: process.env["TS_SOCKET"], agent: process.env["TRILITH_HTTP_ADDR"] };

  beforeAll(async () => {
    folder = await ownFolder("minidisc-library");
    const here = { name: "here", ip: "100.64.0.1" };
    const there = { name: "there", ip: "100.64.0.2" };
    tailscaled = await fakeTailscaled(join(folder.path, "here"), here, [there]);
    other = await fakeTailscaled(join(folder.path, "there"), there, [here]);
    port = await freePort();
    process.env["TS_SOCKET"] = tailscaled.path;
    process.env["TRILITH_HTTP_ADDR"] = `127.0.0.1:${port}`;
  });
  afterAll(async () => {
    for (const [name, value] of [
      ["TS_SOCKET", before.socket],
      ["TRILITH_HTTP_ADDR", before.agent],
    ] as const)
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
    await tailscaled.close();
    await other.close();
    await folder.remove();
  });

  it("runs the README's example, and the program ends by itself", async () => {
    const readme = readFileSync(join(root, "src/protocols/minidisc/README.md"), "utf8");
    const example = /```js\n([\s\S]*?)```/.exec(readme)?.[1] ?? "";
    const file = join(folder.path, "example.mts");
    await writeFile(file, example.replace('"trilith"', JSON.stringify(join(root, "src/index.ts"))));
    const { stdout } = await run(process.execPath, ["--import", "tsx", file], { cwd: root, timeout: 30_000 });
    expect(stdout).toContain("[ '100.64.0.1:8080' ]");
    expect(stdout).toContain("name: 'web'");
  });

  it("finds by name, labels and tags, and lists with health", async () => {
    const web = await advertise({ name: "web", port: 80, labels: { env: "prod" }, tags: ["blue", "zone=eu"] });
    const go = await startProcess("go", other, "gold:90");
    try {
      expect(web.registered).toBe(true);
      expect(await listed("100.64.0.1")).toEqual([
        { name: "web", labels: { blue: "true", env: "prod", zone: "eu" }, addrPort: "100.64.0.1:80" },
      ]);
      const found = await find("web", { env: "prod", zone: "eu" }, { tags: ["blue"] });
      expect(found).toMatchObject({ known: true, fresh: true });
      expect(found.endpoints).toMatchObject([
        { address: "100.64.0.1", port: 80, node: "here", status: "passing", tags: ["blue", "zone=eu"] },
      ]);
      expect(await find("web", { env: "dev" })).toMatchObject({ known: true, endpoints: [] });
      expect(await find("nothing")).toMatchObject({ known: false, endpoints: [] });
      await eventually("gold", async () => (await find("gold")).endpoints[0]?.address === "100.64.0.2", 30_000);
      expect((await list()).map(({ name, passing }) => `${name} ${passing}`)).toEqual(["gold 1", "web 1"]);
      await web.drain();
      await eventually("drained", async () => (await names("100.64.0.1")) === "");
      expect(web.registered).toBe(false);
      await web.drain(false);
      await eventually("back", async () => (await names("100.64.0.1")) === "web");
    } finally {
      await go.kill();
      await web.stop();
    }
    await eventually("nobody listens", async () => (await listed("100.64.0.1")) === undefined);
  }, 50_000);

  it("answers with nobody only after everybody was asked: who has just come is found at the first question", async () => {
    const silver = ownName("silver");
    tailscaled.peers = [];
    try {
      // From now on the tailnet is watched: of a host without any Minidisc the next look is far away.
      expect(await find(silver)).toMatchObject({ known: false });
      expect(await find(silver)).toMatchObject({ known: false });
      tailscaled.peers = [{ name: "there", ip: "100.64.0.2" }];
      expect(await find(silver)).toMatchObject({ known: false });
      const go = await startProcess("go", other, `${silver}:90`);
      try {
        expect((await find(silver)).endpoints).toMatchObject([{ address: "100.64.0.2", port: 90, node: "there" }]);
      } finally {
        await go.kill();
      }
    } finally {
      tailscaled.peers = [{ name: "there", ip: "100.64.0.2" }];
    }
  }, 30_000);

  it("hands over to an agent that comes, and takes over again when it goes", async () => {
    const states: string[] = [];
    const web = await advertise({ name: "web", port: 80, onState: (state) => states.push(state) });
    let agent: RunningAgent | undefined;
    try {
      expect(await names("100.64.0.1")).toBe("web");
      agent = await startAgent({
        httpPort: port,
        protocols: { process: { environ: false }, minidisc: { socket: tailscaled.path } },
      });
      await eventually("connected", () => states.at(-1) === "connected");
      await eventually(
        "told once",
        async () => (await names("100.64.0.1")) === "web" && agent?.trilith.agent.services().size === 1,
      );
      expect((await find("web")).endpoints).toHaveLength(1);
      await agent.stop();
      agent = undefined;
      await eventually("away", () => states.at(-1) === "away");
      await eventually("told by the program", async () => (await names("100.64.0.1")) === "web");
    } finally {
      await agent?.stop();
      await web.stop();
    }
  }, 50_000);

  it("says what is missing where there is neither agent nor tailnet, and hangs nobody", async () => {
    process.env["TS_SOCKET"] = join(folder.path, "nobody");
    const texts: string[] = [];
    try {
      const both = new RegExp(`no agent answers at 127.0.0.1:${port}.*no tailscaled at ${folder.path}/nobody`);
      await expect(find("web")).rejects.toThrow(both);
      await expect(list()).rejects.toThrow(both);
      const web = await advertise({ name: "web", port: 80, onState: (state, text) => texts.push(`${state} ${text}`) });
      expect(web.registered).toBe(false);
      expect(texts[0]).toMatch(/^away .*; no tailscaled at/);
      await web.stop();
      // Who names an agent means that one.
      await expect(find("web", {}, { agent: "127.0.0.1:1" })).rejects.toThrow(
        /^no agent answers at 127.0.0.1:1: start one with "trilith agent"$/,
      );
      const fresh = await fakeTailscaled(join(folder.path, "fresh"), { name: "here", ip: "100.64.0.1" });
      fresh.state = "NeedsLogin";
      process.env["TS_SOCKET"] = fresh.path;
      await expect(find("web")).rejects.toThrow(/needs a login/);
      await fresh.close();
    } finally {
      process.env["TS_SOCKET"] = tailscaled.path;
    }
  });
});
