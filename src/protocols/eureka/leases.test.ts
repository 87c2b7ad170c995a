// What leases tell where the agent cannot take it over.
import { expect, it } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import { testDirectory } from "../../../test/support/directory.ts";
import { silentLog } from "../../base/log.ts";
import { instanceFromJson } from "./instance.ts";
import { Leases, type LeasesMachine } from "./leases.ts";

it("tells why an instance went until that was taken over", async () => {
  const clock = fakeClock();
  const leases = new Leases({
    ...{ clock, log: silentLog, directory: testDirectory(clock), ownAddresses: () => [] },
    agent: { node: { name: "alpha", address: "10.0.0.1" }, services: () => new Map(), report: async () => {} },
  } as unknown as LeasesMachine);
  const instance = {
    hostName: "beta",
    app: "WEB",
    ipAddr: "10.0.0.2",
    status: "UP",
    dataCenterInfo: { name: "MyOwn" },
    port: { $: 80, "@enabled": "true" },
  };
  leases.register(instanceFromJson(JSON.stringify({ instance }), "WEB"));
  const stop = new AbortController();
  const first = leases.watch(stop.signal)[Symbol.asyncIterator]();
  expect((await first.next()).value.list).toHaveLength(1);
  leases.cancel("WEB", "beta");
  const told = async (from: typeof first) => [...((await from.next()).value.gone ?? [])].map(([, why]) => why.code);
  expect(await told(first)).toEqual(["goodbye"]);
  // The agent fails to take it over, and follows anew.
  await first.return?.();
  const second = leases.watch(stop.signal)[Symbol.asyncIterator]();
  expect(await told(second)).toEqual(["goodbye"]);
  // It has taken it over, once it asks for more.
  leases.register(instanceFromJson(JSON.stringify({ instance: { ...instance, hostName: "gamma" } }), "WEB"));
  expect(await told(second)).toEqual([]);
  stop.abort();
  await second.return?.();
});
