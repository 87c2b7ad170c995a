// What people are told of ports in containers, in doctor's and why's lines.
import { beforeEach, describe, expect, it } from "vitest";
import { type FakeClock, fakeClock } from "../../../../test/simulated/clock.ts";
import { ContainerWorld } from "../../../../test/simulated/container-world.ts";
import { silentLog } from "../../../base/log.ts";
import { systemRandom } from "../../../base/random.ts";
import type { Lookup } from "../../../contracts/lookup.ts";
import type { Query } from "../../../model/query.ts";
import { Forwarding } from "./follow.ts";
import { connectAnswers, connectStates } from "./tell.ts";

describe("ports in containers are told", () => {
  let clock: FakeClock;
  let world: ContainerWorld;
  let forwarding: Forwarding;
  const endpoints = new Map<string, string[]>();
  const lookup = {
    resolveNow: ({ service, asker }: Query) => {
      // The agent connects, not the container.
      expect(asker).toBe("127.0.0.1");
      return { endpoints: (endpoints.get(service) ?? []).map((address) => ({ address, port: 7000 })) };
    },
  } as unknown as Pick<Lookup, "resolveNow">;
  const states = (): string[] =>
    connectStates(forwarding.told(), lookup).map(
      ({ name, ok, text }) => `${name} ${ok ? "ok" : "!!"} ${text.replace(/\([^)]*-\d*\)/, "(ID)")}`,
    );
  const answers = (service: string): string[] =>
    connectAnswers(service, forwarding.told(), lookup).map(({ to, text }) => `${to.replace(/ \(.*/, "")}: ${text}`);

  beforeEach(async () => {
    clock = fakeClock();
    world = new ContainerWorld(clock);
    endpoints.clear();
    forwarding = new Forwarding({
      ...{ clock, random: systemRandom, domain: "consul", images: false, log: silentLog },
      ...{ processes: world.processes, sockets: world.sockets, connector: world.connector },
    });
    world.start("app", { "connect.80": "web", "connect.53/udp": "blue.dns" });
    forwarding.follow(world.seen());
  });

  it("in doctor: a container a line, each port with its service and endpoints", async () => {
    endpoints.set("web", ["10.0.0.1", "10.0.0.2"]).set("dns", ["10.0.0.3"]);
    await clock.settle();
    expect(states()).toEqual([
      "connect ok container app (ID): localhost:53/udp is about to be blue.dns (1 endpoint); localhost:80 is about to be web (2 endpoints)",
    ]);
    await clock.advance(1_000);
    expect(states()).toEqual([
      "connect ok container app (ID): localhost:53/udp is blue.dns (1 endpoint); localhost:80 is web (2 endpoints)",
    ]);
    endpoints.delete("dns");
    expect(states()).toEqual([expect.stringMatching(/^connect !! .*53\/udp is blue\.dns \(no endpoint\)/)]);
  });

  it("in doctor: what is taken, and faults in front", async () => {
    world.start("bad", { "connect.80": "web", "connect.81": "web:80" });
    world.take("bad", 80);
    endpoints.set("web", ["10.0.0.1"]).set("dns", ["10.0.0.3"]);
    forwarding.follow(world.seen());
    await clock.advance(1_000);
    expect(states().find((one) => one.includes("bad"))).toMatch(
      /^connect !! container bad \(.*\): label connect\.81: "web:80": .*; localhost:80 is not web: a process of the container listens there itself/,
    );
  });

  it("in why: where a service stands, and where connections are led", async () => {
    endpoints.set("web", ["10.0.0.1", "fd00::1", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7"]);
    await clock.advance(1_000);
    expect(answers("WEB")).toEqual([
      "container app: localhost:80: 10.0.0.1:7000, [fd00::1]:7000, 10.0.0.3:7000, 10.0.0.4:7000, 10.0.0.5:7000 and 2 more",
    ]);
    expect(answers("dns")).toEqual(["container app: localhost:53/udp: no endpoint"]);
    expect(answers("other")).toEqual([]);
  });
});
