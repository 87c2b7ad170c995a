// The agent on a fake clock, with the real directory in memory: registering, ownership, adopting, restarts, anti-entropy, checks.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import {
  asked,
  checkOf,
  ends,
  entryOf,
  host,
  mine,
  NODE_ID,
  reason,
  SELF,
  service,
  ttl,
} from "../../test/support/agent-host.ts";
import { TrilithError } from "../base/error.ts";
import { silentLog } from "../base/log.ts";
import { createMetrics } from "../base/metrics.ts";
import { systemRandom } from "../base/random.ts";
import type { Directory, View } from "../contracts/directory.ts";
import { defaultSettings } from "../contracts/settings.ts";
import type { Registration } from "../model/instance.ts";
import type { Reason } from "../model/reason.ts";
import { type Change, keyOf, scope } from "../model/record.ts";
import { createAgent, type RunningAgent } from "./agent.ts";

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
    expect(await refused(build({ shared: true, self }))).toMatchObject({
      code: "conflict",
      message:
        'the node name "BETA" belongs to another live host: node ID other-id at 192.0.2.9, this one has my-id at 192.0.2.2; give one of them another name',
    });
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

describe("ownership", () => {
  test("higher ranks take over from lower ones; equals and lower ones are told who holds it", async () => {
    const { agent, directory } = await host();
    const from = (name: string, more: Partial<Registration> = {}): Registration =>
      service("web", { text: `${name}'s web`, ...more });
    await agent.adopt("file", { list: [from("file", { checks: [ttl({ id: "f" })] })], authority: "first-hand" });
    await agent.adopt("docker", { list: [from("docker", { port: 81 })], authority: "first-hand" });
    expect(entryOf(directory, "web")).toMatchObject({ port: 81, origin: { source: "docker" } });
    expect(agent.checks().size).toBe(0);
    await agent.adopt("process", { list: [from("process")], authority: "first-hand" });
    await agent.adopt("file", { list: [from("file")], authority: "first-hand" });
    expect(agent.complaints()).toEqual([
      {
        from: "file",
        about: "web",
        text: `the service id "web" on node Alpha is held by docker (docker's web) and also wanted by file (file's web): one of them has to use another id`,
      },
      {
        from: "process",
        about: "web",
        text: `the service id "web" on node Alpha is held by docker (docker's web) and also wanted by process (process's web): one of them has to use another id`,
      },
    ]);
    await agent.register("api", service("web", { port: 82 }));
    expect(entryOf(directory, "web")).toMatchObject({ port: 82, origin: { source: "api" } });
    await expect(agent.register("docker", from("docker"))).rejects.toMatchObject({
      code: "conflict",
      message: expect.stringMatching(/held by api .* wanted by docker \(docker's web\)/),
    });
    await expect(agent.deregister("docker", "web")).rejects.toMatchObject({ code: "conflict" });
    // Another source's list never takes it away.
    await agent.adopt("docker", { list: [], authority: "first-hand" });
    expect(entryOf(directory, "web")).toBeDefined();
  });

  test("what is freed goes to the source that wanted it", async () => {
    const { agent, directory, clock } = await host();
    await agent.register("api", service("web", { port: 82 }));
    await agent.adopt("file", { list: [service("web", { port: 80 })], authority: "first-hand" });
    expect(entryOf(directory, "web")?.port).toBe(82);
    await agent.deregister("api", "web");
    await clock.settle();
    expect(entryOf(directory, "web")).toMatchObject({ port: 80, origin: { source: "file" } });
    expect(agent.complaints()).toEqual([]);
  });

  test("check ids belong to somebody, too", async () => {
    const { agent } = await host();
    await agent.adopt("docker", { list: [service("a", { checks: [ttl({ id: "c" })] })], authority: "first-hand" });
    await agent.adopt("file", { list: [service("b", { checks: [ttl({ id: "c" })] })], authority: "first-hand" });
    expect([...agent.services().keys()]).toEqual(["a"]);
    expect(agent.complaints()[0]?.text).toMatch(/check id "c" .* held by docker .* wanted by file/);
    await expect(agent.registerCheck("api", { ...ttl({ id: "serfHealth" }), serviceId: "" })).rejects.toMatchObject({
      code: "conflict",
    });
  });
});

describe("adopting whole lists", () => {
  test("missing is gone, with the source's reason; second hand is not confirmed", async () => {
    const { agent, directory } = await host();
    const whys: (Reason | undefined)[] = [];
    const realWrite = directory.write.bind(directory);
    directory.write = (...args) => {
      for (const change of args[0]) if (change.op === "delete" && change.table === "service") whys.push(change.why);
      return realWrite(...args);
    };
    await agent.adopt("docker", { list: [service("a"), service("b")], authority: "first-hand" });
    await agent.adopt("zk", { list: [service("c"), service("d")], authority: "second-hand" });
    const died = reason("died", "exit code 137");
    await agent.adopt("docker", { list: [service("b")], authority: "first-hand", gone: new Map([["a", died]]) });
    await agent.adopt("docker", { list: [], authority: "first-hand" });
    await agent.adopt("zk", { list: [service("d")], authority: "second-hand" });
    expect([...agent.services().keys()]).toEqual(["d"]);
    expect(whys).toMatchObject([
      died,
      { code: "missing", confirmed: true },
      { code: "missing", confirmed: false, text: "is no longer in the list of zk" },
    ]);
    expect(agent.history("a").map(({ text }) => text)).toEqual([
      "went (died): exit code 137",
      'was registered by docker: "a" on port 80',
    ]);
  });

  test("bursts are coalesced: the latest list wins while a write is under way", async () => {
    const { agent, directory, durable } = await host();
    const before = durable.writes;
    const list = (n: number) => ({
      list: Array.from({ length: 20 }, (_, i) => service(`s${i}`, { port: n })),
      authority: "first-hand" as const,
    });
    await Promise.all(Array.from({ length: 50 }, (_, n) => agent.adopt("docker", list(n))));
    expect(entryOf(directory, "s7")?.port).toBe(49);
    expect(durable.writes - before).toBe(2);
  });

  test("thousands at once are split into writes a store takes", async () => {
    const { agent, directory } = await host();
    const sizes: number[] = [];
    const realWrite = directory.write.bind(directory);
    directory.write = (...args) => {
      sizes.push(args[0].length);
      return realWrite(...args);
    };
    const list = Array.from({ length: 2500 }, (_, i) => service(`s${i}`, { name: "web", checks: [ttl()] }));
    await agent.adopt("docker", { list, authority: "first-hand" });
    expect(Math.max(...sizes)).toBe(100);
    expect(directory.view().residents("web")).toHaveLength(2500);
    await agent.adopt("docker", { list: [], authority: "first-hand" });
    expect(directory.view().residents("web")).toHaveLength(0);
    expect([...directory.view().list("check", keyOf.ofNode("alpha"))]).toHaveLength(1);
  });

  test("one registration that the directory refuses holds up no other", async () => {
    const { agent, directory } = await host();
    const realWrite = directory.write.bind(directory);
    directory.write = async (...args) => {
      if (args[0].some((change) => change.op === "put" && change.key.endsWith("huge")))
        throw new TrilithError("too-large", "2 MB are too much");
      return await realWrite(...args);
    };
    const list = [service("a"), service("huge", { checks: [ttl()] }), service("b")];
    await agent.adopt("docker", { list, authority: "first-hand" });
    expect([...agent.services().keys()]).toEqual(["a", "b"]);
    expect([...agent.checks().keys()]).toEqual([]);
    expect(entryOf(directory, "b")).toBeDefined();
    expect(agent.complaints().some(({ about, text }) => about === "huge" && text.includes("2 MB"))).toBe(true);
    await expect(agent.register("api", service("huge"))).rejects.toMatchObject({ code: "too-large" });
    expect(agent.services().has("huge")).toBe(false);
    await agent.synced();
  });

  test("what is refused in a new form stays in its old one, and goes when it is no longer listed", async () => {
    const { agent, directory } = await host();
    const realWrite = directory.write.bind(directory);
    directory.write = async (...args) => {
      if (args[0].some((change) => change.op === "put" && change.table === "service" && change.value.port === 99))
        throw new TrilithError("too-large", "2 MB are too much");
      return await realWrite(...args);
    };
    const whole = (...ports: number[]) => ({
      list: ports.map((port, i) => service(`s${i}`, { port, checks: [ttl()] })),
      authority: "first-hand" as const,
    });
    await agent.adopt("docker", whole(80, 81));
    await agent.adopt("docker", whole(80, 99));
    expect(entryOf(directory, "s1")?.port).toBe(81);
    expect(agent.complaints()).toMatchObject([{ about: "s1" }]);
    await agent.adopt("docker", whole(80));
    expect(entryOf(directory, "s1")).toBeUndefined();
    expect(agent.complaints()).toEqual([]);
  });

  test("a take-over that fails gives it back to its source", async () => {
    const { agent, durable } = await host();
    await agent.adopt("docker", { list: [service("web")], authority: "first-hand" });
    durable.failure = new TrilithError("disk-full", "no space left");
    await expect(agent.register("api", service("web", { port: 81 }))).rejects.toMatchObject({ code: "disk-full" });
    durable.failure = undefined;
    expect(agent.services().get("web")?.instance).toMatchObject({ port: 80, origin: { source: "docker" } });
    await agent.adopt("docker", { list: [], authority: "first-hand" });
    expect(agent.services().size).toBe(0);
  });

  test("a renamed thing keeps how its checks stood", async () => {
    const { agent, directory } = await host();
    const list = (id: string) => ({
      list: [service(id, { foreignId: "c1", checks: [ttl()] })],
      authority: "first-hand" as const,
    });
    await agent.adopt("docker", list("old"));
    await agent.report("service:old", { status: "passing", output: "well" });
    await agent.adopt("docker", list("new"));
    expect(checkOf(directory, "service:new")).toMatchObject({ status: "passing", output: "well" });
    expect(entryOf(directory, "old")).toBeUndefined();
  });

  test("after any sequence of lists the directory is the last list; the same list again writes nothing", async () => {
    const registration = fc.record({
      id: fc.constantFrom("a", "b", "c", "d", "__proto__"),
      port: fc.constantFrom(80, 81),
      tags: fc.constantFrom([], ["t"]),
      checks: fc.constantFrom([], [ttl()], [ttl({ ttlMs: 5000 })], [ttl(), ttl({ notes: "n" })]),
    });
    const lists = fc.array(fc.uniqueArray(registration, { maxLength: 5, selector: ({ id }) => id }), { maxLength: 6 });
    await fc.assert(
      fc.asyncProperty(lists, async (sequence) => {
        const { agent, directory, durable, clock } = await host();
        for (const items of sequence) {
          const list = items.map(({ id, ...more }) => service(id, more));
          const whole = { list, authority: "first-hand" as const };
          await agent.adopt("docker", whole);
          const view = directory.view();
          const services = [...view.list("service", keyOf.ofNode("alpha"))];
          expect(services.map(({ id, port, tags }) => ({ id, port, tags }))).toEqual(
            list.map(({ id, port, tags }) => ({ id, port, tags })).sort((a, b) => (a.id < b.id ? -1 : 1)),
          );
          const checks = [...view.list("check", keyOf.ofNode("alpha"))].filter(({ id }) => id !== "serfHealth");
          expect(checks).toHaveLength(list.reduce((sum, { checks: own }) => sum + own.length, 0));
          const { writes } = durable;
          await agent.adopt("docker", structuredClone(whole));
          await clock.settle();
          expect([directory.view().index, durable.writes]).toEqual([view.index, writes]);
        }
        for (const end of ends.splice(0).reverse()) await end();
      }),
      { numRuns: 30 },
    );
  });
  test("what was deregistered by hand stays away until its source has it in another form, restates it, or the agent starts anew", async () => {
    const { agent, again } = await host();
    const list = (port: number) => ({
      list: [service("box", { port, checks: [ttl({ id: "b" })] }), service("jar")],
      authority: "first-hand" as const,
    });
    const ids = (): string[] => [...agent.services().keys()].sort();
    await agent.adopt("docker", list(80));
    await agent.deregister("api", "box");
    await agent.adopt("docker", list(80));
    expect(ids()).toEqual(["jar"]);
    await agent.adopt("docker", list(81));
    expect(ids()).toEqual(["box", "jar"]);
    await agent.deregister("api", "box");
    await agent.restate("file");
    expect(ids()).toEqual(["jar"]);
    await agent.restate("docker");
    expect(ids()).toEqual(["box", "jar"]);
    await agent.deregisterCheck("api", "b");
    await agent.restate();
    expect(agent.checks().has("b")).toBe(true);
    const version = agent.version();
    await agent.restate();
    expect(agent.version()).toBe(version);
    await agent.deregister("api", "box");
    await agent.stop();
    const next = await again();
    expect([...next.services().keys()]).toEqual(["jar"]);
    await next.adopt("docker", list(81));
    expect([...next.services().keys()].sort()).toEqual(["box", "jar"]);
  });
});

describe("restarting", () => {
  test("nothing flaps: statuses, maintenance and foreign tags are as they were, and nothing is written", async () => {
    const { agent, directory, clock, again, told } = await host({ checkUpdateMs: 300_000 });
    await agent.register(
      "api",
      service("web", { tags: ["t"], enableTagOverride: true, checks: [ttl(), asked("told", { id: "http" })] }),
    );
    await agent.adopt("docker", {
      list: [service("box", { foreignId: "c1", checks: [asked("told")] })],
      authority: "first-hand",
    });
    await agent.registerCheck("api", { ...ttl({ id: "disk", ttlMs: 60_000 }), serviceId: "" });
    await agent.report("disk", { status: "warning", output: "80 %" });
    await clock.advance(11_000);
    await agent.report("service:web:1", { status: "passing", output: "alive" });
    await agent.maintenance("box", true, "new kernel");
    await agent.maintenance("", true);
    const entry = entryOf(directory, "web");
    if (entry === undefined) throw new Error("not there");
    const { createIndex: _c, modifyIndex: _m, ...instance } = entry;
    await directory.write([
      { op: "put", table: "service", key: keyOf.service("alpha", "web"), value: { ...instance, tags: ["theirs"] } },
    ]);
    await clock.settle();
    const states = () =>
      Object.fromEntries(
        [...directory.view().list("check", keyOf.ofNode("alpha"))].map((c) => [c.id, `${c.status}: ${c.output}`]),
      );
    const before = states();
    expect(before).toMatchObject({ disk: "warning: 80 %", http: "passing: fine", "service:box": "passing: fine" });
    await agent.stop();
    const index = mine(directory);
    told.outcome = { status: "passing", output: "fine" };
    const next = await again();
    await next.synced();
    await clock.advance(500);
    await next.adopt("docker", {
      list: [service("box", { foreignId: "c1", checks: [asked("told")] })],
      authority: "first-hand",
    });
    expect(states()).toEqual(before);
    expect(mine(directory)).toBe(index);
    expect(entryOf(directory, "web")?.tags).toEqual(["theirs"]);
    expect(next.services().get("web")?.instance.tags).toEqual(["theirs"]);
    expect(next.checks().get("_service_maintenance:box")?.check.notes).toBe("new kernel");
    await clock.advance(9000);
    expect(mine(directory)).toBe(index);
    // The TTL runs on: nobody reports any more.
    await clock.advance(2000);
    expect(checkOf(directory, "service:web:1")).toMatchObject({
      status: "critical",
      output: "TTL expired (last output before timeout follows): alive",
    });
  });

  test("what a source no longer lists after the restart is gone with its first list, not before", async () => {
    const { agent, directory, again } = await host();
    await agent.adopt("docker", { list: [service("a"), service("b")], authority: "first-hand" });
    await agent.stop();
    const next = await again();
    expect([...next.services().keys()]).toEqual(["a", "b"]);
    await next.adopt("docker", { list: [service("b")], authority: "first-hand" });
    expect([...next.services().keys()]).toEqual(["b"]);
    expect(entryOf(directory, "a")).toBeUndefined();
  });

  test("scripts that were allowed before the restart and are no longer do not run", async () => {
    const { agent, again, told, clock, directory } = await host({ scripts: { fromApi: true, fromFiles: true } });
    await agent.register("api", service("s", { checks: [asked("script")] }));
    await clock.advance(10_000);
    expect(checkOf(directory, "service:s")?.status).toBe("passing");
    await agent.stop();
    const { asked: count } = told;
    const next = await again({ settings: defaultSettings });
    await clock.advance(60_000);
    expect(told.asked).toBe(count);
    expect(checkOf(directory, "service:s")).toMatchObject({
      status: "critical",
      output: expect.stringContaining("Scripts are disabled"),
    });
    expect(next.complaints()).toMatchObject([{ from: "api", about: "service:s" }]);
    await next.stop();
    const third = await again();
    await clock.advance(10_000);
    expect(third.checks().get("service:s")?.check.status).toBe("passing");
    expect(third.complaints()).toEqual([]);
  });

  test("a pushed check goes on with the time that is left to it: the agent's absence counts", async () => {
    const { agent, directory, clock, again } = await host();
    await agent.register("api", service("s", { checks: [ttl({ id: "t", ttlMs: 30_000 })] }));
    await agent.report("t", { status: "passing", output: "alive" });
    await clock.advance(10_000);
    await agent.stop();
    await clock.advance(15_000);
    const next = await again();
    expect(next.checks().get("t")?.check.status).toBe("passing");
    await clock.advance(4900);
    expect(checkOf(directory, "t")?.status).toBe("passing");
    await clock.advance(200);
    expect(checkOf(directory, "t")).toMatchObject({
      status: "critical",
      output: "TTL expired (last output before timeout follows): alive",
    });
    await next.report("t", { status: "passing", output: "again" });
    await next.stop();
    await clock.advance(31_000);
    const third = await again();
    await clock.advance(1);
    expect(third.checks().get("t")?.check.status).toBe("critical");
    // A clock that was put back cannot give more than the whole time.
    await third.report("t", { status: "passing", output: "again" });
    await third.stop();
    clock.jump(clock.now() - 3_600_000);
    await again();
    await clock.advance(30_100);
    expect(checkOf(directory, "t")?.status).toBe("critical");
  });

  test("reports that change nothing cost few writes, and after a crash a check has at most a tenth too much", async () => {
    const { agent, directory, clock, durable, build } = await host();
    await agent.register("api", service("s", { checks: [ttl({ id: "t", ttlMs: 30_000 })] }));
    await agent.report("t", { status: "passing", output: "alive" });
    const before = durable.writes;
    for (let i = 0; i < 600; i++) {
      await clock.advance(100);
      await agent.report("t", { status: "passing", output: "alive" });
    }
    expect(durable.writes - before).toBeLessThanOrEqual(21);
    // It never came to its end: another one finds what was kept so far.
    const next = build();
    await clock.advance(10_000);
    await next.start();
    const startedMs = clock.now();
    while (next.checks().get("t")?.check.status === "passing") await clock.advance(100);
    expect(clock.now() - startedMs).toBeGreaterThanOrEqual(20_000);
    expect(clock.now() - startedMs).toBeLessThanOrEqual(23_200);
    expect(checkOf(directory, "t")?.status).toBe("critical");
  });

  test("a drain somebody asked for is kept, one that was seen is not; another container under the id does not inherit it", async () => {
    const { agent, directory, again } = await host();
    const list = (foreignId: string) => ({
      list: [service("box", { foreignId }), service("jar", { foreignId: "j" })],
      authority: "first-hand" as const,
    });
    await agent.adopt("docker", list("c1"));
    await agent.register("api", service("web"));
    await agent.drain("web", true, reason("draining", "asked for through the API"));
    await agent.drain("box", true, reason("maintenance", "new kernel"));
    await agent.drain("jar", true, reason("stopped", "SIGTERM sent"));
    await agent.stop();
    const next = await again();
    const drains = (): string[] => [...next.services()].filter(([, held]) => held.instance.draining).map(([id]) => id);
    expect(drains().sort()).toEqual(["box", "web"]);
    await next.adopt("docker", list("c1"));
    expect(drains().sort()).toEqual(["box", "web"]);
    expect(entryOf(directory, "web")?.draining).toBe(true);
    expect(entryOf(directory, "jar")?.draining).toBeUndefined();
    await next.adopt("docker", list("c2"));
    expect(drains()).toEqual(["web"]);
    await next.drain("web", false, reason("draining", "taken back"));
    await next.stop();
    const third = await again();
    expect([...third.services().values()].some(({ instance }) => instance.draining)).toBe(false);
  });

  test("a damaged record is told and costs nothing else", async () => {
    const { agent, durable, again } = await host();
    await agent.register("api", service("a"));
    await agent.register("api", service("b"));
    await agent.stop();
    await durable.write([{ table: "agent.service", key: "a", value: new TextEncoder().encode("{nonsense") }]);
    const next = await again();
    expect([...next.services().keys()]).toEqual(["b"]);
    expect(next.complaints()).toMatchObject([{ about: "a", text: expect.stringMatching(/cannot be read/) }]);
  });
});

describe("anti-entropy", () => {
  const foreign = (id: string, source: string): Change => ({
    op: "put",
    table: "service",
    key: keyOf.service("alpha", id),
    value: {
      id,
      name: id,
      node: "Alpha",
      tags: [],
      labels: {},
      address: "",
      port: 1,
      origin: { source, authority: "first-hand" },
    },
  });

  test("what others put on this node goes, what they took away comes back, at once", async () => {
    const { agent, directory, clock } = await host();
    await agent.register("api", service("web", { checks: [ttl()] }));
    await directory.write([foreign("ghost", "agent"), foreign("mine", "catalog")]);
    await clock.settle();
    expect(entryOf(directory, "ghost")).toBeUndefined();
    expect(entryOf(directory, "mine")).toBeUndefined();
    await directory.write([{ op: "delete", table: "service", key: keyOf.service("alpha", "web") }]);
    await clock.settle();
    expect(entryOf(directory, "web")).toBeDefined();
    expect(checkOf(directory, "service:web")).toBeDefined();
    await directory.write([{ op: "delete", table: "node", key: "alpha" }]);
    await clock.settle();
    expect(directory.view().get("node", "alpha")).toBeDefined();
    expect(checkOf(directory, "service:web")).toBeDefined();
  });

  test("an unchanged comparison writes nothing and wakes nobody, round after round", async () => {
    const { agent, directory, clock, durable } = await host();
    await agent.register("api", service("web", { checks: [ttl({ ttlMs: 3_600_000 })] }));
    const index = directory.view().index;
    const { writes } = durable;
    let woken = false;
    const stop = new AbortController();
    directory.changed(scope.node("alpha"), mine(directory), stop.signal).then(
      () => {
        woken = true;
      },
      () => {},
    );
    await clock.advance(10 * 60_000);
    expect([directory.view().index, durable.writes, woken]).toEqual([index, writes, false]);
    stop.abort();
  });

  test("nobody sees a service without its checks, however many there are, on a store elsewhere, too", async () => {
    for (const shared of [false, true]) {
      const { directory, again, agent: first } = await host();
      await first.stop();
      const agent = await again({ shared });
      const bare: string[] = [];
      let writes = 0;
      const realWrite = directory.write.bind(directory);
      directory.write = async (...args) => {
        writes++;
        const [changes] = args;
        expect(changes.length).toBeLessThanOrEqual(100);
        for (const change of changes)
          if (
            change.op === "put" &&
            change.table === "service" &&
            !changes.some(
              (other) => other.op === "put" && other.table === "check" && other.value.serviceId === change.value.id,
            )
          )
            bare.push(change.value.id);
        return await realWrite(...args);
      };
      const list = Array.from({ length: 170 }, (_, i) => service(`s${i}`, { checks: [ttl(), ttl()] }));
      await agent.adopt("docker", { list, authority: "first-hand" });
      await agent.synced();
      expect(bare).toEqual([]);
      expect(writes).toBe(Math.ceil(170 / 33));
      expect([...directory.view().list("check", keyOf.ofNode("alpha"))]).toHaveLength(341);
      expect(agent.complaints()).toEqual([]);
    }
  });

  test("what was refused is tried again in the next round", async () => {
    const { directory, agent, clock } = await host({ antiEntropyMs: 60_000 });
    await agent.stop();
    const { build } = await host();
    const shared = build({ shared: true, directory, clock });
    await shared.start();
    const realWrite = directory.write.bind(directory);
    let refuse = true;
    directory.write = async (...args) => {
      if (refuse && args[0].some(({ key }) => key.endsWith("web"))) throw new TrilithError("invalid", "not yet");
      return await realWrite(...args);
    };
    await shared.register("api", service("web"));
    await shared.register("api", service("other"));
    await shared.synced();
    expect(entryOf(directory, "other")).toBeDefined();
    expect(entryOf(directory, "web")).toBeUndefined();
    expect(shared.complaints()).toMatchObject([
      { from: "api", about: "web", text: expect.stringContaining("not yet") },
    ]);
    refuse = false;
    await clock.advance(70_000);
    expect(entryOf(directory, "web")).toBeDefined();
    expect(shared.complaints()).toEqual([]);
  });

  test("catalog tags win where the registration allows it, and only there", async () => {
    const { agent, directory, clock } = await host();
    await agent.register("api", service("open", { tags: ["mine"], enableTagOverride: true }));
    await agent.register("api", service("closed", { tags: ["mine"] }));
    for (const id of ["open", "closed"]) {
      const { createIndex: _c, modifyIndex: _m, ...value } = entryOf(directory, id) as never as Record<string, unknown>;
      await directory.write([
        {
          op: "put",
          table: "service",
          key: keyOf.service("alpha", id),
          value: { ...value, tags: ["theirs"] } as never,
        },
      ]);
    }
    await clock.settle();
    expect(entryOf(directory, "open")?.tags).toEqual(["theirs"]);
    expect(agent.services().get("open")?.instance.tags).toEqual(["theirs"]);
    expect(entryOf(directory, "closed")?.tags).toEqual(["mine"]);
  });

  test("an output that changed alone waits, a status takes the newest output along", async () => {
    const { agent, directory, clock } = await host({ checkUpdateMs: 300_000 });
    await agent.register("api", service("out", { checks: [ttl({ id: "oc", ttlMs: 3_600_000 })] }));
    await agent.report("oc", { status: "passing", output: "first" });
    expect(checkOf(directory, "oc")?.output).toBe("first");
    const index = mine(directory);
    await agent.report("oc", { status: "passing", output: "second" });
    await clock.advance(120_000);
    expect(agent.checks().get("oc")?.check.output).toBe("second");
    expect([checkOf(directory, "oc")?.output, mine(directory)]).toEqual(["first", index]);
    await agent.report("oc", { status: "warning", output: "third" });
    expect(checkOf(directory, "oc")).toMatchObject({ status: "warning", output: "third" });
    await agent.report("oc", { status: "warning", output: "fourth" });
    await clock.advance(300_000);
    expect(checkOf(directory, "oc")?.output).toBe("fourth");
    const at = mine(directory);
    await clock.advance(600_000);
    expect(mine(directory)).toBe(at);
  });

  test("without a hold-back outputs go at once", async () => {
    const { agent, directory } = await host({ checkUpdateMs: 0 });
    await agent.register("api", service("out", { checks: [ttl({ id: "oc" })] }));
    await agent.report("oc", { status: "passing", output: "first" });
    await agent.report("oc", { status: "passing", output: "second" });
    expect(checkOf(directory, "oc")?.output).toBe("second");
  });

  test("a shared store that is away holds up nobody; everything follows when it is back", async () => {
    const { directory: real, clock, durable, agent: first } = await host();
    await first.stop();
    await real.write([{ op: "delete", table: "node", key: "alpha" }]);
    let away = true;
    let tries = 0;
    const directory: Directory = {
      view: (): View => {
        const view = real.view();
        return new Proxy(view, {
          get: (target, key) => {
            if (key === "fresh") return !away;
            const value: unknown = Reflect.get(target, key);
            return typeof value === "function" ? value.bind(target) : value;
          },
        });
      },
      write: async (...args) => {
        tries++;
        if (away) throw new TrilithError("unavailable", "etcd is away");
        return await real.write(...args);
      },
      changed: (...args) => real.changed(...args),
      barrier: (...args) => real.barrier(...args),
      ready: (...args) => real.ready(...args),
    };
    const agent = createAgent({
      directory,
      durable,
      shared: true,
      clock,
      random: systemRandom,
      log: silentLog,
      metrics: createMetrics(),
      probes: new Map(),
      settings: defaultSettings,
      self: SELF,
    });
    ends.push(() => agent.stop());
    await agent.start();
    await agent.register("api", service("web", { checks: [ttl({ ttlMs: 3_600_000 })] }));
    await agent.report("service:web", { status: "passing", output: "" });
    await agent.register("api", service("gone"));
    await agent.deregister("api", "gone");
    await clock.advance(120_000);
    expect(entryOf(real, "web")).toBeUndefined();
    // Backing off: a try or two a minute in the end, not thousands.
    expect(tries).toBeGreaterThan(3);
    expect(tries).toBeLessThan(20);
    away = false;
    const synced = agent.synced();
    await clock.advance(1500);
    await synced;
    expect(checkOf(real, "service:web")?.status).toBe("passing");
    expect(directory.view().get("node", "alpha")).toBeDefined();
    expect(entryOf(real, "gone")).toBeUndefined();
  });
});

describe("checks", () => {
  test("ttl: runs out once, comes back with a report, is not touched by registering again", async () => {
    const { agent, directory, clock } = await host();
    const wanted = service("t1", { name: "ttl", checks: [ttl({ id: "t", ttlMs: 1000, notes: "a note" })] });
    await agent.register("api", wanted);
    const state = (): string => `${checkOf(directory, "t")?.status}: ${checkOf(directory, "t")?.output}`;
    expect(state()).toBe("critical: ");
    await agent.report("t", { status: "passing", output: "alive" });
    expect(state()).toBe("passing: alive");
    await clock.advance(1100);
    expect(state()).toBe("critical: TTL expired (last output before timeout follows): alive");
    await agent.register("api", structuredClone(wanted));
    expect(state()).toBe("critical: TTL expired (last output before timeout follows): alive");
    await agent.report("t", { status: "passing", output: "revived" });
    await clock.advance(600);
    await agent.report("t", { status: "passing", output: "" });
    await clock.advance(600);
    expect(agent.checks().get("t")?.check).toMatchObject({ status: "passing", output: "" });
    await clock.advance(600);
    expect(state()).toBe("critical: TTL expired");
    await clock.advance(60_000);
    expect(state()).toBe("critical: TTL expired");
    expect(
      agent
        .checks()
        .get("t")
        ?.history.map(({ status }) => status),
    ).toEqual(["critical", "passing", "passing", "critical", "passing"]);
  });

  test("pushed outputs keep their head and say what was cut", async () => {
    const { agent } = await host();
    await agent.registerCheck("api", { ...ttl({ id: "ol", outputMaxBytes: 10 }), serviceId: "" });
    await agent.report("ol", { status: "passing", output: "0123456789abcdef" });
    expect(agent.checks().get("ol")?.check.output).toBe("0123456789 ... (captured 10 of 16 bytes)");
  });

  test("only what is pushed can be reported", async () => {
    const { agent } = await host();
    await agent.registerCheck("api", { ...asked("told", { id: "h" }), serviceId: "" });
    await expect(agent.report("h", { status: "passing", output: "" })).rejects.toMatchObject({
      code: "invalid",
      message: 'CheckID "h" does not have associated TTL',
    });
    await expect(agent.report("none", { status: "passing", output: "" })).rejects.toMatchObject({
      code: "not-found",
      message: 'Unknown check ID "none". Ensure that the check ID is passed, not the check name.',
    });
    await expect(agent.registerCheck("api", { ...ttl({ id: "x" }), serviceId: "none" })).rejects.toMatchObject({
      code: "not-found",
      message: 'ServiceID "none" does not exist',
    });
    await agent.deregisterCheck("api", "h");
    await expect(agent.deregisterCheck("api", "h")).rejects.toMatchObject({ code: "not-found" });
  });

  test("asked at their interval; registering again keeps how they stood, another form of it asks anew", async () => {
    const { agent, directory, clock, told } = await host();
    await agent.register("api", service("w", { checks: [asked("told")] }));
    expect(checkOf(directory, "service:w")?.status).toBe("critical");
    await clock.advance(10_000);
    expect(checkOf(directory, "service:w")).toMatchObject({ status: "passing", output: "fine", intervalMs: 10_000 });
    told.outcome = { status: "critical", output: "broken" };
    await clock.advance(11_000);
    expect(checkOf(directory, "service:w")).toMatchObject({ status: "critical", output: "broken" });
    const count = told.asked;
    await agent.register("api", service("w", { port: 81, checks: [asked("told", { intervalMs: 60_000 })] }));
    expect(checkOf(directory, "service:w")).toMatchObject({ status: "critical", output: "broken" });
    await clock.advance(60_000);
    expect(told.asked).toBe(count + 1);
    await agent.deregister("api", "w");
    await clock.advance(120_000);
    expect(told.asked).toBe(count + 1);
  });

  test("thresholds leave status and output alone until they are reached", async () => {
    const { agent, directory, clock, told } = await host();
    await agent.register(
      "api",
      service("w", { checks: [asked("told", { intervalMs: 1000, thresholds: { failuresBeforeCritical: 3 } })] }),
    );
    await clock.advance(1100);
    expect(checkOf(directory, "service:w")?.status).toBe("passing");
    const before = told.asked;
    told.outcome = { status: "critical", output: "broken" };
    while (told.asked < before + 2) await clock.advance(100);
    expect(agent.checks().get("service:w")?.check).toMatchObject({ status: "passing", output: "fine" });
    expect(agent.checks().get("service:w")?.history[0]).toMatchObject({ status: "critical", output: "broken" });
    while (told.asked < before + 3) await clock.advance(100);
    expect(checkOf(directory, "service:w")).toMatchObject({ status: "critical", output: "broken" });
  });

  test("critical for too long: the service is deregistered and the reason told", async () => {
    const { agent, directory, clock } = await host();
    const wanted = (after: number) =>
      service("s", { checks: [ttl({ id: "c", ttlMs: 3_600_000, initial: "passing", deregisterAfterMs: after })] });
    await agent.register("api", wanted(1000));
    await clock.advance(120_000);
    expect(entryOf(directory, "s")).toBeDefined();
    await agent.report("c", { status: "critical", output: "" });
    await clock.advance(59_000);
    await agent.report("c", { status: "passing", output: "" });
    await agent.report("c", { status: "critical", output: "" });
    await clock.advance(59_000);
    expect(entryOf(directory, "s")).toBeDefined();
    await clock.advance(32_000);
    expect(entryOf(directory, "s")).toBeUndefined();
    expect(agent.history("s")[0]?.text).toMatch(/^went \(reaped\): check "c" was critical/);
  });

  test("maintenance of a service and of the node, in Consul's words", async () => {
    const { agent, directory } = await host();
    await agent.register("api", service("db-1", { name: "db" }));
    await agent.maintenance("db-1", true, "disk swap");
    await agent.maintenance("db-1", true, "other");
    expect(checkOf(directory, "_service_maintenance:db-1")).toMatchObject({
      name: "Service Maintenance Mode",
      status: "critical",
      notes: "disk swap",
      output: "",
      serviceId: "db-1",
      type: "maintenance",
    });
    await agent.maintenance("db-1", false);
    await agent.maintenance("db-1", false);
    expect(checkOf(directory, "_service_maintenance:db-1")).toBeUndefined();
    await agent.maintenance("db-1", true);
    expect(agent.checks().get("_service_maintenance:db-1")?.check.notes).toBe(
      "Maintenance mode is enabled for this service, but no reason was provided. This is a default message.",
    );
    await expect(agent.report("_service_maintenance:db-1", { status: "passing", output: "" })).rejects.toMatchObject({
      code: "invalid",
    });
    await agent.maintenance("", true);
    expect(checkOf(directory, "_node_maintenance")).toMatchObject({
      name: "Node Maintenance Mode",
      notes: "Maintenance mode is enabled for this node, but no reason was provided. This is a default message.",
      serviceId: "",
      type: "maintenance",
    });
    await expect(agent.maintenance("none", true)).rejects.toMatchObject({ code: "not-found" });
  });

  test("draining shows at once, stays over an unchanged list, and goes with the service", async () => {
    const { agent, directory } = await host();
    const whole = { list: [service("box")], authority: "first-hand" as const };
    await agent.adopt("docker", whole);
    await agent.drain("box", true, reason("stopped", "SIGTERM sent"));
    expect(entryOf(directory, "box")?.draining).toBe(true);
    await agent.adopt("docker", { ...whole, list: [service("box", { port: 81 })] });
    expect(entryOf(directory, "box")).toMatchObject({ draining: true, port: 81 });
    await agent.drain("box", false, reason("stopped", "still running"));
    expect(entryOf(directory, "box")?.draining).toBeUndefined();
    await agent.drain("box", true, reason("stopped"));
    await agent.adopt("docker", { list: [], authority: "first-hand" });
    await agent.adopt("docker", whole);
    expect(entryOf(directory, "box")?.draining).toBeUndefined();
    expect(agent.history("box").map(({ text }) => text)).toEqual([
      'was registered by docker: "box" on port 80',
      "went (missing): is no longer in the list of docker",
      "is draining: because",
      "is routable again: still running",
      'was changed by docker: "box" on port 81',
      "is draining: SIGTERM sent",
      'was registered by docker: "box" on port 80',
    ]);
    await expect(agent.drain("none", true, reason("stopped"))).rejects.toMatchObject({ code: "not-found" });
  });

  test("who waits for changes is woken by them, and by nothing else", async () => {
    const { agent, clock } = await host();
    const stop = new AbortController();
    const at = agent.version();
    let woken: number | undefined;
    const waiting = agent.changed(at, stop.signal).then((version) => {
      woken = version;
    });
    await clock.advance(600_000);
    expect(woken).toBeUndefined();
    await agent.register("api", service("web", { checks: [ttl()] }));
    await waiting;
    expect(woken).toBe(agent.version());
    const aborted = agent.changed(agent.version(), stop.signal);
    stop.abort(new Error("enough"));
    await expect(aborted).rejects.toThrow("enough");
    const ended = agent.changed(agent.version(), new AbortController().signal);
    await agent.stop();
    await expect(ended).rejects.toMatchObject({ code: "stopped" });
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
