// The docker source against a real dockerd: starts, names, groups, drain, pause, rename, bursts, restarts of daemon and source.
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { systemClock } from "../../../src/base/clock.ts";
import { systemDisk } from "../../../src/base/disk.ts";
import { createHttp } from "../../../src/base/http.ts";
import { silentLog } from "../../../src/base/log.ts";
import { systemRandom } from "../../../src/base/random.ts";
import type { SourceList } from "../../../src/contracts/source.ts";
import type { Outcome } from "../../../src/model/check.ts";
import type { Registration } from "../../../src/model/instance.ts";
import type { Endpoint } from "../../../src/model/query.ts";
import { parseHost } from "../../../src/protocols/docker/endpoint.ts";
import type { TranslateOptions } from "../../../src/protocols/docker/registrator.ts";
import { dockerSource } from "../../../src/protocols/docker/source.ts";
import { createTrilith } from "../../../src/trilith.ts";
import { type Docker, startDocker } from "../../support/docker.ts";
import { ownName, triedBefore } from "../../support/own-name.ts";
import { eventually, freePort, havePrograms } from "../../support/peers.ts";

const HOST = "testhost";
const options: TranslateOptions = {
  ip: "",
  internal: false,
  explicit: false,
  useIpFromLabel: "",
  tags: () => "",
  compat: false,
  hostname: HOST,
  hostIp: "192.0.2.1",
  scripts: false,
  probes: new Map(),
  nodeAddress: "192.0.2.1",
};

/** A source with everything it said. */
interface Collected {
  readonly lists: readonly SourceList[];
  readonly reports: readonly { readonly check: string; readonly outcome: Outcome }[];
  /** The last list. */
  now(): readonly Registration[];
  find(id: string): Registration | undefined;
  state(): string;
  stop(): Promise<void>;
}

function collect(docker: Docker): Collected {
  const http = createHttp();
  const lists: SourceList[] = [];
  const reports: { check: string; outcome: Outcome }[] = [];
  const source = dockerSource(
    { endpoints: [parseHost(docker.host, "test")], optional: false, translation: async () => options },
    {
      clock: systemClock,
      random: systemRandom,
      disk: systemDisk,
      http,
      log: silentLog,
      agent: { report: async (check, outcome) => void reports.push({ check, outcome }) },
    },
  );
  const stop = new AbortController();
  const ended = (async () => {
    for await (const list of source.watch(stop.signal)) lists.push(list);
  })();
  const now = (): readonly Registration[] => lists.at(-1)?.list ?? [];
  return {
    lists,
    reports,
    now,
    find: (id) => now().find((one) => one.id === `${HOST}:${id}`),
    state: () => source.state().text,
    async stop() {
      stop.abort();
      await ended;
      await http.close();
    },
  };
}

const present = await havePrograms("dockerd", "docker", "iptables", "ip");

describe.runIf(present)("docker", () => {
  let docker: Docker;
  let seen: Collected;
  beforeAll(async () => {
    docker = await startDocker("interop");
    seen = collect(docker);
    await eventually("the first list", () => seen.lists.length > 0);
  });
  beforeEach(async (context) => {
    if (!triedBefore(context)) return;
    await seen.stop();
    await docker.clear();
    seen = collect(docker);
    await eventually("the first list", () => seen.lists.length > 0);
  });
  afterAll(async () => {
    await seen?.stop();
    await docker?.remove();
  });
  const run = (name: string, ...args: string[]): Promise<string> => docker.docker("run", "-d", "--name", name, ...args);
  const gone = (id: string): Promise<unknown> => eventually(`${id} is gone`, () => seen.find(id) === undefined);
  const there = (id: string): Promise<Registration> => eventually(`${id} is there`, () => seen.find(id));

  it("begins with an empty list and says where it looks", () => {
    expect(seen.now()).toEqual([]);
    expect(seen.state()).toMatch(/^Docker 20\.10\S* at unix:\/\/.*docker\.sock, 0 containers$/);
  });

  it("registers a container with its port, environment and labels, and says why it is gone", async () => {
    const id = await run(
      "web",
      ...["-p", "80", "-e", "SERVICE_NAME=front", "-e", "SERVICE_TAGS=a,b", "-l", "SERVICE_REGION=eu", "bbexp1"],
    );
    const one = await there("web:80");
    const port = Number((await docker.docker("port", "web", "80/tcp")).split("\n")[0]?.split(":").at(-1));
    expect(one).toMatchObject({
      name: "front",
      tags: ["a", "b"],
      address: "192.0.2.1",
      port,
      foreignId: `${id}:80/tcp`,
      text: `container web (${id.slice(0, 12)}), port 80/tcp`,
    });
    expect({ ...one.labels }).toEqual({ region: "eu" });
    expect(one.addresses?.[1]).toMatchObject({ port: 80, reach: "bridge", network: expect.stringMatching(/\/16$/) });
    await docker.docker("rm", "-f", "web");
    await gone("web:80");
    const reason = seen.lists.at(-1)?.gone?.get(`${HOST}:web:80`);
    expect(reason).toMatchObject({ confirmed: true });
    expect(reason?.text).toMatch(/^container web \([0-9a-f]{12}\) (was stopped|died), exit code 137$/);
  });

  it("registers each port of a group", async () => {
    await run("trio", "-P", "bbexp3");
    await there("trio:443");
    expect(seen.now().map(({ id, name, tags }) => [id, name, tags])).toEqual([
      [`${HOST}:trio:53:udp`, "bbexp3-53", ["udp"]],
      [`${HOST}:trio:80`, "bbexp3-80", []],
      [`${HOST}:trio:443`, "bbexp3-443", []],
    ]);
    await docker.docker("rm", "-f", "trio");
    await gone("trio:443");
  });

  it("drains on the stop signal, before the container dies", async () => {
    await run(
      "slow",
      "-p",
      "80",
      "-l",
      "SERVICE_NAME=slow",
      "bbexp1",
      "/bin/sh",
      "-c",
      "trap 'until [ -e /tmp/go ]; do sleep 0.1; done; exit 0' TERM; while :; do sleep 0.1; done",
    );
    await there("slow:80");
    const from = seen.lists.length;
    const stopped = docker.docker("stop", "-t", "60", "slow");
    await eventually("it drains", () => seen.find("slow:80")?.draining);
    await docker.docker("exec", "slow", "touch", "/tmp/go");
    await stopped;
    await gone("slow:80");
    const after = seen.lists.slice(from).map(({ list }) => list.find(({ name }) => name === "slow")?.draining);
    expect(after).toEqual([true, undefined]);
    expect(seen.lists.at(-1)?.gone?.get(`${HOST}:slow:80`)).toMatchObject({ code: "stopped" });
    expect(seen.lists.at(-1)?.gone?.get(`${HOST}:slow:80`)?.text).toContain("exit code 0");
    await docker.docker("rm", "slow");
  });

  it("is routable again when it outlives its stop time-out, and does not mind other signals", async () => {
    await run(
      "tough",
      "-p",
      "80",
      "--stop-timeout",
      "1",
      "bbexp1",
      "/bin/sh",
      "-c",
      "trap '' TERM HUP; while :; do sleep 0.1; done",
    );
    await there("tough:80");
    await docker.docker("kill", "-s", "HUP", "tough");
    const from = seen.lists.length;
    await docker.docker("kill", "-s", "TERM", "tough");
    const drained = (): boolean =>
      seen.lists.slice(from).some(({ list }) => list.some(({ id, draining }) => id === `${HOST}:tough:80` && draining));
    await eventually("it drains", drained);
    await eventually("it is back", () => seen.find("tough:80")?.draining !== true);
    expect(seen.find("tough:80")).toBeDefined();
    await docker.docker("rm", "-f", "tough");
    await gone("tough:80");
  });

  it("follows pause, rename and restart", async () => {
    const id = await run("first", "-p", "80", "bbexp1");
    await there("first:80");
    await docker.docker("pause", "first");
    await eventually("paused: in no lookup", () => seen.find("first:80")?.draining);
    await docker.docker("unpause", "first");
    await eventually("unpaused", () => seen.find("first:80")?.draining !== true);
    await docker.docker("rename", "first", "second");
    expect((await there("second:80")).foreignId).toBe(`${id}:80/tcp`);
    expect(seen.find("first:80")).toBeUndefined();
    const from = seen.lists.length;
    await docker.docker("restart", "-t", "0", "second");
    await eventually("gone and back", () =>
      seen.lists.slice(from).some(({ list }) => !list.some(({ foreignId }) => foreignId === `${id}:80/tcp`)),
    );
    await there("second:80");
    await docker.docker("rm", "-f", "second");
    await gone("second:80");
  });

  it("takes Docker's HEALTHCHECK for a pushed check", async () => {
    await run(
      "sick",
      ...["-p", "80", "--health-cmd", "test -e /tmp/ok", "--health-interval", "200ms", "--health-retries", "1"],
      "bbexp1",
    );
    const [check] = (await there("sick:80")).checks;
    expect(check).toMatchObject({ kind: "none", initial: "critical" });
    const last = (): string | undefined =>
      seen.reports.filter(({ check: id }) => id === check?.id).at(-1)?.outcome.status;
    await eventually("critical while it is not healthy", () => last() === "critical");
    const lists = seen.lists.length;
    await docker.docker("exec", "sick", "touch", "/tmp/ok");
    await eventually("passing", () => last() === "passing");
    await docker.docker("exec", "sick", "rm", "/tmp/ok");
    await eventually("critical", () => last() === "critical");
    expect(seen.lists.length).toBe(lists);
    await docker.docker("rm", "-f", "sick");
    await gone("sick:80");
  });

  it("misses nothing and keeps nothing of a burst of starts, deaths and short lives", async () => {
    const names = Array.from({ length: 20 }, (_, i) => `burst${i}`);
    await Promise.all([
      ...names.map((name) => run(name, "-P", "bbexp1")),
      ...names
        .slice(0, 5)
        .map((name) => docker.docker("run", "--rm", "--name", `${name}short`, "-P", "bbexp1", "/bin/true")),
    ]);
    await eventually("all 20", () => names.every((name) => seen.find(`${name}:80`) !== undefined), 30_000);
    await eventually("no short-lived one", () => seen.now().length === 20);
    const ports = (await docker.docker("ps", "--format", "{{.Names}} {{.Ports}}")).split("\n").map((line) => {
      const [, name, port] = /^(\S+) 0\.0\.0\.0:(\d+)/.exec(line) ?? [];
      return `${HOST}:${name}:80 ${port}`;
    });
    expect(
      seen
        .now()
        .map(({ id, port }) => `${id} ${port}`)
        .sort(),
    ).toEqual(ports.sort());
    await docker.docker("kill", ...names);
    await eventually("none left", () => seen.now().length === 0);
    await docker.docker("rm", "-f", ...names);
  });

  it("adopts after a restart of its own: the same list at once", async () => {
    await run("stay", "-p", "80", "-e", "SERVICE_TAGS=x", "bbexp1");
    const before = await there("stay:80");
    await seen.stop();
    seen = collect(docker);
    await eventually("the first list", () => seen.lists.length > 0);
    expect(seen.lists[0]?.list).toEqual([before]);
    await docker.docker("rm", "-f", "stay");
    await gone("stay:80");
  });

  it("follows a dockerd that is stopped and started: what it ended is gone, what it starts again is back", async () => {
    await run("again", "-p", "80", "--restart", "always", "--stop-timeout", "1", "bbexp1");
    await there("again:80");
    await docker.stop();
    await gone("again:80");
    await docker.start();
    await there("again:80");
    await docker.docker("rm", "-f", "again");
    await gone("again:80");
  });

  it("keeps the list while a killed dockerd is away, and reads it again when it is back", async () => {
    await run("keep", "-p", "80", "--restart", "always", "bbexp1");
    await run("lose", "-p", "80", "bbexp1");
    await there("lose:80");
    await docker.kill();
    await eventually("it says so", () => seen.state().includes("away, trying again"));
    expect(
      seen
        .now()
        .map(({ id }) => id)
        .sort(),
    ).toEqual([`${HOST}:keep:80`, `${HOST}:lose:80`]);
    await docker.start();
    await there("keep:80");
    await gone("lose:80");
    await eventually("it says so", () => /, 1 container$/.test(seen.state()));
    await docker.docker("rm", "-f", "keep", "lose");
    await gone("keep:80");
  });

  it("a whole agent: found while it runs, out on the stop signal, adopted unchanged after a restart of the agent", async () => {
    const settings = {
      node: "n1",
      dataDir: `${docker.folder}/${ownName("whole")}`,
      httpPort: -1,
      protocols: { docker: { host: docker.host, enabled: true, hostname: HOST, ip: "192.0.2.1" }, dns: { port: -1 } },
    };
    let agent = createTrilith(settings);
    await agent.start();
    try {
      const endpoints = (): readonly Endpoint[] => agent.lookup.resolveNow({ service: "whole" }).endpoints;
      const id = await run("whole", "-p", "80", "-e", "SERVICE_NAME=whole", "--stop-timeout", "1", "bbexp1");
      await eventually("it is found", () => endpoints().length === 1);
      const port = Number((await docker.docker("port", "whole", "80/tcp")).split("\n")[0]?.split(":").at(-1));
      expect(endpoints()[0]).toMatchObject({ address: "192.0.2.1", port });
      expect(endpoints()[0]?.resident.instance.origin).toEqual({
        source: "docker",
        authority: "first-hand",
        foreignId: `${id}:80/tcp`,
        text: `container whole (${id.slice(0, 12)}), port 80/tcp`,
      });
      expect(agent.sources().find(({ name }) => name === "docker")).toMatchObject({ ok: true });

      const before = endpoints()[0]?.resident.instance;
      await agent.stop();
      agent = createTrilith(settings);
      await agent.start();
      await eventually("Docker is read", () =>
        /, 1 container$/.test(agent.sources().find(({ name }) => name === "docker")?.text ?? ""),
      );
      await agent.agent.synced();
      expect(endpoints()[0]?.resident.instance).toEqual(before);

      const stopping = docker.docker("stop", "whole");
      await eventually("it drains", () => endpoints().length === 0);
      expect(agent.agent.services().get(`${HOST}:whole:80`)?.instance.draining).toBe(true);
      await stopping;
      await eventually("it is deregistered", () => agent.agent.services().size === 0);
      expect(agent.agent.history("whole")[0]?.text).toMatch(
        /container whole \([0-9a-f]{12}\) was stopped, exit code 137$/,
      );
    } finally {
      await agent.stop();
      await docker.docker("rm", "-f", "whole");
    }
  });

  it("a restart of the host, dockerd and agent together: what it starts again is back as it was, what it ended is gone", async () => {
    const settings = {
      node: "n1",
      dataDir: `${docker.folder}/${ownName("rebooted")}`,
      httpPort: -1,
      protocols: { docker: { host: docker.host, enabled: true, hostname: HOST, ip: "192.0.2.1" }, dns: { port: -1 } },
    };
    let agent = createTrilith(settings);
    await agent.start();
    const ids = (): string => [...agent.agent.services().keys()].sort().join(" ");
    try {
      await run("boots", "-p", `${await freePort()}:80`, "--restart", "always", "--stop-timeout", "1", "bbexp1");
      await run("ends", "-p", "80", "--stop-timeout", "1", "bbexp1");
      await eventually("both", () => ids() === `${HOST}:boots:80 ${HOST}:ends:80`);
      const before = agent.agent.services().get(`${HOST}:boots:80`)?.instance;
      // The agent ends first, as if the power were cut: what happens to dockerd it does not see.
      await agent.stop();
      await docker.kill();
      await docker.start();
      agent = createTrilith(settings);
      await agent.start();
      await eventually("what was started again", () => ids() === `${HOST}:boots:80`);
      const after = agent.agent.services().get(`${HOST}:boots:80`)?.instance;
      expect({ ...after, addresses: undefined }).toEqual({ ...before, addresses: undefined });
    } finally {
      await agent.stop();
      await docker.docker("rm", "-f", "boots", "ends");
    }
  });
});
