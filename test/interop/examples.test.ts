// Runs everything in examples/.
import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import { DEFAULT_SOCKET } from "../../src/base/tailnet.ts";
import { createTrilith } from "../../src/index.ts";
import { eventually, freePort, havePrograms } from "../support/peers.ts";

const run = promisify(execFile);
const root = resolve(import.meta.dirname, "../..");
const examples = join(root, "examples");
const main = join(root, "dist/cli/main.js");

const compose = await havePrograms("docker-compose");

describe("the examples", () => {
  it("are all run here", () => {
    expect(readdirSync(examples).sort()).toEqual(["greeter.mjs", "grpc.mjs", "services", "tailnet-sidecar.yml"]);
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

  it.skipIf(!compose)("has a compose file that compose takes", async () => {
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
});
