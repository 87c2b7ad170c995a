// Whole lists of sources: what is missing is gone, bursts are one, and one bad entry holds up no other.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { checkOf, ends, entryOf, host, reason, service, ttl } from "../../test/support/agent-host.ts";
import { TrilithError } from "../base/error.ts";
import type { Reason } from "../model/reason.ts";
import { keyOf } from "../model/record.ts";

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

  test("what a caller takes over while a list is being written comes back when the caller gives it up", async () => {
    const { agent } = await host();
    const adopting = agent.adopt("docker", { list: [service("a", { port: 1 })], authority: "first-hand" });
    await Promise.resolve();
    await Promise.all([adopting, agent.register("api", service("a", { port: 2 }))]);
    expect(agent.services().get("a")).toMatchObject({ from: "api" });
    await agent.deregister("api", "a");
    await agent.adopt("docker", { list: [service("a", { port: 1 })], authority: "first-hand" });
    expect(agent.services().get("a")).toMatchObject({ from: "docker", instance: { port: 1 } });
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
