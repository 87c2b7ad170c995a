// Several engines in one agent: a real dockerd by socket and by TLS, a real Podman, and one that is dead; swarm's tasks.
import { execFile } from "node:child_process";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createHttp } from "../../../src/base/http.ts";
import type { Instance } from "../../../src/model/instance.ts";
import { parseHost } from "../../../src/protocols/docker/endpoint.ts";
import { execProbe } from "../../../src/protocols/docker/exec.ts";
import { createTrilith, type Trilith } from "../../../src/trilith.ts";
import { type Docker, startDocker } from "../../support/docker.ts";
import { ownName, triedBefore } from "../../support/own-name.ts";
import { eventually, freePort, havePrograms, ownFolder } from "../../support/peers.ts";
import { type Podman, startPodman } from "../../support/podman.ts";

const exec = promisify(execFile);
const present =
  process.getuid?.() === 0 && (await havePrograms("dockerd", "docker", "iptables", "ip", "podman", "curl", "openssl"));

/** An authority with a server's and a client's certificate, as `openssl` makes them; the client's folder is what DOCKER_CERT_PATH names. */
async function makeCertificates(folder: string): Promise<void> {
  const openssl = (...args: string[]): Promise<unknown> => exec("openssl", args, { cwd: folder });
  await mkdir(folder, { recursive: true });
  await openssl(
    "req",
    "-x509",
    "-newkey",
    "rsa:2048",
    "-nodes",
    "-keyout",
    "ca-key.pem",
    "-out",
    "ca.pem",
    "-days",
    "2",
    "-subj",
    "/CN=test authority",
  );
  await writeFile(
    join(folder, "server.ext"),
    "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n",
  );
  await writeFile(join(folder, "client.ext"), "extendedKeyUsage=clientAuth\n");
  for (const [name, extensions] of [
    ["server", "server.ext"],
    ["", "client.ext"],
  ] as const) {
    const [key, cert, request] =
      name === "" ? ["key.pem", "cert.pem", "csr.pem"] : ["server-key.pem", "server-cert.pem", "server-csr.pem"];
    await openssl(
      "req",
      "-newkey",
      "rsa:2048",
      "-nodes",
      "-keyout",
      key,
      "-out",
      request,
      "-subj",
      `/CN=${name || "client"}`,
    );
    await openssl(
      "x509",
      "-req",
      "-in",
      request,
      "-CA",
      "ca.pem",
      "-CAkey",
      "ca-key.pem",
      "-CAcreateserial",
      "-out",
      cert,
      "-days",
      "2",
      "-extfile",
      extensions,
    );
  }
}

describe.runIf(present)("several engines", () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let docker: Docker;
  let podman: Podman;
  let tlsPort: number;
  let agent: Trilith | undefined;
  let agents = 0;

  async function begin(settings: Record<string, unknown>, dataDir = `agent-${agents++}`): Promise<Trilith> {
    agent = createTrilith({
      node: "n1",
      dataDir: join(folder.path, dataDir),
      httpPort: -1,
      protocols: {
        process: false,
        file: false,
        dns: { port: -1 },
        docker: { hostname: "here", ip: "192.0.2.1", ...settings },
      },
    });
    await agent.start();
    return agent;
  }
  const held = (): Map<string, Instance> =>
    new Map([...(agent?.agent.services() ?? [])].map(([id, { instance }]) => [id, instance]));
  const ids = (): string[] => [...held().keys()].sort();
  const state = (): string => agent?.sources().find(({ name }) => name === "docker")?.text ?? "";
  const become = (...wanted: string[]): Promise<unknown> =>
    eventually(
      `registered: ${wanted.join(", ")}`,
      () => JSON.stringify(ids()) === JSON.stringify([...wanted].sort()),
    ).catch((error: Error) => {
      throw new Error(`${error.message}; instead ${ids().join(", ")} (${state()})`);
    });

  beforeAll(async () => {
    folder = await ownFolder("engines");
    const certificates = join(folder.path, "certs");
    await makeCertificates(certificates);
    tlsPort = await freePort();
    docker = await startDocker("engines", [
      ...["-H", `tcp://127.0.0.1:${tlsPort}`, "--tlsverify", "--tlscacert", join(certificates, "ca.pem")],
      ...["--tlscert", join(certificates, "server-cert.pem"), "--tlskey", join(certificates, "server-key.pem")],
    ]);
    podman = await startPodman("engines");
  });
  beforeEach(async (context) => {
    if (!triedBefore(context)) return;
    await docker.clear("over");
    await podman.clear();
  });
  afterEach(async () => {
    await agent?.stop();
    agent = undefined;
  });
  afterAll(async () => {
    await podman?.remove();
    await docker?.remove();
    await folder?.remove();
  });

  it("a dockerd behind TLS: by configuration, by DOCKER_HOST, DOCKER_TLS_VERIFY and DOCKER_CERT_PATH, by a context of the client", async () => {
    const certPath = join(folder.path, "certs");
    const host = `tcp://127.0.0.1:${tlsPort}`;
    await docker.docker("run", "-d", "--name", "safe", "-p", "80", "bbexp1");
    await begin({ endpoints: [{ host, certPath }] });
    await become("here:safe:80");
    await agent?.stop();
    const before = { ...process.env };
    Object.assign(process.env, { DOCKER_HOST: host, DOCKER_TLS_VERIFY: "1", DOCKER_CERT_PATH: certPath });
    try {
      await begin({ enabled: true });
    } finally {
      for (const key of ["DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"]) {
        if (before[key] === undefined) delete process.env[key];
        else process.env[key] = before[key];
      }
    }
    await become("here:safe:80");
    expect(state()).toContain(`at ${host}, 1 container`);
    await agent?.stop();
    // And by a context, as `docker context create` writes it down.
    const config = join(folder.path, ownName("docker-config"));
    const pems = ["ca", "cert", "key"].map((pem) => `${pem}=${join(certPath, `${pem}.pem`)}`).join(",");
    await exec("docker", ["--config", config, "context", "create", "far", "--docker", `host=${host},${pems}`]);
    process.env["DOCKER_CONFIG"] = config;
    try {
      await begin({ context: "far" });
    } finally {
      delete process.env["DOCKER_CONFIG"];
    }
    await become("here:safe:80");
    await docker.docker("rm", "-f", "safe");
    await become();
  });

  it("with certificates of somebody else, or none, it says what is wrong", async () => {
    const other = join(folder.path, "other-certs");
    await makeCertificates(other);
    const host = `tcp://127.0.0.1:${tlsPort}`;
    await begin({ endpoints: [{ host, certPath: other }] });
    await eventually("refused", () => /away, trying again: .*certificate/i.test(state()));
    await agent?.stop();
    await rm(other, { recursive: true });
    await begin({ endpoints: [{ host, certPath: other }] });
    await eventually("missing", () => state().includes(`${other}: holds no certificates`));
    await agent?.stop();
    await begin({ endpoints: [host] });
    await eventually("no TLS", () => /away, trying again/.test(state()));
  });

  it("Podman: started, paused, stopped and removed containers are followed; checks inside find their engine", async () => {
    await begin({ endpoints: [{ host: podman.host, name: "podman" }] });
    await eventually("read", () => /^podman: Libpod\S* 4\S* at .*, 0 containers$/.test(state()));
    const id = await podman.podman(
      "run",
      "-d",
      "--name",
      "pod",
      "-p",
      "31080:80",
      "-e",
      "SERVICE_NAME=podweb",
      "-l",
      "SERVICE_TAGS=a,b",
      "pexp1",
    );
    await become("here:pod:80");
    const one = held().get("here:pod:80");
    expect(one).toMatchObject({ name: "podweb", tags: ["a", "b"], port: 31080, address: "192.0.2.1" });
    expect(one?.origin.foreignId).toMatch(new RegExp(`^${id}:80/tcp@podman/.+`));
    expect(one?.addresses?.[1]).toMatchObject({ port: 80, reach: "bridge", network: expect.stringMatching(/\/16$/) });
    const http = createHttp();
    const probe = execProbe(http, [parseHost(docker.host, "test"), parseHost(podman.host, "test")]);
    const ask = (command: string): Promise<unknown> =>
      probe.run(probe.parse({ container: id, args: [command] }), { address: "", port: 0 }, AbortSignal.timeout(20_000));
    expect(await ask("/bin/true")).toMatchObject({ status: "passing" });
    expect(await ask("/bin/false")).toMatchObject({ status: "warning" });
    await http.close();
    await podman.podman("pause", "pod");
    await eventually("paused", () => held().get("here:pod:80")?.draining === true);
    await podman.podman("unpause", "pod");
    await eventually("unpaused", () => held().get("here:pod:80")?.draining !== true);
    await podman.podman("stop", "-t", "0", "pod");
    await become();
    await podman.podman("start", "pod");
    await become("here:pod:80");
    // Its events tell no signal, its list does: out of every lookup while it still runs.
    const slow = ["pexp1", "/bin/sh", "-c", "trap 'sleep 10; exit 0' TERM; while :; do sleep 0.1; done"];
    await podman.podman("run", "-d", "--name", "slow", "-p", "31081:80", ...slow);
    await become("here:pod:80", "here:slow:80");
    const stopped = podman.podman("stop", "-t", "30", "slow");
    await eventually("it drains", () => held().get("here:slow:80")?.draining === true);
    expect(await podman.podman("inspect", "-f", "{{.State.Status}}", "slow")).toBe("stopping");
    expect(held().get("here:slow:80")).toMatchObject({ port: 31081, address: "192.0.2.1" });
    await stopped;
    await become("here:pod:80");
    await podman.podman("rm", "-f", "-t", "0", "pod");
    await become();
  });

  it("Docker, Podman and a dead one together: one list, and who is dead hides nobody, also after a restart of the agent", async () => {
    const dead = `tcp://127.0.0.1:${await freePort()}`;
    const settings = { endpoints: [docker.host, { host: podman.host, name: "podman" }, { host: dead, name: "dead" }] };
    const dataDir = ownName("together");
    await begin(settings, dataDir);
    await docker.docker("run", "-d", "--name", "one", "-p", "80", "bbexp1");
    await podman.podman("run", "-d", "--name", "one", "-p", "31081:80", "pexp1");
    // Both run on one host, where two containers may have one name: the second engine's is told apart.
    const pod = await eventually("Podman's", () => ids().find((id) => id.startsWith("here-podman:")));
    expect(pod).toBe("here-podman:one:80");
    await become("here:one:80", pod);
    expect(state()).toMatch(/docker: Docker.*1 container; podman: Libpod.*1 container; dead: .*away, trying again/);
    await podman.stop();
    await docker.docker("run", "-d", "--name", "two", "-p", "80", "bbexp1");
    await become("here:one:80", "here:two:80", pod);
    await agent?.stop();
    await docker.docker("rm", "-f", "one");
    await begin(settings, dataDir);
    await become("here:two:80", pod);
    await podman.podman("rm", "-f", "-t", "0", "one");
    await podman.start();
    await become("here:two:80");
    await docker.docker("rm", "-f", "two");
    await become();
  });

  it("the tasks of a swarm's services are ordinary containers, on their overlay, too", async () => {
    await begin({ host: docker.host, enabled: true });
    await become();
    await docker.docker(
      "swarm",
      "init",
      "--advertise-addr",
      "127.0.0.1",
      "--listen-addr",
      `127.0.0.1:${await freePort()}`,
    );
    await docker.docker("network", "create", "-d", "overlay", "--subnet", "10.77.0.0/24", "over");
    await docker.docker(
      "service",
      "create",
      "-d",
      "--name",
      "tasks",
      "--replicas",
      "2",
      "--network",
      "over",
      "--env",
      "SERVICE_NAME=task",
      "--publish",
      "mode=host,target=80",
      "bbexp1",
    );
    const tasks = (): Instance[] => [...held().values()].filter(({ name }) => name === "task");
    await eventually("both tasks", () => tasks().length === 2, 40_000).catch(async (error: Error) => {
      throw new Error(`${error.message}: ${await docker.docker("service", "ps", "--no-trunc", "tasks")}`);
    });
    const within = (task: Instance) => task.addresses?.find(({ network }) => network === "10.77.0.0/24");
    await eventually("both have their addresses", () => tasks().every(within));
    const inside = tasks().map(within);
    expect(inside.map((address) => address?.reach)).toEqual(["overlay", "overlay"]);
    // Members of the overlay, on whichever host they are, are told the addresses there.
    const found = (): string[] =>
      (agent as Trilith).lookup
        .resolveNow({ service: "task", asker: "10.77.0.200" })
        .endpoints.map(({ address, port }) => `${address}:${port}`)
        .sort();
    await eventually("both are found", () => found().length === 2);
    expect(found()).toEqual(inside.map((address) => `${address?.host}:80`).sort());
    await docker.docker("service", "rm", "tasks");
    await become();
    await docker.docker("swarm", "leave", "--force");
  });
});
