// Connectable's convention on a real dockerd: a label makes localhost:PORT inside a container a service, on every kind of network, through all that happens to containers.
import { existsSync } from "node:fs";
import { open, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { type AddressInfo, createServer as createTcpServer, type Socket } from "node:net";
import { dirname, join, resolve } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, onTestFinished } from "vitest";
import type { Settings } from "../../../src/contracts/settings.ts";
import type { DoctorJson } from "../../../src/index.ts";
import { createTrilith, type Trilith } from "../../../src/trilith.ts";
import { type Docker, startDocker } from "../../support/docker.ts";
import { ownName } from "../../support/own-name.ts";
import { eventually, freePort, havePrograms, ownFolder } from "../../support/peers.ts";
import { startPodman } from "../../support/podman.ts";
import { program, runToEnd, startAgent } from "../../support/program.ts";

const root = resolve(import.meta.dirname, "../../..");
const present = await havePrograms("dockerd", "docker", "docker-compose", "iptables", "ip", "nsenter");
/** Asking takes a process in the container each time. */
const WAIT_MS = 20_000;

/** Volumes by which Node and the program of this machine run in a container. */
const machine = [
  ...["/usr:/usr", "/usr/lib:/lib", ...(existsSync("/usr/lib64") ? ["/usr/lib64:/lib64"] : [])],
  ...[dirname(process.execPath), root].filter((path) => !path.startsWith("/usr/")).map((path) => `${path}:${path}`),
].flatMap((one) => ["-v", `${one}:ro`]);

describe.runIf(present)("localhost in containers", () => {
  let docker: Docker;
  let agent: Trilith;
  let http = 0;
  let dns = 0;
  const servers = new Map<string, Server>();

  let config: Readonly<Record<string, unknown>> = {};
  const settings = (): Partial<Settings> => ({
    node: "n1",
    dev: true,
    httpPort: http,
    protocols: {
      ...{ process: false, file: false, dns: { port: dns } },
      docker: { host: docker.host, enabled: true, hostname: "h", ...config },
    },
  });
  /** An agent on the same ports each time. */
  const startTrilith = async (more: Readonly<Record<string, unknown>> = {}): Promise<void> => {
    config = more;
    agent = createTrilith(settings(), { reread: async () => settings() });
    await agent.start();
  };
  const become = async (more: Readonly<Record<string, unknown>>): Promise<void> => {
    config = more;
    await agent.reload();
  };
  /** A service of the agent's own host: answers every request with `says`. */
  const serve = async (id: string, says: string, more: Readonly<Record<string, unknown>> = {}): Promise<number> => {
    const server = createServer((_, reply) => reply.end(says));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const { port } = server.address() as AddressInfo;
    await endServer(id);
    servers.set(id, server);
    await register({ ID: id, Name: id, Port: port, Address: "127.0.0.1", ...more });
    return port;
  };
  const register = async (service: Readonly<Record<string, unknown>>): Promise<void> => {
    const answer = await fetch(`http://127.0.0.1:${http}/v1/agent/service/register`, {
      method: "PUT",
      body: JSON.stringify(service),
    });
    expect(answer.status).toBe(200);
  };
  const endServer = async (id: string): Promise<void> => {
    const server = servers.get(id);
    servers.delete(id);
    server?.closeAllConnections();
    if (server !== undefined) await new Promise((resolve) => server.close(resolve));
  };
  const run = (name: string, ...words: string[]): Promise<string> =>
    docker.docker("run", "-d", "--name", name, ...words, "bb", "/bin/sleep", "100000");
  /** What a container gets from a URL; "" where nothing answers. */
  const get = (name: string, url: string): Promise<string> =>
    docker.docker("exec", name, "/bin/busybox", "timeout", "5", "wget", "-q", "-O", "-", url).catch(() => "");
  const gets = (name: string, url: string, says: string): Promise<unknown> =>
    eventually(`${name} gets "${says}" from ${url}`, async () => (await get(name, url)) === says, WAIT_MS);
  const told = (): string[] =>
    agent
      .sources()
      .filter((one) => one.name === "connect")
      .map(({ ok, text }) => `${ok ? "ok" : "!!"} ${text.replace(/\([0-9a-f]{12}\)/g, "(ID)")}`);
  const tells = (line: string | RegExp): Promise<unknown> =>
    eventually(
      `it is told: ${line}`,
      () =>
        told().some((one) => (typeof line === "string" ? one === line : line.test(one))) ||
        Promise.reject(new Error(told().join("\n"))),
      WAIT_MS,
    );

  beforeAll(async () => {
    docker = await startDocker("connect", ["--live-restore"]);
    [http, dns] = [await freePort(), await freePort()];
    await docker.docker("network", "create", "custom");
    await docker.docker("network", "create", "--internal", "inner");
    await docker.docker("network", "create", "--ipv6", "--subnet", "fd00:6379::/64", "six");
  });
  beforeEach(async () => {
    await startTrilith();
    await serve("web", "web 1", { Tags: ["blue"], Meta: { env: "prod" } });
  });
  afterEach(async () => {
    if (docker.pid < 0) await docker.start();
    const ids = (await docker.docker("ps", "-aq")).split("\n").filter((id) => id !== "");
    if (ids.length > 0) await docker.docker("rm", "-f", ...ids);
    for (const id of [...servers.keys()]) await endServer(id);
    await agent?.stop();
  });
  afterAll(() => docker?.remove());

  it("stays while a reload has Docker's configuration changed, and goes where that says so", async () => {
    await run("app", "-p", "80", "-l", "connect.8080=web");
    await gets("app", "http://localhost:8080", "web 1");
    const total = async (): Promise<number> => {
      const { proxies } = (await (await fetch(`http://127.0.0.1:${http}/v1/trilith/proxies`)).json()) as {
        proxies: readonly { name: string; total: number }[];
      };
      return Math.max(0, ...proxies.filter(({ name }) => name === "containers:8080=web").map((one) => one.total));
    };
    const own = () => [...agent.agent.services().values()].find(({ instance }) => instance.id === "h:app:80")?.instance;
    let before = await total();
    for (const more of [{ tags: "x,{{.Name}}" }, { connect: "images" }, { internal: true }, {}]) {
      await become(more);
      // The same listener still counts.
      expect(await get("app", "http://localhost:8080")).toBe("web 1");
      expect(await total()).toBeGreaterThan(before);
      before = await total();
      if (more.tags !== undefined) await eventually("its tags", () => own()?.tags.includes("/app"));
      if (more.internal === true) await eventually("its address", () => own()?.port === 80);
    }
    await become({ connect: false });
    expect(await get("app", "http://localhost:8080")).toBe("");
    expect(told()).toEqual([]);
    expect(own()).toBeDefined();
    await become({});
    await gets("app", "http://localhost:8080", "web 1");
  });

  it.each([
    ["the default bridge", ["--network", "bridge"], false],
    ["a network of its own", ["--network", "custom"], false],
    ["an internal network", ["--network", "inner"], false],
    ["no network", ["--network", "none"], false],
    ["a network with IPv6", ["--network", "six"], true],
    ["the host's network", ["--network", "host"], true],
  ] as const)("on %s is the service", async (_, words, ipv6) => {
    const port = await freePort();
    await run("app", ...words, "-l", `connect.${port}=web`);
    await gets("app", `http://127.0.0.1:${port}/`, "web 1");
    await gets("app", `http://localhost:${port}/`, "web 1");
    if (ipv6) await gets("app", `http://[::1]:${port}/`, "web 1");
    await tells(`ok container app (ID): localhost:${port} is web (1 endpoint)`);
    await docker.docker("rm", "-f", "app");
    await eventually("nothing is told any more", () => told().length === 0);
  });

  it("in every spelling, and nobody else's localhost", async () => {
    await serve("api", "api 1");
    await run("plain");
    await run(
      "app",
      ...["-l", "connect[81]=web", "-l", "connect.82=blue.web", "-l", "connect.83=web?env=prod"],
      ...[
        "-l",
        "connect.84=blue.web.service.consul",
        "-l",
        "connect.85=api.service.dc1.consul.",
        "-l",
        "connect.86=green.web",
      ],
      ...["-l", "connect.87=nosuch", "-l", "connect.99999=web", "-l", "connect.88=web:80", "-l", "connect.http=web"],
    );
    for (const port of [81, 82, 83, 84]) await gets("app", `http://localhost:${port}/`, "web 1");
    await gets("app", "http://localhost:85/", "api 1");
    for (const port of [86, 87]) expect(await get("app", `http://localhost:${port}/`)).toBe("");
    expect(await get("plain", "http://localhost:81/")).toBe("");
    await tells(
      /^!! .*connect\.99999: "99999" is no port: expected a port from 1 to 65535.*localhost:86 is green\.web \(no endpoint\).*localhost:87 is nosuch \(no endpoint\)/,
    );
    await tells(/connect\.88: "web:80": a service tells its own ports, leave out ":80"/);
    await tells(/label connect\.http: "http" is no port: expected a port .*connect\.6379=redis/);
    const why = await agentSays("why", "web");
    expect(why).toMatch(/container app \([0-9a-f]{12}\).*localhost:82: 127\.0\.0\.1:\d+/);
    // The service that was missing comes.
    await serve("nosuch", "here now");
    await gets("app", "http://localhost:87/", "here now");
  });

  const agentSays = async (...words: string[]): Promise<string> => {
    const main = join(root, "src/cli/main.ts");
    const { out, err } = await runToEnd([process.execPath, "--import", "tsx", main, ...words], {
      CONSUL_HTTP_ADDR: `http://127.0.0.1:${http}`,
    });
    return out + err;
  };

  it("by UDP", async () => {
    await register({ ID: "dns", Name: "dns", Port: dns, Address: "127.0.0.1" });
    await run("app", "--network", "none", "-l", "connect.53/udp=dns");
    await eventually(
      "a name is found through localhost:53",
      async () =>
        (
          await docker
            .docker("exec", "app", "/bin/busybox", "nslookup", "-type=a", "web.service.consul", "127.0.0.1")
            .catch(() => "")
        ).includes("Address: 127.0.0.1"),
      WAIT_MS,
    );
    await tells("ok container app (ID): localhost:53/udp is dns (1 endpoint)");
  });

  it("of containers that share a network: one listener; where they disagree the first one wins, and its place is free when it ends", async () => {
    await serve("api", "api 1");
    await run("owner");
    await run("first", "--network", "container:owner", "-l", "connect.80=web", "-l", "connect.81=web");
    await gets("owner", "http://localhost:80/", "web 1");
    await run(
      "second",
      "--network",
      "container:owner",
      "-l",
      "connect.80=api",
      "-l",
      "connect.81=web",
      "-l",
      "connect.82=api",
    );
    await gets("first", "http://localhost:82/", "api 1");
    expect(await get("second", "http://localhost:80/")).toBe("web 1");
    await tells(
      /^!! container second .*localhost:80 is not api: container first \(ID\) has the same network, and its label says web.*localhost:81 is web.*localhost:82 is api/,
    );
    await docker.docker("rm", "-f", "first");
    await gets("second", "http://localhost:80/", "api 1");
    expect(await get("owner", "http://localhost:81/")).toBe("web 1");
    await docker.docker("rm", "-f", "second");
    await eventually("nobody listens", async () => (await get("owner", "http://localhost:80/")) === "", WAIT_MS);
  });

  it("serve programs that connect from their first moment on", async () => {
    const knocking = "n=0; until wget -q -O - http://127.0.0.1:80/ 2>/dev/null || [ $n = 20000 ]; do n=$((n+1)); done";
    const words = [
      "run",
      "--rm",
      "--network",
      "none",
      "-l",
      "connect.79=nosuch",
      "-l",
      "connect.80=web",
      "bb",
      "/bin/sh",
      "-c",
    ];
    for (let round = 0; round < 3; round++)
      expect(await Promise.all([1, 2, 3].map(() => docker.docker(...words, knocking)))).toEqual([
        "web 1",
        "web 1",
        "web 1",
      ]);
  });

  it("leave the container's own service alone, and take its place when it ends", async () => {
    await docker.docker(
      ...["run", "-d", "--name", "app", "-l", "connect.80=web", "bb"],
      ...["/bin/sh", "-c", "httpd -p 80 -h /www; while :; do sleep 1; done"],
    );
    await tells(/^!! container app \(ID\): localhost:80 is not web: a process of the container listens there itself/);
    expect(await get("app", "http://localhost:80/")).toBe("ok");
    await docker.docker("exec", "app", "/bin/sh", "-c", "kill $(busybox pidof httpd)");
    await gets("app", "http://localhost:80/", "web 1");
    await tells("ok container app (ID): localhost:80 is web (1 endpoint)");
  });

  it("on the host's network leave the host's own programs alone", async () => {
    const taken = createServer((_, reply) => reply.end("mine"));
    await new Promise<void>((resolve) => taken.listen(0, "127.0.0.1", resolve));
    const { port } = taken.address() as AddressInfo;
    await run("app", "--network", "host", "-l", `connect.${port}=web`);
    await tells(/is not web: a process of the container listens there itself/);
    expect(await get("app", `http://127.0.0.1:${port}/`)).toBe("mine");
    await new Promise((resolve) => taken.close(resolve));
    await gets("app", `http://127.0.0.1:${port}/`, "web 1");
  });

  it("follow start, stop, restart, pause and rename", async () => {
    await run("app", "-l", "connect.80=web");
    await gets("app", "http://localhost:80/", "web 1");
    await docker.docker("restart", "-t", "0", "app");
    await gets("app", "http://localhost:80/", "web 1");
    await docker.docker("pause", "app");
    await docker.docker("unpause", "app");
    expect(await get("app", "http://localhost:80/")).toBe("web 1");
    await docker.docker("rename", "app", "app2");
    await tells("ok container app2 (ID): localhost:80 is web (1 endpoint)");
    expect(await get("app2", "http://localhost:80/")).toBe("web 1");
    await docker.docker("network", "connect", "six", "app2");
    await gets("app2", "http://[::1]:80/", "web 1");
    await docker.docker("stop", "-t", "0", "app2");
    await eventually("nothing is told any more", () => told().length === 0);
    await docker.docker("start", "app2");
    await gets("app2", "http://localhost:80/", "web 1");
  });

  it("let go of a container's network at once when it dies", async () => {
    await docker.docker(
      "run",
      "-d",
      "--name",
      "app",
      "--network",
      "none",
      "-l",
      "connect.80=web",
      "bb",
      "/bin/sleep",
      "100000",
    );
    await gets("app", "http://localhost:80/", "web 1");
    const pid = await docker.docker("inspect", "-f", "{{.State.Pid}}", "app");
    // A cable whose other end goes with the namespace.
    const link = ownName(`tcn${process.pid % 100_000}`);
    const laid = await runToEnd(["ip", "link", "add", link, "type", "veth", "peer", "name", "x", "netns", pid]);
    expect(laid).toMatchObject({ exitCode: 0 });
    // A connection that is open inside would keep it, too.
    const held = docker.docker("exec", "app", "/bin/sh", "-c", "sleep 1000 | nc 127.0.0.1 80").catch(() => "");
    await docker.docker("kill", "app");
    await held;
    await eventually("the network is gone", async () => (await runToEnd(["ip", "link", "show", link])).exitCode !== 0);
  });

  it("go with the service to another port, and open connections stay", async () => {
    const sockets: Socket[] = [];
    const echo = createTcpServer((socket) => {
      sockets.push(socket);
      socket.pipe(socket);
    });
    await new Promise<void>((resolve) => echo.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => {
      for (const socket of sockets) socket.destroy();
      echo.close();
    });
    await register({ ID: "echo", Name: "echo", Port: (echo.address() as AddressInfo).port, Address: "127.0.0.1" });
    await run("app", "-l", "connect.7=echo", "-l", "connect.80=web");
    await gets("app", "http://localhost:80/", "web 1");
    const said = docker.docker(
      ...[
        "exec",
        "app",
        "/bin/sh",
        "-c",
        "(echo one; while [ ! -e /tmp/go ]; do sleep 0.1; done; echo two) | nc 127.0.0.1 7",
      ],
    );
    await eventually("the connection is open", () => sockets.length === 1);
    await serve("echo", "moved");
    await serve("web", "web 2");
    await gets("app", "http://localhost:7/", "moved");
    await gets("app", "http://localhost:80/", "web 2");
    await docker.docker("exec", "app", "/bin/touch", "/tmp/go");
    expect(await said).toBe("one\ntwo");
  });

  it("come back with the agent", async () => {
    await run("app", "-l", "connect.80=web");
    await gets("app", "http://localhost:80/", "web 1");
    await agent.stop();
    expect(await get("app", "http://localhost:80/")).toBe("");
    await startTrilith();
    await serve("web", "web 2");
    await gets("app", "http://localhost:80/", "web 2");
  });

  it("outlive the engine's death, and follow its containers into their next life", async () => {
    await run("app", "--restart", "always", "-l", "connect.80=web");
    await gets("app", "http://localhost:80/", "web 1");
    const pid = await docker.docker("inspect", "-f", "{{.State.Pid}}", "app");
    await docker.kill();
    // Its containers run on.
    const inside = ["nsenter", `--net=/proc/${pid}/ns/net`, "busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:80/"];
    await eventually("the engine is away", () => agent.sources().some(({ name, ok }) => name === "docker" && !ok));
    expect((await runToEnd(inside)).out).toBe("web 1");
    await docker.start();
    await gets("app", "http://localhost:80/", "web 1");
    expect(await docker.docker("inspect", "-f", "{{.State.Pid}}", "app")).not.toBe(pid);
    await docker.stop();
    await docker.start();
    await gets("app", "http://localhost:80/", "web 1");
  });

  it("are not interrupted where Docker restarts beneath containers that run on", async () => {
    await run("app", "-l", "connect.80=web");
    await gets("app", "http://localhost:80/", "web 1");
    const before = await docker.docker("inspect", "-f", "{{.State.Pid}}", "app");
    const inside = [
      "nsenter",
      `--net=/proc/${before}/ns/net`,
      "busybox",
      "wget",
      "-q",
      "-O",
      "-",
      "http://127.0.0.1:80/",
    ];
    let asked = 0;
    let over = false;
    const asking = (async () => {
      for (; !over; asked++) expect((await runToEnd(inside)).out).toBe("web 1");
    })();
    try {
      await docker.stop();
      await eventually("the engine is away", () => agent.sources().some(({ name, ok }) => name === "docker" && !ok));
      await docker.start({ live: true });
      await eventually("the engine is back", () => agent.sources().some(({ name, ok }) => name === "docker" && ok));
      await eventually("it was asked all the time", () => asked > 3);
    } finally {
      over = true;
      await asking;
    }
    expect(await docker.docker("inspect", "-f", "{{.State.Pid}}", "app")).toBe(before);
    expect(await get("app", "http://localhost:80/")).toBe("web 1");
  });

  it("let go of a container that dies while the engine is away", async () => {
    await run("app", "--network", "none", "-l", "connect.80=web");
    await gets("app", "http://localhost:80/", "web 1");
    const pid = Number(await docker.docker("inspect", "-f", "{{.State.Pid}}", "app"));
    const file = await open(`/proc/${pid}/ns/net`);
    onTestFinished(() => file.close());
    const listening = async (): Promise<boolean> => {
      const words = ["nsenter", `--net=/proc/${process.pid}/fd/${file.fd}`, "cat", "/proc/net/tcp"];
      const { out, err } = await runToEnd(words);
      expect(err).toBe("");
      return out.includes(":0050 00000000:0000 0A");
    };
    expect(await listening()).toBe(true);
    await docker.kill();
    await eventually("the engine is away", () => agent.sources().some(({ name, ok }) => name === "docker" && !ok));
    expect(await listening()).toBe(true);
    process.kill(pid, "SIGKILL");
    await eventually("nobody listens", async () => !(await listening()));
    await docker.start();
  });

  it("of an image count only where that is said", async () => {
    const made = await docker.docker("create", "bb", "/bin/sleep", "100000");
    await docker.docker("commit", "--change", "LABEL connect.80=web", made, "labelled");
    await docker.docker("run", "-d", "--name", "app", "-l", "connect.81=web", "labelled", "/bin/sleep", "100000");
    await gets("app", "http://localhost:81/", "web 1");
    await tells(/^!! .*label connect\.80 is the image's own: it counts with "docker": \{"connect": "images"\}/);
    expect(await get("app", "http://localhost:80/")).toBe("");
    await agent.stop();
    await startTrilith({ connect: "images" });
    await serve("web", "web 2");
    await gets("app", "http://localhost:80/", "web 2");
    // An image that is gone took its word with it.
    await docker.docker("rmi", "-f", "labelled");
  });

  it("are nothing where they are switched off", async () => {
    await agent.stop();
    await startTrilith({ connect: false });
    await serve("web", "web 1");
    await run("off", "-l", "connect.80=web");
    await run("marker", "-p", "80", "-e", "SERVICE_NAME=marker");
    await eventually("the containers were seen", () =>
      agent.sources().some(({ text }) => text.includes("2 containers")),
    );
    expect(told()).toEqual([]);
    expect(await get("off", "http://localhost:80/")).toBe("");
  });

  it.each([
    [
      "sees others and may enter them",
      ["--pid=host", "--cap-add=SYS_ADMIN", "--cap-add=SYS_PTRACE"],
      /^localhost:80 is consul \(1 endpoint\)$/,
    ],
    [
      "does not see others",
      ["--cap-add=SYS_ADMIN", "--cap-add=SYS_PTRACE"],
      /is not to be seen: an agent in a container needs --pid=host/,
    ],
    [
      "may not enter others",
      ["--pid=host"],
      /is not consul: cannot listen: .*; an agent that is to listen in containers runs as root, or with CAP_SYS_ADMIN/,
    ],
  ] as const)("by an agent in a container that %s", async (_, rights, says) => {
    await agent.stop();
    await docker.docker(
      ...["run", "-d", "--name", "agent", "--network", "host", "--security-opt", "apparmor=unconfined", ...rights],
      ...[
        ...machine,
        "-v",
        `${docker.socketPath}:/var/run/docker.sock`,
        "bb",
        process.execPath,
        program,
        "agent",
        "-dev",
      ],
      ...["-node", "n1", "-http-port", `${http}`, "-dns-port", `${dns}`],
    );
    await run("app", "--network", "none", "-l", "connect.80=consul");
    const doctor = async (): Promise<readonly { readonly name: string; readonly text: string }[]> =>
      ((await (await fetch(`http://127.0.0.1:${http}/v1/trilith/doctor`)).json()) as Pick<DoctorJson, "sources">)
        .sources;
    await eventually(
      `doctor says ${says}`,
      async () => {
        const told = (await doctor()).find(({ name }) => name === "connect")?.text ?? "";
        return says.test(told.replace(/^container app \([0-9a-f]{12}\): /, "")) || Promise.reject(new Error(told));
      },
      WAIT_MS,
    );
  });

  it.each([
    ["docker", "with --connect", ["-connect"], true],
    ["compose", "with --connect", ["-connect"], true],
    ["docker", "without", [], false],
  ] as const)("by an agent as `trilith up --format %s` starts it, %s", async (format, _, flags, stands) => {
    await agent.stop();
    const name = ownName(`up${process.pid}`);
    const folder = await ownFolder(name);
    onTestFinished(async () => {
      await folder.remove();
      // Docker made it where the table is mounted from.
      await rm(`/run/${name}`, { recursive: true, force: true });
    });
    const made = await docker.docker("create", "bb", "/bin/sleep", "1");
    const entry = `ENTRYPOINT ${JSON.stringify([process.execPath, program])}`;
    await docker.docker("commit", "--change", entry, made, "trilith");
    const { out, err } = await runToEnd([
      ...[process.execPath, program, "up", "server", "-format", format, "-image", "trilith", ...flags],
      ...["-advertise", "127.0.0.1", "-node", "n1", "-name", name, "-data-dir", folder.path],
      ...["-docker-socket", docker.socketPath],
    ]);
    expect(err).toBe("");
    // As it stands, but for this machine's Node and ports that are free.
    const ports = ["-http-port", `${http}`, "-dns-port", `${dns}`];
    if (format === "docker") {
      const line = out.split("\n").find((one) => one.startsWith("docker run --detach "));
      const [, , , ...words] = (line ?? "").split(" ");
      await docker.docker("run", "--detach", ...machine, ...words, ...ports);
    } else {
      const items = (words: readonly string[]): string =>
        words.map((one) => `      - ${JSON.stringify(one)}\n`).join("");
      const volumes = items(machine.filter((word) => word !== "-v"));
      const file = join(folder.path, "compose.yml");
      await writeFile(file, out.replace("    volumes:\n", `    volumes:\n${volumes}`) + items(ports));
      const compose = [
        "docker-compose",
        "--host",
        docker.host,
        "--project-name",
        name,
        "--file",
        file,
        "up",
        "--detach",
      ];
      const done = await runToEnd(compose);
      expect(done.exitCode, done.err).toBe(0);
    }
    await eventually(
      "the agent answers",
      async () => (await fetch(`http://127.0.0.1:${http}/v1/status/leader`)).ok,
      WAIT_MS,
    );
    const redis = createTcpServer((socket) => {
      socket.on("error", () => {});
      socket.end("+PONG\r\n");
    });
    await new Promise<void>((resolve) => redis.listen(0, "127.0.0.1", resolve));
    onTestFinished(() => void redis.close());
    await register({ ID: "redis", Name: "redis", Port: (redis.address() as AddressInfo).port, Address: "127.0.0.1" });
    await run("app", "--network", "none", "-l", "connect.6379=redis");
    const ask = (): Promise<string> =>
      docker.docker("exec", "app", "/bin/sh", "-c", "busybox timeout 5 nc 127.0.0.1 6379 </dev/null").catch(() => "");
    if (stands) await eventually("redis answers in the container", async () => (await ask()) === "+PONG", WAIT_MS);
    else {
      const said = (): Promise<string> =>
        runToEnd([process.execPath, program, "doctor", "-http-addr", `http://127.0.0.1:${http}`]).then(
          (one) => one.out,
        );
      await eventually("doctor says what is lacking", async () => /needs --pid=host/.test(await said()), WAIT_MS);
      expect(await ask()).toBe("");
    }
  });

  it("by the built program, whose end leaves nothing behind", async () => {
    await agent.stop();
    const built = await startAgent(["-dev", "--docker-host", docker.host]);
    try {
      const server = createServer((_, reply) => reply.end("built"));
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
      servers.set("web", server);
      const { port } = server.address() as AddressInfo;
      const answer = await fetch(`${built.url}/v1/agent/service/register`, {
        method: "PUT",
        body: JSON.stringify({ Name: "web", Port: port, Address: "127.0.0.1" }),
      });
      expect(answer.status).toBe(200);
      await run("app", "-l", "connect.80=web");
      await gets("app", "http://localhost:80/", "built");
      expect((await built.trilith(["doctor"])).out).toMatch(
        /connect +container app \([0-9a-f]{12}\): localhost:80 is web \(1 endpoint\)/,
      );
    } finally {
      await built.stop();
    }
    expect(await get("app", "http://localhost:80/")).toBe("");
  });
});

const withPodman = await havePrograms("podman", "nsenter", "curl");

describe.runIf(withPodman)("localhost in Podman's containers", () => {
  it("is the service, in each of their lives", async () => {
    const podman = await startPodman("connect");
    const server = createServer((_, reply) => reply.end("web"));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const agent = createTrilith({
      node: "n1",
      dev: true,
      httpPort: -1,
      protocols: {
        ...{ process: false, file: false, dns: { port: -1 } },
        docker: { host: podman.host, enabled: true, hostname: "h" },
      },
    });
    try {
      await agent.start();
      const { port } = server.address() as AddressInfo;
      await agent.agent.register("api", {
        ...{ id: "web", name: "web", tags: [], labels: {}, address: "127.0.0.1", port, checks: [] },
      });
      const gets = (): Promise<unknown> =>
        eventually(
          "the service answers in the container",
          async () =>
            (await podman.podman("exec", "app", "/bin/busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:80/")) ===
            "web",
          WAIT_MS,
        );
      await podman.podman("run", "-d", "--name", "app", "--network", "none", "-l", "connect.80=web", "pexp1");
      await gets();
      await podman.podman("restart", "-t", "0", "app");
      await gets();
      await podman.podman("rm", "-f", "-t", "0", "app");
      await eventually("nothing is told any more", () => !agent.sources().some(({ name }) => name === "connect"));
    } finally {
      await agent.stop();
      server.close();
      await podman.remove();
    }
  });
});
