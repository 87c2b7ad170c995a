// Runs everything in examples/.
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { DEFAULT_SOCKET } from "../../src/base/tailnet.ts";
import { createTrilith } from "../../src/index.ts";
import type { Labels } from "../../src/model/node.ts";
import { readConnectLabels } from "../../src/protocols/docker/connect/labels.ts";
import { eventually, freePort, havePrograms } from "../support/peers.ts";

const run = promisify(execFile);
const root = resolve(import.meta.dirname, "../..");
const examples = join(root, "examples");
const main = join(root, "dist/cli/main.js");

const compose = await havePrograms("docker-compose");

describe("the examples", () => {
  it("are all run here", () => {
    expect(readdirSync(examples).sort()).toEqual([
      "connect-node",
      "greeter.mjs",
      "grpc.mjs",
      "localhost.yml",
      "render.hcl",
      "services",
      "tailnet-sidecar.yml",
    ]);
  });

  it("has valid service files that an agent takes over", async () => {
    const { stdout } = await run(process.execPath, [main, "validate", join(examples, "services")]);
    expect(stdout).toContain("Configuration is valid!");
    const trilith = createTrilith({
      dev: true,
      httpPort: -1,
      protocols: { dns: { port: -1 }, docker: false, file: { paths: [join(examples, "services")] } },
    });
    await trilith.start();
    try {
      await eventually("all three", () => trilith.agent.services().size === 3);
      const shop = [...trilith.agent.services().values()].find(({ instance }) => instance.name === "shop");
      expect(shop?.instance).toMatchObject({ port: 8080, tags: ["v2", "blue"], labels: { team: "storefront" } });
      expect(trilith.agent.complaints()).toEqual([]);
    } finally {
      await trilith.stop();
    }
  });

  it("has a program that registers and finds itself", async () => {
    const httpPort = await freePort();
    const trilith = createTrilith({ dev: true, httpPort, protocols: { dns: { port: -1 }, docker: false } });
    await trilith.start();
    try {
      const { stdout } = await run(process.execPath, [join(examples, "greeter.mjs")], {
        cwd: root,
        env: { ...process.env, TRILITH_HTTP_ADDR: `127.0.0.1:${httpPort}` },
      });
      expect(stdout).toMatch(/^hello from 127\.0\.0\.1:\d+$/m);
      expect(stdout).toContain("greeter: 1 passing");
      await eventually("gone", () => trilith.lookup.resolveNow({ service: "greeter" }).endpoints.length === 0);
    } finally {
      await trilith.stop();
    }
  });

  it("has files that are kept by `trilith render`", async () => {
    const httpPort = await freePort();
    const trilith = createTrilith({ dev: true, httpPort, protocols: { dns: { port: -1 }, docker: false } });
    await trilith.start();
    try {
      const registered = await fetch(`http://127.0.0.1:${httpPort}/v1/agent/service/register`, {
        method: "PUT",
        body: JSON.stringify({ ID: "g1", Name: "greeter", Address: "127.0.0.1", Port: 4711 }),
      });
      expect(registered.status).toBe(200);
      const words = ["render", "--config", join(examples, "render.hcl"), "--once", "--dry"];
      const { stdout } = await run(process.execPath, [main, ...words], {
        env: { ...process.env, TRILITH_HTTP_ADDR: `127.0.0.1:${httpPort}` },
      });
      expect(stdout).toContain("> /etc/haproxy/greeter.cfg\n# greeter: ");
      expect(stdout).toContain("server g1 127.0.0.1:4711 weight 1\n");
      expect(stdout).toMatch(/^> \/etc\/greeters\n\n127\.0\.0\.1:4711 # g1 on \S+\n$/m);
    } finally {
      await trilith.stop();
    }
  });

  it("has a sidecar for the tailnet whose socket and network the agent shares", () => {
    const { services } = parse(readFileSync(join(examples, "tailnet-sidecar.yml"), "utf8")) as {
      services: Record<"tailscaled" | "trilith", { volumes: string[]; network_mode?: string; environment: object }>;
    };
    expect(services.trilith.network_mode).toBe("service:tailscaled");
    expect(services.tailscaled.environment).toMatchObject({ TS_SOCKET: DEFAULT_SOCKET, TS_USERSPACE: "false" });
    const folder = dirname(DEFAULT_SOCKET);
    expect(services.tailscaled.volumes).toContain(`tailscaled-socket:${folder}`);
    expect(services.trilith.volumes).toContain(`tailscaled-socket:${folder}:ro`);
  });

  it("has an agent in a container that may do what localhost in other containers takes", () => {
    const { services } = parse(readFileSync(join(examples, "localhost.yml"), "utf8")) as {
      services: Record<"trilith" | "app", { pid?: string; cap_add?: string[]; network_mode?: string; labels?: Labels }>;
    };
    expect(services.trilith).toMatchObject({ pid: "host", cap_add: ["SYS_ADMIN", "SYS_PTRACE"], network_mode: "host" });
    const { ports, faults } = readConnectLabels(services.app.labels ?? {}, "consul");
    expect(faults).toEqual([]);
    expect(ports).toMatchObject([{ protocol: "tcp", port: 8080, service: "web" }]);
  });

  it.skipIf(!compose)("has compose files that compose takes", async () => {
    await run("docker-compose", ["--file", join(examples, "localhost.yml"), "config", "--quiet"]);
    const words = ["--file", join(examples, "tailnet-sidecar.yml"), "config", "--quiet"];
    await run("docker-compose", words, { env: { ...process.env, TS_AUTHKEY: "tskey-auth-test" } });
    await expect(run("docker-compose", words, { env: { ...process.env, TS_AUTHKEY: "" } })).rejects.toThrow(/auth key/);
  });

  it("has a gRPC server and a client that finds it by name", async () => {
    const httpPort = await freePort();
    const trilith = createTrilith({ dev: true, httpPort, protocols: { dns: { port: -1 }, docker: false } });
    await trilith.start();
    try {
      const { stdout } = await run(process.execPath, [join(examples, "grpc.mjs")], {
        cwd: root,
        env: { ...process.env, TRILITH_HTTP_ADDR: `127.0.0.1:${httpPort}` },
      });
      expect(stdout).toBe("hello gRPC\n");
    } finally {
      await trilith.stop();
    }
  });

  it("has a program that reaches a service by name and knows nothing of it, and one that uses the library", async () => {
    const httpPort = await freePort();
    const trilith = createTrilith({ dev: true, httpPort, protocols: { dns: { port: -1 }, docker: false } });
    await trilith.start();
    const env = { ...process.env, TRILITH_HTTP_ADDR: `127.0.0.1:${httpPort}`, TRILITH_HOOK_TABLE: "" };
    const folder = join(examples, "connect-node");
    const server = spawn(process.execPath, [join(folder, "server.mjs")], { cwd: root, env, stdio: "pipe" });
    try {
      const [said] = await once(server.stdout, "data");
      const [port] = /\d+/.exec(String(said)) ?? [];
      const hello = `hello from port ${port}\n`;
      const hooked = ["--import", "trilith/hook", join(folder, "app.mjs")];
      expect((await run(process.execPath, hooked, { cwd: root, env })).stdout).toBe(hello.repeat(2));
      expect((await run(process.execPath, [join(folder, "library.mjs")], { cwd: root, env })).stdout).toBe(
        hello.repeat(3),
      );
    } finally {
      server.kill("SIGTERM");
      await once(server, "exit");
      await trilith.stop();
    }
  });
});
