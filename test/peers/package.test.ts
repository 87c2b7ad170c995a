// The package as its users get it: a fresh clone by `npm start`, an installed tarball by `npx trilith`, and the newest Node.js.
import { execFile, spawn } from "node:child_process";
import { mkdtemp, readdir, symlink, writeFile } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { eventually, freePort, ownFolder } from "../support/peers.ts";

const run = promisify(execFile);
const root = resolve(import.meta.dirname, "../..");
const npm = { maxBuffer: 1 << 26, env: { ...process.env, npm_config_update_notifier: "false" } };

/** Starts an agent by any command line, waits for its start screen, asks it, and stops it by Ctrl-C. */
async function startAskStop(command: readonly string[], cwd: string, dataDir: string): Promise<string> {
  const [http, dns] = [await freePort(), await freePort()];
  const [file = "", ...args] = [...command, `-http-port=${http}`, `-dns-port=${dns}`, "-docker-host=off"];
  const child = spawn(file, args, {
    cwd,
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...npm.env, TRILITH_DATA_DIR: dataDir },
  });
  let text = "";
  const take = (chunk: Buffer): void => {
    text += chunk.toString();
  };
  child.stdout.on("data", take);
  child.stderr.on("data", take);
  const ended = new Promise<void>((done) => child.once("exit", () => done()));
  try {
    await eventually("the start screen", () => text.includes("Ctrl-C stops the agent"), 240_000);
    const response = await fetch(`http://127.0.0.1:${http}/v1/health/service/consul?passing`);
    expect(await response.json()).toHaveLength(1);
  } catch (error) {
    throw new Error(`the agent said:\n${text}`, { cause: error });
  } finally {
    process.kill(-(child.pid ?? 0), "SIGINT");
    await ended;
  }
  return text;
}

describe("the package", () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  beforeAll(async () => {
    folder = await ownFolder("package");
  });
  afterAll(() => folder.remove());
  /** A folder that no other test has, nor another try of this one. */
  const ownIn = (name: string): Promise<string> => mkdtemp(join(folder.path, `${name}-`));
  let made: Promise<string> | undefined;
  /** The folder of a project into which the package was installed, as npm packs it. */
  const installed = (): Promise<string> => {
    made ??= install().catch((error: unknown) => {
      made = undefined;
      throw error;
    });
    return made;
  };
  const install = async (): Promise<string> => {
    const [packed, home] = [await ownIn("packed"), await ownIn("home")];
    const { stdout } = await run(process.execPath, [join(root, "scripts/release.mjs"), packed], { ...npm, cwd: root });
    await writeFile(join(home, "package.json"), '{"name":"home","private":true,"type":"module"}');
    await run("npm", ["install", "--silent", "--no-audit", "--no-fund", join(packed, stdout.trim())], {
      ...npm,
      cwd: home,
    });
    return home;
  };

  it("runs from a fresh clone by `npm start`, which installs and builds what is missing", async () => {
    const clone = join(await ownIn("clone"), "trilith");
    const data = await ownIn("data");
    await run("git", ["clone", "--quiet", "--no-local", root, clone]);
    expect(await readdir(clone)).not.toContain("node_modules");
    const text = await startAskStop(["npm", "start", "--silent", "--"], clone, data);
    expect(text).toContain("Installing packages");
    expect(text).toContain("Building");
    const again = await startAskStop(["npm", "start", "--silent", "--"], clone, data);
    expect(again).not.toContain("Installing");
    expect(again).not.toContain("Building");
  }, 600_000);

  it("runs as an installed package by `npx trilith agent`, and is imported by its name", async () => {
    const home = await installed();
    await startAskStop(["npx", "--no-install", "trilith", "agent"], home, await ownIn("data"));
    const script = 'import { createTrilith } from "trilith"; console.log(typeof createTrilith)';
    expect((await run(process.execPath, ["--input-type=module", "-e", script], { cwd: home })).stdout).toBe(
      "function\n",
    );
    const doors = [
      'import { connect } from "trilith"; import { createAgent, install } from "trilith/undici"; import { registerResolvers } from "trilith/grpc";',
      "console.log([connect, createAgent, install, registerResolvers].map((each) => typeof each).join());",
    ].join("");
    const hooked = ["--import", "trilith/hook", "--input-type=module", "-e", doors];
    const seen = await run(process.execPath, hooked, {
      cwd: home,
      env: { ...npm.env, TRILITH_HOOK_TABLE: "/nowhere" },
    });
    expect([seen.stdout, seen.stderr]).toEqual(["function,function,function,function\n", ""]);
    // The hook's library comes with it: nobody needs a compiler.
    const path = await ownIn("path");
    await symlink(process.execPath, join(path, "node"));
    const library = join("node_modules/trilith/native/prebuilt", `linux-${process.arch}-glibc`, "libtrilith.so");
    const printed = await run(
      join(home, "node_modules/.bin/trilith"),
      ["hook", "--print", "--table", "/run/none/table"],
      {
        cwd: home,
        env: { PATH: path, HOME: home },
      },
    );
    expect(printed.stdout).toContain(`LD_PRELOAD=${join(home, library)}`);
    expect((await run("cat", ["package.json"], { cwd: home, env: { LD_PRELOAD: join(home, library) } })).stderr).toBe(
      "",
    );
    const listing = await readdir(join(home, "node_modules/trilith"), { recursive: true });
    expect(listing.filter((path) => /^test(\/|$)/.test(path))).toEqual([]);
    // What other documents refer to, and nothing else.
    const fromSource = listing.filter((path) => path.startsWith("src/") && basename(path).includes("."));
    expect(new Set(fromSource.map((path) => basename(path)))).toEqual(new Set(["README.md"]));
  }, 600_000);

  it("has types that hold in a strict program, and refuse what there is not", async () => {
    const home = await installed();
    const program = (lines: readonly string[]): string =>
      [
        'import { advertise, connect, find, InputError, list, proxy, type ConnectServiceOptions } from "trilith";',
        'import { registerResolvers } from "trilith/grpc";',
        'import "trilith/hook";',
        'import { createAgent, install } from "trilith/undici";',
        'import * as grpc from "@grpc/grpc-js";',
        ...lines,
        "",
      ].join("\n");
    const right = [
      'const options: ConnectServiceOptions = { labels: { env: "prod" }, tags: ["blue"], policy: "sticky", caller: "me", tryMs: 1, limitMs: 2 };',
      'const socket = await connect("web", { ...options, signal: AbortSignal.timeout(1) });',
      "const port: number | undefined = socket.remotePort;",
      'const tier: 0 | 1 | 2 | undefined = (await find("web", { env: "prod" }, { tags: ["a"] })).endpoints[0]?.tier;',
      "const names: readonly string[] = (await list()).map(({ name }) => name);",
      'const own = createAgent({ connections: 2, policy: "least", connect: { rejectUnauthorized: false } });',
      'install({ agent: "127.0.0.1:8500" });',
      'registerResolvers(grpc, { tailscaled: "/run/tailscaled.sock" });',
      'await (await advertise({ name: "web", port: 80 })).stop();',
      'await (await proxy(["0=web"])).stop();',
      "export { InputError, names, own, port, tier };",
    ];
    const wrong = [
      'await connect("web", { lables: {} });',
      'createAgent({ polcy: "first" });',
      "registerResolvers(grpc, { agnet: 1 });",
    ];
    await writeFile(join(home, "right.ts"), program(right));
    await writeFile(join(home, "wrong.ts"), program(wrong));
    const compilerOptions = { strict: true, exactOptionalPropertyTypes: true, noUncheckedIndexedAccess: true };
    const settings = { ...compilerOptions, module: "nodenext", target: "es2023", noEmit: true, skipLibCheck: false };
    const types = { typeRoots: [join(root, "node_modules/@types")], types: ["node"] };
    for (const file of ["right.ts", "wrong.ts"])
      await writeFile(
        join(home, `${file}.json`),
        JSON.stringify({ compilerOptions: { ...settings, ...types }, files: [file] }),
      );
    const tsc = (file: string): Promise<{ stdout: string }> =>
      run("npx", ["--no-install", "tsc", "-p", join(home, `${file}.json`)], { ...npm, cwd: root });
    expect((await tsc("right.ts").catch((error: { stdout: string }) => error)).stdout).toBe("");
    const said = await tsc("wrong.ts").then(
      () => "nothing",
      ({ stdout }: { stdout: string }) => stdout,
    );
    for (const [i, name] of ["lables", "polcy", "agnet"].entries())
      expect(said).toMatch(new RegExp(`wrong\\.ts[:(]${6 + i}\\b[^\\n]*${name}`));
  }, 600_000);

  it("is well formed for those who import it (publint)", async () => {
    const { stdout } = await run("npx", ["--no-install", "publint", "--strict"], { ...npm, cwd: root });
    expect(stdout).toContain("All good!");
  }, 120_000);

  it("runs on the newest Node.js", async () => {
    const home = await ownIn("newest");
    await writeFile(join(home, "package.json"), '{"name":"newest","private":true}');
    const platform = `node-${process.platform}-${process.arch}`;
    await run("npm", ["install", "--silent", "--no-audit", "--no-fund", `${platform}@latest`], { ...npm, cwd: home });
    const node = join(home, "node_modules", platform, "bin/node");
    const { stdout } = await run(node, ["--version"]);
    expect(Number(stdout.slice(1).split(".")[0])).toBeGreaterThan(20);
    const text = await startAskStop([node, join(root, "dist/cli/main.js"), "agent"], home, await ownIn("data"));
    expect(text).not.toMatch(/deprecat/i);
  }, 300_000);
});
