// The API through a real HTTP server: every endpoint, every refusal, streams that end.
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { checkChange, goneChange, nodeChange, serviceChange } from "../../../test/support/directory.ts";
import { INTERFACES, type World, world } from "../../../test/support/lookup.ts";
import { TrilithError } from "../../base/error.ts";
import { createHttp, type HttpResponse, type IncomingMessage } from "../../base/http.ts";
import { silentLog } from "../../base/log.ts";
import { type Listening, systemNet } from "../../base/net.ts";
import { systemRandom } from "../../base/random.ts";
import { STATUS_OF } from "../../base/requests.ts";
import type { Agent } from "../../contracts/agent.ts";
import type { SourceState } from "../../contracts/ground.ts";
import { authorizePeer, authorizeWrite } from "./authorize.ts";
import type { ApiGround } from "./server.ts";
import { api } from "./setup.ts";
import type { DoctorJson, FindJson, ListJson, WhyJson } from "./shapes.ts";

const http = createHttp();
let w: World;
let server: Listening;
let drains: unknown[];
let states: SourceState[];
let listening: Map<string, string>;
let trouble: TrilithError | undefined;
let complaints: { from: string; about: string; text: string }[];

async function serve(token?: string): Promise<void> {
  await server?.close();
  const agent = {
    checks: () =>
      new Map([
        [
          "c1",
          {
            check: { node: "home", status: "passing", output: "newest" },
            spec: {},
            history: [{ atMs: 1000, status: "passing", output: "HTTP GET: 200 OK" }],
          },
        ],
      ]),
    history: (name: string) => (name === "web" ? [{ atMs: 2000, id: "w1", text: "registered by api" }] : []),
    complaints: () => complaints,
    node: { name: "home", labels: {} },
    services: () => new Map(),
    outside: () => [],
    overrides: () => [],
    undoOverride: async () => false,
    override: async (target: string, set: readonly string[], by: string) => ({ for: target, set, by, matches: [] }),
    async drain(id: string, draining: boolean, why: unknown) {
      if (id !== "w1") throw new TrilithError("not-found", `there is no service "${id}" on this host`);
      drains.push([id, draining, why]);
    },
  } as unknown as Agent;
  listening = new Map([["http", "127.0.0.1:8500"]]);
  const ground: ApiGround = {
    clock: w.clock,
    log: silentLog,
    directory: w.directory,
    lookup: w.lookup,
    agent,
    net: { ...systemNet, interfaces: () => INTERFACES },
    sources: () => states,
    answers: async (service) => [{ protocol: "dns", to: "everybody", text: `${service}.service.consul A: 10.0.0.1` }],
    dataTrouble: async () => trouble,
    self: {
      version: "9.9.9",
      node: "home",
      nodeId: "id",
      datacenter: "dc1",
      datacenters: ["dc2"],
      domain: "consul",
      advertiseAddress: "10.1.0.1",
      bindAddress: "127.0.0.1",
      startedAtMs: w.clock.now(),
      dev: false,
      compat: "none",
      scripts: { fromApi: false, fromFiles: false },
      listening,
    },
  };
  const part = await api.setup(api.configure(token === undefined ? undefined : { token }), {
    ...ground,
    random: systemRandom,
    vouch: async () => {},
  });
  const route = part?.routes?.[0];
  if (route === undefined) throw new Error("no route");
  expect(route.prefix).toBe("/v1/trilith/");
  server = await http.serve({ host: "127.0.0.1", port: 0 }, route.handle);
}

beforeEach(async () => {
  drains = [];
  states = [{ name: "docker", ok: true, text: "Docker 20.10, 3 containers" }];
  complaints = [];
  trouble = undefined;
  w = await world();
  await w.lookup.start();
  await w.directory.write([
    nodeChange("far", "10.2.0.1"),
    serviceChange("home", "w1", "web", {
      port: 80,
      tags: ["V1", "eu"],
      labels: { zone: "a" },
      origin: { source: "docker", authority: "first-hand", foreignId: "3f2a", text: "container web-1" },
    }),
    serviceChange("far", "w2", "web", { port: 81, address: "10.2.0.9", tags: ["v1"] }),
    checkChange("home", "c1", "passing", { serviceId: "w1", output: "HTTP GET: 200 OK" }),
    checkChange("far", "c2", "critical", { serviceId: "w2", output: "refused" }),
  ]);
  await serve();
});
afterEach(async () => {
  await server.close();
  await w.lookup.stop();
  expect(w.clock.timers).toBe(0);
  expect(w.directory.waiting).toBe(0);
});

function ask(path: string, method = "GET", headers: Record<string, string> = {}, body?: string): Promise<HttpResponse> {
  return http.request({
    url: `http://127.0.0.1:${server.port}/v1/trilith/${path}`,
    method,
    headers,
    ...(body === undefined ? {} : { body }),
  });
}
async function get<T>(path: string): Promise<T> {
  const response = await ask(path);
  const text = await response.text();
  expect(response.status, text).toBe(200);
  expect(response.headers["content-type"]).toBe("application/json; charset=utf-8");
  return JSON.parse(text) as T;
}
async function refused(path: string, method = "GET", headers: Record<string, string> = {}) {
  const response = await ask(path, method, headers);
  const { error } = JSON.parse(await response.text()) as { error: { code: string; message: string } };
  return { status: response.status, allow: response.headers["allow"], ...error };
}

describe("find", () => {
  it("gives endpoints with what a caller needs", async () => {
    expect(await get<FindJson>("find/web")).toEqual({
      service: "web",
      known: true,
      fresh: true,
      ageMs: 0,
      index: w.directory.view().index,
      endpoints: [
        {
          address: "10.1.0.1",
          port: 80,
          weight: 1,
          node: "home",
          id: "w1",
          status: "passing",
          tags: ["V1", "eu"],
          labels: { zone: "a" },
          tier: 0,
        },
      ],
    });
  });

  it("filters, orders and limits", async () => {
    const idsOf = async (query: string) => (await get<FindJson>(`find/WEB?${query}`)).endpoints.map(({ id }) => id);
    expect(await idsOf("health=any&order=stable")).toEqual(["w2", "w1"]);
    expect(await idsOf("health=any&order=stable&limit=1")).toEqual(["w2"]);
    expect(await idsOf("tag=v1&tag=EU")).toEqual(["w1"]);
    expect(await idsOf("tag=v2")).toEqual([]);
    expect(await idsOf("label=zone=a&passing")).toEqual(["w1"]);
    expect(await idsOf("label=zone=b")).toEqual([]);
    expect(await idsOf("label=__proto__=b")).toEqual([]);
    expect(await idsOf("dc=dc1")).toEqual(["w1"]);
    expect(await idsOf("dc=dc2")).toEqual([]);
  });

  it("says what is not known, also under odd names", async () => {
    for (const name of ["nothing", "__proto__", "a%2Fb", "a/b", "%F0%9F%92%A9"])
      expect(await get<FindJson>(`find/${name}`)).toMatchObject({ known: false, endpoints: [] });
  });

  it("takes the caller for the asker unless told", async () => {
    await w.directory.write([
      serviceChange("home", "l", "local", { port: 9, addresses: [{ host: "127.0.0.1", port: 9, reach: "loopback" }] }),
    ]);
    expect((await get<FindJson>("find/local")).endpoints).toMatchObject([{ address: "127.0.0.1" }]);
    expect((await get<FindJson>("find/local?asker=10.9.9.9")).endpoints).toEqual([]);
  });

  it("marks what is held", async () => {
    await w.list("db", ["m1", "m2", "m3"]);
    await get("find/db");
    await w.list("db", []);
    const answer = await get<FindJson>("find/db");
    expect(answer.held).toMatchObject({
      since: new Date(w.clock.now()).toISOString(),
      text: expect.stringContaining("3 of 3"),
    });
    expect(answer.endpoints.map(({ held }) => held)).toEqual([true, true, true]);
    expect((await get<ListJson>("list")).services).toContainEqual(
      expect.objectContaining({ name: "db", instances: 0, held: 3 }),
    );
    expect((await get<DoctorJson>("doctor")).warnings).toContainEqual(expect.stringContaining("trilith release db"));

    const released = await ask("release/DB", "POST");
    expect(JSON.parse(await released.text())).toEqual({ service: "DB", released: true });
    expect((await get<FindJson>("find/db")).endpoints).toEqual([]);
    expect(JSON.parse(await (await ask("release/db", "POST", {}, "a body nobody reads")).text())).toMatchObject({
      released: false,
    });
  });

  it("indents when asked to", async () => {
    expect(await (await ask("find/web?pretty")).text()).toContain('\n  "service": "web"');
  });
});

describe("list", () => {
  it("counts each instance once", async () => {
    await w.directory.write([
      serviceChange("home", "a", "mix", { tags: ["x"] }),
      serviceChange("home", "b", "mix", { tags: ["y", "x"], draining: true }),
      serviceChange("home", "c", "mix", { draining: true }),
      checkChange("home", "m", "critical", { serviceId: "c" }),
      checkChange("home", "_service_maintenance:c", "critical", { serviceId: "c" }),
      serviceChange("home", "d", "mix"),
      checkChange("home", "w", "warning", { serviceId: "d" }),
    ]);
    const { services, fresh, index } = await get<ListJson>("list");
    expect(fresh).toBe(true);
    expect(index).toBe(w.directory.view().index);
    expect(services).toEqual([
      {
        name: "mix",
        instances: 4,
        passing: 1,
        warning: 1,
        critical: 0,
        draining: 1,
        maintenance: 1,
        held: 0,
        tags: ["x", "y"],
      },
      {
        name: "web",
        instances: 2,
        passing: 1,
        warning: 0,
        critical: 1,
        draining: 0,
        maintenance: 0,
        held: 0,
        tags: ["V1", "eu", "v1"],
      },
    ]);
  });

  it("goes through thousands", async () => {
    await w.directory.write(Array.from({ length: 1500 }, (_, i) => serviceChange("home", `n${i}`, `many-${i}`)));
    expect((await get<ListJson>("list")).services).toHaveLength(1501);
  });
});

describe("override", () => {
  it("needs the right, a name, and a body that says something", async () => {
    expect(await refused("override/web", "PUT", { "x-forwarded-for": "203.0.113.7" })).toMatchObject({ status: 403 });
    expect(await refused("override/web", "DELETE", { origin: "https://evil.example" })).toMatchObject({ status: 403 });
    expect(await refused("override/web")).toMatchObject({ status: 405, allow: "PUT, DELETE" });
    expect(await refused("override", "DELETE")).toMatchObject({ status: 400 });
    expect(await refused("override/web", "PUT")).toMatchObject({
      status: 400,
      message: expect.stringMatching(/not JSON/),
    });
    expect(await refused("override/web", "DELETE")).toMatchObject({
      status: 404,
      message: 'there is no override for "web"',
    });
  });

  it("is refused in words that arrive where its body is too large", async () => {
    const response = await ask("override/web", "PUT", {}, `{"set":["label.x=${"x".repeat(2_000_000)}"]}`);
    expect([response.status, await response.text()]).toEqual([413, expect.stringContaining("more than 65536 bytes")]);
  });

  it("says where the thing is that it holds for nothing here", async () => {
    const response = await ask("override/w2", "PUT", {}, '{"set":["hidden"]}');
    const answer = JSON.parse(await response.text()) as { note: string; by: string };
    expect(answer.by).toBe("somebody on this host");
    expect(answer.note).toContain("there is one on far: what is said holds on its own host");
    expect(answer.note).not.toContain("registered itself");
    const own = JSON.parse(await (await ask("override/w1", "PUT", {}, '{"set":["hidden"]}')).text()) as {
      note: string;
    };
    expect(own.note).toMatch(/what is called so on this host registered itself: .*register it anew$/);
  });
});

describe("why", () => {
  it("tells of every instance who brought it, what its checks said and what decides", async () => {
    complaints = [
      { from: "docker", about: "container web-9", text: "no port" },
      { from: "file", about: "db.json", text: "bad key" },
    ];
    const answer = await get<WhyJson>("why/web");
    expect(answer).toMatchObject({ service: "web", known: true, fresh: true, similar: [] });
    expect(answer.recent).toEqual([{ at: "1970-01-01T00:00:02.000Z", id: "w1", text: "registered by api" }]);
    expect(answer.complaints).toEqual([complaints[0]]);
    expect(answer.instances).toMatchObject([
      {
        id: "w2",
        node: "far",
        address: "10.2.0.9",
        included: false,
        why: `critical: check "c2" says: refused`,
        registeredBy: { source: "api", authority: "first-hand" },
        checks: [{ id: "c2", status: "critical", about: "service", output: "refused" }],
      },
      {
        id: "w1",
        included: true,
        why: "passing: 1 check passing",
        registeredBy: { source: "docker", authority: "first-hand", foreignId: "3f2a", text: "container web-1" },
        checks: [
          {
            id: "c1",
            output: "newest",
            history: [{ at: "1970-01-01T00:00:01.000Z", status: "passing", output: "HTTP GET: 200 OK" }],
          },
        ],
      },
    ]);
    // History is this host's: another host's check of the same ID has none here.
    expect(answer.instances[0]?.checks[0]).not.toHaveProperty("history");
    expect((await get<WhyJson>("why/web?tag=eu")).instances[0]).toMatchObject({
      included: false,
      why: `lacks the tag "eu" (it has "v1")`,
    });
  });

  it("remembers what went and why, and names names like the one asked", async () => {
    await w.directory.write([
      goneChange("far", "w2", { code: "died", text: "container died with exit code 1", confirmed: true }),
    ]);
    await w.directory.write([goneChange("home", "w1")]);
    const answer = await get<WhyJson>("why/web");
    expect(answer).toMatchObject({ known: false, instances: [] });
    expect(answer.gone).toEqual([
      { node: "home", id: "w1", index: w.directory.view().index },
      {
        node: "far",
        id: "w2",
        index: w.directory.view().index - 1,
        at: "1970-01-01T00:00:00.000Z",
        code: "died",
        text: "container died with exit code 1",
        confirmed: true,
      },
    ]);
    await w.directory.write([serviceChange("home", "x", "web-api")]);
    expect((await get<WhyJson>("why/web")).similar).toEqual(["web-api"]);
    expect((await get<WhyJson>("why/zzz")).similar).toEqual([]);
  });
});

describe("doctor", () => {
  it("finds nothing to complain about", async () => {
    expect(await get<DoctorJson>("doctor")).toMatchObject({
      self: { version: "9.9.9", node: "home", upMs: 0 },
      listening: { http: "127.0.0.1:8500" },
      sources: states,
      store: {
        reachable: true,
        writable: true,
        fresh: true,
        counts: { nodes: 2, services: 2, checks: 2, keys: 0, sessions: 0 },
      },
      held: [],
      complaints: [],
      warnings: [],
      notes: [],
    });
  });

  it("tells each address where other hosts can reach it, except where containers are answered", async () => {
    listening.set("http-more", "10.9.0.1:8500, unix:///run/trilith.sock");
    listening.set("dns", "127.0.0.1:8600, [::1]:8600, [2001:db8::1]:8600");
    listening.set("dns-containers", "172.17.0.1:53");
    const { warnings, notes } = await get<DoctorJson>("doctor");
    // Whoever listens there wanted to.
    expect(warnings).toEqual([]);
    expect(notes).toEqual([
      "http listens on 10.9.0.1:8500, where other hosts can reach it",
      "dns listens on [2001:db8::1]:8600, where other hosts can reach it",
    ]);
  });

  it("warns where every write is refused while reading goes on", async () => {
    trouble = new TrilithError("disk-full", "no space is left on the disk of the data folder /data");
    const { store, warnings } = await get<DoctorJson>("doctor");
    expect(store).toMatchObject({ reachable: true, writable: false, fresh: true });
    expect(warnings).toEqual([
      "nothing can be written, registrations are refused: no space is left on the disk of the data folder /data",
    ]);
  });

  it("warns of a store that does not answer, of sources and complaints", async () => {
    states = [{ name: "docker", ok: false, text: "no socket at /var/run/docker.sock" }];
    complaints = Array.from({ length: 25 }, (_, i) => ({ from: "file", about: `f${i}`, text: "bad" }));
    w.directory.barrier = (signal) =>
      new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason), { once: true }));
    w.directory.reachable(false);
    const before = w.clock.timers;
    const asked = get<DoctorJson>("doctor");
    while (w.clock.timers === before) await w.clock.settle();
    await w.clock.advance(2_000);
    const { store, warnings } = await asked;
    expect(store).toMatchObject({
      reachable: false,
      writable: false,
      fresh: false,
      error: "it did not answer within 2000 ms",
    });
    expect(warnings).toHaveLength(2 + 1 + 20 + 1);
    expect(warnings.join("\n")).toContain("source docker: no socket");
    expect(warnings.at(-1)).toBe("5 more complaints of sources");
  });
});

describe("follow", () => {
  async function lines(headers: Record<string, string>) {
    const controller = new AbortController();
    const response = await http.request({
      url: `http://127.0.0.1:${server.port}/v1/trilith/follow/web`,
      headers,
      signal: controller.signal,
      bodyTimeoutMs: 0,
    });
    expect(response.status).toBe(200);
    const chunks = response.body[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
    let text = "";
    const next = async (end: string): Promise<string> => {
      while (!text.includes(end)) {
        const chunk = await chunks.next();
        if (chunk.done) throw new Error("the stream has ended");
        text += chunk.value.toString("utf8");
      }
      const at = text.indexOf(end);
      const one = text.slice(0, at);
      text = text.slice(at + end.length);
      return one;
    };
    response.body.on("error", () => {});
    return { response, next, stop: () => controller.abort() };
  }

  it("streams a line per change, and leaves nothing behind when the caller goes", async () => {
    await w.clock.settle();
    const waiting = w.directory.waiting;
    const { response, next, stop } = await lines({});
    expect(response.headers["content-type"]).toBe("application/x-ndjson; charset=utf-8");
    expect(JSON.parse(await next("\n"))).toMatchObject({ service: "web", endpoints: [{ id: "w1" }] });
    await w.directory.write([checkChange("home", "c1", "critical", { serviceId: "w1" })]);
    expect(JSON.parse(await next("\n"))).toMatchObject({ known: true, endpoints: [] });
    stop();
    while (w.directory.waiting > waiting) await w.clock.settle();
  });

  it("speaks server-sent events to who asks for them, and ends with the server", async () => {
    const { response, next } = await lines({ accept: "text/event-stream" });
    expect(response.headers["content-type"]).toBe("text/event-stream; charset=utf-8");
    const event = await next("\n\n");
    expect(event).toMatch(/^data: \{"service":"web"/);
    const ended = new Promise((resolve) => response.body.once("close", resolve));
    await server.close();
    await ended;
  });

  it("refuses a bad question before it streams", async () => {
    expect(await refused("follow/web?limit=0")).toMatchObject({ status: 400 });
  });
});

describe("drain", () => {
  it("drains and undoes it", async () => {
    expect(JSON.parse(await (await ask("drain/w1?reason=moving+away", "POST")).text())).toEqual({
      id: "w1",
      draining: true,
    });
    expect(JSON.parse(await (await ask("drain/w1?off", "POST")).text())).toEqual({ id: "w1", draining: false });
    expect(drains).toMatchObject([
      ["w1", true, { code: "draining", text: "moving away", confirmed: true, atMs: w.clock.now() }],
      ["w1", false, { code: "draining" }],
    ]);
    expect(await refused("drain/w9", "POST")).toMatchObject({ status: 404, code: "not-found" });
  });
});

describe("mistakes", () => {
  it.each([
    ["", 404, "nothing is at /v1/trilith/"],
    ["nonsense/x", 404, "there are"],
    ["find", 400, "expected the name of a service"],
    ["find/", 400, "expected the name of a service"],
    ["list/x", 400, "expected nothing behind"],
    ["find/%zz", 400, "percent encoding"],
    ["find/%ff", 400, "percent encoding"],
    ["find/web?tagg=x", 400, 'parameter "tagg": unknown; known here are tag, label'],
    ["find/web?label=zone", 400, "expected key=value"],
    ["find/web?label==x", 400, "expected key=value"],
    ["find/web?asker=me", 400, "expected an IP address"],
    ["find/web?health=good", 400, "expected routable, passing, any"],
    ["find/web?order=best", 400, "expected random, stable, near"],
    ["find/web?limit=-1", 400, "expected a whole number"],
    ["find/web?passing=maybe", 400, "expected nothing, true or false"],
    ["find/web?dc=dc9", 404, 'datacenter "dc9" is not known here; known are "dc1", "dc2"'],
    ["follow/web?dc=dc9", 404, 'datacenter "dc9" is not known here'],
    ["list?dc=dc9", 404, 'datacenter "dc9" is not known here'],
    ["list?x=1", 400, "unknown"],
  ])("GET %s → %i, %s", async (path, status, message) => {
    const answer = await refused(path);
    expect(answer.status).toBe(status);
    expect(answer.message).toContain(message);
  });

  it("a wrong method is told the right one", async () => {
    expect(await refused("find/web", "POST")).toMatchObject({ status: 405, allow: "GET" });
    expect(await refused("release/web", "GET")).toMatchObject({ status: 405, allow: "POST" });
    expect(await refused("drain/w1", "DELETE")).toMatchObject({ status: 405, allow: "POST" });
  });

  it("no path makes it stumble", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom("find/", "follow", "why/", "list", "doctor", ""),
        fc.stringMatching(/^[ -"$-~]{0,40}$/),
        async (verb, rest) => {
          const path = verb + rest.replaceAll(" ", "+");
          const response = await ask(path);
          // Whoever follows is told for ever ("follow\\x" is "follow/x" to a URL, too).
          if (String(response.headers["content-type"]).includes("ndjson")) response.body.destroy();
          else await response.text();
          expect(response.status).toBeLessThan(500);
        },
      ),
      { numRuns: 200 },
    );
  });

  it("every code has a status of a failure", () => {
    for (const status of Object.values(STATUS_OF)) expect(status).toBeGreaterThanOrEqual(400);
  });
});

describe("who may write", () => {
  const from = (remoteAddress: string | undefined, headers: Record<string, string> = {}) =>
    ({ socket: { remoteAddress }, headers: { host: "127.0.0.1:8500", ...headers } }) as unknown as IncomingMessage;

  it.each([
    ["127.0.0.1", {}],
    ["127.1.2.3", {}],
    ["::1", {}],
    ["::ffff:127.0.0.1", {}],
    [undefined, {}],
    ["127.0.0.1", { origin: "http://127.0.0.1:8500" }],
  ])("from %s with %j: yes", (address, headers) => {
    expect(() => authorizeWrite(from(address, headers), undefined)).not.toThrow();
  });

  it.each([
    ["10.1.0.7", {}, "this agent has none configured"],
    ["fe80::1", {}, "this agent has none configured"],
    ["127.0.0.1", { "x-forwarded-for": "203.0.113.1" }, "behind the proxy 127.0.0.1 (203.0.113.1)"],
    ["127.0.0.1", { forwarded: "for=203.0.113.1" }, "need a token"],
    ["127.0.0.1", { origin: "https://evil.example" }, "a web page of https://evil.example"],
    ["127.0.0.1", { origin: "null" }, "a web page of null"],
    // Whoever owns a name may have it lead here.
    ["127.0.0.1", { origin: "http://evil.example", host: "evil.example" }, "a web page of http://evil.example"],
  ])("from %s with %j: no, %s", (address, headers, text) => {
    expect(() => authorizeWrite(from(address, headers), undefined)).toThrow(text);
  });

  it("with the token from everywhere, in any of three headers; with a wrong one from here only", () => {
    const far = (headers: Record<string, string>) => () => authorizeWrite(from("10.1.0.7", headers), "secret");
    expect(far({ "x-trilith-token": "secret" })).not.toThrow();
    expect(far({ "x-consul-token": "secret" })).not.toThrow();
    expect(far({ authorization: "bearer secret" })).not.toThrow();
    for (const headers of [
      {},
      { "x-trilith-token": "Secret" },
      { authorization: "Basic secret" },
      { "x-trilith-token": "" },
    ])
      expect(far(headers as Record<string, string>)).toThrow("need the agent's token in the header X-Trilith-Token");
    expect(() => authorizeWrite(from("127.0.0.1", { "x-trilith-token": "wrong" }), "secret")).not.toThrow();
  });

  it("as a client host: with the token, or from here, which a proxy is not", () => {
    expect(() => authorizePeer(from("10.1.0.7"), undefined)).not.toThrow();
    expect(() => authorizePeer(from("127.0.0.1"), "secret")).not.toThrow();
    expect(() => authorizePeer(from("10.1.0.7", { "x-consul-token": "secret" }), "secret")).not.toThrow();
    expect(() => authorizePeer(from("10.1.0.7"), "secret")).toThrow(
      "a client host needs the token of the agent that it joins (--join-token, or join_token in its configuration)",
    );
    expect(() => authorizePeer(from("10.1.0.7", { "x-consul-token": "wrong" }), "secret")).toThrow(
      "the token that this client host gives is not that of the agent that it joins",
    );
    expect(() => authorizePeer(from("127.0.0.1", { "x-forwarded-for": "10.1.0.7" }), "secret")).toThrow("token");
  });

  it("is asked before anything is written", async () => {
    const forwarded = { "x-forwarded-for": "203.0.113.1" };
    expect(await refused("drain/w1", "POST", forwarded)).toMatchObject({ status: 403, code: "not-allowed" });
    expect(drains).toEqual([]);
    await serve("secret");
    expect(await refused("drain/w1", "POST", forwarded)).toMatchObject({ status: 403 });
    expect((await ask("drain/w1", "POST", { ...forwarded, "x-trilith-token": "secret" })).status).toBe(200);
    expect(drains).toHaveLength(1);
  });
});

describe("configuration", () => {
  it("takes a token, or off, and refuses anything else by name", async () => {
    expect(api.configure(undefined)).toEqual({ off: false });
    expect(api.configure({})).toEqual({ off: false });
    expect(api.configure({ token: "t" })).toEqual({ off: false, token: "t" });
    expect(await api.setup(api.configure(false), {} as Parameters<typeof api.setup>[1])).toBeUndefined();
    for (const wrong of [{ token: "" }, { token: 5 }, { tokens: "x" }, [], "x", 5, null])
      expect(() => api.configure(wrong)).toThrow(/^api/);
  });
});
