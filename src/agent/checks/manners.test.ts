// What holds for every kind of check: where it begins, how often it is asked at most, what a check of the node itself does, how long its output is.
import { expect, test } from "vitest";
import { asked, checkOf, host, service, ttl } from "../../../test/support/agent-host.ts";
import { systemRandom } from "../../base/random.ts";

test("a check begins as it was told to, and otherwise critical, until it was asked for the first time", async () => {
  // The first question comes half an interval after the start, so that each is asked just once.
  const { agent, directory, clock, told } = await host({}, { random: { ...systemRandom, fraction: () => 0.5 } });
  for (const initial of ["passing", "warning", "critical"] as const)
    await agent.register("api", service(initial, { checks: [asked("told", { initial, intervalMs: 60_000 })] }));
  await agent.register("api", service("untold", { checks: [asked("told", { intervalMs: 60_000 })] }));
  const standing = (): readonly (string | undefined)[] =>
    ["passing", "warning", "critical", "untold"].map((id) => checkOf(directory, `service:${id}`)?.status);
  expect([told.asked, standing()]).toEqual([0, ["passing", "warning", "critical", "critical"]]);
  told.outcome = { status: "warning", output: "so-so" };
  await clock.advance(60_000);
  expect([told.asked, standing()]).toEqual([4, ["warning", "warning", "warning", "warning"]]);
});

test("no check is asked more often than once a second, whatever its interval", async () => {
  const { agent, clock, told } = await host();
  await agent.register("api", service("w", { checks: [asked("told", { intervalMs: 1 })] }));
  await clock.advance(20_000);
  expect(told.asked).toBeGreaterThan(15);
  expect(told.asked).toBeLessThan(25);
});

test("a pushed check begins as it was told to, and is critical when nobody pushes", async () => {
  const { agent, directory, clock } = await host();
  await agent.registerCheck("api", { ...ttl({ id: "disk", ttlMs: 10_000, initial: "warning" }), serviceId: "" });
  expect(checkOf(directory, "disk")).toMatchObject({ status: "warning", serviceId: "" });
  await clock.advance(9_000);
  expect(checkOf(directory, "disk")?.status).toBe("warning");
  await clock.advance(2_000);
  expect(checkOf(directory, "disk")?.status).toBe("critical");
  await agent.report("disk", { status: "passing", output: "" });
  expect(checkOf(directory, "disk")?.status).toBe("passing");
});

test("a check of the node alone deregisters nothing, however long it is critical", async () => {
  const { agent, directory, clock } = await host();
  await agent.register("api", service("web"));
  await agent.registerCheck("api", {
    ...ttl({ id: "disk", ttlMs: 3_600_000, initial: "critical", deregisterAfterMs: 60_000 }),
    serviceId: "",
  });
  await clock.advance(600_000);
  expect(agent.services().has("web")).toBe(true);
  expect(checkOf(directory, "disk")?.status).toBe("critical");
});
