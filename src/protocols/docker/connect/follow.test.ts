// The listeners in containers against a simulated host: whatever happens, what stands is what the labels want, and nothing outlives its container.
import fc from "fast-check";
import { beforeEach, describe, expect, it } from "vitest";
import { type FakeClock, fakeClock } from "../../../../test/simulated/clock.ts";
import { ContainerWorld } from "../../../../test/simulated/container-world.ts";
import { TrilithError } from "../../../base/error.ts";
import { callbackLog } from "../../../base/log.ts";
import { systemRandom } from "../../../base/random.ts";
import { Forwarding } from "./follow.ts";

let clock: FakeClock;
let world: ContainerWorld;
let forwarding: Forwarding;
let logged: string[];

function begin(): void {
  clock = fakeClock();
  world = new ContainerWorld(clock);
  logged = [];
  forwarding = new Forwarding({
    ...{ clock, random: systemRandom, domain: "consul", images: false },
    ...{ processes: world.processes, sockets: world.sockets, connector: world.connector },
    log: callbackLog((level, _, text) => logged.push(`${level}: ${text.replace(/\([^)]*\)/, "(ID)")}`)),
  });
}
beforeEach(begin);

/** The engine's word, and time for what follows from it. */
async function follow(ms = 3_000): Promise<void> {
  forwarding.follow(world.seen());
  await clock.advance(ms);
}
const stands = (): Record<string, string> =>
  Object.fromEntries(
    [...world.proxied]
      .filter(([key]) => key.includes("127.0.0.1"))
      .map(([key, service]) => [key.replace(" 127.0.0.1", ""), service]),
  );
const told = (): string[] =>
  forwarding
    .told()
    .flatMap(({ faults, forwarders }) => [
      ...faults,
      ...forwarders.flatMap(({ trouble }) => (trouble === undefined ? [] : [trouble.text])),
    ]);

describe("ports in containers", () => {
  it("stand while their container runs, in every life of it", async () => {
    world.start("a", { "connect.80": "web", "connect.53/udp": "dns" });
    await follow();
    expect(stands()).toEqual({ "net:[1] 80": "web", "net:[1] 53": "dns" });
    world.restart("a");
    forwarding.follow(world.seen());
    expect(world.held.size).toBe(0);
    await clock.advance(3_000);
    expect(stands()).toEqual({ "net:[2] 80": "web", "net:[2] 53": "dns" });
    world.die("a");
    forwarding.follow(world.seen());
    // At once: nothing of ours keeps a dead container's network.
    expect(world.held.size).toBe(0);
    await clock.advance(3_000);
    expect(clock.timers).toBe(0);
    expect(logged).toEqual([
      "info: localhost:53/udp in container a (ID) is dns",
      "info: localhost:80 in container a (ID) is web",
      "info: localhost:53/udp in container a (ID) is dns",
      "info: localhost:80 in container a (ID) is web",
    ]);
  });

  it("of containers that share a network are the first one's, then the next one's; who wants otherwise is told", async () => {
    world.start("owner", {});
    world.start("a", { "connect.80": "web" }, "owner");
    world.start("b", { "connect.80": "api" }, "owner");
    world.start("c", { "connect.80": "web" }, "owner");
    await follow();
    expect(stands()).toEqual({ "net:[1] 80": "web" });
    expect(world.entered).toBe(1);
    expect(told()).toEqual([
      expect.stringMatching(
        /^localhost:80 is not api: container a \(\S+\) has the same network, and its label says web$/,
      ),
    ]);
    world.die("a");
    await follow();
    expect(stands()).toEqual({ "net:[1] 80": "api" });
    // The engine is away and says nothing.
    world.die("b");
    await clock.advance(3_000);
    expect(stands()).toEqual({ "net:[1] 80": "web" });
    world.die("c");
    world.die("owner");
    await follow();
    expect(stands()).toEqual({});
    expect(world.drained).toEqual(new Map([["net:[1] 127.0.0.1 80", 0]]));
  });

  it("are not opened twice, however often the engine rings", async () => {
    world.start("a", { "connect.80": "web" });
    for (let i = 0; i < 10; i++) await follow(20);
    await follow();
    expect(world.entered).toBe(1);
    world.start("b", { "connect.80": "web" });
    await follow();
    expect(world.entered).toBe(2);
  });

  it("of many containers that start at once stand soon, a few at a time", async () => {
    for (let i = 0; i < 20; i++) world.start(`c${i}`, { "connect.80": "web" });
    forwarding.follow(world.seen());
    await clock.advance(30);
    for (let i = 20; i < 40; i++) world.start(`c${i}`, { "connect.80": "web" });
    forwarding.follow(world.seen());
    await clock.advance(10 * (world.openMs + world.proxyMs));
    expect(Object.keys(stands())).toHaveLength(40);
    expect(world.mostOpening).toBe(4);
  });

  it("that open while their container dies are closed", async () => {
    for (const ms of [0, 10, 49, 50, 51, 52, 53]) {
      begin();
      world.start("a", { "connect.80": "web" });
      await follow(ms);
      world.die("a");
      await follow();
      expect({ ms, held: world.held.size, proxied: world.proxied.size }).toEqual({ ms, held: 0, proxied: 0 });
    }
  });

  it("that end without the engine's word are let go of at the next look", async () => {
    world.start("a", { "connect.80": "web" });
    await follow();
    world.die("a");
    await clock.advance(2_000);
    expect(world.held.size).toBe(0);
    expect(told()).toEqual([]);
    // Whoever stays invisible probably never was visible.
    await clock.advance(10_000);
    expect(told()).toEqual([expect.stringMatching(/is not to be seen: an agent in a container needs --pid=host/)]);
  });

  it("of a process that is another container's here are left alone", async () => {
    const a = world.start("a", { "connect.80": "web" });
    const b = world.start("b", {});
    const seen = world
      .seen()
      .map((one) => (one.container.id === a.id ? { ...one, container: { ...one.container, pid: b.pid } } : one));
    forwarding.follow(seen);
    await clock.advance(10_000);
    expect(world.entered).toBe(0);
    expect(told()).toEqual([expect.stringMatching(/needs --pid=host/)]);
  });

  it("that the container itself holds are its own, and taken when they are free", async () => {
    world.start("a", { "connect.80": "web", "connect.81": "api" });
    world.take("a", 80);
    await follow();
    expect(stands()).toEqual({ "net:[1] 81": "api" });
    expect(told()).toEqual([expect.stringMatching(/a process of the container listens there itself/)]);
    await clock.advance(600_000);
    // Looking costs no process.
    expect(world.entered).toBe(1);
    world.free("a", 80);
    await clock.advance(3_000);
    expect(stands()).toEqual({ "net:[1] 80": "web", "net:[1] 81": "api" });
    expect(told()).toEqual([]);
  });

  it("get IPv6 when their container does, and only then somebody tries", async () => {
    const a = world.start("a", { "connect.80": "web" });
    await follow(600_000);
    expect(world.entered).toBe(1);
    world.withIpv6.add(a.namespace);
    a.ipv6 = "fd00::2";
    await follow();
    expect([...world.proxied.keys()]).toEqual(["net:[1] 127.0.0.1 80", "net:[1] ::1 80"]);
  });

  it("know whose they are, and which are the agent's own host's", async () => {
    world.ownNamespace = world.start("a", { "connect.80": "web" }).namespace;
    world.start("b", { "connect.80": "web" });
    await follow();
    expect([...world.here]).toEqual(["net:[1] 127.0.0.1 80"]);
    expect([...world.callers.values()].sort()).toEqual(["a", "b"]);
  });

  it("that cannot be opened are tried again, later and later, and the reason is told", async () => {
    world.refuse = new TrilithError("not-allowed", "no CAP_SYS_ADMIN");
    world.start("a", { "connect.80": "web" });
    await follow(600_000);
    expect(told()).toEqual(["cannot listen: no CAP_SYS_ADMIN"]);
    expect(world.entered).toBeGreaterThan(8);
    expect(world.entered).toBeLessThan(20);
    expect(logged).toEqual(["warn: localhost:80 in container a (ID) is not web: cannot listen: no CAP_SYS_ADMIN"]);
    world.refuse = undefined;
    await clock.advance(70_000);
    expect(stands()).toEqual({ "net:[1] 80": "web" });
  });

  it("whose label has no port are told, with the container, the label, and what would be right", async () => {
    world.start("a", { "connect.http": "web", "connect.99999": "web", "connect.6379": "" });
    await follow(5_000);
    expect(stands()).toEqual({});
    expect(logged).toHaveLength(3);
    expect(logged).toContainEqual(
      expect.stringMatching(/^warn: container a \(ID\): label connect\.http: "http" is no port: .*connect\.6379=redis/),
    );
    expect(logged).toContainEqual(expect.stringMatching(/container a .*label connect\.99999: .*from 1 to 65535/));
    expect(logged).toContainEqual(expect.stringMatching(/container a .*label connect\.6379: .*name is missing/));
  });

  it("of containers whose images nobody knows are not opened, and why is told", async () => {
    world.start("a", { "connect.80": "web" });
    const imageLabels = "images are not for you";
    forwarding.follow(world.seen().map((one) => ({ ...one, container: { ...one.container, imageLabels } })));
    await clock.advance(3_000);
    expect(world.entered).toBe(0);
    expect(told()).toEqual([
      expect.stringMatching(/is not known \(images are not for you\): with "docker": \{"connect": "images"\}/),
    ]);
    forwarding.follow(
      world.seen().map((one) => ({ ...one, container: { ...one.container, imageLabels: { "connect.80": "web" } } })),
    );
    await clock.advance(3_000);
    expect(told()).toEqual([expect.stringMatching(/^label connect\.80 is the image's own/)]);
    await follow();
    expect(stands()).toEqual({ "net:[1] 80": "web" });
  });

  it("on other hosts are another agent's", async () => {
    world.start("a", { "connect.80": "web" });
    forwarding.follow(world.seen().map((one) => ({ ...one, far: true })));
    await clock.advance(3_000);
    expect(world.entered).toBe(0);
    expect(told()).toEqual(["it runs on another host: an agent there has to do that"]);
  });

  it("are all gone after the end, also those that are just being opened", async () => {
    world.start("a", { "connect.80": "web" });
    await follow();
    world.start("b", { "connect.80": "web" });
    await follow(51);
    let over = false;
    const stopping = forwarding.stop().then(() => {
      over = true;
    });
    for (let ms = 0; ms < 1_000; ms++) {
      await clock.settle();
      if (over) break;
      await clock.advance(1);
    }
    expect({ over, held: world.held.size, told: forwarding.told() }).toEqual({ over: true, held: 0, told: [] });
    await stopping;
    forwarding.follow(world.seen());
    await clock.advance(3_000);
    expect({ held: world.held.size, timers: clock.timers }).toEqual({ held: 0, timers: 0 });
    expect(world.drained.get("net:[1] 127.0.0.1 80")).toBe(2_000);
  });

  const name = fc.constantFrom("a", "b", "c");
  const port = fc.constantFrom(80, 81);
  const labels = fc.dictionary(fc.constantFrom("connect.80", "connect.81"), fc.constantFrom("web", "api"));
  const step = fc.oneof(
    fc.record({ do: fc.constant("start" as const), name, labels, shares: fc.option(name, { nil: undefined }) }),
    fc.record({ do: fc.constantFrom("die" as const, "restart" as const), name }),
    fc.record({ do: fc.constantFrom("take" as const, "free" as const), name, port }),
    fc.record({ do: fc.constant("time" as const), ms: fc.constantFrom(0, 30, 51, 1_500) }),
    // The engine is away for a while: nobody rings.
    fc.record({ do: fc.constant("deaf" as const) }),
  );
  it("are, after anything that can happen, exactly what the labels of those who run want", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
        begin();
        let deaf = false;
        for (const one of steps) {
          if (one.do === "start") world.start(one.name, one.labels, one.shares === one.name ? undefined : one.shares);
          else if (one.do === "die") world.die(one.name);
          else if (one.do === "restart") world.restart(one.name);
          else if (one.do === "take") world.take(one.name, one.port);
          else if (one.do === "free") world.free(one.name, one.port);
          else if (one.do === "deaf") deaf = !deaf;
          else if ("ms" in one) await clock.advance(one.ms);
          if (!deaf) {
            forwarding.follow(world.seen());
            for (const key of world.proxied.keys()) expect(world.alive(key.split(" ")[0] ?? "")).toBe(true);
          }
          await clock.settle();
        }
        await clock.advance(2_000);
        for (const { namespace } of world.held) expect(world.alive(namespace)).toBe(true);
        forwarding.follow(world.seen());
        await clock.advance(5_000);
        const wanted: Record<string, string> = {};
        for (const { container } of world
          .seen()
          .sort((x, y) => (x.container.startedAt < y.container.startedAt ? -1 : 1)))
          for (const [key, service] of Object.entries(container.labels)) {
            const at = `${world.running.get(container.name)?.namespace} ${key.slice("connect.".length)}`;
            if (!world.own.has(at)) wanted[at] ??= service;
          }
        expect(stands()).toEqual(wanted);
        expect(world.held.size).toBe(world.proxied.size);
        const stopping = forwarding.stop();
        await clock.advance(5_000);
        await stopping;
        expect(world.held.size).toBe(0);
      }),
      { numRuns: 300 },
    );
  }, 60_000);
});
