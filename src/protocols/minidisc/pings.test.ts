// Which pings a new leader answers: those of its own delegates in their time, and no others until every stranger has noticed.
import { describe, expect, it } from "vitest";
import { Pings } from "./pings.ts";

const GO = "Go-http-client/1.1";

function scene() {
  let now = 1_000;
  const gone = new Set<string>();
  const pings = new Pings({ monotonic: () => now });
  return {
    pings,
    gone,
    at: (ms: number, client = GO): boolean => {
      now = 1_000 + ms;
      return pings.answered(client, (delegate) => !gone.has(delegate));
    },
    registered: (ms: number, delegate: string, client = GO) => {
      now = 1_000 + ms;
      pings.registered(delegate, client);
    },
  };
}

describe("the pings of a new leader", () => {
  it("are all answered by one that has led for a while, or took over from one it knew all about", () => {
    const { at, pings } = scene();
    expect(at(0)).toBe(true);
    pings.begin();
    expect(at(15_000)).toBe(false);
    expect(at(20_000 + 1_000)).toBe(true);
  });

  it("are answered to a Go delegate every five seconds after it registered, and to nobody between", () => {
    const { at, pings, registered } = scene();
    pings.begin();
    expect(at(100)).toBe(false);
    registered(200, "a");
    expect(at(210)).toBe(false);
    expect(at(2_000)).toBe(false);
    expect(at(5_210)).toBe(true);
    expect(at(5_220)).toBe(false);
    expect(at(10_230)).toBe(true);
  });

  it("are answered to a Python delegate at once, once, and not to a Go one in its place", () => {
    const { at, pings, registered } = scene();
    pings.begin();
    registered(200, "p", "");
    expect(at(202, GO)).toBe(false);
    expect(at(205, "")).toBe(true);
    expect(at(210, "")).toBe(false);
    expect(at(5_207, "")).toBe(true);
  });

  it("are not answered in the name of a delegate that is gone", () => {
    const { at, pings, registered, gone } = scene();
    pings.begin();
    registered(200, "a");
    gone.add("a");
    expect(at(5_210)).toBe(false);
  });

  it("are refused to every lost delegate at least once in time, wherever its turn is", () => {
    for (let phase = 0; phase < 5_000; phase += 50) {
      const { at, pings, registered, gone } = scene();
      pings.begin();
      registered(100, "mine");
      // The lost one may take the other's turn; then that one, unanswered, registers anew and the turn is nobody's.
      let mine = 100;
      let noticed = false;
      for (let ms = 50; ms < 15_000 && !noticed; ms += 50) {
        if (ms % 5_000 === phase) noticed = !at(ms);
        if (ms > mine && (ms - mine) % 5_000 === 0 && !at(ms)) {
          gone.add(`${mine}`).add("mine");
          mine = ms;
          registered(ms, String(ms));
        }
      }
      expect(noticed, `phase ${phase}`).toBe(true);
    }
  });
});
