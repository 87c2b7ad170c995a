// Runs the README's examples as they stand there, on a host of their own (a network namespace), so that the default ports are free.
import { execFile, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { eventually, havePrograms, ownFolder } from "../support/peers.ts";

const root = resolve(import.meta.dirname, "../..");
const readme = readFileSync(join(root, "README.md"), "utf8");
const exec = promisify(execFile);
const namespace = `trilith-readme-${process.pid}`;

/** The text of the code block behind `<!-- example: name -->`. */
function example(name: string): string {
  const match = new RegExp(`<!-- example: ${name} -->\\n\`\`\`\\w+\\n([\\s\\S]*?)\`\`\``).exec(readme);
  if (match?.[1] === undefined) throw new Error(`README.md has no example "${name}"`);
  return match[1];
}

const able = (await havePrograms("ip", "dig", "curl", "python3", "cc")) && process.getuid?.() === 0;

describe.runIf(able)("the README", () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let env: NodeJS.ProcessEnv;
  /** What goes on in the background: the agent, and what it registers. */
  const running = new Map<"agent" | "server", ReturnType<typeof spawn>>();

  const inside = (words: readonly string[]): string[] => ["netns", "exec", namespace, ...words];
  /** Ends it as Ctrl-C in a terminal does: everything in the foreground is told. */
  const end = async (role: "agent" | "server"): Promise<void> => {
    const child = running.get(role);
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const over = new Promise((done) => child.once("exit", done));
    process.kill(-(child.pid ?? 0), "SIGINT");
    await over;
  };
  /** In the place of what a try before this one started. */
  const background = async (
    role: "agent" | "server",
    words: readonly string[],
  ): Promise<{ readonly output: () => string }> => {
    await end(role);
    const child = spawn("ip", inside(words), { cwd: root, env, stdio: ["ignore", "pipe", "pipe"], detached: true });
    running.set(role, child);
    let text = "";
    child.stdout?.on("data", (chunk: Buffer) => {
      text += chunk.toString();
    });
    child.stderr?.on("data", (chunk: Buffer) => {
      text += chunk.toString();
    });
    return { output: () => text };
  };
  const shell = async (script: string): Promise<string> => {
    const { stdout } = await exec("ip", inside(["bash", "-euo", "pipefail", "-c", script]), { cwd: root, env });
    return stdout;
  };

  beforeAll(async () => {
    folder = await ownFolder("readme");
    const own = { TRILITH_DATA_DIR: join(folder.path, "data"), XDG_CACHE_HOME: join(folder.path, "cache") };
    env = { ...process.env, ...own, npm_config_update_notifier: "false" };
    await exec("ip", ["netns", "add", namespace]);
    await exec("ip", ["-n", namespace, "link", "set", "lo", "up"]);
  });

  afterAll(async () => {
    await end("server");
    await end("agent");
    await exec("ip", ["netns", "del", namespace]);
    await folder.remove();
  });

  it("starts an agent that says where everything is, in a screenful", { timeout: 150_000 }, async () => {
    const agent = await background("agent", ["npm", "start", "--silent"]);
    await eventually("the start screen", () => agent.output().includes("Ctrl-C stops the agent"), 120_000);
    const text = agent.output();
    expect(text).toContain("http://127.0.0.1:8500");
    expect(text).toContain("127.0.0.1:8600");
    expect(text).toContain(join(folder.path, "data"));
    for (const source of ["docker", "file", "process", "tailscaled"]) expect(text).toContain(source);
    expect(text).toContain("trilith run");
    expect(text.split("\n").length).toBeLessThan(32);
  });

  it("registers what `trilith run` runs, and everybody finds it", async () => {
    await background("server", ["bash", "-c", example("run")]);
    const [find = "", dig = "", curl = ""] = example("ask").trim().split("\n");
    const found = await eventually("trilith find", async () => await shell(`${find} --json`));
    const { endpoints } = JSON.parse(found) as { endpoints: { address: string; port: number }[] };
    expect(endpoints).toHaveLength(1);
    const { port = 0 } = endpoints[0] ?? {};
    expect(port).toBeGreaterThan(0);
    expect(await shell(find)).toContain(String(port));
    expect(await shell(dig)).toMatch(new RegExp(`web\\.service\\.consul\\.\\s+0\\s+IN\\s+SRV\\s+1 1 ${port} `));
    const healthy = JSON.parse(await shell(curl)) as { Service: { Port: number } }[];
    expect(healthy.map(({ Service }) => Service.Port)).toEqual([port]);
    expect(await shell(`curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:${port}/`)).toBe("200");
  });

  it("lets a program that knows nothing of it connect by the service's name", async () => {
    expect(await shell(example("hook"))).toContain("Directory listing for /");
  });

  it("is gone from all of them when the server stops", async () => {
    await end("server");
    const [, dig = "", curl = ""] = example("ask").trim().split("\n");
    await eventually("gone from HTTP", async () => (await shell(curl)).trim() === "[]");
    expect(await shell(dig)).toContain("status: NXDOMAIN");
    await expect(shell("npx trilith find web")).rejects.toMatchObject({ code: 1 });
  });

  it("registers by hand, lists, explains and deregisters", { timeout: 120_000 }, async () => {
    // The 30 s for which it is well may be over before a busy machine comes to `list`.
    const text = await eventually(
      "it is listed as well",
      async () => {
        const text = await shell(example("register"));
        return /^db +1 +1 /m.test(text) && text;
      },
      90_000,
    );
    expect(text).toContain("Registered service: db");
    expect(text).toContain("service:db");
    expect(text).toContain("Deregistered service: db");
  });

  it("keeps keys and values", async () => {
    const text = await shell(example("kv"));
    expect(text).toMatch(/^blue$/m);
    expect(text).toContain("Success! Deleted key: config/color");
  });

  it("is used as a library", async () => {
    // The package finds itself by its own name ("trilith"), as an installed one would be found.
    const file = join(root, ".tmp", `readme-${process.pid}.mjs`);
    await mkdir(join(root, ".tmp"), { recursive: true });
    await writeFile(file, example("library"));
    expect(await shell(`node ${file}; rm ${file}`)).toMatch(/:4000/);
  });
});
