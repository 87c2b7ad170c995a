// This host's list and the directory: differences are mended, and without one nothing is written.
import { describe, expect, test } from "vitest";
import { checkOf, ends, entryOf, host, mine, SELF, service, ttl } from "../../test/support/agent-host.ts";
import { TrilithError } from "../base/error.ts";
import { silentLog } from "../base/log.ts";
import { createMetrics } from "../base/metrics.ts";
import { systemRandom } from "../base/random.ts";
import type { Directory, View } from "../contracts/directory.ts";
import { defaultSettings } from "../contracts/settings.ts";
import { type Change, keyOf, scope } from "../model/record.ts";
import { createAgent } from "./agent.ts";

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
