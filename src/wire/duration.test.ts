// Go durations: the examples of Go's own tests, and round trips.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { InputError } from "../base/error.ts";
import { formatGoDuration, parseDurationValue, parseGoDuration } from "./duration.ts";

describe("parseGoDuration", () => {
  it.each([
    ["0", 0],
    ["5s", 5000],
    ["30s", 30_000],
    ["1478s", 1_478_000],
    ["-5s", -5000],
    ["+5s", 5000],
    ["-0", 0],
    ["+0", 0],
    ["5.0s", 5000],
    ["5.6s", 5600],
    ["5.s", 5000],
    [".5s", 500],
    ["1.0s", 1000],
    ["1.00s", 1000],
    ["1.004s", 1004],
    ["100.00100s", 100_001],
    ["10ns", 0.00001],
    ["11us", 0.011],
    ["12µs", 0.012],
    ["12μs", 0.012],
    ["13ms", 13],
    ["14s", 14_000],
    ["15m", 900_000],
    ["16h", 57_600_000],
    ["3h30m", 12_600_000],
    ["10.5s4m", 250_500],
    ["-2m3.4s", -123_400],
    ["1h2m3s4ms5us6ns", 3_723_004.005006],
    ["39h9m14.425s", 140_954_425],
    ["9223372036854775807ns", 9223372036854.775],
    ["0.3333333333333333333h", 1_200_000],
    ["0.9007199254740993s", 900.719925],
  ])("%s", (text, ms) => expect(parseGoDuration(text)).toBeCloseTo(ms, 5));

  it.each([
    ["", 'time: invalid duration ""'],
    ["3", 'time: missing unit in duration "3"'],
    ["-", 'time: invalid duration "-"'],
    ["s", 'time: invalid duration "s"'],
    [".", 'time: invalid duration "."'],
    ["-.", 'time: invalid duration "-."'],
    [".s", 'time: invalid duration ".s"'],
    ["+.s", 'time: invalid duration "+.s"'],
    ["1d", 'time: unknown unit "d" in duration "1d"'],
    ["10 seconds", 'time: unknown unit " seconds" in duration "10 seconds"'],
    ["ten", 'time: invalid duration "ten"'],
    ["9223372036854775808ns", 'time: invalid duration "9223372036854775808ns"'],
    ["9223372036854ms775us808ns", 'time: invalid duration "9223372036854ms775us808ns"'],
  ])("refuses %j", (text, message) => expect(() => parseGoDuration(text)).toThrow(message));

  it("names the place", () => {
    expect(() => parseGoDuration("1d", "a.hcl:3: interval")).toThrow('a.hcl:3: interval: time: unknown unit "d"');
  });

  it("raises nothing but InputError", () => {
    fc.assert(
      fc.property(
        fc.oneof(fc.string(), fc.stringMatching(/^[-+]?[0-9.]{0,4}[a-zµμ]{0,2}[0-9.]{0,4}[a-z]{0,2}$/)),
        (text) => {
          try {
            expect(Number.isFinite(parseGoDuration(text))).toBe(true);
          } catch (error) {
            expect(error).toBeInstanceOf(InputError);
          }
        },
      ),
    );
  });
});

describe("parseDurationValue", () => {
  it("takes numbers as nanoseconds", () => {
    expect(parseDurationValue(15_000_000_000)).toBe(15_000);
    expect(parseDurationValue("15s")).toBe(15_000);
  });
  it.each([null, true, {}, [], Number.NaN, undefined])("refuses %j", (value) =>
    expect(() => parseDurationValue(value, "ttl")).toThrow(InputError),
  );
});

describe("formatGoDuration", () => {
  it.each([
    [0, "0s"],
    [0.000001, "1ns"],
    [0.0011, "1.1µs"],
    [2.2, "2.2ms"],
    [3300, "3.3s"],
    [245_000, "4m5s"],
    [245_001, "4m5.001s"],
    [18_367_001, "5h6m7.001s"],
    [480_000.000001, "8m0.000000001s"],
    [3_600_000, "1h0m0s"],
    [-90_000, "-1m30s"],
    [259_200_000, "72h0m0s"],
  ])("%d", (ms, text) => expect(formatGoDuration(ms)).toBe(text));

  it("is read back as the same time", () => {
    fc.assert(
      fc.property(fc.integer({ min: -(2 ** 49), max: 2 ** 49 }), (ns) => {
        const ms = ns / 1e6;
        expect(Math.round(parseGoDuration(formatGoDuration(ms)) * 1e6)).toBe(ns);
      }),
    );
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 9_223_372_036_854 }), (ms) => {
        expect(parseGoDuration(formatGoDuration(ms))).toBe(ms);
      }),
    );
  });
});
