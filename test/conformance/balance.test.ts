// What docs/balancing.md promises, held to both of its implementations: the C picker of the hook and the TypeScript balancer of proxy and library.
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Backend, Policy } from "../../src/lookup/balance/balancer.ts";
import { compilePicker, type Failure, type Player, type Step, typescriptPlayer, wordOf } from "./balance-players.ts";

const POLICIES: readonly Policy[] = ["p2c", "round-robin", "random", "least", "first", "sticky"];
const START = 1_800_000_000_000;
const FAILURES: readonly Failure[] = [
  "ECONNREFUSED",
  "ECONNRESET",
  "ECONNABORTED",
  "EPIPE",
  "ETIMEDOUT",
  "EHOSTUNREACH",
  "ENETUNREACH",
];
const INNOCENT: readonly Failure[] = ["EINTR", "EACCES", "EADDRNOTAVAIL", "EMFILE", "EPERM", "ENOBUFS"];

let c: Awaited<ReturnType<typeof compilePicker>>;
beforeAll(async () => {
  c = await compilePicker();
});
afterAll(() => c?.dispose());

const at = (index: number, facts: Partial<Backend> = {}): Backend => ({
  address: `10.0.${index >> 8}.${index & 255}`,
  port: 8000 + (index % 7),
  weight: 1,
  ...facts,
});
const weighing = (weights: readonly number[]): Backend[] => weights.map((weight, i) => at(i, { weight }));
const callers = (count: number): Step[] => Array.from({ length: count }, (_, caller) => ({ pick: 1, caller }));
/** One pick each by many callers, or many picks, whichever makes a policy show its spread. */
const many = (policy: Policy, count: number): Step[] => (policy === "sticky" ? callers(count) : [{ pick: count }]);

function countsOf(picks: readonly number[], backends: number): number[] {
  const counts = new Array<number>(backends).fill(0);
  for (const index of picks) counts[index] = (counts[index] as number) + 1;
  return counts;
}

/** As often as the share says, six standard deviations up or down. */
function expectShare(count: number | undefined, of: number, share: number): void {
  const slack = 6 * Math.sqrt(of * share * (1 - share)) + 1;
  expect(count).toBeGreaterThanOrEqual(of * share - slack);
  expect(count).toBeLessThanOrEqual(of * share + slack);
}

const checked = (property: fc.IProperty<never> | fc.IProperty<unknown>, runs = 25): void =>
  fc.assert(property as fc.IProperty<unknown>, { seed: 7, numRuns: runs });

const weights = fc.array(fc.integer({ min: 1, max: 10 }), { minLength: 1, maxLength: 8 });
const seeds = fc.integer({ min: 0, max: 1e9 });

describe.each([
  ["TypeScript", (): Player => typescriptPlayer],
  ["C", (): Player => c],
])("%s", (_name, player) => {
  const play = (story: readonly Step[], seed = 1): number[][] => player().play([{ at: START }, ...story], seed);

  describe("shares", () => {
    it.each<Policy>(["p2c", "random", "sticky"])("%s gives each as much as it weighs", (policy) => {
      checked(
        fc.property(weights, seeds, (some, seed) => {
          const picks = play([{ list: weighing(some) }, { policy }, ...many(policy, 3000)], seed).flat();
          const total = some.reduce((a, b) => a + b);
          for (const [i, count] of countsOf(picks, some.length).entries())
            expectShare(count, 3000, (some[i] as number) / total);
        }),
        policy === "sticky" ? 8 : 15,
      );
    });

    it("round-robin gives each exactly what it weighs, in every stretch of one round", () => {
      checked(
        fc.property(weights, seeds, fc.integer({ min: 0, max: 100 }), (some, seed, from) => {
          const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b));
          const common = some.reduce(gcd);
          const round = some.reduce((a, b) => a + b) / common;
          const picks = play(
            [{ list: weighing(some) }, { policy: "round-robin" }, { pick: from + round }],
            seed,
          ).flat();
          expect(countsOf(picks.slice(from), some.length)).toEqual(some.map((weight) => weight / common));
        }),
      );
    });

    it("round-robin goes through equal ones in the list's order, and begins at another place each time", () => {
      const starts = new Set<number>();
      for (let seed = 0; seed < 20; seed++) {
        const picks = play([{ list: weighing([2, 2, 2, 2, 2]) }, { policy: "round-robin" }, { pick: 12 }], seed).flat();
        for (const [i, index] of picks.entries()) expect(index).toBe(((picks[0] as number) + i) % 5);
        starts.add(picks[0] as number);
      }
      expect(starts.size).toBeGreaterThan(2);
    });

    it("round-robin spreads a heavy one's turns out", () => {
      const picks = play([{ list: weighing([5, 1, 1, 1, 1, 1]) }, { policy: "round-robin" }, { pick: 200 }]).flat();
      expect(picks.join("")).not.toContain("000");
    });

    it("least levels a burst, by weight, and what was before fades by half in ten seconds", () => {
      checked(
        fc.property(weights, seeds, (some, seed) => {
          const total = some.reduce((a, b) => a + b);
          const picks = play([{ list: weighing(some) }, { policy: "least" }, { pick: total * 3 }], seed).flat();
          expect(countsOf(picks, some.length)).toEqual(some.map((weight) => weight * 3));
        }),
      );
      const told = play([
        { policy: "least" },
        { list: [at(0)] },
        { pick: 100 },
        { list: [at(0), at(1)] },
        { at: START + 10_000 },
        { pick: 49 },
        { pick: 40 },
      ]);
      expect(countsOf(told[1] as number[], 2)).toEqual([0, 49]);
      expectShare(countsOf(told[2] as number[], 2)[0], 40, 0.5);
      // Every try starts from what has faded: 101 / 2 + 1, not 101.
      const later = play([
        { policy: "least" },
        { list: [at(0)] },
        { pick: 100 },
        { at: START + 10_000 },
        { pick: 1 },
        { list: [at(0), at(1)] },
        { pick: 51 },
        { pick: 20 },
      ]);
      expect(countsOf(later[2] as number[], 2)).toEqual([0, 51]);
      expect(countsOf(later[3] as number[], 2)).toEqual([10, 10]);
    });

    it("least chooses by weight among those that nobody tried of late", () => {
      const story = Array.from({ length: 400 }, (_, i): Step[] => [{ at: START + i * 100_000 }, { pick: 1 }]);
      const picks = play([{ list: weighing([1, 3, 0]) }, { policy: "least" }, ...story.flat()]).flat();
      const counts = countsOf(picks, 3);
      expectShare(counts[0], 400, 1 / 4);
      expect(counts[2]).toBe(0);
    });

    it("first takes the first, whatever it weighs", () => {
      checked(
        fc.property(weights, (some) => {
          expect(new Set(play([{ list: weighing(some) }, { policy: "first" }, { pick: 20 }]).flat())).toEqual(
            new Set([0]),
          );
        }),
        5,
      );
    });

    it.each<Policy>(["p2c", "random", "least", "round-robin"])("%s starves nobody, however slow", (policy) => {
      const slow = [1, 2, 3, 4].map((i): Step => ({ outcome: i - 1, tookMs: 10 ** (i - 1) }));
      const picks = play([{ list: weighing([1, 1, 1, 1]) }, { policy }, ...slow, { pick: 2000 }]).flat();
      for (const count of countsOf(picks, 4)) expect(count).toBeGreaterThanOrEqual(50);
    });
  });

  describe("cost", () => {
    const share = (
      story: readonly Step[],
      backends: readonly Backend[],
      times: readonly (number | undefined)[],
    ): number[] => {
      const known = times.flatMap((tookMs, outcome): Step[] => (tookMs === undefined ? [] : [{ outcome, tookMs }]));
      const picks = play([{ list: backends }, { policy: "p2c" }, ...known, ...story, { pick: 6000 }]).flat();
      return countsOf(picks, backends.length);
    };
    const two = weighing([1, 1]);

    it("p2c prefers the quicker", () => {
      const [quick, slow] = share([], two, [1, 10]);
      expectShare(quick, 6000, 3 / 4);
      expectShare(slow, 6000, 1 / 4);
    });

    it("p2c takes differences below the machine's noise for none", () => {
      expectShare(share([], two, [0.05, 0.24])[0], 6000, 1 / 2);
      expectShare(share([], two, [0.05, 0.26])[0], 6000, 3 / 4);
    });

    it("an unknown time counts as the median of the known ones", () => {
      // Known 1 and 100, lower median 1: the unknown one is as good as the quick one.
      const counts = share([], weighing([1, 1, 1]), [1, 100, undefined]);
      expectShare(counts[0], 6000, 4 / 9);
      expectShare(counts[1], 6000, 1 / 9);
      expectShare(counts[2], 6000, 4 / 9);
      // Known 1, 50 and 100: better than 100, worse than 1.
      const four = share([], weighing([1, 1, 1, 1]), [1, 100, undefined, 50]);
      expectShare(four[0], 6000, 7 / 16);
      expectShare(four[1], 6000, 1 / 16);
      expectShare(four[2], 6000, 4 / 16);
    });

    it("times are smoothed, and forgotten after half a minute", () => {
      // 1, then 3 a hundred times: nearly 3, which is more than 2.
      const often = Array.from({ length: 100 }, (): Step => ({ outcome: 0, tookMs: 3 }));
      expectShare(share(often, two, [1, 2])[1], 6000, 3 / 4);
      // One slow connection of many makes (9 * 3 + 13) / 4 = 10: still below 10.5.
      expectShare(share([{ outcome: 0, tookMs: 13 }], two, [9, 10.5])[0], 6000, 3 / 4);
      expectShare(share([{ at: START + 29_000 }], two, [1, 10])[0], 6000, 3 / 4);
      expectShare(share([{ at: START + 31_000 }], two, [1, 10])[0], 6000, 1 / 2);
    });

    it("a failure doubles the cost until the next success", () => {
      const failed: Step[] = [{ outcome: 0, code: "ECONNREFUSED" }, { at: START + 11_500 }];
      expectShare(share(failed, two, [10, 15])[0], 6000, 1 / 4);
      expectShare(share([...failed, { outcome: 0, tookMs: 10 }], two, [10, 15])[0], 6000, 3 / 4);
    });
  });

  describe("ejection", () => {
    it.each(POLICIES)("%s avoids what failed while something else is there", (policy) => {
      checked(
        fc.property(
          fc.integer({ min: 2, max: 8 }),
          fc.nat(),
          fc.constantFrom(...FAILURES),
          fc.integer({ min: 0, max: 799 }),
          seeds,
          (size, which, code, laterMs, seed) => {
            const bad = which % size;
            const story: Step[] = [
              { list: weighing(new Array(size).fill(1)) },
              { policy },
              { outcome: bad, code },
              { at: START + laterMs },
              ...many(policy, 100),
            ];
            expect(play(story, seed).flat()).not.toContain(bad);
          },
        ),
        12,
      );
    });

    it("ejects for 1, 2, 4 … 30 seconds, shortened by a fifth at most", () => {
      for (const [failures, longestMs] of [
        [1, 1000],
        [2, 2000],
        [3, 4000],
        [4, 8000],
        [5, 16_000],
        [6, 30_000],
        [9, 30_000],
      ] as const) {
        const story: Step[] = [{ list: weighing([1, 1]) }, { policy: "random" }];
        let now = START;
        for (let i = 0; i < failures; i++) {
          now += 40_000;
          story.push({ at: now }, { outcome: 0, code: "ECONNREFUSED" });
        }
        const told = play([
          ...story,
          { at: now + longestMs * 0.799 },
          { pick: 300 },
          { at: now + longestMs },
          { pick: 300 },
          { at: now + longestMs + 10_000 },
          { pick: 1000 },
        ]);
        expect(told[0]).not.toContain(0);
        expect(told[1]).toContain(0);
        expectShare(countsOf(told[2] as number[], 2)[0], 1000, 1 / 2);
      }
      // The shortening differs, so that not everybody comes back at once.
      const returns = Array.from({ length: 40 }, (_, seed) =>
        play(
          [
            { list: weighing([1, 1]) },
            { policy: "random" },
            { outcome: 0, code: "ETIMEDOUT" },
            { at: START + 900 },
            { pick: 300 },
          ],
          seed,
        )
          .flat()
          .includes(0),
      );
      expect(new Set(returns).size).toBe(2);
    });

    it("lets it back gradually", () => {
      const shares = [1_000, 3_000, 5_500, 8_000, 11_000].map((laterMs) => {
        const picks = play([
          { list: weighing([1, 1]) },
          { policy: "random" },
          { outcome: 0, code: "ECONNREFUSED" },
          { at: START + laterMs },
          { pick: 6000 },
        ]).flat();
        return (countsOf(picks, 2)[0] as number) / 6000;
      });
      // Half of the elapsed tenth, from a sixteenth on: 0.031, 0.1 to 0.11, 0.225 to 0.235, 0.35 to 0.36, 0.5.
      const least = [0.02, 0.085, 0.2, 0.32, 0.47];
      const most = [0.045, 0.125, 0.26, 0.39, 0.53];
      for (const [i, share] of shares.entries()) {
        expect(share).toBeGreaterThan(least[i] as number);
        expect(share).toBeLessThan(most[i] as number);
      }
    });

    it("failures while it is ejected change nothing", () => {
      const burst = Array.from({ length: 50 }, (): Step => ({ outcome: 0, code: "ECONNREFUSED" }));
      const story: Step[] = [
        { list: weighing([1, 1]) },
        { policy: "random" },
        ...burst,
        { at: START + 1000 },
        { pick: 300 },
      ];
      expect(play(story).flat()).toContain(0);
    });

    it("a success while it is ejected ends that, gradually", () => {
      const failedOften: Step[] = [1, 2, 3, 4, 5].flatMap((i): Step[] => [
        { at: START + i * 40_000 },
        { outcome: 0, code: "ECONNREFUSED" },
      ]);
      const now = START + 200_000;
      const told = play([
        { list: weighing([1, 1]) },
        { policy: "random" },
        ...failedOften,
        { at: now + 100 },
        { pick: 200 },
        { outcome: 0, tookMs: 1 },
        { pick: 3000 },
        { at: now + 10_100 },
        { pick: 3000 },
        { outcome: 0, code: "ECONNREFUSED" },
        { at: now + 11_100 },
        { pick: 300 },
      ]);
      expect(told[0]).not.toContain(0);
      expectShare(countsOf(told[1] as number[], 2)[0], 3000, 1 / 32);
      expectShare(countsOf(told[2] as number[], 2)[0], 3000, 1 / 2);
      // And the count began anew: one second, not thirty.
      expect(told[3]).toContain(0);
    });

    it("errors that say nothing about the backend eject nobody", () => {
      for (const code of INNOCENT) {
        const picks = play([
          { list: weighing([1, 1]) },
          { policy: "random" },
          { outcome: 0, code },
          { pick: 600 },
        ]).flat();
        expectShare(countsOf(picks, 2)[0], 600, 1 / 2);
      }
    });

    it.each(POLICIES)("%s: all ejected is as if none were", (policy) => {
      const some = [1, 2, 5];
      const picks = play([
        { list: weighing(some) },
        { policy },
        ...some.map((_, outcome): Step => ({ outcome, code: "ECONNREFUSED" })),
        ...many(policy, 2000),
      ]).flat();
      for (const [i, count] of countsOf(picks, 3).entries()) {
        if (policy === "first") expect(count).toBe(i === 0 ? 2000 : 0);
        else expectShare(count, 2000, (some[i] as number) / 8);
      }
    });

    it("an ejection that ends further ahead than any can is none: the clock was set back", () => {
      const picks = play([
        { list: weighing([1, 1]) },
        { policy: "random" },
        { outcome: 0, code: "ECONNREFUSED" },
        { at: START - 3_600_000 },
        { pick: 600 },
      ]).flat();
      expectShare(countsOf(picks, 2)[0], 600, 1 / 2);
    });
  });

  describe("groups", () => {
    /** The group by docs/balancing.md; nobody is on the way back in these stories. */
    const groupOf = ({ weight, tier = 2, suspect = false }: Backend, ejected: boolean): number =>
      (suspect || ejected ? 6 : 0) + (weight === 0 ? 3 : 0) + tier;
    const backends = fc.array(
      fc.record({
        weight: fc.constantFrom(0, 1, 1, 2, 7),
        tier: fc.constantFrom<0 | 1 | 2>(0, 1, 2),
        suspect: fc.boolean(),
        ejected: fc.boolean(),
      }),
      { minLength: 1, maxLength: 10 },
    );

    it.each(POLICIES)(
      "%s: in before out, with weight before without, near before far; the fall-backs, too",
      (policy) => {
        checked(
          fc.property(backends, seeds, (facts, seed) => {
            const list = facts.map(({ ejected: _, ...rest }, i) => at(i, rest));
            const ejections = facts.flatMap(({ ejected }, outcome): Step[] =>
              ejected ? [{ outcome, code: "ECONNREFUSED" }] : [],
            );
            const told = play([{ list }, { policy }, ...ejections, { order: 1 }, { pick: 30, caller: 1 }], seed);
            const groups = list.map((each, i) => groupOf(each, facts[i]?.ejected === true));
            const [order, picks] = told as [number[], number[]];
            expect(order.toSorted((a, b) => a - b)).toEqual(list.map((_, i) => i));
            expect(order.map((i) => groups[i])).toEqual(groups.toSorted((a, b) => a - b));
            for (const index of picks) expect(groups[index]).toBe(Math.min(...groups));
          }),
          20,
        );
      },
    );

    it("a group without weights is shared evenly", () => {
      for (const policy of ["p2c", "random", "sticky"] as const) {
        const picks = play([{ list: weighing([0, 0, 0, 0]) }, { policy }, ...many(policy, 2000)]).flat();
        for (const count of countsOf(picks, 4)) expectShare(count, 2000, 1 / 4);
      }
    });
  });

  describe("sticky", () => {
    const picksOf = (list: readonly Backend[], story: readonly Step[] = [], seed = 1): (Backend | undefined)[] =>
      play([{ list }, { policy: "sticky" }, ...story, ...callers(400)], seed)
        .flat()
        .map((index) => list[index]);

    it("gives a caller the same one again, in whatever order they are listed", () => {
      const list = weighing([1, 2, 3, 4, 5]);
      expect(picksOf(list)).toEqual(picksOf(list.toReversed()));
      expect(new Set(play([{ list }, { policy: "sticky" }, { pick: 50, caller: 9 }]).flat()).size).toBe(1);
    });

    it("moves only the callers of one that goes, and only to one that comes", () => {
      checked(
        fc.property(
          fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 2, maxLength: 8 }),
          fc.nat(),
          (some, which) => {
            const list = weighing(some);
            const gone = list[which % list.length] as Backend;
            const before = picksOf(list);
            const after = picksOf(list.filter((each) => each !== gone));
            for (const [i, was] of before.entries()) if (was !== gone) expect(after[i]).toBe(was);
          },
        ),
        8,
      );
    });

    it("lets callers move back once each after an ejection", () => {
      const list = weighing([1, 1, 1]);
      const home = picksOf(list);
      const ejected: Step = { outcome: 0, code: "ECONNREFUSED" };
      const back = [1_000, 3_000, 5_000, 7_000, 9_000, 11_000].map((laterMs) =>
        picksOf(list, [ejected, { at: START + laterMs }], laterMs),
      );
      const atHome = home.map((_, caller) => back.map((picks) => picks[caller] === home[caller]));
      for (const stays of atHome) expect(stays.join()).toMatch(/^(false,?)*(true,?)*$/);
      const returning = back.map((picks) => picks.filter((each) => each === list[0]).length);
      expect(returning).toEqual(returning.toSorted((a, b) => a - b));
      expect(new Set(returning).size).toBeGreaterThan(3);
      expect(back.at(-1)).toEqual(home);
    });
  });

  it("chooses among thousands", () => {
    const list = Array.from({ length: 3000 }, (_, i) => at(i, { weight: 1 + (i % 3), tier: i % 5 === 0 ? 1 : 2 }));
    for (const policy of POLICIES) {
      const picks = play([{ list }, { policy }, { outcome: 5, code: "ECONNREFUSED" }, ...many(policy, 40)]).flat();
      for (const index of picks) expect(index % 5 === 0 && index !== 5).toBe(true);
      if (policy !== "first") expect(new Set(picks).size).toBeGreaterThan(20);
    }
  });
});

describe("both", () => {
  it("tell the same order where chance has no say", () => {
    const step = fc.oneof(
      { weight: 3, arbitrary: fc.record({ outcome: fc.nat(5), code: fc.constantFrom(...FAILURES, ...INNOCENT) }) },
      { weight: 2, arbitrary: fc.record({ outcome: fc.nat(5), tookMs: fc.integer({ min: 1, max: 100 }) }) },
      { weight: 4, arbitrary: fc.record({ order: fc.nat(9) }) },
      // Within every ejection, or past every return: what lies between is chance.
      { weight: 2, arbitrary: fc.record({ later: fc.constantFrom(5, 100, 41_000) }) },
    );
    const facts = fc.record({
      weight: fc.constantFrom(0, 1, 3),
      tier: fc.constantFrom<0 | 1 | 2>(0, 1, 2),
      suspect: fc.boolean(),
    });
    checked(
      fc.property(fc.array(facts, { minLength: 6, maxLength: 6 }), fc.array(step, { maxLength: 25 }), (some, steps) => {
        let now = START;
        let sinceReturn = 0;
        const story: Step[] = [{ at: START }, { list: some.map((each, i) => at(i, each)) }, { policy: "first" }];
        const pass = (ms: number): void => {
          sinceReturn = ms > 40_000 ? 0 : sinceReturn + ms;
          if (sinceReturn >= 700) return;
          now += ms;
          story.push({ at: now });
        };
        for (const each of steps) {
          if ("later" in each) pass(each.later);
          else story.push(each);
          // A success during an ejection begins a return at once: pass over it.
          if ("tookMs" in each) pass(41_000);
        }
        story.push({ order: 0 });
        expect(c.play(story, 1)).toEqual(typescriptPlayer.play(story, 1));
      }),
      60,
    );
  });
});

describe("the C picker", () => {
  it("chooses what the socket can reach: its families, its protocol", () => {
    const UDP_ONLY = 2;
    const TCP_ONLY = 4;
    const kinds = fc.record({ v6: fc.boolean(), flags: fc.constantFrom(0, UDP_ONLY, TCP_ONLY) });
    checked(
      fc.property(
        fc.array(kinds, { minLength: 1, maxLength: 8 }),
        fc.integer({ min: 1, max: 3 }),
        fc.boolean(),
        seeds,
        (some, families, datagrams, seed) => {
          const list = some.map(({ v6, flags }, i) =>
            wordOf(at(i, v6 ? { address: `fd00::${(i + 1).toString(16)}` } : {}), flags),
          );
          const [order = []] = c.lines(
            [`list ${list.join(" ")}`, `ask ${families} ${datagrams ? 1 : 0} 80`, "order 1"],
            seed,
          );
          const fits = some.flatMap(({ v6, flags }, i) =>
            (families & (v6 ? 2 : 1)) !== 0 && flags !== (datagrams ? TCP_ONLY : UDP_ONLY) ? [i] : [],
          );
          expect(order.toSorted((a, b) => a - b)).toEqual(fits);
        },
      ),
      60,
    );
  });

  it("knows a backend without a port by the caller's own", () => {
    const told = c.lines(
      [
        `at ${START}`,
        "list 10.0.0.1/0/1/2/0 10.0.0.2/0/1/2/0",
        "policy 2",
        "ask 3 0 80",
        "outcome 0 111 5",
        "pick 50 0",
        "ask 3 0 81",
        "pick 50 0",
      ],
      3,
    );
    expect(told[0]).not.toContain(0);
    expect(told[1]).toContain(0);
  });

  it("forgets the one not seen for the longest time when its place is needed, not the ejected one of just now", () => {
    const list = Array.from({ length: 5000 }, (_, i) => at(i));
    const story: Step[] = [{ at: START }, { list }, { policy: "random" }];
    for (let i = 0; i < 5000; i++) story.push({ at: START + i }, { outcome: i, tookMs: 1 });
    story.push({ list: list.slice(0, 2) }, { outcome: 0, code: "ECONNREFUSED" }, { pick: 50 });
    expect(new Set(c.play(story, 1).flat())).toEqual(new Set([1]));
  });
});
