// Runs the examples in the protocols' READMEs against one agent with a real Docker, its ports in place of the default ones.
import { execFile, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { type Docker, startDocker } from "../../support/docker.ts";
import { type RunningAgent, startAgent } from "../../support/ground.ts";
import { triedBefore } from "../../support/own-name.ts";
import { eventually, freePort, havePrograms, ownFolder } from "../../support/peers.ts";

const exec = promisify(execFile);
const root = resolve(import.meta.dirname, "../../..");
const readme = (protocol: string): string => readFileSync(join(root, "src/protocols", protocol, "README.md"), "utf8");

/** The code block behind `<!-- example -->`, or another mark. */
function example(protocol: string, mark = "example"): string {
  const match = new RegExp(`<!-- ${mark} -->\\n+\`\`\`\\w+\\n([\\s\\S]*?)\`\`\``).exec(readme(protocol));
  if (match?.[1] === undefined) throw new Error(`the README of ${protocol} has no example`);
  return match[1].trim();
}

/** The commands behind `$` in indented blocks. */
const typed = (protocol: string): string[] =>
  [...readme(protocol).matchAll(/^ {4}\$ (.+)$/gm)].map((match) => match[1] ?? "");

const able = (await havePrograms("dockerd", "dig", "curl", "python3")) && process.getuid?.() === 0;

describe.runIf(able)("the examples of", () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let docker: Docker;
  let agent: RunningAgent;
  let http: string;
  let dnsPort: number;
  let env: NodeJS.ProcessEnv;

  const here = (script: string): string =>
    script
      .replaceAll("127.0.0.1:8500", http)
      .replaceAll("127.0.0.1:80/", `${agent.trilith.self.listening.get("backends")}/`)
      .replaceAll("-p 8600", `-p ${dnsPort}`);
  const shell = async (script: string): Promise<string> =>
    (await exec("bash", ["-euo", "pipefail", "-c", here(script)], { env })).stdout;

  beforeAll(async () => {
    folder = await ownFolder("protocol-readmes");
    docker = await startDocker("readmes");
    await docker.docker("tag", "bbweb:latest", "nginx:latest");
    await docker.docker("tag", "bb:latest", "busybox:latest");
    dnsPort = await freePort();
    await mkdir(join(folder.path, "services.d"));
    agent = await startAgent({
      advertiseAddress: "127.0.0.1",
      protocols: {
        docker: { host: docker.host, ip: "127.0.0.1" },
        process: undefined,
        file: { paths: [join(folder.path, "services.d")] },
        dns: { port: dnsPort },
        backends: { port: 0, check: false },
      },
    });
    http = agent.url.replace("http://", "");
    // "trilith" as an installed package has it on the PATH.
    const bin = join(folder.path, "bin");
    await mkdir(bin);
    await writeFile(
      join(bin, "trilith"),
      `#!/bin/sh\nexec ${process.execPath} ${join(root, "dist/cli/main.js")} "$@"\n`,
    );
    await chmod(join(bin, "trilith"), 0o755);
    env = { ...process.env, PATH: `${bin}:${process.env["PATH"]}`, TRILITH_HTTP_ADDR: http, DOCKER_HOST: docker.host };
  }, 180_000);

  beforeEach(async (context) => {
    if (triedBefore(context)) await docker.clear();
  });
  afterAll(async () => {
    await agent?.stop();
    await docker?.remove();
    await folder?.remove();
  });

  it("docker: a container is found over every dialect, and gone when it is stopped", async () => {
    const [run = "", find = ""] = example("docker").split("\n");
    const id = (await shell(run)).trim();
    const found = await eventually("the container's service", async () => await shell(find));
    expect(found).toMatch(/passing/);
    expect(found).toMatch(/v1,eu|eu,v1/);
    const port = (await docker.docker("port", id, "80/tcp")).split("\n")[0]?.split(":").at(-1);
    expect(await shell("dig +short @127.0.0.1 -p 8600 web.service.consul SRV")).toContain(` ${port} `);
    expect(await shell("curl -s http://127.0.0.1:8500/v1/health/service/web?passing")).toMatch(
      new RegExp(`"Port": *${port}\\b`),
    );
    await docker.docker("stop", "-t", "1", id);
    await eventually("gone over HTTP", async () =>
      /^\s*\[\]\s*$/.test(await shell("curl -s http://127.0.0.1:8500/v1/health/service/web?passing")),
    );
    expect(await shell("dig @127.0.0.1 -p 8600 web.service.consul SRV")).toContain("ANSWER: 0");
  });

  it("docker: a service is at a container's localhost", async () => {
    const web = (await shell(example("docker").split("\n")[0] ?? "")).trim();
    const [run = "", get = ""] = example("docker", "connect").split("\n");
    const app = (await shell(run)).trim();
    await eventually("the service answers there", async () => (await shell(get)) === "ok\n");
    await docker.docker("rm", "-f", app, web);
  });

  it("file: dropped into the folder it is registered", async () => {
    await writeFile(join(folder.path, "services.d", "web.hcl"), example("file"));
    const held = await eventually("the file's service", () =>
      [...agent.trilith.agent.services().values()].find(({ instance }) => instance.origin.source === "file"),
    );
    expect(held.instance).toMatchObject({ name: "web", port: 8080, tags: ["v1"], labels: { team: "shop" } });
    expect(held.checks).toHaveLength(1);
    await exec("rm", [join(folder.path, "services.d", "web.hcl")]);
    await eventually("gone with its file", () => agent.trilith.agent.services().size === 0);
  });

  it("process and dns: a program under `trilith run` is found by name", async () => {
    const wrapper = spawn("bash", ["-c", example("process")], { env, detached: true, stdio: "ignore" });
    const ended = new Promise((done) => wrapper.once("exit", done));
    const interrupt = async (): Promise<void> => {
      if (wrapper.exitCode === null && wrapper.signalCode === null) process.kill(-(wrapper.pid ?? 0), "SIGINT");
      await ended;
    };
    onTestFinished(interrupt);
    const answer = await eventually("an SRV record", async () => {
      const text = await shell(example("dns"));
      return text.includes("ANSWER: 1,") && text;
    });
    expect(answer).toMatch(/web\.service\.consul\.\s+0\s+IN\s+SRV\s+1 1 \d+ /);
    await interrupt();
    await eventually("gone with its process", async () => (await shell(example("dns"))).includes("ANSWER: 0,"));
  });

  it("consul: a service registered over HTTP", async () => {
    const [entry] = JSON.parse(await shell(example("consul"))) as {
      Service: { Port: number };
      Checks: { Status: string }[];
    }[];
    expect(entry?.Service.Port).toBe(8080);
    expect(entry?.Checks.map(({ Status }) => Status)).toContain("passing");
  });

  it("eureka: registered by its client's requests, fetched, and found over DNS", async () => {
    const fetched = async (): Promise<string> => await shell(example("eureka").split("\n").at(-1) ?? "");
    await shell(example("eureka"));
    const shop = await eventually("the application", async () => {
      const text = await fetched();
      return text !== "" && (JSON.parse(text) as { application: { name: string; instance: { status: string }[] } });
    });
    expect(shop.application).toMatchObject({ name: "SHOP", instance: [{ status: "UP" }] });
    expect(await shell("dig +short @127.0.0.1 -p 8600 shop.service.consul A")).toBe("192.0.2.7\n");
  });

  it("backends: registered, listed for Apache, taken back", async () => {
    const [post = "", list = "", remove = ""] = example("backends").split("\n");
    const port = /port=(\d+)/.exec(post)?.[1];
    await shell(post);
    expect(await shell(list)).toMatch(new RegExp(`^BalancerMember http://127\\.0\\.0\\.1:${port} route=web-7$`, "m"));
    await shell(remove);
    expect(await shell(list)).toBe("");
  });

  it("api: every command as it is typed", async () => {
    await agent.trilith.agent.register("api", {
      id: "web-1",
      name: "web",
      tags: ["v2"],
      labels: { zone: "a" },
      address: "10.1.0.7",
      port: 8080,
      checks: [],
    });
    const answers: string[] = [];
    const commands = typed("api");
    expect(commands.length).toBeGreaterThan(5);
    for (const command of commands) {
      // `follow` never ends by itself: its first line is enough.
      answers.push(
        await shell(
          command.includes("/follow/") ? command.replace("curl", "curl -s -m 1").concat(" || true") : command,
        ),
      );
    }
    for (const answer of answers) expect(() => JSON.parse(answer)).not.toThrow();
    expect(answers.join("\n")).not.toContain('"error"');
  });
});
