// DNS for containers: a bridge that comes and goes, and real containers of a real dockerd that find each other and the rest of the world by name.
import { execFile } from "node:child_process";
import { createSocket } from "node:dgram";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { callbackLog } from "../../../src/base/log.ts";
import { applySetup, planSetup } from "../../../src/protocols/dns/cli.ts";
import { serviceChange } from "../../support/directory.ts";
import { startDns, type ToldRecursor, toldRecursor } from "../../support/dns-peers.ts";
import { type Docker, startDocker } from "../../support/docker.ts";
import { type RunningAgent, startAgent } from "../../support/ground.ts";
import { world } from "../../support/lookup.ts";
import { triedBefore } from "../../support/own-name.ts";
import { eventually, freePort, havePrograms, ownFolder } from "../../support/peers.ts";

const run = promisify(execFile);
const undo: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (let step = undo.pop(); step !== undefined; step = undo.pop()) await step();
});

const root = process.getuid?.() === 0;
const haveBridges = root && (await havePrograms("dig", "ip"));

describe.runIf(haveBridges)("a bridge", () => {
  const NAME = `tdns${process.pid % 10_000}`;
  const ADDRESS = `10.213.${process.pid % 250}.1`;
  const ip = (...args: string[]): Promise<unknown> => run("ip", args);
  const raise = async (): Promise<void> => {
    await ip("link", "add", NAME, "type", "bridge");
    undo.push(() => ip("link", "delete", NAME).catch(() => undefined));
    await ip("addr", "add", `${ADDRESS}/24`, "dev", NAME);
    await ip("link", "set", NAME, "up");
  };
  const ask = async (port: number, ...args: string[]): Promise<string> =>
    (
      await run("dig", [`@${ADDRESS}`, "-p", String(port), "+time=1", "+tries=1", ...args]).catch(({ stdout }) => ({
        stdout,
      }))
    ).stdout;

  it("is listened on while it is there, and its network may have names resolved", async () => {
    const recursor = await toldRecursor(() => ({}));
    undo.push(() => recursor.stop());
    const here = await world();
    await here.directory.write([serviceChange("home", "w", "web", { address: "192.0.2.9", port: 80 })]);
    const port = await freePort();
    const agent = await startDns(here, { bridge: NAME, bridgePort: port, recursors: [recursor.place] });
    undo.push(() => agent.stop());
    expect(agent.where[1]).toBe(`port ${port} of ${NAME}, not there yet`);
    for (let round = 0; round < 2; round++) {
      // A bridge without anything plugged in, as Docker's is before its first container.
      await raise();
      await eventually("it answers", async () => (await ask(port, "web.service.consul")).includes("192.0.2.9"));
      expect(await ask(port, "+tcp", "web.service.consul")).toMatch(/flags: qr aa rd ra;/);
      expect(await ask(port, "www.example.org")).toContain("status: NOERROR");
      await ip("link", "delete", NAME);
      await eventually("it is let go", () => agent.lines.filter((line) => line.includes("any more")).length > round);
    }
    await agent.stop();
    // Everything is free again.
    await raise();
    const socket = createSocket("udp4");
    await new Promise<void>((resolve, reject) => socket.once("error", reject).bind(port, ADDRESS, resolve));
    await new Promise<void>((resolve) => socket.close(() => resolve()));
  });

  it("that another server has already is told of once, with what to do", async () => {
    await raise();
    const port = await freePort();
    const other = createSocket("udp4");
    await new Promise<void>((resolve, reject) => other.once("error", reject).bind(port, ADDRESS, resolve));
    const agent = await startDns(await world(), { bridge: [ADDRESS], bridgePort: port });
    undo.push(() => agent.stop());
    expect(agent.lines.filter((line) => line.startsWith("warn"))).toEqual([
      expect.stringContaining(
        `containers on ${NAME} get no answers: ${ADDRESS}:${port} is taken by another DNS server`,
      ),
    ]);
    await new Promise<void>((resolve) => other.close(() => resolve()));
  });

  it("is not listened on twice where the main listener has its address", async () => {
    await raise();
    const port = await freePort();
    const agent = await startDns(await world(), {
      host: "0.0.0.0",
      port,
      bridge: NAME,
      bridgePort: port,
      recursors: [],
    });
    undo.push(() => agent.stop());
    expect(agent.lines.filter((line) => line.startsWith("warn"))).toEqual([]);
    expect(await ask(port, "service.consul")).toContain("status: NOERROR");
  });
});

const haveDocker = root && (await havePrograms("dockerd", "docker", "iptables", "ip"));

describe.runIf(haveDocker)("containers", () => {
  let docker: Docker;
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let recursor: ToldRecursor;
  let agent: RunningAgent;
  const lines: string[] = [];
  /** The C library's own resolver, in a container. */
  const GLIBC = ["-v", "/usr:/usr:ro", "-v", "/usr/lib:/lib:ro", "-v", "/usr/lib64:/lib64:ro"];
  const inContainer = (options: readonly string[], ...command: string[]): Promise<string> =>
    docker.docker("run", "--rm", ...GLIBC, ...options, "bb", ...command);

  beforeAll(async () => {
    // All that containers are told comes from the file that `trilith dns setup docker` writes.
    folder = await ownFolder("dns-daemon");
    const plan = await planSetup({ target: "docker", domain: "consul", port: 8600, root: folder.path });
    await applySetup(plan);
    docker = await startDocker("dns", ["--config-file", plan.file.path]);
    recursor = await toldRecursor(({ questions }) =>
      questions[0]?.type === 1
        ? {
            answers: [{ name: questions[0].name, class: 1, ttlS: 60, data: { kind: "A", address: "198.51.100.1" } }],
          }
        : {},
    );
    agent = await startAgent(
      {
        // What containers of other networks reach this host at.
        advertiseAddress: "172.17.0.1",
        protocols: {
          docker: { host: docker.host },
          dns: { port: 0, bridge: "docker0", recursors: [recursor.place] },
        },
      },
      { log: callbackLog((level, part, text) => void lines.push(`${level} ${part}: ${text}`)) },
    );
  }, 120_000);
  beforeEach(async (context) => {
    if (!triedBefore(context)) return;
    await docker.clear("apart");
    recursor.asked.splice(0);
    lines.splice(0);
  });
  afterAll(async () => {
    await agent?.stop();
    await recursor?.stop();
    await docker?.remove();
    await folder?.remove();
  }, 60_000);

  it("find each other by short names at addresses they can reach, and the rest of the world", async () => {
    await docker.docker("run", "-d", "--name", "one", "-p", "80", "-e", "SERVICE_NAME=web", "bbweb");
    await eventually("it is found", () => agent.trilith.lookup.resolveNow({ service: "web" }).endpoints.length === 1);
    const own = await docker.docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", "one");
    const found = await inContainer([], "/usr/bin/getent", "ahostsv4", "web");
    expect(found).toMatch(new RegExp(`^${own.replaceAll(".", "\\.")}\\s+STREAM web\\.service\\.consul`));
    // …and it serves there.
    expect(
      await inContainer([], "/bin/sh", "-c", "wget -q -O - http://$(getent ahostsv4 web | { read a b; echo $a; })/"),
    ).toBe("ok");
    expect(await inContainer([], "/usr/bin/getent", "ahostsv4", "www.example.org")).toMatch(/^198\.51\.100\.1\s/);
    await expect(inContainer([], "/usr/bin/getent", "ahostsv4", "nobody")).rejects.toMatchObject({ code: 2 });
    expect(recursor.asked.filter((line) => !line.includes("www.example.org"))).toEqual([]);
    // Tags and labels in a name pass the C library too.
    await docker.docker(
      "run",
      "-d",
      "--name",
      "two",
      "-p",
      "80",
      "-e",
      "SERVICE_NAME=web",
      "-e",
      "SERVICE_TAGS=v2,eu",
      "-e",
      "SERVICE_ENV=prod",
      "bbweb",
    );
    await eventually("it is found", () => agent.trilith.lookup.resolveNow({ service: "web" }).endpoints.length === 2);
    const second = await docker.docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", "two");
    for (const name of ["v2", "eu.v2", "env--prod", "v2.env--prod"].map((words) => `${words}.web.service.consul`))
      expect(await inContainer([], "/usr/bin/getent", "ahostsv4", name), name).toMatch(
        new RegExp(`^${second.replaceAll(".", "\\.")}\\s`),
      );
    await docker.docker("rm", "-f", "one", "two");
    await eventually("they are gone", () => agent.trilith.lookup.resolveNow({ service: "web" }).endpoints.length === 0);
    await expect(inContainer([], "/usr/bin/getent", "ahostsv4", "web")).rejects.toMatchObject({ code: 2 });
    expect(lines.filter((line) => line.startsWith("error"))).toEqual([]);
  }, 180_000);

  it("on networks of their own get there through Docker's own resolver", async () => {
    await docker.docker("network", "create", "apart");
    undo.push(() => docker.docker("network", "rm", "apart"));
    undo.push(() => docker.docker("rm", "-f", "three"));
    await docker.docker("run", "-d", "--name", "three", "-p", "80", "-e", "SERVICE_NAME=api", "bbweb");
    await eventually("it is found", () => agent.trilith.lookup.resolveNow({ service: "api" }).endpoints.length === 1);
    const found = await inContainer(["--network", "apart"], "/usr/bin/getent", "ahostsv4", "api");
    expect(found).toMatch(/^[\d.]+\s+STREAM api\.service\.consul/);
  }, 120_000);
});

describe("resolv.conf", () => {
  it("is where the system's servers are known from, when containers are served and none were named", async () => {
    const folder = await ownFolder("dns-resolv");
    undo.push(() => folder.remove());
    await mkdir(folder.path, { recursive: true });
    const resolvConf = join(folder.path, "resolv.conf");
    await writeFile(resolvConf, "# none\nsearch example.org\n");
    const port = await freePort();
    const agent = await startDns(await world(), { bridge: ["no-such-bridge"], bridgePort: port, resolvConf });
    undo.push(() => agent.stop());
    expect(await agent.dig("www.example.org")).toMatch(/status: SERVFAIL/);
    expect(agent.lines.join("\n")).toContain("there is no server to ask");
  });
});
