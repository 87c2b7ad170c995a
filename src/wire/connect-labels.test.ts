// Labels by which instances ask how they want to be connected to: what is understood, what is refused, whose word counts.
import { describe, expect, it } from "vitest";
import { connectWishes } from "./connect-labels.ts";

describe("labels about connecting", () => {
  it("are read from the first instance that says something", () => {
    const wishes = connectWishes([
      { "trilith.try": "250ms" },
      { "trilith.balance": "Sticky", "trilith.try": "2s", "trilith.prefetch": "4" },
      { "trilith.balance": "first", "trilith.prefetch-idle": "10s", "trilith.locality": "off" },
    ]);
    expect(wishes).toEqual({ policy: "sticky", tryMs: 250, prefetch: 4, prefetchIdleMs: 10_000, locality: false });
  });

  it("are spelled with dashes where keys have no dots, and with underscores where they have no dashes either", () => {
    const all = { policy: "first", tryMs: 500, prefetch: 2, prefetchIdleMs: 5_000, locality: false } as const;
    const dashes = {
      "trilith-balance": "first",
      "trilith-try": "500ms",
      "trilith-prefetch": "2",
      "trilith-prefetch-idle": "5s",
      "trilith-locality": "off",
    };
    expect(connectWishes([dashes])).toEqual(all);
    expect(
      connectWishes([
        Object.fromEntries(Object.entries(dashes).map(([key, text]) => [key.replaceAll("-", "_"), text])),
      ]),
    ).toEqual(all);
    expect(connectWishes([{ "trilith-id": "first", trilithbalance: "first", "trilith-": "x" }])).toEqual({});
  });

  it("say how few have to be healthy before all are answered", () => {
    for (const [text, panicPercent] of [
      ["50", 50],
      ["100 %", 100],
      ["0%", 0],
    ] as const)
      expect(connectWishes([{ SERVICE: "x" }, { "trilith-panic": text }, { "trilith.panic": "7" }])).toEqual({
        panicPercent,
      });
    const told: string[] = [];
    expect(
      connectWishes([{ trilith_panic: "101" }, { "trilith.panic": "-1" }, { "trilith.panic": "half" }], (text) =>
        told.push(text),
      ),
    ).toEqual({});
    expect(told).toHaveLength(3);
    expect(told[0]).toBe(
      "label trilith_panic=101: expected a percentage of healthy instances from 0 (never) to 100, such as 50",
    );
  });

  it("that make no sense are left out and told, and another instance's word counts", () => {
    const told: string[] = [];
    const wishes = connectWishes(
      [
        { "trilith.balance": "fair", "trilith.try": "fast", "trilith.prefetch": "-1", "trilith.locality": "maybe" },
        { "trilith.balance": "least", "trilith.try": "1ms", "trilith.prefetch-idle": "2h" },
      ],
      (text) => told.push(text),
    );
    expect(wishes).toEqual({ policy: "least" });
    expect(told).toEqual([
      "label trilith.balance=fair: expected one of p2c, round-robin, random, least, first, sticky",
      expect.stringContaining('label trilith.try=fast: time: invalid duration "fast"'),
      "label trilith.prefetch=-1: expected a number of connections from 0 to 999",
      "label trilith.locality=maybe: expected on or off",
      expect.stringContaining("label trilith.try=1ms: expected a duration from 10 ms to 60 s"),
      expect.stringContaining("label trilith.prefetch-idle=2h"),
    ]);
  });
});
