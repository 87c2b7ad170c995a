// Containers of a real dockerd by name in a hosts file, and in a server set: there while they run, gone when they are stopped.
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { type Docker, startDocker } from "../../support/docker.ts";
import { type RunningAgent, startAgent } from "../../support/ground.ts";
import { triedBefore } from "../../support/own-name.ts";
import { eventually, havePrograms, ownFolder } from "../../support/peers.ts";

describe.runIf(await havePrograms("dockerd", "docker", "iptables"))("a hosts file of containers", () => {
  let docker: Docker;
  let agent: RunningAgent | undefined;
  let folder: Awaited<ReturnType<typeof ownFolder>>;

  beforeAll(async () => {
    folder = await ownFolder("docker-hosts");
    docker = await startDocker("hosts");
  }, 240_000);
  beforeEach(async (context) => {
    if (triedBefore(context)) await docker.clear();
  });
  afterEach(async () => {
    await agent?.stop();
    agent = undefined;
  });
  afterAll(async () => {
    await docker?.remove();
    await folder?.remove();
  });

  it("has them by name, service and tag, and loses them when they stop", { timeout: 120_000 }, async () => {
    const file = join(folder.path, "hosts");
    await writeFile(file, "127.0.0.1 localhost\n");
    agent = await startAgent({
      advertiseAddress: "192.0.2.1",
      protocols: {
        docker: { host: docker.host },
        hosts: {
          path: file,
          names: ["{container}.docker", "{name}.{domain}", "{tag}.{name}"],
          domain: "lan",
          from: "host",
        },
      },
    });
    const lines = async (): Promise<readonly string[]> =>
      (await readFile(file, "utf8")).split("\n").filter((line) => /^\d+\.\d+/.test(line));
    const one = ["--name", "Shop_1", "-e", "SERVICE_NAME=shop", "-e", "SERVICE_TAGS=v1"];
    await docker.docker("run", "-d", "-P", ...one, "bbexp1");
    await docker.docker("run", "-d", "-P", "--name", "mail", "bbexp1");
    const written = await eventually("both are written", async () => {
      const all = await lines();
      return all.some((line) => line.includes("shop_1.docker")) && all.some((line) => line.includes("mail.docker"))
        ? all
        : undefined;
    });
    const names = written.join(" ").split(/\s+/);
    expect(names).toEqual(
      expect.arrayContaining(["shop_1.docker", "shop.lan", "v1.shop", "mail.docker", "bbexp1.lan"]),
    );
    expect(written[0]).toBe("127.0.0.1 localhost");
    const inner = await docker.docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "Shop_1");
    expect(written.find((line) => line.includes("shop_1"))?.split("\t")[0]).toBe(inner);
    await docker.docker("stop", "-t", "0", "Shop_1");
    await eventually("it is gone", async () => !(await readFile(file, "utf8")).includes("shop"));
    expect((await lines()).join(" ")).toContain("mail.docker");
  });
});
