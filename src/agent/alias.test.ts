// Alias checks on a fake clock: the worst of what they follow, at once, on this host and on others; nobody holds another critical for ever.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { asked, checkOf, ends, host, reason, SELF, service, ttl } from "../../test/support/agent-host.ts";
import { type Check, type CheckSpec, type Status, worst } from "../model/check.ts";
import { keyOf } from "../model/record.ts";

const alias = (detail: { node?: string; service?: string }, more: Partial<CheckSpec> = {}): CheckSpec => {
  const { ttlMs: _, ...rest } = ttl({ kind: "alias", detail: { node: "", service: "", ...detail }, ...more });
  return rest;
};
const remoteCheck = (id: string, status: Status, serviceId = ""): Check => ({
  id,
  node: "Beta",
  name: `${id} there`,
  status,
  notes: "",
  output: `${id} says so`,
  serviceId,
  type: "",
});

describe("alias checks of this host", () => {
  test("the worst of the service's and the node's checks, in Consul's words, in the same turn", async () => {
    // Changes of output alone are not held back here.
    const { agent, directory } = await host({ checkUpdateMs: 0 });
    await agent.register(
      "api",
      service("db", { checks: [ttl({ id: "d1", name: "one" }), ttl({ id: "d2", name: "two" })] }),
    );
    await agent.register("api", service("web", { checks: [alias({ service: "db" }, { id: "a" })] }));
    const state = (): string => `${checkOf(directory, "a")?.status}: ${checkOf(directory, "a")?.output}`;
    expect(checkOf(directory, "a")).toMatchObject({ type: "alias", serviceId: "web" });
    expect(state()).toBe('critical: Aliased check "one" failing: ');
    await agent.report("d1", { status: "passing", output: "well" });
    await agent.synced();
    expect(state()).toBe('critical: Aliased check "two" failing: ');
    await agent.report("d2", { status: "warning", output: "so-so" });
    await agent.synced();
    expect(state()).toBe('warning: Aliased check "two" failing: so-so');
    await agent.report("d2", { status: "passing", output: "" });
    await agent.synced();
    expect(state()).toBe("passing: All checks passing.");
    await agent.registerCheck("api", { ...ttl({ id: "disk", name: "disk" }), serviceId: "" });
    await agent.synced();
    expect(state()).toBe('critical: Aliased check "disk" failing: ');
    await agent.deregisterCheck("api", "disk");
    await agent.maintenance("db", true, "new disks");
    await agent.synced();
    expect(state()).toBe('critical: Aliased check "Service Maintenance Mode" failing: ');
    await agent.maintenance("db", false);
    await agent.register("api", service("db"), { replaceChecks: true });
    await agent.synced();
    expect(state()).toBe("passing: No checks found.");
    await agent.deregister("api", "db");
    await agent.synced();
    expect(state()).toBe("critical: Service db could not be found on node Alpha");
    await agent.register("api", service("db"));
    await agent.synced();
    expect(state()).toBe("passing: No checks found.");
  });

  test("an asked check is followed as it runs; the alias itself cannot be reported", async () => {
    const { agent, directory, clock, told } = await host();
    await agent.register("api", service("db", { checks: [asked("told", { id: "d" })] }));
    await agent.registerCheck("api", { ...alias({ service: "db" }, { id: "a" }), serviceId: "" });
    await clock.advance(10_000);
    expect(checkOf(directory, "a")?.status).toBe("passing");
    told.outcome = { status: "critical", output: "broken" };
    await clock.advance(11_000);
    expect(checkOf(directory, "a")).toMatchObject({
      status: "critical",
      output: `Aliased check "Service 'db' check" failing: broken`,
    });
    await expect(agent.report("a", { status: "passing", output: "" })).rejects.toMatchObject({
      code: "invalid",
      message: 'CheckID "a" does not have associated TTL',
    });
    await expect(agent.registerCheck("api", { ...alias({}, { id: "b" }), serviceId: "" })).rejects.toMatchObject({
      code: "invalid",
      message: expect.stringContaining("alias check: service"),
    });
  });

  test("chains are followed; what follows each other does not hold each other critical", async () => {
    const { agent, directory } = await host();
    await agent.register("api", service("c", { checks: [ttl({ id: "c1" })] }));
    await agent.register("api", service("b", { checks: [alias({ service: "c" }, { id: "b1" })] }));
    await agent.register("api", service("a", { checks: [alias({ service: "b" }, { id: "a1" })] }));
    expect(checkOf(directory, "a1")?.status).toBe("critical");
    await agent.report("c1", { status: "passing", output: "" });
    await agent.synced();
    expect(checkOf(directory, "a1")?.status).toBe("passing");
    // A ring, two aliases of the node, and one that follows its own service.
    await agent.registerCheck("api", { ...alias({ service: "a" }, { id: "c2" }), serviceId: "c" });
    await agent.registerCheck("api", { ...alias({ service: "a" }, { id: "n1" }), serviceId: "" });
    await agent.registerCheck("api", { ...alias({ service: "b" }, { id: "n2" }), serviceId: "" });
    await agent.registerCheck("api", { ...alias({ service: "c" }, { id: "c3" }), serviceId: "c" });
    await agent.synced();
    for (const id of ["a1", "b1", "c2", "c3", "n1", "n2"])
      expect([id, checkOf(directory, id)?.status]).toEqual([id, "passing"]);
    await agent.report("c1", { status: "critical", output: "down" });
    await agent.synced();
    for (const id of ["a1", "b1", "c2", "c3", "n1", "n2"])
      expect([id, checkOf(directory, id)?.status]).toEqual([id, "critical"]);
    await agent.report("c1", { status: "passing", output: "" });
    await agent.synced();
    for (const id of ["a1", "b1", "c2", "c3", "n1", "n2"])
      expect([id, checkOf(directory, id)?.status]).toEqual([id, "passing"]);
  });

  test("a restart flaps nothing; what stays critical takes its service along", async () => {
    const { agent, directory, clock, again } = await host();
    await agent.register("api", service("db", { checks: [ttl({ id: "d", ttlMs: 3_600_000 })] }));
    await agent.register(
      "api",
      service("web", { checks: [alias({ service: "db" }, { id: "a", deregisterAfterMs: 60_000 })] }),
    );
    await agent.report("d", { status: "passing", output: "" });
    await agent.synced();
    await agent.stop();
    const index = directory.view().index;
    const next = await again();
    await next.synced();
    await clock.advance(120_000);
    expect(directory.view().index).toBe(index);
    await next.deregister("api", "db", reason("deregistered"));
    await clock.advance(59_000);
    expect(next.services().has("web")).toBe(true);
    await clock.advance(2000);
    expect(next.services().has("web")).toBe(false);
    await next.stop();
    await directory.stop();
    expect(clock.timers).toBe(0);
  });
});

test("whatever is registered, reported and removed: each stands as the worst that can be reached from it", async () => {
  const services = ["s0", "s1", "s2", "s3"];
  const op = fc.oneof(
    fc.record({ op: fc.constant("service" as const), id: fc.constantFrom(...services) }),
    fc.record({ op: fc.constant("gone" as const), id: fc.constantFrom(...services) }),
    fc.record({
      op: fc.constant("alias" as const),
      id: fc.constantFrom("a0", "a1", "a2", "a3", "a4"),
      on: fc.constantFrom("", ...services),
      target: fc.constantFrom(...services),
    }),
    fc.record({
      op: fc.constant("report" as const),
      on: fc.constantFrom("", ...services),
      status: fc.constantFrom("passing" as const, "warning" as const, "critical" as const),
    }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(op, { minLength: 5, maxLength: 40 }), async (ops) => {
      const { agent, directory } = await host();
      const idOf = (on: string): string => `t-${on}`;
      for (const one of ops) {
        if (one.op === "service") {
          await agent.register("api", service(one.id));
          await agent.registerCheck("api", { ...ttl({ id: idOf(one.id), initial: "passing" }), serviceId: one.id });
        } else if (one.op === "gone") await agent.deregister("api", one.id).catch(() => {});
        else if (one.op === "alias") {
          await agent.deregisterCheck("api", one.id).catch(() => {});
          const spec = alias({ service: one.target }, { id: one.id });
          await agent.registerCheck("api", { ...spec, serviceId: one.on }).catch(() => {});
        } else {
          if (one.on === "" && !agent.checks().has(idOf("")))
            await agent.registerCheck("api", { ...ttl({ id: idOf("") }), serviceId: "" });
          await agent.report(idOf(one.on), { status: one.status, output: "" }).catch(() => {});
        }
      }
      await agent.synced();
      const held = [...agent.checks().values()];
      const reach = (id: string, seen: Set<string>): Status[] => {
        seen.add(id);
        const target = (agent.checks().get(id)?.spec.detail as { service?: string } | undefined)?.service ?? "";
        if (!agent.services().has(target)) return ["critical"];
        return held
          .filter(({ check }) => check.serviceId === "" || check.serviceId === target)
          .flatMap(({ check, spec }) => {
            if (spec.kind !== "alias") return [check.status];
            return seen.has(check.id) ? [] : reach(check.id, seen);
          });
      };
      for (const { check, spec } of held) {
        if (spec.kind !== "alias") continue;
        const expected = worst(reach(check.id, new Set()).map((status) => ({ status })));
        expect([check.id, check.status]).toEqual([check.id, expected]);
        expect(checkOf(directory, check.id)?.status).toBe(expected);
      }
      for (const end of ends.splice(0).reverse()) await end();
    }),
    { numRuns: 60 },
  );
}, 60_000);

describe("alias checks of other hosts", () => {
  test("follow the directory at once: the service's and the node's checks, and nothing else there", async () => {
    const { agent, directory, clock } = await host({ checkUpdateMs: 0 });
    await agent.registerCheck("api", { ...alias({ node: "beta", service: "db" }, { id: "a" }), serviceId: "" });
    await agent.registerCheck("api", { ...alias({ node: "BETA" }, { id: "n" }), serviceId: "" });
    const state = (id: string): string => `${checkOf(directory, id)?.status}: ${checkOf(directory, id)?.output}`;
    expect(state("a")).toBe("critical: Service db could not be found on node beta");
    expect(state("n")).toBe("critical: Node BETA could not be found");
    const put = async (check: Check): Promise<void> => {
      await directory.write([{ op: "put", table: "check", key: keyOf.check("Beta", check.id), value: check }]);
      await clock.settle();
    };
    await directory.write([
      {
        op: "put",
        table: "node",
        key: keyOf.node("Beta"),
        value: { id: "", name: "Beta", address: "192.0.2.2", datacenter: "dc1", taggedAddresses: {}, labels: {} },
      },
    ]);
    await clock.settle();
    expect(state("n")).toBe("passing: No checks found.");
    for (const id of ["db", "web"])
      await directory.write([
        {
          op: "put",
          table: "service",
          key: keyOf.service("Beta", id),
          value: { ...service(id), node: "Beta", origin: { source: "catalog", authority: "first-hand" } },
        },
      ]);
    await put(remoteCheck("web1", "critical", "web"));
    expect(state("a")).toBe("passing: No checks found.");
    await put(remoteCheck("db1", "critical", "db"));
    expect(state("a")).toBe('critical: Aliased check "db1 there" failing: db1 says so');
    expect(state("n")).toBe("passing: No checks found.");
    await put(remoteCheck("db1", "passing", "db"));
    expect(state("a")).toBe("passing: All checks passing.");
    await put(remoteCheck("serfHealth", "critical"));
    expect(state("a")).toBe('critical: Aliased check "serfHealth there" failing: serfHealth says so');
    expect(state("n")).toBe('critical: Aliased check "serfHealth there" failing: serfHealth says so');
    await directory.write([{ op: "delete", table: "node", key: keyOf.node("Beta") }]);
    await clock.settle();
    expect(state("a")).toBe("critical: Service db could not be found on node beta");
    await agent.deregisterCheck("api", "a");
    await agent.deregisterCheck("api", "n");
    await put(remoteCheck("serfHealth", "passing")).catch(() => {});
    expect(agent.checks().has("a")).toBe(false);
  });

  test("a node that nobody knows passes where Consul's behaviour is asked for [recorded: agent-check-errors]", async () => {
    const { agent, directory } = await host({}, {}, { compat: "consul" });
    await agent.registerCheck("api", { ...alias({ node: "beta" }, { id: "al" }), serviceId: "" });
    expect(checkOf(directory, "al")).toMatchObject({ status: "passing", output: "No checks found." });
    await agent.registerCheck("api", { ...alias({ node: "beta", service: "x" }, { id: "al2" }), serviceId: "" });
    expect(checkOf(directory, "al2")?.status).toBe("critical");
  });

  test("this host under its own name is this host", async () => {
    const { agent, directory } = await host();
    await agent.register("api", service("db", { checks: [ttl({ id: "d", initial: "passing" })] }));
    await agent.registerCheck("api", {
      ...alias({ node: SELF.node.toLowerCase(), service: "db" }, { id: "a" }),
      serviceId: "",
    });
    expect(checkOf(directory, "a")?.status).toBe("passing");
  });
});
