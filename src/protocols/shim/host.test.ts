// The address that containers reach this host at: which of many it is, and when it is looked at again.
import { describe, expect, test } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import type { Interface } from "../../base/net.ts";
import { createHostView } from "./host.ts";

const network = { device: 4n, inode: 4_026_531_840n };
const on = (name: string, address: string): Interface => ({
  ...{ name, address, cidr: `${address}/24`, internal: name === "lo" },
  family: address.includes(":") ? 6 : 4,
});

function make(given: { interfaces?: Interface[]; outward?: Record<number, string>; advertised?: string } = {}) {
  const clock = fakeClock();
  const state = { interfaces: [on("lo", "127.0.0.1")], outward: {} as Record<number, string>, asked: 0, ...given };
  const host = createHostView({
    clock,
    network: () => network,
    interfaces: () => state.interfaces,
    async outward(family) {
      state.asked++;
      return state.outward[family];
    },
    advertised: () => given.advertised ?? "127.0.0.1",
  });
  return { clock, state, host };
}
const all = [on("lo", "127.0.0.1"), on("wlan0", "10.1.0.4"), on("eth0", "192.0.2.7"), on("eth0", "2001:db8::7")];

describe("this host's address", () => {
  test.each([
    [
      "the one that leads outward",
      { interfaces: all, outward: { 4: "192.0.2.7", 6: "2001:db8::7" } },
      ["192.0.2.7", "2001:db8::7"],
    ],
    [
      "what the agent tells others, where it is this host's",
      { interfaces: all, outward: { 4: "192.0.2.7" }, advertised: "10.1.0.4" },
      ["10.1.0.4", "2001:db8::7"],
    ],
    [
      "not what it tells others where a router has it",
      { interfaces: all, outward: { 4: "192.0.2.7" }, advertised: "203.0.113.9" },
      ["192.0.2.7", "2001:db8::7"],
    ],
    [
      "a bridge's where nothing leads outward",
      { interfaces: [...all, on("docker0", "172.17.0.1"), on("br-0123456789ab", "fd00::1")] },
      ["172.17.0.1", "fd00::1"],
    ],
    [
      "that of IPv6 where there is no other",
      { interfaces: [on("lo", "127.0.0.1"), on("eth0", "2001:db8::7")], advertised: "2001:db8::7" },
      [undefined, "2001:db8::7"],
    ],
    ["any other rather than none", { interfaces: all.slice(0, 2) }, ["10.1.0.4", undefined]],
    [
      "never loopback or a link's own",
      {
        interfaces: [on("lo", "127.0.0.1"), on("eth0", "169.254.1.1"), on("eth0", "fe80::1")],
        outward: { 4: "127.0.0.1", 6: "fe80::1" },
      },
      [undefined, undefined],
    ],
    [
      "none where the system says only that it has none",
      { interfaces: [on("lo", "127.0.0.1")], outward: { 4: "0.0.0.0", 6: "::" } },
      [undefined, undefined],
    ],
  ] as const)("is %s", async (_, given, [v4, v6]) => {
    const { host } = make(given as Parameters<typeof make>[0]);
    expect(host.now).toBeUndefined();
    expect(await host.refresh()).toBe(true);
    expect([host.now?.v4, host.now?.v6, host.now?.network]).toEqual([v4, v6, network]);
  });

  test("is looked at again when interfaces change, and now and then, and told once", async () => {
    const { clock, state, host } = make({ interfaces: all.slice(0, 2) });
    await host.refresh();
    const { asked } = state;
    expect([await host.refresh(), state.asked]).toEqual([false, asked]);
    state.interfaces = [on("lo", "127.0.0.1"), on("wlan0", "10.9.0.4")];
    expect([await host.refresh(), host.now?.v4]).toEqual([true, "10.9.0.4"]);
    state.outward = { 4: "192.0.2.7" };
    expect(await host.refresh()).toBe(false);
    clock.advanceNow(30_000);
    expect([await host.refresh(), host.now?.v4]).toEqual([true, "192.0.2.7"]);
    clock.advanceNow(30_000);
    expect(await host.refresh()).toBe(false);
  });

  test("is told again where only that of IPv6 is another one", async () => {
    const { clock, state, host } = make({ interfaces: all, outward: { 4: "192.0.2.7", 6: "2001:db8::7" } });
    await host.refresh();
    state.outward = { 4: "192.0.2.7", 6: "2001:db8::8" };
    clock.advanceNow(30_000);
    expect([await host.refresh(), host.now?.v4, host.now?.v6]).toEqual([true, "192.0.2.7", "2001:db8::8"]);
    state.outward = { 4: "192.0.2.7" };
    state.interfaces = all.slice(0, 3);
    expect([await host.refresh(), host.now]).toEqual([true, { network, v4: "192.0.2.7" }]);
    clock.advanceNow(30_000);
    expect(await host.refresh()).toBe(false);
  });

  test("is nobody's business where the system has no network namespaces", async () => {
    const host = createHostView({
      ...{ clock: fakeClock(), network: () => undefined, interfaces: () => all, advertised: () => "10.1.0.4" },
      outward: () => Promise.reject(new Error("asked")),
    });
    expect([await host.refresh(), host.now]).toEqual([false, undefined]);
  });
});
