// Runs everything in examples/.
import { execFile } from "node:child_process";
import { readdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { createTrilith } from "../../src/index.ts";
import { eventually, freePort } from "../support/peers.ts";

const run = promisify(execFile);
const root = resolve(import.meta.dirname, "../..");
const examples = join(root, "examples");
const main = join(root, "dist/cli/main.js");

describe("the examples", () => {
  it("are all run here", () => {
    expect(readdirSync(examples).sort()).toEqual(["greeter.mjs", "services"]);
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
});
