// What is kept where nobody guards the answers: what vanished at once, not what is unwell, drains or leaves one by one.
import { expect, it } from "vitest";
import { Hold } from "./hold.ts";
import type { ServiceInstance } from "./needs.ts";

const one = (id: string): ServiceInstance => ({ id, node: "n" }) as ServiceInstance;
const ids = (all: readonly ServiceInstance[]): string => all.map(({ id, held }) => `${id}${held ? "*" : ""}`).join(" ");
const [a, b, c] = [one("a"), one("b"), one("c")] as const;

it("keeps what vanished until it is released, and believes whoever guards", () => {
  const hold = new Hold();
  expect(hold.pass([a, b, c], [a, b, c], false)).toEqual({ answer: [a, b, c] });
  const passed = hold.pass([a], [a], false);
  expect(ids(passed.answer)).toBe("a b* c*");
  expect(passed.held).toContain("2 of 3 instances vanished at once");
  expect(hold.holding).toBe(true);
  // Also when whoever answers guards again: it does not know what was lost.
  expect(ids(hold.pass([], [], true).answer)).toBe("a* b* c*");
  expect(ids(hold.pass([a, b], [a, b], true).answer)).toBe("a b");
  expect(hold.holding).toBe(false);
  expect(ids(hold.pass([], [], true).answer)).toBe("");
});

it("ends by a release, and leaves alone what is there but unwell, and small losses", () => {
  const hold = new Hold();
  hold.pass([a, b], [a, b], false);
  expect(ids(hold.pass([], [a, b], false).answer)).toBe("");
  hold.pass([a, b], [a, b], false);
  expect(ids(hold.pass([a], [a], false).answer)).toBe("a");
  expect(ids(hold.pass([], [], false).answer)).toBe("a*");
  hold.release();
  expect(hold.pass([], [], false)).toEqual({ answer: [] });
});
