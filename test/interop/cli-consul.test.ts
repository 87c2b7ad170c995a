// Consul's verbs as people type them, on the real program with a real agent: what they print, and what they change.
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { freePort, ownFolder } from "../support/peers.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));
const program = process.env["TRILITH_PROGRAM"] ?? join(root, "dist", "cli", "main.js");

interface Done {
  readonly exitCode: number | null;
  readonly out: string;
  readonly err: string;
}

let folder: Awaited<ReturnType<typeof ownFolder>>;
let url = "";
let serving: ChildProcess;

function start(args: readonly string[]): {
  readonly child: ChildProcess;
  readonly done: Promise<Done>;
  said(): string;
} {
  const child = spawn(process.execPath, [program, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, CONSUL_HTTP_ADDR: url.replace("http://", "") },
  });
  let out = "";
  let err = "";
  child.stdout.on("data", (chunk) => {
    out += chunk;
  });
  child.stderr.on("data", (chunk) => {
    err += chunk;
  });
  const done = new Promise<Done>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (exitCode) => resolve({ exitCode, out, err }));
  });
  return { child, done, said: () => out };
}
const trilith = (...args: string[]): Promise<Done> => start(args).done;
const put = (path: string, body?: unknown): Promise<Response> =>
  fetch(url + path, { method: "PUT", body: body === undefined ? null : JSON.stringify(body) });
async function until(what: () => Promise<boolean> | boolean): Promise<void> {
  for (let i = 0; i < 400; i++) {
    if (await what()) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error("it did not happen");
}
const up = (): Promise<boolean> =>
  fetch(`${url}/v1/health/service/consul`)
    .then(async (answer) => answer.ok && ((await answer.json()) as unknown[]).length > 0)
    .catch(() => false);

/** Starts the agent that the commands ask. */
async function serve(): Promise<void> {
  const port = await freePort();
  url = `http://127.0.0.1:${port}`;
  const agent = ["agent", "-dev", "-node=alpha", "-client=127.0.0.1", "-bind=127.0.0.1", "-docker-host=off"];
  agent.push(`-config-dir=${join(folder.path, "conf.d")}`, `-http-port=${port}`, "-dns-port=-1", "-quiet");
  serving = start(agent).child;
  await until(up);
}

beforeAll(async () => {
  if (!existsSync(program)) throw new Error("dist/ is missing: npm run build");
  folder = await ownFolder("cli-consul");
  await mkdir(join(folder.path, "conf.d"));
  await serve();
});
afterAll(async () => {
  serving.kill("SIGTERM");
  await folder.remove();
});

describe("members", () => {
  it("prints Consul's columns", async () => {
    const { out, exitCode } = await trilith("members");
    expect(out).toMatch(
      /^Node {3}Address {9}Status {2}Type {4}Build +Protocol {2}DC {3}Partition {2}Segment\nalpha {2}127\.0\.0\.1:8301 {2}alive {3}server {2}\d+\.\d+\.\d+ +2 {9}dc1 {2}default {4}<all>\n$/,
    );
    expect(exitCode).toBe(0);
  });
  it("-detailed, -wan and -status", async () => {
    const detailed = await trilith("members", "-detailed", "-wan");
    expect(detailed.out).toMatch(/^Node +Address +Status +Tags\nalpha\.dc1 .*dc=dc1,id=.*role=consul/);
    expect(await trilith("members", "-status=failed")).toEqual({ exitCode: 2, out: "", err: "No members match\n" });
  });
});

describe("maint", () => {
  it("of a service, of the node, listed and ended", async () => {
    await put("/v1/agent/service/register", { ID: "web-1", Name: "web" });
    expect(await trilith("maint", "-enable", "-service=web-1", "-reason", "new disk")).toEqual({
      exitCode: 0,
      out: 'Service maintenance is now enabled for "web-1"\n',
      err: "",
    });
    expect((await trilith("maint", "-enable", "-reason=moving")).out).toBe("Node maintenance is now enabled\n");
    const { out } = await trilith("maint");
    expect(out).toContain("\nNode:\n  Name:   alpha\n  Reason: moving\n\n");
    expect(out).toContain("\nService:\n  ID:     web-1\n  Reason: new disk\n\n");
    await trilith("maint", "-disable", "-service=web-1");
    expect((await trilith("maint", "-disable")).out).toBe("Node maintenance is now disabled\n");
    expect((await trilith("maint")).out).toBe("");
  });
  it("refuses what makes no sense", async () => {
    expect(await trilith("maint", "-enable", "-disable")).toMatchObject({ exitCode: 2 });
    expect(await trilith("maint", "-enable", "-service=nobody")).toMatchObject({
      exitCode: 1,
      err: expect.stringContaining('Unknown service ID "nobody"') as string,
    });
  });
});

describe("reload", () => {
  it("sees a file that is new in a folder of -config-dir", async () => {
    await writeFile(join(folder.path, "conf.d", "new.hcl"), 'service { name = "dropped" port = 7 }');
    expect((await trilith("reload")).out).toBe("Configuration reload triggered\n");
    await until(async () => "dropped" in ((await (await fetch(`${url}/v1/agent/services`)).json()) as object));
  });
});

describe("monitor", () => {
  it.each([
    ["text", [], /^\S+Z \[INFO\] {2}agent[.\w]*: reading files again/m],
    ["JSON", ["-log-json"], /^\{.*"@message":"reading files again".*"@timestamp":"\S+Z"\}$/m],
  ])("as %s, until interrupted", async (_, flags, line) => {
    const { child, done, said } = start(["monitor", "-log-level=info", ...flags]);
    // The stream may begin a moment after the program does.
    await until(async () => {
      await put("/v1/agent/reload");
      return line.test(said());
    });
    child.kill("SIGINT");
    expect((await done).exitCode).toBe(0);
  });
  it("tells at debug what reaches the catalog, in Consul's words", async () => {
    const { child, done, said } = start(["monitor", "-log-level=debug"]);
    const both = { ID: "told", Name: "told", Check: { TTL: "60s" } };
    const lines = [
      / \[DEBUG\] agent: Synced service: service=told\n/,
      / \[DEBUG\] agent: Synced check: check=service:told status=critical\n/,
      / \[DEBUG\] agent: Check status updated: check=service:told status=passing\n/,
      / \[DEBUG\] agent: Synced check: check=service:told status=passing\n/,
      / \[DEBUG\] agent: Deregistered service: service=told/,
    ];
    // The stream may begin in the midst of one round.
    await until(async () => {
      await put("/v1/agent/service/register", both);
      await put("/v1/agent/check/pass/service:told");
      await put("/v1/agent/service/deregister/told");
      return lines.every((line) => line.test(said()));
    }).catch(() => {
      for (const line of lines) expect(said()).toMatch(line);
    });
    child.kill("SIGINT");
    expect((await done).exitCode).toBe(0);
  });
  it("says which level it does not know", async () => {
    expect(await trilith("monitor", "-log-level=loud")).toMatchObject({
      err: expect.stringMatching(/Unknown log level: loud/),
    });
  });
});

describe("rtt", () => {
  it("estimates from coordinates, and says which are missing", async () => {
    for (const [node, x] of [
      ["n1", 0.1],
      ["n2", 0.4],
    ] as const) {
      await put("/v1/catalog/register", { Node: node, Address: "10.0.0.1" });
      const Coord = { Vec: [x, 0, 0, 0, 0, 0, 0, 0], Error: 1.5, Adjustment: 0, Height: 0.00001 };
      await put("/v1/coordinate/update", { Node: node, Coord });
    }
    expect(await trilith("rtt", "n1", "n2")).toEqual({
      exitCode: 0,
      out: "Estimated n1 <-> n2 rtt: 300.020 ms (using LAN coordinates)\n",
      err: "",
    });
    expect(await trilith("rtt", "n1", "n9")).toMatchObject({
      exitCode: 1,
      err: expect.stringContaining('Could not find a coordinate for node "n9"') as string,
    });
  });
});

describe("snapshot", () => {
  it("saves, inspects, restores; a damaged file is refused and what was saved stays", async () => {
    const file = join(folder.path, "backup.snap");
    await put("/v1/kv/snap/a", "1");
    expect((await trilith("snapshot", "save", file)).out).toMatch(/^Saved and verified snapshot to index \d+\n$/);
    expect((await stat(file)).mode & 0o777).toBe(0o600);
    const inspected = await trilith("snapshot", "inspect", file);
    expect(inspected.out).toMatch(/^ ID +[0-9a-f]{16}\n Size +\d+\n Index +\d+\n Term +1\n Version +1\n/);
    expect(inspected.out).toMatch(
      /\n Type +Count +Size\n ---- +---- +----\n[\s\S]* KVS +1 +\d+B\n[\s\S]* Total +[\d.]+K?B\n$/,
    );
    await fetch(`${url}/v1/kv/snap/a`, { method: "DELETE" });
    expect(await trilith("snapshot", "restore", file)).toEqual({ exitCode: 0, out: "Restored snapshot\n", err: "" });
    expect(await (await fetch(`${url}/v1/kv/snap/a?raw`)).text()).toBe('"1"');
    const bytes = await readFile(file);
    const broken = join(folder.path, "broken.snap");
    await writeFile(broken, bytes.subarray(0, bytes.length - 20));
    for (const verb of ["inspect", "restore"])
      expect(await trilith("snapshot", verb, broken)).toMatchObject({
        exitCode: 1,
        err: expect.stringMatching(/not a snapshot that can be restored: .*Nothing was changed/) as string,
      });
  });
});

describe("the rest", () => {
  it("info, operator, keygen, join", async () => {
    expect((await trilith("info")).out).toMatch(
      /^agent:\n\tcheck_monitors = \d+\n[\s\S]*consul:\n[\s\S]*\tserver = true\n/,
    );
    expect((await trilith("operator", "raft", "list-peers")).out).toMatch(
      /^Node +ID +Address +State +Voter +RaftProtocol +Commit Index +Trails Leader By\nalpha +\S+ +127\.0\.0\.1:8300 +leader +true +3 +\d+ +-\n$/,
    );
    expect((await trilith("operator", "autopilot", "get-config")).out).toContain("CleanupDeadServers = true\n");
    expect(Buffer.from((await trilith("keygen")).out, "base64")).toHaveLength(32);
    expect((await trilith("join", "127.0.0.1")).out).toBe("Successfully joined cluster by contacting 1 nodes.\n");
    expect(await trilith("join", "192.0.2.1")).toMatchObject({
      exitCode: 1,
      err: expect.stringMatching(
        /Error joining address '192\.0\.2\.1': .*--etcd[\s\S]*Failed to join any nodes/,
      ) as string,
    });
    expect(await trilith("force-leave", "nobody")).toMatchObject({
      exitCode: 1,
      err: expect.stringContaining("No node found with name 'nobody'") as string,
    });
  });
  it("leave ends the agent", async () => {
    // It left in a try before this one.
    if (!(await up())) await serve();
    const ended = new Promise((resolve) => serving.once("exit", resolve));
    expect((await trilith("leave")).out).toBe("Graceful leave complete\n");
    expect(await ended).toBe(0);
  });
});
