// The source "dns-upstream" beside a real name server (NSD), and a real resolver (Unbound) in front of it: changed, killed and restarted.
import { writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { type RunningAgent, startAgent } from "../support/ground.ts";
import { freePort, havePrograms, ownFolder, startProgram } from "../support/peers.ts";

const able = await havePrograms("nsd", "unbound");
const SLOW = { timeout: 30_000 };
const ending: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ending.splice(0).toReversed()) await end();
});

interface Nsd {
  readonly port: number;
  /** Lines below the zone's head; told to a running server. */
  zone(...lines: string[]): Promise<void>;
  start(): Promise<void>;
  kill(): Promise<void>;
}

/** An NSD of example.com. */
async function startNsd(...lines: string[]): Promise<Nsd> {
  const folder = await ownFolder("nsd");
  ending.push(() => folder.remove());
  const port = await freePort();
  const config = join(folder.path, "nsd.conf");
  const of = (name: string): string => join(folder.path, name);
  await writeFile(
    config,
    `server:
  ip-address: 127.0.0.1@${port}
  server-count: 1
  username: ""
  chroot: ""
  zonesdir: "${folder.path}"
  pidfile: "${of("pid")}"
  xfrdfile: "${of("xfrd")}"
  zonelistfile: "${of("zones")}"
  cookie-secret-file: "${of("cookie")}"
remote-control:
  control-enable: no
zone:
  name: example.com
  zonefile: zone
`,
  );
  let program: Awaited<ReturnType<typeof startProgram>> | undefined;
  let serial = 1;
  const nsd: Nsd = {
    port,
    async zone(...more) {
      const head = ["$ORIGIN example.com.", "$TTL 1", `@ SOA ns hostmaster ${serial++} 3600 600 86400 1`, "@ NS ns"];
      await writeFile(of("zone"), `${[...head, "ns A 127.0.0.1", ...more].join("\n")}\n`);
      if (program !== undefined) process.kill(program.pid, "SIGHUP");
    },
    async start() {
      program = await startProgram(["nsd", "-d", "-c", config], of("log"));
    },
    async kill() {
      const killed = program;
      program = undefined;
      await killed?.stop("SIGKILL");
    },
  };
  ending.push(async () => {
    await program?.stop();
  });
  await nsd.zone(...lines);
  await nsd.start();
  return nsd;
}

async function startUnbound(upstream: number): Promise<number> {
  const folder = await ownFolder("unbound");
  ending.push(() => folder.remove());
  const port = await freePort();
  const config = join(folder.path, "unbound.conf");
  await writeFile(
    config,
    `server:
  interface: 127.0.0.1@${port}
  do-daemonize: no
  username: ""
  chroot: ""
  directory: "${folder.path}"
  pidfile: "${join(folder.path, "pid")}"
  use-syslog: no
  do-not-query-localhost: no
  module-config: "iterator"
  infra-host-ttl: 1
stub-zone:
  name: "example.com"
  stub-addr: 127.0.0.1@${upstream}
  stub-no-cache: no
remote-control:
  control-enable: no
`,
  );
  const program = await startProgram(["unbound", "-d", "-c", config], join(folder.path, "log"));
  ending.push(() => program.stop());
  return port;
}

async function agentOn(ports: readonly number[], more: object = {}, dataDir?: string): Promise<RunningAgent> {
  const agent = await startAgent({
    ...(dataDir === undefined ? {} : { dev: false, dataDir }),
    protocols: {
      "dns-upstream": {
        services: [
          { service: "web", name: "_http._tcp.example.com" },
          { service: "db", name: "db.example.com", port: 5432 },
        ],
        resolvers: ports.map((port) => `127.0.0.1:${port}`),
        ...{ floor: "200ms", timeout: "500ms", hold: "3s", ...more },
      },
    },
  });
  ending.push(() => agent.stop());
  return agent;
}
const recorded = ({ trilith }: RunningAgent, service = "web"): string[] =>
  trilith.directory
    .view()
    .residents(service)
    .map(({ instance, node }) => `${node.name} ${instance.address}:${instance.port}`);
const found = ({ trilith }: RunningAgent): string[] =>
  trilith.lookup
    .resolveNow({ service: "web", order: "stable" })
    .endpoints.map(({ address, port, weight }) => `${address}:${port} ${weight}`);
const stateOf = ({ trilith }: RunningAgent): { ok: boolean; text: string } =>
  trilith.sources().find(({ name }) => name === "dns-upstream") as { ok: boolean; text: string };

describe.runIf(able)("services of a real name server", { timeout: 150_000 }, () => {
  it("are followed over changes of the zone, its death and its return; and kept over a restart of this agent", async () => {
    const srv = (host: string): string[] => [`_http._tcp SRV 0 0 80 ${host}`, `${host} A 192.0.2.${host.slice(1)}`];
    const nsd = await startNsd(...srv("h1"), ...srv("h2"), "db A 192.0.2.50");
    const folder = await ownFolder("dns-upstream");
    ending.push(() => folder.remove());
    const agent = await agentOn([nsd.port], {}, folder.path);
    const two = ["h1.example.com 192.0.2.1:80", "h2.example.com 192.0.2.2:80"];
    await expect.poll(() => recorded(agent), SLOW).toEqual(two);
    await expect.poll(() => recorded(agent, "db"), SLOW).toEqual(["db.example.com 192.0.2.50:5432"]);
    await nsd.zone(...srv("h2"), ...srv("h3"), "db A 192.0.2.51");
    await expect
      .poll(() => [...recorded(agent), ...recorded(agent, "db")], SLOW)
      .toEqual(["h2.example.com 192.0.2.2:80", "h3.example.com 192.0.2.3:80", "db.example.com 192.0.2.51:5432"]);
    await nsd.kill();
    await expect.poll(() => stateOf(agent).ok, SLOW).toBe(false);
    expect(recorded(agent)).toHaveLength(2);
    await agent.stop();
    const next = await agentOn([nsd.port], {}, folder.path);
    await expect.poll(() => stateOf(next).ok, SLOW).toBe(false);
    expect([...recorded(next), ...recorded(next, "db")]).toHaveLength(3);
    await nsd.zone(...srv("h3"), "db A 192.0.2.51");
    await nsd.start();
    await expect.poll(() => recorded(next), SLOW).toEqual(["h3.example.com 192.0.2.3:80"]);
    await expect.poll(() => stateOf(next).ok, SLOW).toBe(true);
    // No such name: held first.
    await nsd.zone("db A 192.0.2.51");
    await expect.poll(() => stateOf(next).text, SLOW).toContain("does not exist: what was known is held for 3 s");
    expect(recorded(next)).toHaveLength(1);
    await expect.poll(() => recorded(next), SLOW).toEqual([]);
    await nsd.zone(...srv("h3"), "db A 192.0.2.51");
    await expect.poll(() => recorded(next), SLOW).toHaveLength(1);
    await nsd.zone("_http._tcp SRV 0 0 0 .", "db A 192.0.2.51");
    await expect.poll(() => recorded(next), SLOW).toEqual([]);
    expect(recorded(next, "db")).toHaveLength(1);
  });

  it("come over TCP where they are many", async () => {
    const lines = Array.from({ length: 120 }, (_, i) => [
      `_http._tcp SRV 0 0 80 host-number-${i}`,
      `host-number-${i} A 10.0.0.${i}`,
    ]);
    const nsd = await startNsd(...lines.flat(), "db A 192.0.2.50");
    const agent = await agentOn([nsd.port]);
    await expect.poll(() => recorded(agent).length, SLOW).toBe(120);
  });

  it("come by a resolver between, which is asked by TTL, and by the next one where that dies", async () => {
    const nsd = await startNsd(
      "_http._tcp SRV 0 0 80 alias",
      "alias CNAME real",
      "real 2 A 192.0.2.1",
      "db A 192.0.2.50",
    );
    const first = await startUnbound(nsd.port);
    const agent = await agentOn([first, nsd.port]);
    await expect.poll(() => recorded(agent), SLOW).toEqual(["alias.example.com 192.0.2.1:80"]);
    await nsd.zone("_http._tcp SRV 0 0 80 alias", "alias CNAME real", "real 2 A 192.0.2.2", "db A 192.0.2.50");
    await expect.poll(() => recorded(agent), SLOW).toEqual(["alias.example.com 192.0.2.2:80"]);
    await ending.pop()?.(); // the agent
    await ending.pop()?.(); // the resolver
    const again = await agentOn([first, nsd.port]);
    await expect.poll(() => recorded(again), SLOW).toEqual(["alias.example.com 192.0.2.2:80"]);
    await expect.poll(() => stateOf(again).ok, SLOW).toBe(true);
  });

  it("stand by with a higher priority number until none of the lower answers", async () => {
    const listening = async (port = 0): Promise<Server> => {
      const server = createServer((socket) => socket.destroy());
      await new Promise<void>((done) => server.listen(port, "127.0.0.1", done));
      ending.push(() => new Promise((done) => (server.listening ? server.close(done) : done(undefined))));
      return server;
    };
    // Nobody else takes this port while it is free.
    const [main, spare] = [await listening(await freePort()), await listening()];
    const [port, other] = [main, spare].map((server) => (server.address() as { port: number }).port);
    const nsd = await startNsd(`_http._tcp SRV 10 0 ${port} a`, `_http._tcp SRV 20 0 ${other} a`, "a A 127.0.0.1");
    const agent = await agentOn([nsd.port], { check_interval: "1s" });
    await expect.poll(() => found(agent), SLOW).toEqual([`127.0.0.1:${port} 1`]);
    const standby = (): string | undefined =>
      agent.trilith.directory
        .view()
        .residents("web")
        .find(({ instance }) => instance.port === other)
        ?.checks.find(({ name }) => name === "standby")?.output;
    await expect.poll(standby, SLOW).toBe("stands by: priority 20 is used where none of priority 10 answers");
    await new Promise((closed) => main.close(closed));
    await expect.poll(() => found(agent), SLOW).toEqual([`127.0.0.1:${other} 1`]);
    await listening(port);
    await expect.poll(() => found(agent), SLOW).toEqual([`127.0.0.1:${port} 1`]);
  });

  it("come whole from a directory that answers as Consul does, which leaves out over UDP what does not fit", async () => {
    const port = await freePort();
    const far = await startAgent({ node: "far", compat: "consul", protocols: { dns: { port } } });
    ending.push(() => far.stop());
    const register = (n: number): Promise<void> =>
      far.trilith.agent.register("api", {
        ...{ id: `web-${n}`, name: "web", tags: [], labels: {}, address: `10.1.0.${n}`, port: 8000 + n, checks: [] },
      });
    for (let n = 1; n <= 60; n++) await register(n);
    const near = await agentOn([port], {
      services: { service: "web", name: "web.service.consul", resolvers: `127.0.0.1:${port}` },
    });
    await expect.poll(() => recorded(near).length, SLOW).toBe(60);
    expect(recorded(near)).toContain("0a010007.addr.dc1.consul 10.1.0.7:8007");
    await far.trilith.agent.deregister("api", "web-7");
    await expect.poll(() => recorded(near).length, SLOW).toBe(59);
    // Asked again and again, each time with other ones left out: none of them goes.
    const seen = new Set<number>();
    for (let i = 0; i < 10; i++) {
      await new Promise((resolve) => setTimeout(resolve, 250));
      seen.add(recorded(near).length);
    }
    expect([...seen]).toEqual([59]);
  });
});
