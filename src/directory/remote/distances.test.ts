// The nearest datacenters over a made-up network: measured, measured again, gone, and as told where nothing is known.
import { expect, test } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import { seededRandom } from "../../../test/support/lookup.ts";
import { TrilithError } from "../../base/error.ts";
import type { Net, Socket } from "../../base/net.ts";
import { createDistances } from "./distances.ts";

test("the nearest first, by the median of what was measured; who cannot be reached is the last", async () => {
  const clock = fakeClock();
  /** Milliseconds by host; absent = away. */
  const far = new Map([
    ["east", 80],
    ["west", 20],
    ["::1", 5],
  ]);
  const asked: string[] = [];
  const net: Pick<Net, "connect"> = {
    async connect(to, signal) {
      const { host, port } = to as { readonly host: string; readonly port: number };
      asked.push(`${host} ${port}`);
      const ms = far.get(host);
      await clock.sleep(ms ?? 1, signal);
      if (ms === undefined) throw new TrilithError("unavailable", "no route");
      return { destroy: () => {} } as unknown as Socket;
    },
  };
  const distances = createDistances({
    datacenters: {
      dc2: ["http://east:8500"],
      dc3: ["https://away", "http://west"],
      dc4: ["http://away:1"],
      dc5: ["http://[::1]:9"],
    },
    ...{ net, clock, random: seededRandom(3) },
  });
  expect(distances.nearestFirst()).toEqual(["dc2", "dc3", "dc4", "dc5"]);
  distances.start();
  await clock.advance(100);
  expect(distances.nearestFirst()).toEqual(["dc5", "dc3", "dc2", "dc4"]);
  expect(new Set(asked)).toEqual(new Set(["east 8500", "away 443", "west 80", "away 1", "::1 9"]));
  // One slow answer changes nothing, lasting ones do.
  far.set("west", 500);
  far.delete("::1");
  await clock.advance(75_000);
  expect(distances.nearestFirst()[0]).toBe("dc2");
  await clock.advance(150_000);
  expect(distances.nearestFirst().slice(0, 2)).toEqual(["dc2", "dc3"]);
  far.set("east", 900);
  await clock.advance(75_000);
  expect(distances.nearestFirst()[0]).toBe("dc2");
  await clock.advance(150_000);
  expect(distances.nearestFirst()).toEqual(["dc3", "dc2", "dc4", "dc5"]);
  await distances.stop();
  expect(clock.timers).toBe(0);
});

test("one datacenter alone is asked nothing", async () => {
  const clock = fakeClock();
  const net = { connect: () => Promise.reject(new Error("asked")) };
  const distances = createDistances({ datacenters: { dc2: ["http://x"] }, net, clock, random: seededRandom(1) });
  distances.start();
  expect([distances.nearestFirst(), clock.timers]).toEqual([["dc2"], 0]);
  await distances.stop();
});
