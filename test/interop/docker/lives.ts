// Containers of a real dockerd through a whole agent: restarts on both sides, networks, drain as dig and curl see it, names, limits.
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { callbackLog } from "../../../src/base/log.ts";
import type { Instance } from "../../../src/model/instance.ts";
import { keyOf } from "../../../src/model/record.ts";
import { createTrilith, type Trilith } from "../../../src/trilith.ts";
import { cases } from "../../golden/registrator-cases.ts";
import { lives as expectedLives } from "../../golden/registrator-lifecycles.ts";
import { furnish, lives, replayLife, replayStatic } from "../../golden/registrator-live.ts";
import { type Docker, startDocker } from "../../support/docker.ts";
import { triedBefore } from "../../support/own-name.ts";
import { eventually, freePort, havePrograms } from "../../support/peers.ts";

const exec = promisify(execFile);
const HOST = "livehost";
const present = await havePrograms("dockerd", "docker", "iptables", "ip", "dig", "curl");

describe.runIf(present)("containers through a whole agent", () => {
  let docker: Docker;
  let agent: Trilith;
  let dnsPort: number;
  const logged: string[] = [];
  const run = (name: string, ...args: string[]): Promise<string> => docker.docker("run", "-d", "--name", name, ...args);
  const remove = (...names: string[]): Promise<string> => docker.docker("rm", "-f", ...names);
  const held = (): Map<string, Instance> =>
    new Map([...agent.agent.services()].map(([id, { instance }]) => [id.replace(`${HOST}:`, ""), instance]));
  const ids = (): string[] => [...held().keys()].sort();
  const there = (id: string): Promise<Instance> => eventually(`${id} is registered`, () => held().get(id));
  const nothing = (): Promise<unknown> => eventually("nothing is registered", () => held().size === 0);
  const dig = async (name: string, ...more: string[]): Promise<string> =>
    (
      await exec("dig", ["@127.0.0.1", "-p", String(dnsPort), "+short", `${name}.service.consul`, ...more])
    ).stdout.trim();
  const passing = async (name: string): Promise<unknown[]> =>
    JSON.parse(
      (await exec("curl", ["-s", `http://${agent.self.listening.get("http")}/v1/health/service/${name}?passing`]))
        .stdout,
    ) as unknown[];

  async function begin(): Promise<void> {
    agent = createTrilith(
      {
        node: "n1",
        dataDir: `${docker.folder}/trilith`,
        httpPort: 0,
        protocols: {
          ...{ process: false, file: false, dns: { port: dnsPort } },
          docker: { host: docker.host, enabled: true, hostname: HOST, ip: "192.0.2.1" },
        },
      },
      {
        log: callbackLog((level, part, text, fields) =>
          logged.push(`${level} ${part}: ${text} ${JSON.stringify(fields)}`),
        ),
      },
    );
    await agent.start();
    await eventually("Docker is read", () => /\d containers?$/.test(agent.sources()[0]?.text ?? ""));
    await agent.agent.synced();
  }

  beforeAll(async () => {
    docker = await startDocker("lives", ["--live-restore"]);
    await furnish(docker);
    dnsPort = await freePort();
    await begin();
  });
  beforeEach(async (context) => {
    if (!triedBefore(context)) return;
    await agent.stop();
    await docker.clear("six");
    logged.splice(0);
    await begin();
    await nothing();
  });
  afterAll(async () => {
    await agent?.stop();
    await docker?.remove();
  });

  // All of them: test/peers/docker/cases.ts.
  it.each([
    "port-P-group",
    "net-host-group",
    "net-custom-bridge-static-ip-internal",
    "tags-flag-template",
    "check-http-full",
  ])("as recorded: %s", async (name) => {
    const recorded = cases.find((one) => one.name === name);
    if (recorded === undefined) throw new Error(`no case ${name}`);
    const result = await replayStatic(docker, recorded);
    expect(result.got).toEqual(result.wanted);
  });
  it.each(["life-rename", "life-onsuccess-exit1-then-start-again"])("as recorded, or better: %s", async (name) => {
    const life = lives.find((one) => one.name === name);
    if (life === undefined) throw new Error(`no life ${name}`);
    await replayLife(docker, life, expectedLives[name] ?? "same");
  });

  it("an agent that starts anew finds what came and went meanwhile, and leaves the rest as it was", async () => {
    await run("stays", "-p", "80", "-e", "SERVICE_TAGS=x", "bbexp1");
    await run("goes", "-p", "80", "bbexp1");
    await there("stays:80");
    await there("goes:80");
    await agent.agent.synced();
    const entry = () => agent.directory.view().get("service", keyOf.service("n1", `${HOST}:stays:80`));
    const before = JSON.stringify(held().get("stays:80"));
    const index = entry()?.modifyIndex;
    await agent.stop();
    await remove("goes");
    await run("comes", "-p", "80", "bbexp1");
    await begin();
    await there("comes:80");
    expect(ids()).toEqual(["comes:80", "stays:80"]);
    expect(JSON.stringify(held().get("stays:80"))).toBe(before);
    expect(entry()?.modifyIndex).toBe(index);
    await remove("comes", "stays");
    await nothing();
  });

  it("a dockerd that starts anew under its containers (live-restore) changes nothing, and nothing is written", async () => {
    await run("stays", "-p", "80", "bbexp1");
    await there("stays:80");
    await agent.agent.synced();
    const index = agent.directory.view().index;
    const version = agent.agent.version();
    await docker.stop();
    await eventually("it says so", () => /away, trying again/.test(agent.sources()[0]?.text ?? ""));
    expect(ids()).toEqual(["stays:80"]);
    await docker.start({ live: true });
    await eventually("it is back", () => /, 1 container$/.test(agent.sources()[0]?.text ?? ""));
    // What happens after everything was read again is seen: so the reading itself has ended.
    await run("after", "-p", "80", "bbexp1");
    await there("after:80");
    expect(held().get("stays:80")).toBeDefined();
    await agent.agent.synced();
    expect(agent.agent.version() - version).toBeLessThanOrEqual(2);
    const changed = agent.directory.view().index - index;
    expect(changed).toBe(1);
    await remove("stays", "after");
    await nothing();
  });

  it("drains before it dies: first out of DNS and HTTP, then dead, then deregistered", async () => {
    const slow = [
      "bbexp1",
      "/bin/sh",
      "-c",
      "trap 'until [ -e /tmp/go ]; do sleep 0.1; done; exit 0' TERM; while :; do sleep 0.1; done",
    ];
    await run("slow", "-p", "80", "-e", "SERVICE_NAME=slow", ...slow);
    await eventually("found by dig", async () => (await dig("slow")) === "192.0.2.1");
    expect(await passing("slow")).toHaveLength(1);
    const stopping = docker.docker("stop", "-t", "60", "slow");
    await eventually("out of DNS", async () => (await dig("slow")) === "");
    expect(await passing("slow")).toEqual([]);
    expect(await docker.docker("inspect", "-f", "{{.State.Running}}", "slow")).toBe("true");
    expect(held().get("slow:80")?.draining).toBe(true);
    await docker.docker("exec", "slow", "touch", "/tmp/go");
    await stopping;
    await nothing();
    expect(agent.agent.history("slow")[0]?.text).toMatch(/was stopped, exit code 0$/);
    await remove("slow");
  });

  it("with a HEALTHCHECK it is in no lookup before it is healthy for the first time", async () => {
    const check = ["--health-cmd", "test -e /tmp/ok", "--health-interval", "200ms", "--health-retries", "1"];
    await run("sick", "-p", "80", "-e", "SERVICE_NAME=sick", ...check, "bbexp1");
    await there("sick:80");
    expect(await dig("sick")).toBe("");
    await docker.docker("exec", "sick", "touch", "/tmp/ok");
    await eventually("healthy", async () => (await dig("sick")) === "192.0.2.1");
    await docker.docker("exec", "sick", "rm", "/tmp/ok");
    await eventually("unhealthy", async () => (await dig("sick")) === "");
    await remove("sick");
    await nothing();
  });

  it("networks are followed, and every asker gets the address on its own", async () => {
    await docker.docker("network", "create", "--ipv6", "--subnet", "172.30.9.0/24", "--subnet", "fd00:9::/64", "six");
    await run("multi", "-p", "80", "-e", "SERVICE_NAME=multi", "bbexp1");
    const hosts = (): string[] => (held().get("multi:80")?.addresses ?? []).map(({ host }) => host);
    await eventually("host and bridge", () => hosts().length === 2);
    await docker.docker("network", "connect", "six", "multi");
    await eventually("and the other network, both families", () => hosts().length === 4);
    const answer = (asker: string): string | undefined => {
      const [one] = agent.lookup.resolveNow({ service: "multi", asker }).endpoints;
      return one && `${one.address} ${one.port}`;
    };
    const port = Number((await docker.docker("port", "multi", "80/tcp")).split("\n")[0]?.split(":").at(-1));
    const of = async (network: string, key: string): Promise<string> =>
      await docker.docker("inspect", "-f", `{{(index .NetworkSettings.Networks "${network}").${key}}}`, "multi");
    expect(answer("172.17.0.250")).toBe(`${await of("bridge", "IPAddress")} 80`);
    expect(answer("172.30.9.250")).toBe(`${await of("six", "IPAddress")} 80`);
    expect(answer("fd00:9::99")).toBe(`${await of("six", "GlobalIPv6Address")} 80`);
    expect(answer("203.0.113.9")).toBe(`192.0.2.1 ${port}`);
    await docker.docker("network", "disconnect", "six", "multi");
    await eventually("gone with its network", () => hosts().length === 2);
    await remove("multi");
    await nothing();
  });

  it("many names for one port are found each, and the further ones are as well as the first", async () => {
    const check = ["--health-cmd", "test -e /tmp/ok", "--health-interval", "200ms", "--health-retries", "1"];
    await run("named", "-p", "80", "-e", "SERVICE_NAME=shop", "-l", "SERVICE_NAMES=cart, till", ...check, "bbexp1");
    await there("named:80:till");
    expect(ids()).toEqual(["named:80", "named:80:cart", "named:80:till"]);
    expect(await dig("till")).toBe("");
    await docker.docker("exec", "named", "touch", "/tmp/ok");
    for (const name of ["shop", "cart", "till"])
      await eventually(`${name} is found`, async () => (await dig(name)) === "192.0.2.1");
    await remove("named");
    await nothing();
  });

  it("what Consul would refuse is left out and told by name, in the log and by `why`", async () => {
    await run(
      "odd",
      "-p",
      "80",
      "-e",
      "SERVICE_NAME=odd",
      "-l",
      "SERVICE_A.B=x",
      "-e",
      "SERVICE_OK=y",
      "-e",
      `SERVICE_LONG=${"v".repeat(513)}`,
      "bbexp1",
    );
    expect({ ...(await there("odd:80")).labels }).toEqual({ ok: "y" });
    await agent.agent.synced();
    const told = [
      /SERVICE_A\.B is not a label: a key may hold/,
      /SERVICE_LONG is not a label: its value has 513 bytes/,
    ];
    const why = (await exec("curl", ["-s", `http://${agent.self.listening.get("http")}/v1/trilith/why/odd`])).stdout;
    for (const text of told) {
      await eventually("in the log", () => logged.some((line) => line.startsWith("warn") && text.test(line)));
      expect(why).toMatch(text);
    }
    await remove("odd");
    await nothing();
  });
});
