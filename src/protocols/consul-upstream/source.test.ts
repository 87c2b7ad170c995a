// A Consul elsewhere as a source of a whole agent: as recorded, away, set back, replaced; and two Triliths that read each other.
import { readFileSync } from "node:fs";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { ImitatedConsul } from "../../../test/support/consul-imitation.ts";
import { type RunningAgent, startAgent } from "../../../test/support/ground.ts";
import { freePort } from "../../../test/support/peers.ts";
import { configureConsulUpstream } from "./config.ts";
import { MOST_STREAMS } from "./upstream.ts";

const ending: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ending.splice(0).toReversed()) await end();
});

async function imitated(): Promise<ImitatedConsul> {
  const consul = new ImitatedConsul(10_000);
  await consul.start();
  ending.push(() => consul.stop());
  return consul;
}
async function agentOn(upstreams: object, more: object = {}, settings: object = {}): Promise<RunningAgent> {
  const agent = await startAgent({
    ...settings,
    protocols: { "consul-upstream": { upstreams, hold: "500ms", ...more } },
  });
  ending.push(() => agent.stop());
  return agent;
}
const found = ({ trilith }: RunningAgent, service = "web"): string[] =>
  trilith.lookup
    .resolveNow({ service, order: "stable" })
    .endpoints.map(({ address, port }) => `${address}:${port}`)
    .sort();
const recorded = ({ trilith }: RunningAgent, service = "web"): string[] =>
  trilith.directory
    .view()
    .residents(service)
    .map(({ instance, node }) => `${node.name}/${instance.id}`);
const stateOf = ({ trilith }: RunningAgent): { ok: boolean; text: string } =>
  trilith.sources().find(({ name }) => name === "consul-upstream") as { ok: boolean; text: string };
const web = (id: string, port = 80, more: object = {}): Record<string, unknown> => ({
  ID: id,
  Service: "web",
  Port: port,
  ...more,
});
const check = (id: string, service: string, status: string): Record<string, unknown> => ({
  ...{ CheckID: id, Name: `check ${id}`, Status: status, Output: `it is ${status}`, ServiceID: service },
});

describe("a Consul elsewhere", () => {
  it("is told as it is: nodes, addresses, tags, metadata, weights and health", async () => {
    const consul = await imitated();
    const facts = {
      ...{ Address: "10.0.0.7", Tags: ["v2"], Meta: { env: "prod" }, Weights: { Passing: 7, Warning: 2 } },
      TaggedAddresses: { lan: { Address: "10.0.0.7", Port: 80 }, wan: { Address: "198.51.100.7", Port: 8080 } },
    };
    consul.register("Host-1", "192.0.2.1", web("web-1", 80, facts), [check("c1", "web-1", "warning")]);
    consul.register("host-2", "192.0.2.2", web("web-2"), [check("c2", "web-2", "critical")]);
    consul.register("host-2", "192.0.2.2", { ID: "consul", Service: "consul", Port: 8300 });
    const agent = await agentOn({ url: consul.url, tags: ["far"], labels: { site: "b" } });
    await expect.poll(() => recorded(agent)).toEqual(["Host-1/web-1", "host-2/web-2"]);
    const [first, second] = agent.trilith.directory.view().residents("web");
    expect(first?.node).toMatchObject({
      ...{ name: "Host-1", address: "192.0.2.1", external: true },
      labels: { "external-node": "true", "trilith-upstream": "consul" },
    });
    expect(first?.instance).toMatchObject({
      ...{ address: "10.0.0.7", port: 80, tags: ["v2", "far"], labels: { env: "prod", site: "b" } },
      ...{ weights: { passing: 7, warning: 2 }, taggedAddresses: { wan: { address: "198.51.100.7", port: 8080 } } },
      origin: { source: "consul-upstream", authority: "second-hand" },
    });
    expect(first?.checks).toMatchObject([{ id: "c1", name: "check c1", status: "warning", output: "it is warning" }]);
    expect(second?.checks).toMatchObject([{ id: "c2", status: "critical" }]);
    expect(found(agent)).toEqual(["10.0.0.7:80"]);
    expect([...agent.trilith.directory.view().residents("consul")].every(({ node }) => node.external !== true)).toBe(
      true,
    );
    expect(stateOf(agent)).toEqual({
      name: "consul-upstream",
      ok: true,
      text: `2 instances; consul (${consul.url}): 1 service`,
    });
  });

  it("is followed: what comes, changes, falls ill with its node, drains and goes", async () => {
    const consul = await imitated();
    consul.register("host-1", "192.0.2.1", web("web-1"));
    const agent = await agentOn({ url: consul.url, prefix: "b-" });
    const at = (): string[] => found(agent, "b-web");
    await expect.poll(at).toEqual(["192.0.2.1:80"]);
    expect(recorded(agent, "b-web")).toEqual(["b-host-1/web-1"]);
    consul.register("host-2", "192.0.2.2", web("web-2"));
    await expect.poll(at).toEqual(["192.0.2.1:80", "192.0.2.2:80"]);
    consul.register("host-1", "192.0.2.1", web("web-1", 81));
    await expect.poll(at).toEqual(["192.0.2.1:81", "192.0.2.2:80"]);
    consul.register("host-1", "192.0.2.1", undefined, [check("serfHealth", "", "critical")]);
    await expect.poll(at).toEqual(["192.0.2.2:80"]);
    const ill = agent.trilith.directory.view().residents("b-web")[0]?.checks;
    expect(ill).toMatchObject([{ id: "serfHealth:web-1", serviceId: "web-1", status: "critical" }]);
    consul.register("host-1", "192.0.2.1", undefined, [check("serfHealth", "", "passing")]);
    await expect.poll(at).toEqual(["192.0.2.1:81", "192.0.2.2:80"]);
    consul.register("host-2", "192.0.2.2", undefined, [check("trilith-draining:web-2", "web-2", "critical")]);
    await expect.poll(at).toEqual(["192.0.2.1:81"]);
    expect(agent.trilith.directory.view().residents("b-web")[1]?.instance.draining).toBe(true);
    consul.deregister("host-1", "web-1");
    await expect.poll(() => recorded(agent, "b-web")).toEqual(["b-host-2/web-2"]);
    consul.deregister("host-2");
    await expect.poll(() => recorded(agent, "b-web")).toEqual([]);
  });

  it("gives only the services that are named, by streams of their own", async () => {
    const consul = await imitated();
    consul.register("host-1", "192.0.2.1", web("web-1"));
    consul.register("host-1", "192.0.2.1", { ID: "db", Service: "db", Port: 5432 });
    const agent = await agentOn({ url: consul.url, services: ["db", "later"] });
    await expect.poll(() => found(agent, "db")).toEqual(["192.0.2.1:5432"]);
    expect(recorded(agent)).toEqual([]);
    consul.register("host-1", "192.0.2.1", { ID: "l", Service: "later", Port: 1 });
    await expect.poll(() => found(agent, "later")).toEqual(["192.0.2.1:1"]);
    await expect.poll(() => consul.waiting).toBe(2);
  });

  it("with very many services is followed by few streams", async () => {
    const consul = await imitated();
    for (let i = 0; i <= MOST_STREAMS; i++)
      consul.register("host-1", "192.0.2.1", { ID: `s${i}`, Service: `s${i}`, Port: i + 1 });
    const agent = await agentOn({ url: consul.url });
    await expect.poll(() => found(agent, `s${MOST_STREAMS}`)).toEqual([`192.0.2.1:${MOST_STREAMS + 1}`]);
    await expect.poll(() => consul.waiting).toBe(3);
    consul.register("host-1", "192.0.2.1", { ID: "s3", Service: "s3", Port: 1000 });
    await expect.poll(() => found(agent, "s3"), { timeout: 5000 }).toEqual(["192.0.2.1:1000"]);
    consul.register("host-1", "192.0.2.1", undefined, [check("c", "s4", "critical")]);
    await expect.poll(() => found(agent, "s4"), { timeout: 5000 }).toEqual([]);
    // One less, and each has its own again.
    consul.deregister("host-1", "s5");
    await expect.poll(() => recorded(agent, "s5"), { timeout: 5000 }).toEqual([]);
    await expect.poll(() => consul.waiting, { timeout: 5000 }).toBe(MOST_STREAMS + 1);
  });

  it("that is away, or comes back with less, has taken nothing away until a while later", async () => {
    const consul = await imitated();
    consul.register("host-1", "192.0.2.1", web("web-1"), [check("c1", "web-1", "passing")]);
    consul.register("host-1", "192.0.2.1", web("web-2", 81));
    const agent = await agentOn({ url: consul.url });
    await expect.poll(() => found(agent)).toEqual(["192.0.2.1:80", "192.0.2.1:81"]);
    await consul.stop();
    await expect
      .poll(() => stateOf(agent))
      .toMatchObject({ ok: false, text: expect.stringContaining("what is known stays") });
    expect(found(agent)).toEqual(["192.0.2.1:80", "192.0.2.1:81"]);
    consul.restoreEmpty();
    consul.register("host-1", "192.0.2.1", web("web-2", 82));
    await consul.start();
    await expect.poll(() => found(agent), { timeout: 5000 }).toEqual(["192.0.2.1:80", "192.0.2.1:82"]);
    expect(stateOf(agent).text).toContain("1 held that an upstream does not tell any more since it was away");
    await expect.poll(() => found(agent), { timeout: 5000 }).toEqual(["192.0.2.1:82"]);
    expect(stateOf(agent).ok).toBe(true);
    consul.restoreEmpty();
    await expect.poll(() => stateOf(agent).text).toContain("1 held");
    expect(found(agent)).toEqual(["192.0.2.1:82"]);
    await expect.poll(() => found(agent), { timeout: 5000 }).toEqual([]);
  });
});

describe("what answers badly", () => {
  /** A server that answers as it is told, and how often it was asked what. */
  async function odd(
    answer: (path: string, query: URLSearchParams, response: ServerResponse) => void,
  ): Promise<{ url: string; asked: string[] }> {
    const asked: string[] = [];
    const server = createServer((request, response) => {
      const { pathname, searchParams } = new URL(request.url ?? "", "http://x");
      asked.push(request.url ?? "");
      response.setHeader("content-type", "application/json");
      answer(pathname, searchParams, response);
    });
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
    ending.push(() => {
      server.closeAllConnections();
      return new Promise((done) => server.close(done));
    });
    return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked };
  }
  const body = JSON.stringify([{ Node: { Node: "h", Address: "192.0.2.1" }, Service: web("web-1"), Checks: [] }]);

  it("does not block: is not asked without end", async () => {
    const { url, asked } = await odd((_path, _query, response) => response.setHeader("x-consul-index", "7").end(body));
    const agent = await agentOn({ url, services: "web" });
    await expect.poll(() => found(agent)).toEqual(["192.0.2.1:80"]);
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(asked.length).toBeLessThanOrEqual(3);
    expect(asked[1]).toBe("/v1/health/service/web?index=7&wait=60s");
  });
  it("one service fails, is refused or is garbage: the others go on, and it is told", async () => {
    const bad = { status: 500, text: "No cluster leader" };
    const { url } = await odd((path, query, response) => {
      if (path.endsWith("/bad")) response.writeHead(bad.status, { "x-consul-index": "1" }).end(bad.text);
      else if (!query.has("index")) response.setHeader("x-consul-index", "7").end(body);
    });
    const agent = await agentOn({ url, services: ["web", "bad"] });
    await expect.poll(() => found(agent)).toEqual(["192.0.2.1:80"]);
    await expect
      .poll(() => stateOf(agent))
      .toMatchObject({ ok: false, text: expect.stringContaining("No cluster leader") });
    Object.assign(bad, { status: 403, text: "Permission denied" });
    await expect.poll(() => stateOf(agent).text, { timeout: 5000 }).toContain("Permission denied");
    Object.assign(bad, { status: 200, text: '{"no": "list"}' });
    await expect.poll(() => stateOf(agent).text, { timeout: 5000 }).toContain("expected a list");
  });
  it("is no Consul at all: says so; the next of its agents is asked", async () => {
    const { url } = await odd((_path, _query, response) => response.end("<html>"));
    const consul = await imitated();
    consul.register("host-1", "192.0.2.1", web("web-1"));
    const agent = await agentOn([
      { url, services: "web" },
      { name: "b", url: [url, consul.url], prefix: "b-" },
    ]);
    await expect
      .poll(() => stateOf(agent).text)
      .toContain("no X-Consul-Index; is that a Consul server or a Trilith agent?");
    await expect.poll(() => found(agent, "b-web"), { timeout: 5000 }).toEqual(["192.0.2.1:80"]);
  });
});

describe("two Triliths", () => {
  it("that read each other know each other's services, keep none alive that ended, and hand nothing back", async () => {
    const north = await startAgent({ node: "north", datacenter: "north", compat: "consul" });
    ending.push(() => north.stop());
    const south = await agentOn(
      { url: north.url, token: "t" },
      {},
      { node: "south", datacenter: "south", compat: "consul" },
    );
    const east = await agentOn([{ url: south.url }], {}, { node: "east", datacenter: "east" });
    const service = (id: string, port: number): never =>
      ({ ...{ id, name: "web", tags: [], labels: {}, address: "", port, checks: [] } }) as never;
    // North reads south by a source of its own, begun later.
    const back = await agentOn(
      [{ url: south.url }, { name: "n", url: north.url, services: ["web"] }],
      {},
      { node: "west" },
    );
    await north.trilith.agent.register("api", service("n1", 80));
    await south.trilith.agent.register("api", service("s1", 81));
    await expect.poll(() => recorded(south)).toEqual(["north/n1", "south/s1"]);
    // What south has from north is not south's to tell.
    await expect.poll(() => recorded(east)).toEqual(["south/s1"]);
    await expect.poll(() => recorded(back)).toEqual(["north/n1", "south/s1"]);
    await north.trilith.agent.maintenance("n1", true, "being repaired");
    await expect.poll(() => found(south).length).toBe(1);
    await north.trilith.agent.deregister("api", "n1");
    await expect.poll(() => recorded(south)).toEqual(["south/s1"]);
    await expect.poll(() => recorded(back)).toEqual(["south/s1"]);
  });

  it("one of which is this agent itself: nothing is taken", async () => {
    const httpPort = await freePort();
    const agent = await agentOn({ url: `http://127.0.0.1:${httpPort}` }, {}, { httpPort });
    await agent.trilith.agent.register("api", {
      ...{ id: "no-port", name: "web", tags: [], labels: {}, address: "", port: 0, checks: [] },
    });
    await expect.poll(() => stateOf(agent).text).toContain("1 left out");
    expect(recorded(agent)).toEqual(["alpha/no-port"]);
  });

  it("and what this directory has at first hand is not taken from elsewhere", async () => {
    const consul = await imitated();
    const agent = await agentOn({ url: consul.url });
    await agent.trilith.agent.register("api", {
      ...{ id: "web-1", name: "web", tags: [], labels: {}, address: "192.0.2.1", port: 80, checks: [] },
    });
    consul.register("far", "192.0.2.1", web("web-7"));
    // A node of the same name is another one.
    consul.register("alpha", "127.0.0.1", web("web-9", 99));
    await expect.poll(() => recorded(agent)).toEqual(["alpha/web-1", "alpha-consul-upstream/web-9"]);
    expect(stateOf(agent).text).toContain("1 left out");
  });
});

describe("the configuration", () => {
  it("is as the README says", () => {
    const readme = readFileSync(join(import.meta.dirname, "README.md"), "utf8");
    const example = /<!-- example -->\n\n```json\n([\s\S]*?)```/.exec(readme)?.[1] ?? "";
    expect(configureConsulUpstream(JSON.parse(example).protocols["consul-upstream"])).toMatchObject({
      upstreams: [
        { name: "consul", urls: ["http://127.0.0.1:8500"] },
        { name: "old", prefix: "old-", services: new Set(["web", "db"]) },
      ],
      holdMs: 60_000,
    });
  });
  it.each([
    [{}, "consul-upstream.upstreams: is missing"],
    [{ upstreams: [{}] }, "consul-upstream.upstreams[0].url: is missing"],
    [{ upstreams: { url: "consul:8500" } }, "consul-upstream.upstreams.url: expected a URL"],
    [{ upstreams: { url: "http://a:8500/v1" } }, "consul-upstream.upstreams.url: expected a URL"],
    [{ upstreams: { url: "http://a:8500", services: ["consul"] } }, '"consul" is every directory\'s own'],
    [{ upstreams: { url: "http://a:8500", services: [] } }, "at least one service"],
    [{ upstreams: { url: "http://a:8500", near: "_agent" } }, "consul-upstream.upstreams.near: unknown key"],
    [{ upstreams: [{ url: "http://a:8500" }, { url: "http://b:8500" }] }, 'another upstream is called "consul", too'],
    [{ upstreams: { url: "http://a:8500", prefix: "a/b" } }, "consul-upstream.upstreams.prefix: expected letters"],
  ])("%j is refused", (raw, text) => {
    expect(() => configureConsulUpstream(raw)).toThrow(text);
  });
});
