// The source "consul-upstream" beside agents in processes of their own, in Consul's manner: killed and restarted on either side, empty and not, and reading each other.
import { writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import type { Registration } from "../../src/model/instance.ts";
import { MOST_STREAMS } from "../../src/protocols/consul-upstream/upstream.ts";
import { ImitatedConsul } from "../support/consul-imitation.ts";
import { type RunningAgent, startAgent } from "../support/ground.ts";
import { eventually, freePort, ownFolder, startProgram } from "../support/peers.ts";

const MAIN = resolve(import.meta.dirname, "../../src/cli/main.ts");
const ending: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ending.splice(0).toReversed()) await end();
});

interface Process {
  readonly url: string;
  readonly port: number;
  start(): Promise<void>;
  kill(): Promise<void>;
  /** Paths below /v1/. */
  get(path: string): Promise<unknown>;
  put(path: string, body: object): Promise<void>;
}

/** An agent of the command line with its own folder and ports. `upstream`: which port it reads. */
async function agent(node: string, upstream?: number, { dev = false, port = 0, hold = "3s" } = {}): Promise<Process> {
  const folder = await ownFolder(`upstream-${node}`);
  ending.push(() => folder.remove());
  const http = port === 0 ? await freePort() : port;
  const config = join(folder.path, "agent.json");
  const upstreams = { upstreams: { url: `http://127.0.0.1:${upstream}` }, hold };
  await writeFile(
    config,
    JSON.stringify({ protocols: upstream === undefined ? { mdns: false } : { "consul-upstream": upstreams } }),
  );
  let program: Awaited<ReturnType<typeof startProgram>> | undefined;
  const url = `http://127.0.0.1:${http}`;
  const self: Process = {
    ...{ url, port: http },
    async start() {
      const words = [
        ...["agent", "-compat=consul", `-node=${node}`, `-datacenter=${node}`, "-client=127.0.0.1", "-bind=127.0.0.1"],
        ...[`-http-port=${http}`, "-dns-port=-1", "-config-file", config, "--docker-host=off", "--environ=off"],
        ...(dev ? ["-dev"] : [`-data-dir=${join(folder.path, "data")}`, "-server", "-bootstrap-expect=1"]),
      ];
      program = await startProgram([process.execPath, "--import", "tsx", MAIN, ...words], join(folder.path, "log"));
      await eventually(`${node} answers`, async () => (await fetch(`${url}/v1/status/leader`)).ok, 60_000);
    },
    async kill() {
      const killed = program;
      program = undefined;
      await killed?.stop("SIGKILL");
    },
    get: async (path) => (await fetch(`${url}/v1/${path}`)).json(),
    async put(path, body) {
      const answer = await fetch(`${url}/v1/${path}`, { method: "PUT", body: JSON.stringify(body) });
      if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
    },
  };
  ending.push(async () => {
    await program?.stop();
  });
  await self.start();
  return self;
}
const web = (id: string, port: number): object => ({ ID: id, Name: "web", Port: port, Tags: ["t"], Meta: { a: "b" } });
const ids = async (of: Process, service = "web", query = ""): Promise<string[]> =>
  ((await of.get(`health/service/${service}${query}`)) as { Service: { ID: string }; Node: { Node: string } }[])
    .map(({ Node, Service }) => `${Node.Node}/${Service.ID}`)
    .sort();
const until = (of: Process, expected: string[], query = ""): Promise<unknown> =>
  eventually(
    `${expected} at ${of.url}`,
    async () => {
      const found = await ids(of, "web", query);
      if (JSON.stringify(found) !== JSON.stringify(expected)) throw new Error(`found ${found}`);
      return true;
    },
    40_000,
  );

describe("an upstream in a process of its own", { timeout: 180_000 }, () => {
  it("is followed, killed, restarted with all, and away while the reader restarts", async () => {
    const far = await agent("far");
    await far.put("agent/service/register", web("w1", 80));
    await far.put("agent/service/register", {
      ...web("w2", 81),
      Check: { CheckID: "c2", TTL: "1h", Status: "passing" },
    });
    const near = await agent("near", far.port);
    await until(near, ["far/w1", "far/w2"]);
    const [first] = (await near.get("health/service/web")) as { Node: { Meta: object }; Service: object }[];
    expect(first).toMatchObject({
      Node: { Meta: { "external-node": "true", "trilith-upstream": "consul" } },
      Service: { Tags: ["t"], Meta: { a: "b" } },
    });
    await far.put("agent/check/fail/c2", {});
    await until(near, ["far/w1"], "?passing");
    await far.kill();
    await eventually("told by doctor", async () => {
      const { sources } = (await (await fetch(`${near.url}/v1/trilith/doctor`)).json()) as {
        sources: { name: string; ok: boolean }[];
      };
      return sources.some(({ name, ok }) => name === "consul-upstream" && !ok);
    });
    expect(await ids(near)).toEqual(["far/w1", "far/w2"]);
    await near.kill();
    await near.start();
    await until(near, ["far/w1", "far/w2"]);
    // As it stood, not healthy by mistake.
    expect(await ids(near, "web", "?passing")).toEqual(["far/w1"]);
    await far.start();
    await far.put("agent/check/pass/c2", {});
    await until(near, ["far/w1", "far/w2"], "?passing");
    await far.put("agent/service/deregister/w1", {});
    await until(near, ["far/w2"]);
  });

  it("that comes back with nothing has its agents' time to register again", async () => {
    const far = await agent("far", undefined, { dev: true });
    await far.put("agent/service/register", web("w1", 80));
    await far.put("agent/service/register", web("w2", 81));
    await far.put("agent/service/register", web("w3", 83));
    // So that a busy machine has time to register one again.
    const near = await agent("near", far.port, { hold: "12s" });
    await until(near, ["far/w1", "far/w2", "far/w3"]);
    await far.kill();
    await far.start();
    await far.put("agent/service/register", web("w2", 82));
    await eventually("the new port", async () => {
      const found = (await near.get("health/service/web")) as { Service: { ID: string; Port: number } }[];
      return found.some(({ Service }) => Service.ID === "w2" && Service.Port === 82) && found.length === 3;
    });
    await until(near, ["far/w2"]);
  });

  it("and its reader, each reading the other, keep nothing alive that ended", async () => {
    const [northPort, southPort] = [await freePort(), await freePort()];
    const north = await agent("north", southPort, { port: northPort });
    const south = await agent("south", northPort, { port: southPort });
    await north.put("agent/service/register", web("n", 80));
    await south.put("agent/service/register", web("s", 81));
    for (const each of [north, south]) await until(each, ["north/n", "south/s"]);
    await south.kill();
    await north.put("agent/service/deregister/n", {});
    await until(north, ["south/s"]);
    await south.start();
    // What it had from north, and north no longer has, is held there and not handed back.
    await until(south, ["south/s"]);
    expect(await ids(north)).toEqual(["south/s"]);
    await south.put("agent/service/deregister/s", {});
    for (const each of [north, south]) await until(each, []);
  });
});

/** An agent in this process that reads upstreams. */
async function reader(upstreams: object, settings: object = {}): Promise<RunningAgent> {
  const running = await startAgent({ ...settings, protocols: { "consul-upstream": { upstreams, hold: "500ms" } } });
  ending.push(() => running.stop());
  return running;
}
const placesOf = ({ trilith }: RunningAgent, service = "web"): string[] =>
  trilith.directory
    .view()
    .residents(service)
    .map(({ instance, node }) => `${node.name}/${instance.id}`);
const routable = ({ trilith }: RunningAgent): number => trilith.lookup.resolveNow({ service: "web" }).endpoints.length;
const soon = (look: () => unknown): ReturnType<typeof expect.poll> => expect.poll(look, { timeout: 20_000 });

describe("agents in this process", { timeout: 120_000 }, () => {
  it("that read each other know each other's services, keep none alive that ended, and hand nothing back", async () => {
    const north = await startAgent({ node: "north", datacenter: "north", compat: "consul" });
    ending.push(() => north.stop());
    const south = await reader(
      { url: north.url, token: "t" },
      { node: "south", datacenter: "south", compat: "consul" },
    );
    const east = await reader([{ url: south.url }], { node: "east", datacenter: "east" });
    const service = (id: string, port: number): Registration => ({
      ...{ id, name: "web", tags: [], labels: {}, address: "", port, checks: [] },
    });
    const back = await reader([{ url: south.url }, { name: "n", url: north.url, services: ["web"] }], { node: "west" });
    await north.trilith.agent.register("api", service("n1", 80));
    await south.trilith.agent.register("api", service("s1", 81));
    await soon(() => placesOf(south)).toEqual(["north/n1", "south/s1"]);
    // What south has from north is not south's to tell.
    await soon(() => placesOf(east)).toEqual(["south/s1"]);
    await soon(() => placesOf(back)).toEqual(["north/n1", "south/s1"]);
    await north.trilith.agent.maintenance("n1", true, "being repaired");
    await soon(() => routable(south)).toBe(1);
    await north.trilith.agent.deregister("api", "n1");
    await soon(() => placesOf(south)).toEqual(["south/s1"]);
    await soon(() => placesOf(back)).toEqual(["south/s1"]);
  });

  it("with very many services is followed by few streams", async () => {
    const consul = new ImitatedConsul(10_000);
    await consul.start();
    ending.push(() => consul.stop());
    for (let i = 0; i <= MOST_STREAMS; i++)
      consul.register("host-1", "192.0.2.1", { ID: `s${i}`, Service: `s${i}`, Port: i + 1 });
    const here = await reader({ url: consul.url });
    const ports = (service: string): number[] =>
      here.trilith.lookup.resolveNow({ service }).endpoints.map(({ port }) => port);
    await soon(() => ports(`s${MOST_STREAMS}`)).toEqual([MOST_STREAMS + 1]);
    await soon(() => consul.waiting).toBe(3);
    consul.register("host-1", "192.0.2.1", { ID: "s3", Service: "s3", Port: 1000 });
    await soon(() => ports("s3")).toEqual([1000]);
    consul.register("host-1", "192.0.2.1", undefined, [
      { CheckID: "c", Name: "c", Status: "critical", ServiceID: "s4" },
    ]);
    await soon(() => ports("s4")).toEqual([]);
    // One less, and each has its own again.
    consul.deregister("host-1", "s5");
    await soon(() => placesOf(here, "s5")).toEqual([]);
    await soon(() => consul.waiting).toBe(MOST_STREAMS + 1);
  });

  it("of a Trilith with very many services notices a drain alone", async () => {
    const there = await startAgent({ node: "there", datacenter: "there" });
    ending.push(() => there.stop());
    for (let i = 0; i <= MOST_STREAMS; i++)
      await there.trilith.agent.register("api", {
        ...{ id: `s${i}`, name: `s${i}`, tags: [], labels: {}, address: "", port: i + 1, checks: [] },
      });
    const here = await reader({ url: there.url });
    const routable = (service: string): number => here.trilith.lookup.resolveNow({ service }).endpoints.length;
    await soon(() => routable(`s${MOST_STREAMS}`)).toBe(1);
    const why = { code: "draining", text: "it is asked to stop", confirmed: true, atMs: 0 } as const;
    for (const draining of [true, false, true]) {
      await there.trilith.agent.drain("s3", draining, why);
      await soon(() => routable("s3")).toBe(draining ? 0 : 1);
    }
  });
});
