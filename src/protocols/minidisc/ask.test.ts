// What is asked of other processes: a connection that is held tells of the other side's end, and of nothing else.
import { EventEmitter } from "node:events";
import { describe, expect, it } from "vitest";
import { type FakeClock, fakeClock } from "../../../test/simulated/clock.ts";
import type { Http } from "../../base/http.ts";
import type { Net, Socket } from "../../base/net.ts";
import { createAsker } from "./ask.ts";

class Wire extends EventEmitter {
  destroyed = false;
  unref(): this {
    return this;
  }
  resume(): this {
    return this;
  }
  destroy(): this {
    this.destroyed = true;
    return this;
  }
}

const TO = { host: "100.64.0.1", port: 28_004 };

/** Holds a connection; `over` tells whether that has resolved. */
function held(connect: () => Promise<Wire>): { clock: FakeClock; stop: AbortController; over: () => boolean } {
  const clock = fakeClock();
  const stop = new AbortController();
  const net = { connect: () => connect() as unknown as Promise<Socket> } as Pick<Net, "connect">;
  let over = false;
  void createAsker({ http: {} as Http, clock, net })
    .hold(TO, stop.signal)
    .then(() => {
      over = true;
    });
  return { clock, stop, over: () => over };
}

describe("a connection that is held", () => {
  it("tells that the other side ended it", async () => {
    const wire = new Wire();
    const { clock, over } = held(async () => wire);
    await clock.advance(2_000);
    expect(over()).toBe(false);
    wire.emit("close");
    await clock.settle();
    expect(over()).toBe(true);
    expect(wire.destroyed).toBe(true);
  });

  it.each([
    ["that was never kept", async (): Promise<Wire> => new Wire()],
    [
      "that never came about",
      async (): Promise<Wire> => {
        throw new Error("refused");
      },
    ],
  ])("%s tells nothing until it is no longer wanted", async (_, connect) => {
    let wire: Wire | undefined;
    const { clock, stop, over } = held(async () => {
      wire = await connect();
      return wire;
    });
    await clock.settle();
    wire?.emit("close");
    await clock.advance(60_000);
    expect(over()).toBe(false);
    stop.abort();
    await clock.settle();
    expect(over()).toBe(true);
  });
});
