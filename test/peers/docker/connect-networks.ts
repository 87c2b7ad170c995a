// Connectable's labels on the networks that need a machine of their own kind: macvlan below a cable, a one-node swarm with its overlay, and Podman's networks without IPv4.
import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createTrilith, type Trilith } from "../../../src/trilith.ts";
import { type Docker, startDocker } from "../../support/docker.ts";
import { ownName, triedBefore } from "../../support/own-name.ts";
import { eventually, freePort, havePrograms } from "../../support/peers.ts";
import { type Podman, startPodman } from "../../support/podman.ts";

const exec = promisify(execFile);
const present = await havePrograms("dockerd", "docker", "iptables", "ip", "nsenter");
const withPodman = await havePrograms("podman", "nsenter");
const WAIT_MS = 20_000;

/** An agent beside an engine, and a service "web" of its host that says "web 1". */
async function agentBeside(host: string): Promise<{ readonly agent: Trilith; readonly server: Server }> {
  const server = createServer((_, reply) => reply.end("web 1"));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const agent = createTrilith({
    ...{ node: "n1", dev: true, httpPort: -1 },
    protocols: {
      ...{ process: false, file: false, dns: { port: -1 } },
      docker: { host, enabled: true, hostname: "h" },
    },
  });
  await agent.start();
  const { port } = server.address() as AddressInfo;
  await agent.agent.register("api", {
    ...{ id: "web", name: "web", tags: [], labels: {}, address: "127.0.0.1", port, checks: [] },
  });
  return { agent, server };
}

describe.runIf(present)("localhost in containers on networks of other kinds", () => {
  const parent = `tlc${process.pid}`.slice(0, 13);
  let docker: Docker;
  let agent: Trilith | undefined;
  let server: Server;
  const get = (name: string, url: string): Promise<string> =>
    docker.docker("exec", name, "/bin/busybox", "timeout", "5", "wget", "-q", "-O", "-", url).catch(() => "");
  const gets = (name: string, url: string): Promise<unknown> =>
    eventually(`${name} gets ${url}`, async () => (await get(name, url)) === "web 1", WAIT_MS);

  beforeAll(async () => {
    docker = await startDocker("connect-networks");
    await exec("ip", ["link", "add", parent, "type", "veth", "peer", "name", `${parent}p`]);
    await exec("ip", ["link", "set", parent, "up"]);
  });
  beforeEach(async (context) => {
    if (triedBefore(context)) await docker.clear("mac", "over");
    ({ agent, server } = await agentBeside(docker.host));
  });
  afterEach(async () => {
    await agent?.stop();
    await new Promise((done) => server.close(done));
  });
  afterAll(async () => {
    await docker?.docker("swarm", "leave", "--force").catch(() => "");
    await docker?.docker("network", "rm", "docker_gwbridge").catch(() => "");
    await docker?.remove();
    await exec("ip", ["link", "del", parent]).catch(() => {});
  });

  it("on macvlan, where the host itself cannot be reached from the container", async () => {
    await docker.docker(
      "network",
      "create",
      "-d",
      "macvlan",
      "-o",
      `parent=${parent}`,
      "--subnet",
      "10.231.77.0/24",
      "mac",
    );
    await docker.docker(
      "run",
      "-d",
      "--name",
      "app",
      "--network",
      "mac",
      "-l",
      "connect.80=web",
      "bb",
      "/bin/sleep",
      "1000",
    );
    await gets("app", "http://localhost/");
    await docker.docker("restart", "-t", "0", "app");
    await gets("app", "http://127.0.0.1/");
    await docker.docker("rm", "-f", "app");
    await eventually("nothing is told any more", () => !agent?.sources().some(({ name }) => name === "connect"));
  });

  it("of a swarm's tasks on an overlay, by the label of their containers, and of the tasks that come in their place", async () => {
    const port = await freePort();
    const addresses = ["--advertise-addr", "127.0.0.1", "--listen-addr", `127.0.0.1:${port}`];
    await docker.docker("swarm", "init", ...addresses, "--data-path-port", `${(port % 20_000) + 20_000}`);
    await docker.docker("network", "create", "-d", "overlay", "--attachable", "over");
    await docker.docker(
      ...[
        "service",
        "create",
        "--detach",
        "--no-resolve-image",
        "--name",
        "app",
        "--network",
        "over",
        "--replicas",
        "2",
      ],
      ...["--stop-grace-period", "1s", "--update-parallelism", "2"],
      ...["--container-label", "connect.80=web", "bb", "/bin/sleep", "1000"],
    );
    const tasks = async (): Promise<readonly string[]> =>
      (await docker.docker("ps", "-q", "--filter", "label=com.docker.swarm.service.name=app"))
        .split("\n")
        .filter(Boolean);
    const first = await eventually(
      "two tasks run",
      async () => {
        const all = await tasks();
        return all.length === 2 && all;
      },
      WAIT_MS,
    );
    for (const id of first) await gets(id, "http://localhost/");
    await docker.docker("service", "update", "--detach", "--force", "--no-resolve-image", "app");
    const second = await eventually(
      "others took their place",
      async () => {
        const all = await tasks();
        return all.length === 2 && !all.some((id) => first.includes(id)) && all;
      },
      40_000,
    );
    for (const id of second) await gets(id, "http://localhost/");
    await docker.docker(
      "run",
      "-d",
      "--name",
      "guest",
      "--network",
      "over",
      "-l",
      "connect.81=web",
      "bb",
      "/bin/sleep",
      "1000",
    );
    await gets("guest", "http://localhost:81/");
    await docker.docker("rm", "-f", "guest");
    await docker.docker("service", "rm", "app");
    await eventually(
      "nothing is told any more",
      () => !agent?.sources().some(({ name }) => name === "connect"),
      WAIT_MS,
    );
  });
});

describe.runIf(withPodman)("localhost in Podman's containers on networks of other kinds", () => {
  let podman: Podman;
  let agent: Trilith;
  let server: Server;

  beforeAll(async () => {
    podman = await startPodman("nets");
    ({ agent, server } = await agentBeside(podman.host));
  });
  beforeEach(async (context) => {
    if (triedBefore(context)) await podman.clear();
  });
  afterAll(async () => {
    await agent?.stop();
    server?.close();
    await podman?.remove();
  });

  const gets = (name: string, url: string): Promise<unknown> =>
    eventually(
      `${name} gets ${url}`,
      async () => (await podman.podman("exec", name, "/bin/busybox", "wget", "-q", "-O", "-", url)) === "web 1",
      WAIT_MS,
    );

  it("without IPv4 on the network, at both loopbacks", async () => {
    const name = ownName(`six${process.pid}-`);
    await podman.podman("network", "create", "--disable-dns", "--ipv6", "--subnet", "fd00:6379:77::/64", name);
    // Podman adds a network of IPv4 unasked.
    const settings = `/etc/cni/net.d/${name}.conflist`;
    const { plugins, ...rest } = JSON.parse(await readFile(settings, "utf8")) as {
      plugins: { ipam?: { ranges: { subnet: string }[][]; routes: { dst: string }[] } }[];
    };
    for (const { ipam } of plugins)
      if (ipam !== undefined) {
        ipam.ranges = ipam.ranges.filter(([range]) => range?.subnet.includes(":"));
        ipam.routes = ipam.routes.filter(({ dst }) => dst.includes(":"));
      }
    await writeFile(settings, JSON.stringify({ ...rest, plugins }));
    try {
      await podman.podman("run", "-d", "--name", "six", "--network", name, "-l", "connect.80=web", "pexp1");
      const addresses = await podman.podman("exec", "six", "/bin/busybox", "ip", "-4", "addr", "show", "dev", "eth0");
      expect(addresses).toBe("");
      await gets("six", "http://127.0.0.1/");
      await gets("six", "http://[::1]/");
    } finally {
      await podman.podman("rm", "-f", "-t", "0", "six");
      await podman.podman("network", "rm", name);
    }
  });

  it("in the network of another container", async () => {
    await podman.podman("run", "-d", "--name", "owner", "--network", "none", "pexp1");
    await podman.podman(
      "run",
      "-d",
      "--name",
      "guest",
      "--network",
      "container:owner",
      "-l",
      "connect.80=web",
      "pexp1",
    );
    await gets("guest", "http://localhost/");
    await gets("owner", "http://localhost/");
    await podman.podman("rm", "-f", "-t", "0", "guest");
    await podman.podman("rm", "-f", "-t", "0", "owner");
  });
});
