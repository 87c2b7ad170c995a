// The agent in its host: its node, registering, and what holds for its beginning and its end.
import { describe, expect, test } from "vitest";
import { asked, checkOf, entryOf, host, NODE_ID, SELF, service, ttl } from "../../test/support/agent-host.ts";
import { TrilithError } from "../base/error.ts";
import type { Registration } from "../model/instance.ts";
import { keyOf } from "../model/record.ts";
import type { RunningAgent } from "./agent.ts";

describe("the node", () => {
  test("stands in the directory with its addresses, its check and the agent's own service", async () => {
    const { directory, agent } = await host(
      { nodeLabels: { rack: "7", own: "settings" } },
      {
        labels: { "consul-network-segment": "", own: "options" },
        selfService: { id: "consul", name: "consul", tags: [], labels: {}, address: "", port: 18300 },
      },
    );
    const view = directory.view();
    expect(view.get("node", "alpha")).toMatchObject({
      id: NODE_ID,
      name: "Alpha",
      address: "192.0.2.1",
      taggedAddresses: { lan: "192.0.2.1", lan_ipv4: "192.0.2.1", wan: "192.0.2.1", wan_ipv4: "192.0.2.1" },
    });
    expect({ ...view.get("node", "alpha")?.labels }).toEqual({
      rack: "7",
      "consul-network-segment": "",
      own: "settings",
    });
    expect(checkOf(directory, "serfHealth")).toMatchObject({
      name: "Serf Health Status",
      status: "passing",
      output: "Agent alive and reachable",
      type: "",
      serviceId: "",
    });
    expect(entryOf(directory, "consul")).toMatchObject({ name: "consul", port: 18300, origin: { source: "agent" } });
    expect(agent.services().size).toBe(0);
    expect(agent.checks().size).toBe(0);
    await expect(agent.register("api", service("consul"))).rejects.toMatchObject({ code: "conflict" });
  });

  test("an IPv6 address has its own roles, a host name none", async () => {
    const six = await host({}, {}, { advertiseAddress: "2001:db8::1" });
    expect(six.agent.node.taggedAddresses).toEqual({
      lan: "2001:db8::1",
      lan_ipv6: "2001:db8::1",
      wan: "2001:db8::1",
      wan_ipv6: "2001:db8::1",
    });
    const named = await host({}, {}, { advertiseAddress: "host.example" });
    expect(named.agent.node.taggedAddresses).toEqual({ lan: "host.example", wan: "host.example" });
  });

  test("another live host with this name, or with this ID, is an error that names both; a dead one is not", async () => {
    const { clock, directory, build } = await host();
    /** What a start comes to that finds a rival who lives on. */
    const refused = async (agent: RunningAgent): Promise<unknown> => {
      const started = agent.start().then(
        () => undefined,
        (error: unknown) => error,
      );
      for (let i = 0; i < 21; i++) await clock.advance(1000);
      return await started;
    };
    const put = async (name: string, id: string): Promise<void> => {
      const node = { id, name, address: "192.0.2.9", datacenter: "dc1", taggedAddresses: {}, labels: {} };
      await directory.write([
        { op: "put", table: "node", key: keyOf.node(name), value: node },
        { op: "put", table: "alive", key: keyOf.alive(name), value: { node: name, life: "theirs" } },
      ]);
    };
    await put("beta", "other-id");
    const self = { node: "BETA", nodeId: "my-id", datacenter: "dc1", advertiseAddress: "192.0.2.2" };
    const rival = build({ shared: true, self });
    expect(await refused(rival)).toMatchObject({
      code: "conflict",
      message:
        'the node name "BETA" belongs to another live host: node ID other-id at 192.0.2.9, this one has my-id at 192.0.2.2; give one of them another name',
    });
    // Whoever may not take the name takes nobody along when it goes.
    await rival.leave();
    expect(directory.view().get("node", "beta")?.id).toBe("other-id");
    expect(await refused(build({ shared: true, self: { ...self, node: "gamma", nodeId: "other-id" } }))).toMatchObject({
      code: "conflict",
      message: expect.stringMatching(/belongs to the live host "beta" .* was this host's data folder copied\?/),
    });
    await directory.write([{ op: "delete", table: "alive", key: keyOf.alive("beta") }]);
    await directory.write([
      { op: "put", table: "alive", key: keyOf.alive("delta"), value: { node: "delta", life: "x" } },
    ]);
    const renamed = build({ shared: true, self: { ...self, node: "gamma", nodeId: "other-id" } });
    await renamed.start();
    await renamed.synced();
    expect(directory.view().get("node", "beta")).toBeUndefined();
    expect(directory.view().get("node", "gamma")?.id).toBe("other-id");
  });

  test("in a shared store nobody is told of a host before it listens, nor of one that cannot", async () => {
    const { directory, build } = await host();
    const { index } = directory.view();
    const self = { node: "beta", nodeId: "its-id", datacenter: "dc1", advertiseAddress: "192.0.2.2" };
    /** Whatever is on its way gets there. */
    const arrive = () => new Promise((resolve) => setImmediate(resolve));
    const taken = build({ shared: true, self });
    const started = taken.start(async () => {
      await arrive();
      throw new TrilithError("address-in-use", "taken");
    });
    await expect(started).rejects.toMatchObject({ code: "address-in-use" });
    await arrive();
    await taken.leave();
    expect(directory.view().index).toBe(index);
    const agent = build({ shared: true, self });
    let known: unknown = "not opened";
    await agent.start(async () => {
      await arrive();
      known = directory.view().get("node", "beta");
    });
    expect(known).toBeUndefined();
    await agent.synced();
    expect(directory.view().get("node", "beta")?.id).toBe("its-id");
    await agent.stop();
  });

  test.each([
    ["that was renamed", { node: "gamma", nodeId: "its-id" }],
    ["with a fresh data folder", { node: "beta", nodeId: "new-id" }],
  ])("a host %s starts when the sign of its earlier life has run out", async (_, changed) => {
    const { clock, directory, build } = await host();
    const node = {
      id: "its-id",
      name: "beta",
      address: "192.0.2.9",
      datacenter: "dc1",
      taggedAddresses: {},
      labels: {},
    };
    await directory.write([
      { op: "put", table: "node", key: keyOf.node("beta"), value: node },
      { op: "put", table: "alive", key: keyOf.alive("beta"), value: { node: "beta", life: "before" } },
      { op: "put", table: "alive", key: keyOf.alive("delta"), value: { node: "delta", life: "x" } },
    ]);
    const self = { datacenter: "dc1", advertiseAddress: "192.0.2.9", ...changed };
    const agent = build({ shared: true, self });
    let started = false;
    const starting = agent.start().then(() => {
      started = true;
    });
    for (let i = 0; i < 14; i++) await clock.advance(1000);
    expect([started, directory.view().get("node", "beta")?.id]).toEqual([false, "its-id"]);
    await directory.write([{ op: "delete", table: "alive", key: keyOf.alive("beta") }]);
    await starting;
    await agent.synced();
    const named = [...directory.view().list("node")].filter(({ address }) => address === "192.0.2.9");
    expect(named.map(({ name, id }) => [name, id])).toEqual([[changed.node, changed.nodeId]]);
    await agent.stop();
    // Whoever stops while it waits does not wait to the end.
    await directory.write([
      { op: "put", table: "alive", key: keyOf.alive(changed.node), value: { node: changed.node, life: "y" } },
    ]);
    const waits = build({ shared: true, self: { ...self, nodeId: "third-id" } });
    const ended = waits.start().catch((error: unknown) => error);
    await clock.advance(1000);
    await waits.stop();
    expect(await ended).toMatchObject({ code: "stopped" });
  });

  test("leaving takes the node out of the directory, stopping does not", async () => {
    const { directory, agent, again } = await host();
    await agent.register("api", service("web"));
    await agent.stop();
    expect(entryOf(directory, "web")).toBeDefined();
    const next = await again();
    await next.leave();
    expect(directory.view().get("node", "alpha")).toBeUndefined();
    expect(entryOf(directory, "web")).toBeUndefined();
    await expect(next.register("api", service("web"))).rejects.toMatchObject({ code: "stopped" });
  });
});

describe("registering", () => {
  test("is in the directory when it resolves, and on disk; the same again writes nothing", async () => {
    const { directory, agent, durable } = await host();
    const wanted = service("web-1", {
      name: "web",
      tags: ["a", "b"],
      labels: { k: "v" },
      checks: [ttl({ initial: "passing" })],
      foreignId: "f",
      text: "by hand",
    });
    await agent.register("api", wanted);
    expect(entryOf(directory, "web-1")).toMatchObject({
      name: "web",
      tags: ["a", "b"],
      node: "Alpha",
      origin: { source: "api", authority: "first-hand", foreignId: "f", text: "by hand" },
    });
    expect(checkOf(directory, "service:web-1")).toMatchObject({
      name: "Service 'web' check",
      status: "passing",
      type: "ttl",
      serviceId: "web-1",
    });
    expect(durable.log.map(({ table, key }) => `${table} ${key}`)).toEqual([
      "agent.service web-1",
      "agent.check service:web-1",
    ]);
    const { writes } = durable;
    const at = directory.view().index;
    const version = agent.version();
    await agent.register("api", structuredClone(wanted));
    expect([durable.writes, directory.view().index, agent.version()]).toEqual([writes, at, version]);
    await agent.deregister("api", "web-1");
    expect(entryOf(directory, "web-1")).toBeUndefined();
    expect(checkOf(directory, "service:web-1")).toBeUndefined();
    expect(agent.checks().size).toBe(0);
    await expect(agent.deregister("api", "web-1")).rejects.toMatchObject({
      code: "not-found",
      message: 'Unknown service ID "web-1". Ensure that the service ID is passed, not the service name.',
    });
  });

  test("writes of one turn go to the disk as one and to the directory in the same turn", async () => {
    const { directory, agent, durable } = await host();
    const { writes } = durable;
    let turns = 0;
    const seen: string[] = [];
    const realWrite = directory.write.bind(directory);
    directory.write = (...args) => {
      seen.push(`directory ${args[0].length} in turn ${turns}`);
      return realWrite(...args);
    };
    const realKeep = durable.write.bind(durable);
    durable.write = (changes) => {
      seen.push(`disk ${changes.length} in turn ${turns}`);
      return realKeep(changes);
    };
    const all = Promise.all(Array.from({ length: 150 }, (_, i) => agent.register("api", service(`s${i}`))));
    await new Promise<void>((resolve) => setImmediate(resolve));
    turns++;
    await all;
    expect(seen.sort()).toEqual(["directory 100 in turn 0", "directory 50 in turn 0", "disk 150 in turn 0"]);
    expect(durable.writes).toBe(writes + 1);
  });

  test("ids like __proto__ and constructor are ids like any other", async () => {
    const { directory, agent, again } = await host();
    for (const id of ["__proto__", "constructor", "toString"])
      await agent.register("api", service(id, { labels: JSON.parse('{"__proto__":"x"}'), checks: [ttl({ id })] }));
    expect([...agent.services().keys()]).toEqual(["__proto__", "constructor", "toString"]);
    await agent.report("__proto__", { status: "passing", output: "" });
    expect(checkOf(directory, "__proto__")?.status).toBe("passing");
    const labels = entryOf(directory, "__proto__")?.labels ?? {};
    expect(Object.entries(labels)).toEqual([["__proto__", "x"]]);
    await agent.stop();
    const next = await again();
    expect(next.checks().get("__proto__")?.check.status).toBe("passing");
    expect(Object.entries(next.services().get("__proto__")?.instance.labels ?? {})).toEqual([["__proto__", "x"]]);
  });

  test("what is wrong with it is said", async () => {
    const { agent } = await host();
    const refused = async (r: Registration): Promise<string> =>
      agent.register("api", r).then(
        () => "accepted",
        (error: TrilithError) => `${error.code}: ${error.message}`,
      );
    expect(await refused(service("x", { name: "" }))).toBe('invalid: service "x" has no name');
    expect(await refused(service("x", { port: 65_536 }))).toBe(
      'invalid: service "x": port 65536: expected a whole number from 0 to 65535',
    );
    expect(await refused(service("x\0", { name: "x" }))).toMatch(/^invalid: service .*id must not contain NUL$/);
    expect(await refused(service("x", { checks: [asked("smoke")] }))).toBe(
      `invalid: check "Service 'x' check": unknown kind "smoke": known are alias, none, script, told, ttl`,
    );
    expect(await refused(service("x", { checks: [asked("told", { intervalMs: 0 })] }))).toBe(
      `invalid: check "Service 'x' check" of kind "told": interval 0 ms: expected more than 0`,
    );
    expect(agent.services().size).toBe(0);
  });

  test("a full disk: the error is told and nothing of it stays", async () => {
    const { agent, durable, directory } = await host();
    await agent.register("api", service("web", { port: 80, checks: [ttl()] }));
    durable.failure = new TrilithError("disk-full", "no space left");
    await expect(agent.register("api", service("new"))).rejects.toMatchObject({ code: "disk-full" });
    await expect(
      agent.register("api", service("web", { port: 81, checks: [ttl({ id: "b" })] }), { replaceChecks: true }),
    ).rejects.toMatchObject({ code: "disk-full", message: expect.stringMatching(/registering service "web"/) });
    await expect(agent.deregister("api", "web")).rejects.toMatchObject({ code: "disk-full" });
    expect([...agent.services().keys()]).toEqual(["web"]);
    expect([...agent.checks().keys()]).toEqual(["service:web"]);
    // Two that build upon each other, in one turn: both go.
    const both = await Promise.allSettled([
      agent.register("api", service("web", { port: 82 })),
      agent.register("api", service("web", { port: 83 })),
    ]);
    expect(both.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
    expect(agent.services().get("web")?.instance.port).toBe(80);
    durable.failure = undefined;
    await agent.synced();
    expect(entryOf(directory, "web")?.port).toBe(80);
    expect(entryOf(directory, "new")).toBeUndefined();
    expect(checkOf(directory, "service:web")).toBeDefined();
    expect(checkOf(directory, "b")).toBeUndefined();
    await agent.register("api", service("new"));
    expect(entryOf(directory, "new")).toBeDefined();
  });

  test("checks of a service stay over a registration without them, unless all are to be replaced", async () => {
    const { agent, directory } = await host();
    await agent.register("api", service("s", { checks: [ttl({ id: "one" }), ttl({ id: "two" })] }));
    await agent.maintenance("s", true);
    await agent.register("api", service("s", { port: 81 }));
    expect(
      agent
        .services()
        .get("s")
        ?.checks.map(({ id }) => id),
    ).toEqual(["one", "two", "_service_maintenance:s"]);
    await agent.register("api", service("s", { port: 81, checks: [ttl({ id: "only" })] }), { replaceChecks: true });
    expect([...agent.checks().keys()].sort()).toEqual(["_service_maintenance:s", "only"]);
    expect(checkOf(directory, "one")).toBeUndefined();
    expect(
      agent
        .services()
        .get("s")
        ?.checks.map(({ id }) => id),
    ).toEqual(["_service_maintenance:s", "only"]);
  });

  test("scripts only where they are allowed for who asks", async () => {
    const none = await host();
    const withScript = service("s", { checks: [asked("script")] });
    await expect(none.agent.register("api", withScript)).rejects.toMatchObject({
      code: "not-allowed",
      message:
        "Scripts are disabled on this agent from remote calls; to enable, configure 'enable_script_checks' to true",
    });
    await none.agent.adopt("file", { list: [withScript], authority: "first-hand" });
    // Held, visible, and never healthy by mistake.
    expect(checkOf(none.directory, "service:s")).toMatchObject({
      status: "critical",
      output: expect.stringContaining("Scripts are disabled on this agent"),
    });
    expect(none.agent.complaints()).toMatchObject([{ from: "file", about: "s" }]);
    const files = await host({ scripts: { fromApi: false, fromFiles: true } });
    await files.agent.adopt("file", { list: [withScript], authority: "first-hand" });
    expect(files.agent.complaints()).toEqual([]);
    await expect(files.agent.register("api", service("t", { checks: [asked("script")] }))).rejects.toMatchObject({
      code: "not-allowed",
    });
    const all = await host({ scripts: { fromApi: true, fromFiles: true } });
    await all.agent.register("api", withScript);
    await all.clock.advance(10_000);
    expect(checkOf(all.directory, "service:s")?.status).toBe("passing");
  });
});

describe("laws", () => {
  test("starting twice is once, stopping twice is once, after it no timer is left", async () => {
    const { agent, clock, directory } = await host();
    const index = directory.view().index;
    await agent.start();
    expect(directory.view().index).toBe(index);
    await agent.register("api", service("w", { checks: [ttl({ deregisterAfterMs: 60_000 }), asked("told")] }));
    await agent.stop();
    await agent.stop();
    await directory.stop();
    expect(clock.timers).toBe(0);
    await expect(agent.start()).rejects.toMatchObject({ code: "stopped" });
  });

  test("a start that fails leaves nothing running", async () => {
    const { build, clock, agent, directory } = await host();
    await agent.register("api", service("w", { checks: [asked("told"), ttl({ id: "t" })] }));
    await agent.stop();
    await directory.write([
      {
        op: "put",
        table: "alive",
        key: keyOf.alive("alpha"),
        value: { node: "Alpha", life: "theirs" },
      },
    ]);
    const timers = clock.timers;
    const other = build({ shared: true, self: { ...SELF, nodeId: "another" } });
    const refused = other.start().catch((error: unknown) => error);
    for (let i = 0; i < 21; i++) await clock.advance(1000);
    expect(await refused).toMatchObject({ code: "conflict" });
    expect(clock.timers).toBe(timers);
    await expect(other.register("api", service("x"))).rejects.toMatchObject({ code: "stopped" });
    await other.stop();
  });

  test("stopping before starting is nothing", async () => {
    const { build, clock, agent, directory } = await host();
    await agent.stop();
    const timers = clock.timers;
    const other = build();
    await other.stop();
    expect(clock.timers).toBe(timers);
    expect(directory.view().get("node", "alpha")).toBeDefined();
  });
});
