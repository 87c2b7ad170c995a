// A Consul elsewhere as a source: as recorded, away, set back, replaced, and answering badly.
import { readFileSync } from "node:fs";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { ImitatedConsul } from "../../../test/support/consul-imitation.ts";
import { type TestDirectory, testDirectory } from "../../../test/support/directory.ts";
import { systemClock } from "../../base/clock.ts";
import { createHttp } from "../../base/http.ts";
import { silentLog } from "../../base/log.ts";
import { systemRandom } from "../../base/random.ts";
import { Servers } from "../../base/servers.ts";
import type { SourceList } from "../../contracts/source.ts";
import type { Registration } from "../../model/instance.ts";
import { keyOf } from "../../model/record.ts";
import { configureConsulUpstream } from "./config.ts";
import { ConsulUpstreamSource } from "./source.ts";

const soon = (look: () => unknown): ReturnType<typeof expect.poll> => expect.poll(look, { timeout: 10_000 });
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

interface Reader {
  readonly source: ConsulUpstreamSource;
  readonly directory: TestDirectory;
  readonly list: () => readonly Registration[];
  readonly complaints: () => NonNullable<SourceList["complaints"]>;
}

/** A source of its own beside an empty directory. */
async function read(
  upstreams: object,
  more: object = {},
  directory: TestDirectory = testDirectory(systemClock),
): Promise<Reader> {
  const config = configureConsulUpstream({ upstreams, hold: "300ms", ...more });
  const http = createHttp();
  const source = new ConsulUpstreamSource(config as NonNullable<typeof config>, {
    ...{ clock: systemClock, random: systemRandom, log: silentLog, directory, node: "alpha" },
    serversOf: async ({ urls, token }) => new Servers({ urls, token, http, clock: systemClock, log: silentLog }),
  });
  let last: SourceList | undefined;
  const stop = new AbortController();
  const reading = (async () => {
    for await (const each of source.watch(stop.signal)) last = each;
  })();
  ending.push(async () => {
    stop.abort(new Error("enough"));
    await reading;
    await http.close();
  });
  return { source, directory, list: () => last?.list ?? [], complaints: () => last?.complaints ?? [] };
}
const of = ({ list }: Reader, service: string): readonly Registration[] =>
  list().filter(({ name }) => name === service);
/** Where callers would be sent. */
const found = (here: Reader, service = "web"): string[] =>
  of(here, service)
    .filter(({ checks, draining }) => draining !== true && checks.every(({ initial }) => initial !== "critical"))
    .map(({ address, port }) => `${address}:${port}`)
    .sort();
const recorded = (here: Reader, service = "web"): string[] =>
  of(here, service).map(({ id, external }) => `${external?.node.name}/${id}`);
const web = (id: string, port = 80, more: object = {}): Record<string, unknown> => ({
  ID: id,
  Service: "web",
  Port: port,
  ...more,
});
const check = (id: string, service: string, status: string): Record<string, unknown> => ({
  ...{ CheckID: id, Name: `check ${id}`, Status: status, Output: `it is ${status}`, ServiceID: service },
});

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
    const here = await read({ url: consul.url, tags: ["far"], labels: { site: "b" } });
    await soon(() => recorded(here)).toEqual(["Host-1/web-1", "host-2/web-2"]);
    const [first, second] = of(here, "web");
    expect(first).toMatchObject({
      ...{ address: "10.0.0.7", port: 80, tags: ["v2", "far"], labels: { env: "prod", site: "b" } },
      ...{ weights: { passing: 7, warning: 2 }, taggedAddresses: { wan: { address: "198.51.100.7", port: 8080 } } },
      external: { node: { name: "Host-1", address: "192.0.2.1", labels: { "trilith-upstream": "consul" } } },
      checks: [{ id: "c1", name: "check c1", kind: "none", initial: "warning", notes: "it is warning" }],
    });
    expect(second?.checks).toMatchObject([{ id: "c2", initial: "critical" }]);
    expect(found(here)).toEqual(["10.0.0.7:80"]);
    expect(of(here, "consul")).toEqual([]);
    expect(here.source.state()).toMatchObject({
      ok: true,
      text: `2 instances; consul (${consul.url}): 1 service`,
    });
  });

  it("is followed: what comes, changes, falls ill with its node, drains and goes", async () => {
    const consul = await imitated();
    consul.register("host-1", "192.0.2.1", web("web-1"));
    const here = await read({ url: consul.url, prefix: "b-" });
    const at = (): string[] => found(here, "b-web");
    await soon(at).toEqual(["192.0.2.1:80"]);
    expect(recorded(here, "b-web")).toEqual(["b-host-1/web-1"]);
    consul.register("host-2", "192.0.2.2", web("web-2"));
    await soon(at).toEqual(["192.0.2.1:80", "192.0.2.2:80"]);
    consul.register("host-1", "192.0.2.1", web("web-1", 81));
    await soon(at).toEqual(["192.0.2.1:81", "192.0.2.2:80"]);
    consul.register("host-1", "192.0.2.1", undefined, [check("serfHealth", "", "critical")]);
    await soon(at).toEqual(["192.0.2.2:80"]);
    expect(of(here, "b-web")[0]?.checks).toMatchObject([{ id: "serfHealth:web-1", initial: "critical" }]);
    consul.register("host-1", "192.0.2.1", undefined, [check("serfHealth", "", "passing")]);
    await soon(at).toEqual(["192.0.2.1:81", "192.0.2.2:80"]);
    consul.register("host-2", "192.0.2.2", undefined, [check("trilith-draining:web-2", "web-2", "critical")]);
    await soon(at).toEqual(["192.0.2.1:81"]);
    expect(of(here, "b-web")[1]?.draining).toBe(true);
    consul.deregister("host-1", "web-1");
    await soon(() => recorded(here, "b-web")).toEqual(["b-host-2/web-2"]);
    consul.deregister("host-2");
    await soon(() => recorded(here, "b-web")).toEqual([]);
  });

  it("gives only the services that are named, by streams of their own", async () => {
    const consul = await imitated();
    consul.register("host-1", "192.0.2.1", web("web-1"));
    consul.register("host-1", "192.0.2.1", { ID: "db", Service: "db", Port: 5432 });
    const here = await read({ url: consul.url, services: ["db", "later"] });
    await soon(() => found(here, "db")).toEqual(["192.0.2.1:5432"]);
    expect(recorded(here)).toEqual([]);
    consul.register("host-1", "192.0.2.1", { ID: "l", Service: "later", Port: 1 });
    await soon(() => found(here, "later")).toEqual(["192.0.2.1:1"]);
    await soon(() => consul.waiting).toBe(2);
  });

  it("that is away, or comes back with less, has taken nothing away until a while later", async () => {
    const consul = await imitated();
    consul.register("host-1", "192.0.2.1", web("web-1"), [check("c1", "web-1", "passing")]);
    consul.register("host-1", "192.0.2.1", web("web-2", 81));
    consul.register("host-1", "192.0.2.1", web("web-3", 83));
    const here = await read({ url: consul.url });
    await soon(() => found(here)).toEqual(["192.0.2.1:80", "192.0.2.1:81", "192.0.2.1:83"]);
    await consul.stop();
    await soon(() => here.source.state()).toMatchObject({
      ok: false,
      text: expect.stringContaining("what is known stays"),
    });
    expect(found(here)).toEqual(["192.0.2.1:80", "192.0.2.1:81", "192.0.2.1:83"]);
    consul.restoreEmpty();
    consul.register("host-1", "192.0.2.1", web("web-2", 82));
    await consul.start();
    await soon(() => found(here)).toEqual(["192.0.2.1:80", "192.0.2.1:82", "192.0.2.1:83"]);
    expect(here.source.state().text).toContain("2 held that it does not tell any more since it was away");
    await soon(() => found(here)).toEqual(["192.0.2.1:82"]);
    expect(here.source.state().ok).toBe(true);
    consul.restoreEmpty();
    await soon(() => here.source.state().text).toContain("1 held");
    expect(found(here)).toEqual(["192.0.2.1:82"]);
    await soon(() => found(here)).toEqual([]);
  });

  it("that comes back with most of it has lost the rest", async () => {
    const consul = await imitated();
    for (const n of [1, 2, 3]) consul.register("host-1", "192.0.2.1", web(`web-${n}`, n));
    const here = await read({ url: consul.url }, { hold: "1h" });
    await soon(() => found(here)).toHaveLength(3);
    await consul.stop();
    consul.deregister("host-1", "web-2");
    await soon(() => here.source.state().ok).toBe(false);
    await consul.start();
    await soon(() => found(here)).toEqual(["192.0.2.1:1", "192.0.2.1:3"]);
  });

  it("beside another one with nodes of the same names is not taken for it", async () => {
    const [one, other] = [await imitated(), await imitated()];
    one.register("host-1", "192.0.2.1", web("web-1"));
    other.register("host-1", "198.51.100.1", web("web-2"));
    const here = await read([{ url: one.url }, { name: "b", url: other.url }]);
    await soon(() => found(here)).toEqual(["192.0.2.1:80", "198.51.100.1:80"]);
    expect(here.complaints()).toEqual([]);
    other.register("host-1", "198.51.100.1", web("web-1", 99));
    await soon(() => here.complaints().map(({ text }) => text)).toEqual([
      '"web-1" on the node "host-1" is told by two upstreams: web-1 on host-1, from the Consul "b" is left out; give one of them a prefix',
    ]);
    expect(found(here)).toEqual(["192.0.2.1:80", "198.51.100.1:80"]);
  });

  it("is remembered from an earlier life, health and all, and held where it comes back with nothing", async () => {
    const consul = await imitated();
    const directory = testDirectory(systemClock);
    const witnessed = [{ service: "web-1", source: "consul-upstream", by: ["alpha"] }];
    const node = {
      id: "",
      name: "host-1",
      address: "192.0.2.1",
      datacenter: "dc1",
      taggedAddresses: {},
      external: true,
    };
    const origin = {
      source: "consul-upstream",
      authority: "second-hand",
      foreignId: "consul web host-1/web-1",
    } as const;
    const facts = {
      id: "web-1",
      name: "web",
      tags: [],
      labels: {},
      address: "192.0.2.1",
      port: 80,
      node: "host-1",
      origin,
    };
    const check = { id: "c1", node: "host-1", name: "c", status: "critical", notes: "", output: "ill" } as const;
    await directory.write([
      { op: "put", table: "node", key: keyOf.node("host-1"), value: { ...node, labels: {}, witnessed } },
      { op: "put", table: "service", key: keyOf.service("host-1", "web-1"), value: facts },
      {
        ...{ op: "put", table: "check", key: keyOf.check("host-1", "c1") },
        value: { ...check, serviceId: "web-1", type: "", origin },
      },
    ]);
    await consul.stop();
    const here = await read({ url: consul.url }, {}, directory);
    await soon(() => here.source.state().ok).toBe(false);
    expect(of(here, "web")).toMatchObject([{ id: "web-1", checks: [{ id: "c1", initial: "critical", notes: "ill" }] }]);
    await consul.start();
    await soon(() => here.source.state().text).toContain("1 held");
    expect(recorded(here)).toEqual(["host-1/web-1"]);
    await soon(() => recorded(here)).toEqual([]);
  });

  it("is let go of at once when told to end before it was asked", async () => {
    const config = configureConsulUpstream({ upstreams: { url: "http://127.0.0.1:1", services: "web" } });
    const stop = new AbortController();
    let give: ((servers: Servers) => void) | undefined;
    const source = new ConsulUpstreamSource(config as NonNullable<typeof config>, {
      ...{
        clock: systemClock,
        random: systemRandom,
        log: silentLog,
        directory: testDirectory(systemClock),
        node: "alpha",
      },
      serversOf: () =>
        new Promise((resolve) => {
          give = resolve;
        }),
    });
    const reading = (async () => {
      for await (const { list } of source.watch(stop.signal)) expect(list).toEqual([]);
    })();
    await soon(() => give !== undefined).toBe(true);
    stop.abort(new Error("never mind"));
    give?.(new Servers({ urls: ["http://127.0.0.1:1"], http: createHttp(), clock: systemClock, log: silentLog }));
    await reading;
  });
});

describe("what answers badly", () => {
  const body = JSON.stringify([{ Node: { Node: "h", Address: "192.0.2.1" }, Service: web("web-1"), Checks: [] }]);

  it("does not block: is not asked without end", async () => {
    const { url, asked } = await odd((_path, _query, response) => response.setHeader("x-consul-index", "7").end(body));
    const here = await read({ url, services: "web" });
    await soon(() => found(here)).toEqual(["192.0.2.1:80"]);
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
    const here = await read({ url, services: ["web", "bad"] });
    await soon(() => found(here)).toEqual(["192.0.2.1:80"]);
    await soon(() => here.source.state()).toMatchObject({
      ok: false,
      text: expect.stringContaining("No cluster leader"),
    });
    Object.assign(bad, { status: 403, text: "Permission denied" });
    await soon(() => here.source.state().text).toContain("Permission denied");
    Object.assign(bad, { status: 200, text: '{"no": "list"}' });
    await soon(() => here.source.state().text).toContain("expected a list");
  });
  it("one service has a name that cannot be asked for: the others are", async () => {
    const { url } = await odd((path, query, response) => {
      if (query.has("index")) return;
      response.setHeader("x-consul-index", "7").end(path.endsWith("/services") ? '{"\\ud800": [], "web": []}' : body);
    });
    const here = await read({ url });
    await soon(() => found(here)).toEqual(["192.0.2.1:80"]);
    expect(here.source.state().ok).toBe(true);
  });
  it("is no Consul at all: says so; the next of its agents is asked", async () => {
    const { url } = await odd((_path, _query, response) => response.end("<html>"));
    const consul = await imitated();
    consul.register("host-1", "192.0.2.1", web("web-1"));
    const here = await read([
      { url, services: "web" },
      { name: "b", url: [url, consul.url], prefix: "b-" },
    ]);
    await soon(() => here.source.state().text).toContain(
      "no X-Consul-Index; is that a Consul server or a Trilith agent?",
    );
    await soon(() => found(here, "b-web")).toEqual(["192.0.2.1:80"]);
  });
});

describe("what this directory has itself", () => {
  const local = async (here: Reader, port: number): Promise<void> => {
    const node = { id: "n-1", name: "alpha", address: "192.0.2.1", datacenter: "dc1", taggedAddresses: {}, labels: {} };
    const instance = { id: "own", name: "web", tags: [], labels: {}, address: "", port, node: "alpha" };
    const origin = { source: "api", authority: "first-hand" } as const;
    await here.directory.write([
      { op: "put", table: "node", key: keyOf.node("alpha"), value: node },
      { op: "put", table: "service", key: keyOf.service("alpha", "own"), value: { ...instance, origin } },
    ]);
  };
  it("is not taken from elsewhere: at the same place, or of an agent of this directory", async () => {
    const consul = await imitated();
    const here = await read({ url: consul.url });
    await local(here, 80);
    consul.register("far", "192.0.2.1", web("web-7"));
    // A node of the same name is another one.
    consul.register("alpha", "127.0.0.1", web("web-9", 99));
    await soon(() => recorded(here)).toEqual(["alpha-consul-upstream/web-9"]);
    expect(here.source.state().text).toContain("1 left out");
  });
  it("is known by its agents' IDs, and what was handed on by its label", async () => {
    const entry = (id: string, node: object): object => ({
      ...{ Node: { Node: `node-${id}`, Address: "192.0.2.9", ...node }, Service: web(id, 0), Checks: [] },
    });
    const entries = [
      entry("own", { ID: "n-1" }),
      entry("handed", { Meta: { "trilith-upstream": "x" } }),
      entry("news", { ID: "n-2" }),
    ];
    const { url } = await odd((_path, query, response) => {
      if (!query.has("index")) response.setHeader("x-consul-index", "7").end(JSON.stringify(entries));
    });
    const here = await read({ url, services: "web" });
    await local(here, 81);
    await soon(() => recorded(here)).toEqual(["node-news/news"]);
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
