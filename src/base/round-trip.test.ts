// Round trips to real ports: one that takes connections, one that refuses them, one that says nothing.
import { afterAll, beforeAll, expect, test } from "vitest";
import { systemClock } from "./clock.ts";
import { type Listening, type Net, systemNet } from "./net.ts";
import { roundTripMs } from "./round-trip.ts";

const machine = { net: systemNet, clock: systemClock };
const never = new AbortController().signal;
const within = { timeoutMs: 5000, evenRefused: true };
let open: Listening;
beforeAll(async () => {
  open = await systemNet.listen({ host: "127.0.0.1", port: 0 }, (socket) => socket.on("error", () => {}));
});
afterAll(() => open.close());

test("taken or refused, it is the time of one round trip", async () => {
  expect(await roundTripMs(machine, { host: "127.0.0.1", port: open.port }, within, never)).toBeGreaterThan(0);
  const refused = { host: "127.0.0.1", port: 1 };
  expect(await roundTripMs(machine, refused, within, never)).toBeGreaterThan(0);
  expect(await roundTripMs(machine, refused, { ...within, evenRefused: false }, never)).toBeUndefined();
});

test("who says nothing is given up, who goes away is told", async () => {
  const silent: Pick<Net, "connect"> = {
    connect: (_, signal) =>
      new Promise((_resolve, reject) => signal?.addEventListener("abort", () => reject(signal.reason))),
  };
  const gone = new AbortController();
  expect(
    await roundTripMs({ ...machine, net: silent }, { host: "x", port: 1 }, { ...within, timeoutMs: 20 }, never),
  ).toBeUndefined();
  const asking = roundTripMs({ ...machine, net: silent }, { host: "x", port: 1 }, within, gone.signal);
  gone.abort(new Error("stopped"));
  await expect(asking).rejects.toThrow("stopped");
});
