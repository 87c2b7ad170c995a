// The hook in containers of a real dockerd and a real Podman, by LD_PRELOAD and a mounted table: on the host's network and on bridges, with an agent that was told nothing about addresses.
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { hookLibrary } from "../../../src/base/native-build.ts";
import { decodeHookTable } from "../../../src/wire/hook-table.ts";
import { type Docker, startDocker } from "../../support/docker.ts";
import { type RunningAgent, startAgent } from "../../support/ground.ts";
import { triedBefore } from "../../support/own-name.ts";
import { eventually, havePrograms, ownFolder } from "../../support/peers.ts";
import { startPodman } from "../../support/podman.ts";

/** This system's own curl, and what it is linked to. */
const PROGRAMS = ["/lib", "/lib64", "/usr"].flatMap((path) => ["-v", `${path}:${path}:ro`]);

interface Setup {
  readonly agent: RunningAgent;
  /** The folder with the table, and one with a Dockerfile whose image has the library. */
  readonly hook: string;
  readonly image: string;
  readonly stop: () => Promise<void>;
}

/** An agent with a table, one service of this host that listens everywhere ("own"), and one that listens on loopback only ("private"). */
async function setUp(engine: string, base: string): Promise<Setup> {
  const folder = await ownFolder("docker-hook");
  const hook = join(folder.path, "hook");
  const image = join(folder.path, "image");
  const servers: Server[] = [];
  const agent = await startAgent({
    protocols: { docker: { host: engine, enabled: true }, shim: { table: join(hook, "table") } },
  });
  const stop = async (): Promise<void> => {
    for (const server of servers) server.close();
    await agent.stop();
    await folder.remove();
  };
  try {
    await mkdir(image);
    await copyFile(await hookLibrary("glibc"), join(image, "libtrilith.so"));
    await writeFile(
      join(image, "Dockerfile"),
      `FROM ${base}\nCOPY libtrilith.so /opt/libtrilith.so\nENV LD_PRELOAD=/opt/libtrilith.so\n`,
    );
    for (const [name, host] of [
      ["own", "0.0.0.0"],
      ["private", "127.0.0.1"],
    ] as const) {
      const server = createServer((_, reply) => reply.end(name));
      servers.push(server);
      await new Promise<void>((resolve) => server.listen(0, host, resolve));
      await agent.trilith.agent.register("api", {
        ...{ id: name, name, tags: [], labels: {}, address: "", checks: [] },
        port: (server.address() as AddressInfo).port,
      });
    }
    return { agent, hook, image, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

const addressesIn = async (hook: string, service: string): Promise<readonly string[] | undefined> =>
  decodeHookTable(await readFile(join(hook, "table")))
    .services.find(({ subject }) => subject === service)
    ?.backends.map(({ address }) => address);

describe.runIf(await havePrograms("dockerd", "docker", "iptables", "curl", "cc"))(
  "the hook in Docker's containers",
  () => {
    let docker: Docker;
    let setup: Setup | undefined;

    beforeAll(async () => {
      docker = await startDocker("hook");
    }, 240_000);
    beforeEach(async (context) => {
      if (triedBefore(context)) await docker.clear("apart");
    });
    afterEach(async () => {
      await setup?.stop();
      setup = undefined;
    });
    afterAll(() => docker?.remove());

    it("reaches services by name from curl, with LD_PRELOAD in the Dockerfile and nothing said to the agent", {
      timeout: 120_000,
    }, async () => {
      setup = await setUp(docker.host, "bb:latest");
      const { agent, hook, image } = setup;
      await docker.docker("build", "-t", "hooked", image);
      await docker.docker("network", "create", "apart");
      await docker.docker("run", "-d", "-P", "-e", "SERVICE_NAME=inside", "bbweb");
      await eventually("the container is a service", async () => {
        const answer = await fetch(`${agent.url}/v1/health/service/inside?passing`);
        return ((await answer.json()) as unknown[]).length === 1;
      });
      expect((await fetch(`${agent.url}/v1/trilith/hook`)).status).toBe(200);
      // What the table says is right on the host only.
      for (const service of ["own", "private", "inside"])
        expect(await addressesIn(hook, service)).toEqual([expect.stringMatching(/^127\./)]);

      const curl = (network: string, service: string, user = "0"): Promise<string> =>
        docker.docker(
          ...["run", "--rm", "--network", network, "-u", user, "-v", `${hook}:/run/trilith:ro`, ...PROGRAMS],
          ...["hooked", "/usr/bin/curl", "-sS", "-m", "5", `http://${service}.service.consul/`],
        );
      for (const network of ["bridge", "apart", "host"])
        expect([await curl(network, "own"), await curl(network, "inside")], network).toEqual(["own", "ok"]);
      expect(await curl("bridge", "inside", "1000")).toBe("ok");
      await expect(curl("bridge", "nothing")).rejects.toThrow(/Could not resolve host|Resolving timed out/);
      // Nobody reaches from elsewhere what listens on loopback only; and what others have there is not taken for it.
      expect(await curl("host", "private")).toBe("private");
      await expect(curl("bridge", "private")).rejects.toThrow(/Failed to connect|Could not connect/);
      await docker.docker("network", "rm", "apart");
    });

    it("is led to an address that the host advertises", { timeout: 120_000 }, async () => {
      // What every container reaches of this host: its end of the bridge. A network that was just made does not tell it, a container does.
      const first = await docker.docker("run", "-d", "bbweb");
      const address = await docker.docker("inspect", "-f", "{{.NetworkSettings.Gateway}}", first);
      await docker.docker("rm", "-f", first);
      expect(address).toMatch(/^\d+\.\d+\.\d+\.\d+$/);
      const folder = await ownFolder("docker-hook-advertised");
      const agent = await startAgent({
        advertiseAddress: address,
        protocols: { docker: { host: docker.host }, shim: { table: join(folder.path, "table") } },
      });
      try {
        await agent.trilith.agent.register("api", {
          ...{ id: "own", name: "own", tags: [], labels: {}, address: "", port: 80, checks: [] },
        });
        await fetch(`${agent.url}/v1/trilith/hook`);
        expect(await addressesIn(folder.path, "own")).toEqual([address]);
      } finally {
        await agent.stop();
        await folder.remove();
      }
    });
  },
);

describe.runIf(await havePrograms("podman", "iptables", "curl", "cc"))("the hook in Podman's containers", () => {
  it("reaches services by name from curl", { timeout: 240_000 }, async () => {
    const podman = await startPodman("hook");
    let setup: Setup | undefined;
    try {
      setup = await setUp(podman.host, "pexp1");
      const { agent, hook, image } = setup;
      await podman.podman("build", "-t", "hooked", image);
      expect((await fetch(`${agent.url}/v1/trilith/hook`)).status).toBe(200);
      expect(await addressesIn(hook, "own")).toEqual([expect.stringMatching(/^127\./)]);
      const curl = (network: string, service: string): Promise<string> =>
        podman.podman(
          ...["run", "--rm", "--network", network, "-v", `${hook}:/run/trilith:ro`, ...PROGRAMS],
          ...["hooked", "/usr/bin/curl", "-sS", "-m", "5", `http://${service}.service.consul/`],
        );
      expect(await curl("host", "private")).toBe("private");
      for (const network of ["podman", "host"]) expect(await curl(network, "own"), network).toBe("own");
    } finally {
      await setup?.stop();
      await podman.remove();
    }
  });
});
