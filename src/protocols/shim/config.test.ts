// The hook's configuration: what is understood, and what wrong words are told.
import { expect, test } from "vitest";
import { configure } from "./config.ts";

test("what is not told has its usual value", () => {
  const usual = { policy: "p2c", prefetch: 0, prefetchIdleMs: 10_000, tryMs: 1_000, locality: true };
  expect(configure(undefined)).toEqual({ off: false, placed: false, ...usual });
  expect(configure(false)).toMatchObject({ off: true });
  expect(
    configure({ table: "/run/trilith/table", balance: "least", prefetch: 4, tryMs: 250, locality: false }),
  ).toEqual({
    off: false,
    ...usual,
    table: "/run/trilith/table",
    placed: true,
    policy: "least",
    prefetch: 4,
    tryMs: 250,
    locality: false,
  });
});

test("a table has its place where nobody says another", () => {
  expect(configure({ ownTable: "/data/hook/table" })).toMatchObject({ table: "/data/hook/table", placed: false });
  expect(configure({ ownTable: "/data/hook/table", table: "/x/t" })).toMatchObject({ table: "/x/t", placed: true });
});

test("a second domain is taken as DNS takes it", () => {
  expect(configure({ altDomain: "Alt.Example." })).toMatchObject({ altDomain: "alt.example" });
});

test.each([
  ["yes", /hook: expected false or an object/],
  [{ tabel: "/x" }, /hook.tabel: unknown key; known are "table"/],
  [{ table: "run/table" }, /hook.table: expected the path of a file from "\/" on/],
  [{ table: "/run/" }, /hook.table/],
  [{ balance: "fair" }, /hook.balance: expected one of p2c, round-robin/],
  [{ prefetch: -1 }, /hook.prefetch: expected a whole number from 0 to 999/],
  [{ prefetchIdleMs: 1 }, /hook.prefetchIdleMs: expected a whole number from 100 to 3600000/],
  [{ tryMs: "1s" }, /hook.tryMs: expected a whole number/],
  [{ altDomain: "" }, /hook.altDomain: expected a DNS name/],
  [{ locality: "on" }, /hook.locality: expected true or false/],
])("%j is refused", (raw, told) => {
  expect(() => configure(raw)).toThrow(told);
});
