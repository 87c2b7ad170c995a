// Weights beside a set's members: what each line selects, that they are factors, and that random bytes are a vector or a fault.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { InputError } from "../../base/error.ts";
import { decodeVector, weightOf } from "./vector.ts";

const vector = (...lines: readonly unknown[]) => decodeVector(Buffer.from(JSON.stringify({ vector: lines })));
const at = { host: "Host-1.example.com", port: 80 };

describe("a vector", () => {
  it("selects by endpoint, by member and by shard; all that select one are multiplied", () => {
    const two = [
      vector(
        { select: "inet=host-1.example.com:80", weight: 2, priority: 1 },
        { select: "inet=[2001:db8::1]:80", weight: 7 },
        { select: "member=member_0000000003", weight: 3.5 },
        { select: "shard=4", weight: 0.5 },
        { select: "shard=5" },
      ),
      vector({ select: "member=0000000003", weight: 10 }, { select: "zone=a", weight: 100 }),
    ];
    expect(weightOf(two, { name: "member_0000000001", member: {}, at })).toBe(2);
    expect(weightOf(two, { name: "member_0000000003", member: { shard: 4 }, at })).toBe(2 * 3.5 * 0.5 * 10);
    expect(weightOf(two, { name: "member_0000000002", member: { shard: 5 }, at: { host: "x", port: 80 } })).toBe(1);
    expect(weightOf(two, { name: "member_0000000002", member: {}, at: { host: "2001:db8::1", port: 80 } })).toBe(7);
    const beyond = vector(...[1e308, 1e308, 0].map((weight) => ({ select: "shard=4", weight })));
    expect(weightOf([beyond], { name: "member_0000000003", member: { shard: 4 }, at })).toBe(0);
    expect(weightOf([], { name: "member_0000000002", member: {}, at })).toBe(1);
  });

  it("refuses what is longer than any", () => {
    expect(() => decodeVector(Buffer.alloc((1 << 20) + 1))).toThrow(/are more than a vector's 1048576/);
  });

  it.each([
    ["", /it is empty/],
    ["{", /not JSON/],
    ["[]", /expected \{"vector"/],
    ["null", /expected \{"vector"/],
    ['{"vector": {}}', /expected \{"vector"/],
    ['{"vector": [{"select": "shard=1", "weight": "2"}]}', /weight: "2": expected a number/],
    ['{"vector": [{"select": "shard=1", "weight": -1}]}', /weight: -1/],
  ])("refuses %j", (text, why) => {
    expect(() => decodeVector(Buffer.from(text))).toThrow(why);
  });

  it("is read or refused, whatever it is", () => {
    const part = fc.oneof(fc.constantFrom("select", "weight", "vector", "inet=a:1", "shard=1", "member="), fc.string());
    fc.assert(
      fc.property(
        fc.oneof(
          fc.json(),
          fc.array(fc.dictionary(part, fc.jsonValue())).map((vector) => JSON.stringify({ vector })),
        ),
        (text) => {
          try {
            for (const { weight } of decodeVector(Buffer.from(text))) expect(weight).toBeGreaterThanOrEqual(0);
          } catch (error) {
            expect(error).toBeInstanceOf(InputError);
          }
        },
      ),
    );
  });
});
