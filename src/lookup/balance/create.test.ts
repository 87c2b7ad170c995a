// The balancer's own promises beside those of docs/balancing.md: what it remembers, what it forgets, whom it counts.
import { describe, expect, it } from "vitest";
import { seededRandom } from "../../../test/support/lookup.ts";
import type { Backend, Balancer, Target } from "./balancer.ts";
import { createBalancer } from "./create.ts";

const START = 1_800_000_000_000;
const at = (index: number, facts: Partial<Backend> = {}): Backend => ({
  address: "10.0.0.1",
  port: 8000 + index,
  weight: 1,
  ...facts,
});

function balancer(): Balancer & { nowMs: number } {
  const clock = { nowMs: START };
  return Object.assign(clock, createBalancer({ clock: { now: () => clock.nowMs }, random: seededRandom(3) }));
}

const ports = (targets: readonly Target[]): number[] => targets.map(({ port }) => port);

describe("createBalancer", () => {
  it("answers nothing for no backends, and never more than was asked for", () => {
    const one = balancer();
    expect(one.order("web", [])).toEqual([]);
    const list = Array.from({ length: 40 }, (_, i) => at(i));
    expect(one.order("web", list)).toHaveLength(16);
    expect(one.order("web", list, { limit: 3 })).toHaveLength(3);
    expect(new Set(ports(one.order("web", list, { limit: 100 })))).toHaveLength(40);
  });

  it("gives back the very backend it was shown", () => {
    const list = [at(1), at(2)];
    for (const { service, backend } of balancer().order("web", list)) {
      expect(service).toBe("web");
      expect(list).toContain(backend);
    }
  });

  it("knows a backend by its address and port, whichever service lists it", () => {
    const one = balancer();
    const [target] = one.order("web", [at(1)]);
    one.report(target as Target, { ok: false, code: "ECONNREFUSED" });
    for (let i = 0; i < 20; i++) expect(ports(one.order("api", [at(1), at(2)]))).toEqual([8002, 8001]);
  });

  it("takes the caller's port for a backend that has none, and tells such backends apart by it", () => {
    const one = balancer();
    const list = [at(0, { port: 0 }), at(1)];
    const target = one.order("web", list, { port: 80 }).find(({ port }) => port === 80);
    expect(target?.backend).toBe(list[0]);
    one.report(target as Target, { ok: false, code: "ECONNREFUSED" });
    expect(ports(one.order("web", list, { port: 80 }))).toEqual([8001, 80]);
    expect(new Set(Array.from({ length: 30 }, () => one.order("web", list, { port: 81 })[0]?.port))).toContain(81);
  });

  it("names the policies where one is asked for that there is not", () => {
    const strange = (): unknown => balancer().order("web", [at(1), at(2)], { policy: "frist" as "first" });
    expect(strange).toThrow('policy: "frist": expected one of p2c, round-robin, random, least, first, sticky');
  });

  it("least counts what is open, once for each opened and closed", () => {
    const one = balancer();
    const list = [at(1), at(2)];
    const first = one.order("web", list, { policy: "first" })[0] as Target;
    for (let i = 0; i < 5; i++) one.opened(first);
    one.nowMs += 600_000;
    // Five open connections outweigh what was tried of late, until that is as much.
    for (let i = 0; i < 5; i++) expect(one.order("web", list, { policy: "least" })[0]?.port).toBe(8002);
    for (let i = 0; i < 9; i++) one.closed(first);
    expect(one.seen().map(({ open }) => open)).toEqual([0, 0]);
    expect(one.order("web", list, { policy: "least" })[0]?.port).toBe(8001);
  });

  it("tells what it has seen", () => {
    const one = balancer();
    const [target] = one.order("web", [at(1)]) as [Target];
    one.report(target, { ok: true, tookMs: 4 });
    one.report(target, { ok: true, tookMs: 8 });
    one.report(target, { ok: false, code: "ETIMEDOUT" });
    one.report(target, { ok: false, code: "EMFILE" });
    one.opened(target);
    const [seen] = one.seen();
    expect(seen).toMatchObject({
      address: "10.0.0.1",
      port: 8001,
      connects: 2,
      failures: 1,
      consecutiveFailures: 1,
      connectMs: 5,
      open: 1,
      share: 0,
    });
    expect(seen?.ejectedUntilMs).toBeGreaterThan(START + 799);
    expect(seen?.ejectedUntilMs).toBeLessThanOrEqual(START + 1000);
    one.nowMs += 20_000;
    expect(one.seen()[0]?.share).toBe(1);
  });

  it("forgets what no service lists any more, once nothing of it is open", () => {
    const one = balancer();
    const [target] = one.order("web", [at(1), at(2)], { policy: "first" }) as [Target];
    one.order("api", [at(2), at(3)]);
    one.opened(target);
    one.order("web", [at(4)]);
    expect(
      one
        .seen()
        .map(({ port }) => port)
        .toSorted(),
    ).toEqual([8001, 8002, 8003, 8004]);
    one.closed(target);
    expect(
      one
        .seen()
        .map(({ port }) => port)
        .toSorted(),
    ).toEqual([8002, 8003, 8004]);
    one.order("api", []);
    expect(one.seen().map(({ port }) => port)).toEqual([8004]);
    // What is told of it afterwards is of no consequence.
    one.report(target, { ok: false, code: "ECONNREFUSED" });
    one.closed(target);
    expect(one.order("web", [at(1), at(4)], { policy: "first" })[0]?.port).toBe(8001);
  });

  it("keeps what stands in the old and the new list", () => {
    const one = balancer();
    const [target] = one.order("web", [at(1), at(2)], { policy: "first" }) as [Target];
    one.report(target, { ok: false, code: "ECONNREFUSED" });
    expect(ports(one.order("web", [at(1), at(3)]))).toEqual([8003, 8001]);
  });

  it("does not grow with the number of services ever asked for", () => {
    const one = balancer();
    for (let i = 0; i < 10_000; i++) one.order(`service-${i}`, [at(i)]);
    expect(one.seen().length).toBeLessThanOrEqual(4096);
    expect(one.seen().at(-1)?.port).toBe(8000 + 9_999);
  });

  it("takes weights that make no sense for none", () => {
    for (const weight of [Number.NaN, -3, 0.2]) {
      const targets = balancer().order("web", [at(1, { weight }), at(2)], { policy: "first" });
      expect(ports(targets)).toEqual([8002, 8001]);
    }
  });
});
