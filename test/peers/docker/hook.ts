// The hook in containers of a real dockerd, by LD_PRELOAD and a mounted table: on the host's network, and on a bridge at an address that the host advertises.
import { copyFile, mkdir } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { hookLibrary } from "../../../src/base/native-build.ts";
import { type Docker, startDocker } from "../../support/docker.ts";
import { type RunningAgent, startAgent } from "../../support/ground.ts";
import { eventually, havePrograms, ownFolder } from "../../support/peers.ts";

describe.runIf(await havePrograms("dockerd", "docker", "iptables", "curl", "cc"))("the hook in containers", () => {
  let docker: Docker;
  let agent: RunningAgent;
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let server: Server;

  beforeAll(async () => {
    folder = await ownFolder("docker-hook");
    docker = await startDocker("hook");
  }, 240_000);
  afterAll(async () => {
    server?.close();
    await agent?.stop();
    await docker?.remove();
    await folder?.remove();
  });

  it("reaches services by name from curl", { timeout: 120_000 }, async () => {
    // What every container reaches of this host: its end of the bridge. A network that was just made does not tell it, a container does.
    const first = await docker.docker("run", "-d", "bbweb");
    const address = await docker.docker("inspect", "-f", "{{.NetworkSettings.Gateway}}", first);
    await docker.docker("rm", "-f", first);
    expect(address).toMatch(/^\d+\.\d+\.\d+\.\d+$/);
    const hook = join(folder.path, "hook");
    agent = await startAgent({
      advertiseAddress: address,
      protocols: { docker: { host: docker.host }, shim: { table: join(hook, "table") } },
    });
    await mkdir(join(hook, "lib"), { recursive: true });
    await copyFile(await hookLibrary("glibc"), join(hook, "lib", "libtrilith.so"));
    server = createServer((_, reply) => reply.end("here"));
    await new Promise<void>((resolve) => server.listen(0, address, resolve));
    const { port } = server.address() as AddressInfo;
    await agent.trilith.agent.register("api", {
      ...{ id: "own", name: "own", tags: [], labels: {}, address, port, checks: [] },
    });
    await docker.docker("run", "-d", "-P", "-e", "SERVICE_NAME=inside", "bbweb");
    await eventually("the container is a service", async () => {
      const answer = await fetch(`${agent.url}/v1/health/service/inside?passing`);
      return ((await answer.json()) as unknown[]).length === 1;
    });
    expect((await fetch(`${agent.url}/v1/trilith/hook`)).status).toBe(200);

    const curl = (network: string, service: string, user = "0"): Promise<string> =>
      docker.docker(
        ...["run", "--rm", "--network", network, "-u", user, "-v", `${hook}:/run/trilith:ro`],
        // This system's own curl, and what it is linked to.
        ...["/lib", "/lib64", "/usr"].flatMap((path) => ["-v", `${path}:${path}:ro`]),
        ...["-e", "LD_PRELOAD=/run/trilith/lib/libtrilith.so", "bb:latest"],
        ...["/usr/bin/curl", "-sS", "-m", "5", `http://${service}.service.consul/`],
      );
    for (const network of ["bridge", "host"])
      expect([await curl(network, "own"), await curl(network, "inside")], network).toEqual(["here", "ok"]);
    expect(await curl("bridge", "inside", "1000")).toBe("ok");
    await expect(curl("bridge", "nothing")).rejects.toThrow(/Could not resolve host|Resolving timed out/);
  });
});
