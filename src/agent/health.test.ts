// How checks stand: pushed and asked ones, thresholds, maintenance, drains, and what follows from them.
import { describe, expect, test } from "vitest";
import { asked, checkOf, entryOf, host, reason, service, ttl } from "../../test/support/agent-host.ts";
import { TrilithError } from "../base/error.ts";

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

  test("who reports what another one has just reported is answered when it stands in the directory, or fails with it", async () => {
    const { agent, directory, durable } = await host();
    await agent.registerCheck("api", { ...ttl({ id: "t" }), serviceId: "" });
    const reports = (status: "passing" | "warning"): readonly Promise<void>[] =>
      [0, 1].map(async () => {
        await agent.report("t", { status, output: "" });
        expect(checkOf(directory, "t")?.status).toBe(status);
      });
    await Promise.all(reports("passing"));
    const { writes } = durable;
    await agent.report("t", { status: "passing", output: "" });
    expect(durable.writes).toBe(writes);
    durable.failure = new TrilithError("disk-full", "no room");
    const failed = await Promise.allSettled(reports("warning"));
    expect(failed.map(({ status }) => status)).toEqual(["rejected", "rejected"]);
    durable.failure = undefined;
    await Promise.all(reports("warning"));
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
    // The first time is anywhere within the interval, the second may be a little less than an interval later.
    for (let seconds = 0; seconds < 60 && told.asked === count; seconds++) await clock.advance(1000);
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
