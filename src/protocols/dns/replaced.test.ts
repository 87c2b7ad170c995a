// Answers by another configuration from one moment to the next; what was asked before is still answered, and stopping ends all of it.
import { expect, it } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import type { Responder } from "./answer.ts";
import { ReplacedResponder } from "./replaced.ts";

it("hands new questions to the new one, gives the old one time, and stops both", async () => {
  const clock = fakeClock();
  const did: string[] = [];
  const responder = (name: string): Responder => ({
    respond: ((packet: Uint8Array, _from: unknown, later?: unknown) =>
      Uint8Array.of(...packet, name.length, later === undefined ? 0 : 1)) as Responder["respond"],
    stop: () => void did.push(`stop ${name}`),
  });
  const replaced = new ReplacedResponder(responder("a"), clock);
  const from = { address: "127.0.0.1", tcp: false };
  expect(replaced.respond(Uint8Array.of(7), from)).toEqual(Uint8Array.of(7, 1, 0));
  replaced.replace(responder("bb"));
  expect(replaced.respond(Uint8Array.of(7), from, () => {})).toEqual(Uint8Array.of(7, 2, 1));
  expect(did).toEqual([]);
  await clock.advance(10_000);
  expect(did.splice(0)).toEqual(["stop a"]);
  replaced.replace(responder("ccc"));
  replaced.stop();
  expect(did).toEqual(["stop bb", "stop ccc"]);
  expect(clock.timers).toBe(0);
});
