// Ports and magic addresses of an agent: when they listen, for what, what is said of them; with a whole agent and real sockets.
import { createServer } from "node:net";
import { afterEach, describe, expect, it, vi } from "vitest";
import { ask, serve } from "../../../test/support/connect.ts";
import { startAgent } from "../../../test/support/ground.ts";
import { freePort } from "../../../test/support/peers.ts";
import type { Registration } from "../../model/instance.ts";
import type { Trilith } from "../../trilith.ts";
import { configureProxy } from "./config.ts";
import { magicPorts } from "./magic-ports.ts";

const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

const registration = (name: string, port: number, more: Partial<Registration> = {}): Registration => ({
  id: name,
  name,
  tags: [],
  labels: {},
  address: "127.0.0.1",
  port,
  checks: [],
  ...more,
});
const saying = async (word: string): Promise<number> => {
  const server = await serve((socket) => socket.end(word));
  ends.push(() => server.close());
  return server.port;
};
const agent = async (proxy: unknown): Promise<{ trilith: Trilith; url: string; errors: readonly string[] }> => {
  const made = await startAgent({ protocols: { proxy, consul: { prometheus: true } } });
  ends.push(() => made.stop());
  return made;
};
/** An instance on another host, as the agent sees it. */
const elsewhere = async (trilith: Trilith, name: string, port: number, tags: readonly string[] = []): Promise<void> => {
  await fetch(`http://${trilith.self.listening.get("http")}/v1/catalog/register`, {
    method: "PUT",
    body: JSON.stringify({
      Node: "far",
      Address: "127.0.0.3",
      Service: { ID: name, Service: name, Port: port, Address: "127.0.0.1", Tags: tags },
    }),
  });
};
const states = (trilith: Trilith): readonly string[] =>
  trilith.sources().flatMap(({ name, ok, text }) => (name === "proxy" ? [`${ok} ${text}`] : []));

describe("ports of an agent that stand for services", () => {
  it("reach them, tell how they do, and are closed with the agent", async () => {
    const [port, backend] = [await freePort(), await saying("hello")];
    const { trilith, url } = await agent({ listen: { [port]: "web.service.consul" }, magic: false });
    await vi.waitFor(() =>
      expect(states(trilith)).toEqual([expect.stringMatching(/^true 127\.0\.0\.1:\d+ stands for web: 0/)]),
    );
    await expect(ask(port)).rejects.toThrow(/ECONNRESET/);
    expect(states(trilith)[0]).toMatch(/1 so far, 1 in vain: there is no service "web"$/);
    await trilith.agent.register("api", registration("web", backend));
    expect(await ask(port)).toBe("hello");
    const why = (await (await fetch(`${url}/v1/trilith/why/web`)).json()) as {
      answers: readonly { protocol: string; to: string; text: string }[];
    };
    expect(why.answers.filter(({ protocol }) => protocol === "proxy")).toEqual([
      {
        protocol: "proxy",
        to: "this host",
        text: expect.stringMatching(
          `^127.0.0.1:${port} stands for web: \\d connections open; so far to 127.0.0.1:${backend} \\(1\\)$`,
        ),
      },
    ]);
    const { proxies } = (await (await fetch(`${url}/v1/trilith/proxies`)).json()) as { proxies: unknown[] };
    expect(proxies).toMatchObject([{ name: `${port}=web`, total: 2, failed: 1 }]);
    expect((await fetch(`${url}/v1/trilith/proxies`, { method: "POST" })).status).toBe(405);
    expect(await (await fetch(`${url}/v1/agent/metrics?format=prometheus`)).text()).toMatch(
      `trilith_proxy_connections_total{proxy="${port}=web"} 2`,
    );
    await trilith.stop();
    await expect(ask(port)).rejects.toThrow(/ECONNREFUSED/);
  });

  it("that somebody else has are waited for, and told", async () => {
    const port = await freePort();
    const other = createServer().listen(port, "127.0.0.1");
    await new Promise((done) => other.once("listening", done));
    const { trilith, errors } = await agent({ listen: { [port]: "web" }, magic: false });
    await vi.waitFor(() =>
      expect(states(trilith)).toEqual([expect.stringMatching(/^false 127\.0\.0\.1:\d+ cannot be had: .*EADDRINUSE/)]),
    );
    await trilith.agent.register("api", registration("web", await saying("hello")));
    await new Promise((done) => other.close(done));
    await trilith.reload();
    expect(await ask(port)).toBe("hello");
    expect(errors).toEqual([]);
  });
});

describe("magic addresses", () => {
  it("answer while their service exists, at its instances' ports and at configured ones", async () => {
    const [backend, further] = [await saying("hello"), await freePort()];
    const { trilith } = await agent({ magic: true, ports: { web: [further] } });
    await elsewhere(trilith, "web", backend);
    const { v4 } = trilith.magic.of({ service: "web" });
    await vi.waitFor(async () => expect(await ask(backend, "", v4)).toBe("hello"));
    expect(await ask(further, "", v4)).toBe("hello");
    expect(states(trilith)).toEqual(["true magic addresses in 127.128.0.0/9: 2 ports of 1 service answer"]);
    await fetch(`http://${trilith.self.listening.get("http")}/v1/catalog/deregister`, {
      method: "PUT",
      body: JSON.stringify({ Node: "far" }),
    });
    await vi.waitFor(() => expect(ask(further, "", v4)).rejects.toThrow(/ECONNREFUSED/));
    await elsewhere(trilith, "web", backend);
    await vi.waitFor(async () => expect(await ask(further, "", v4)).toBe("hello"));
    await trilith.stop();
    await expect(ask(further, "", v4)).rejects.toThrow(/ECONNREFUSED/);
  });

  it("leave the ports of this host's own instances to them", async () => {
    const { trilith } = await agent({ magic: true });
    const backend = await saying("hello");
    await trilith.agent.register("api", registration("web", backend));
    await elsewhere(trilith, "db", backend + 1 > 65_535 ? 4_000 : backend + 1);
    await vi.waitFor(() => expect(states(trilith)[0]).toMatch(/1 port of 1 service answers/));
    await expect(ask(backend, "", trilith.magic.of({ service: "web" }).v4)).rejects.toThrow(/ECONNREFUSED/);
    // Also after the instance went: it comes back.
    await trilith.agent.deregister("api", "web");
    await elsewhere(trilith, "web", backend);
    await elsewhere(trilith, "mail", backend);
    await vi.waitFor(() => expect(trilith.directory.view().residents("mail")).toHaveLength(1));
    await vi.waitFor(() => expect(states(trilith)[0]).toMatch(/1 port of 1 service answers/));
  });

  it("listen where clients look: instances' ports, well-known ones of tags, configured ones", () => {
    const resident = (port: number, tags: readonly string[], labels = {}): Parameters<typeof magicPorts>[1][number] =>
      ({ instance: { port, tags, labels } }) as never;
    const of = (...args: Parameters<typeof magicPorts>): readonly string[] =>
      magicPorts(...args).wanted.map(({ port, protocol, why }) => `${port}/${protocol} ${why}`);
    const none = new Set<number>();
    const all = { ports: new Map<string, readonly number[]>(), all: true };
    expect(of("web", [resident(8080, ["HTTP"]), resident(8080, []), resident(8081, [])], all, none)).toEqual([
      '80/tcp "HTTP" is at 80',
      "8080/tcp its instances' port",
      "8081/tcp its instances' port",
    ]);
    expect(
      of("db", [resident(0, [], { protocol: "postgres" })], { ...all, ports: new Map([["*", [99]]]) }, none),
    ).toEqual(["99/tcp configured", '5432/tcp "postgres" is at 5432']);
    expect(of("DNS", [resident(53, ["udp"])], { ...all, ports: new Map([["dns", [5353]]]) }, none)).toEqual([
      "5353/udp configured",
      "53/udp its instances' port",
    ]);
    const local = [resident(80, ["http"]), resident(81, [])];
    expect(of("web", local, { ...all, ports: new Map([["web", [80]]]) }, new Set([80]))).toEqual([
      "80/tcp configured",
      "81/tcp its instances' port",
    ]);
    expect(magicPorts("web", local, all, new Set([80, 81]))).toEqual({
      wanted: [],
      left: [
        { port: 80, protocol: "tcp", why: '"http" is at 80' },
        { port: 81, protocol: "tcp", why: "its instances' port" },
      ],
    });
  });

  it.each<[string, readonly [number, string?][], readonly string[]]>([
    ["web", [[31_000], [31_001]], ["31000/tcp", "31001/tcp", "80/tcp"]],
    ["web", [[8443]], ["8443/tcp", "443/tcp"]],
    ["web", [[31_000, "https"]], ["443/tcp", "31000/tcp"]],
    ["web", [[31_000, "http"], [443]], ["80/tcp", "31000/tcp", "443/tcp"]],
    ["redis", [[31_000]], ["31000/tcp", "6379/tcp"]],
    ["Postgres", [[5432]], ["5432/tcp"]],
    ["cache", [[11_211]], ["11211/tcp"]],
    ["cache", [[31_000, "memcached"]], ["11211/tcp", "31000/tcp"]],
    ["dns", [[53, "udp"]], ["53/udp"]],
    ["syslog", [[514, "udp"], [601]], ["514/udp", "601/tcp", "80/tcp"]],
    ["port-less", [[0]], ["80/tcp"]],
    ["nobody", [], []],
  ])("asked for by name, %s with instances at %j is looked for at %j", (name, instances, ports) => {
    const residents = instances.map(([port, tag]) => ({
      instance: { port, tags: tag === undefined ? [] : [tag], labels: {} },
    }));
    const { wanted } = magicPorts(name, residents as never, { ports: new Map(), all: false }, new Set());
    expect(wanted.map(({ port, protocol }) => `${port}/${protocol}`)).toEqual(ports);
  });
});

describe("the configuration", () => {
  it("says nothing: no ports, and magic addresses for those that are asked for", () => {
    const { listen, magic } = configureProxy(undefined);
    expect(listen("consul")).toEqual([]);
    expect(magic).toEqual({ all: false, ports: new Map(), most: 1_024 });
    expect(configureProxy({ magic: false }).magic).toBeUndefined();
  });

  it("gives each port its service and options", () => {
    const config = configureProxy({
      listen: {
        "6379": "redis",
        "[::1]:80": { service: "web?env=prod", policy: "sticky", proxy_protocol: 1, try: "200ms" },
      },
      bind: "0.0.0.0",
      drain: "0s",
      magic: true,
      ports: { Web: 80 },
    });
    expect(JSON.parse(JSON.stringify(config.listen("consul")))).toEqual([
      { host: "0.0.0.0", port: 6379, protocol: "tcp", query: { service: "redis" }, options: { drainMs: 0 } },
      {
        host: "::1",
        port: 80,
        protocol: "tcp",
        query: { service: "web", labels: { env: "prod" } },
        options: { drainMs: 0, tryMs: 200, policy: "sticky", proxyProtocol: 1 },
      },
    ]);
    expect(config.magic).toEqual({ all: true, ports: new Map([["web", [80]]]), most: 1_024 });
  });

  it.each<[unknown, RegExp]>([
    [true, /^proxy: expected an object such as/],
    [{ listne: {} }, /^proxy\.listne: unknown key; known are listen, bind/],
    [{ listen: ["6379=redis"] }, /^proxy\.listen: expected an object such as/],
    [{ listen: { redis: "6379" } }, /^proxy\.listen\.redis: "redis": "redis" is not a port/],
    [{ listen: { "80": "10.0.0.1" } }, /^proxy\.listen\.80: .*an address is not a service/],
    [{ listen: { "80": { service: "web", policy: "fair" } } }, /^proxy\.listen\.80\.policy: expected one of p2c/],
    [{ listen: { "80": { policy: "p2c" } } }, /^proxy\.listen\.80\.service: expected a service/],
    [{ listen: { "53/udp": { service: "dns", proxy_protocol: 2 } } }, /proxy_protocol: expected none for UDP/],
    [{ listen: { "80": "a", "127.0.0.1:80": "b" } }, /127\.0\.0\.1:80\/tcp is given twice/],
    [{ listen: { "80": "web.service.example" } }, /it ends in "example", and this agent's domain is "consul"/],
    [{ bind: "everywhere" }, /^proxy\.bind: expected an IP address/],
    [{ magic: false, ports: { web: [80] } }, /leave "magic": false out/],
    [false, /^proxy: expected an object such as/],
    [{ magic: true, ports: { web: [0] } }, /^proxy\.ports\.web: expected ports from 1 to 65535, but got 0/],
    [{ magic: true, most: 0 }, /^proxy\.most: expected a whole number from 1/],
    [{ magic: "yes" }, /^proxy\.magic: expected true or false/],
  ])("refuses %j and says what would be right", (raw, message) => {
    expect(() => configureProxy(raw).listen("consul")).toThrow(message);
  });
});
