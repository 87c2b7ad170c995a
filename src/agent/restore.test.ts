// An agent that starts anew on the list that it kept: nothing flaps, and time that passed counts.
import { describe, expect, test } from "vitest";
import { asked, checkOf, entryOf, host, mine, reason, service, ttl } from "../../test/support/agent-host.ts";
import { defaultSettings } from "../contracts/settings.ts";
import { keyOf } from "../model/record.ts";

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
