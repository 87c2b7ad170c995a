// Services that are followed: one stream for all who ask, the last answer while nobody answers, and an end when nobody asks any more.
import { describe, expect, it } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import { TrilithError } from "../../base/error.ts";
import type { NameSource, Names, Sought } from "../grpc/names.ts";
import { createFollowed } from "./followed.ts";

const WEB: Sought = { service: "web", labels: {} };

function names(...ports: number[]): Names {
  return {
    fresh: true,
    known: ports.length > 0,
    endpoints: ports.map((port) => ({ addresses: [{ host: "10.0.0.1", port }], weight: 1, labels: {} })),
  };
}

const portsOf = (answer: Names | undefined): (number | undefined)[] | undefined =>
  answer?.endpoints.map(({ addresses }) => addresses[0]?.port);

/** A source under a test's control. */
function source() {
  let say: ((names: Names) => void) | undefined;
  let fall: ((error: Error) => void) | undefined;
  const self = {
    name: "the agent",
    up: true,
    follows: 0,
    open: 0,
    async reach(): Promise<void> {},
    async *follow(_: Sought, signal: AbortSignal): AsyncIterable<Names> {
      self.follows++;
      if (!self.up) throw new TrilithError("unavailable", "the agent is away");
      self.open++;
      const queue: Names[] = [];
      let wake: (() => void) | undefined;
      let failed: Error | undefined;
      say = (each) => {
        queue.push(each);
        wake?.();
      };
      fall = (error) => {
        failed = error;
        wake?.();
      };
      signal.addEventListener("abort", () => wake?.());
      try {
        for (;;) {
          const next = queue.shift();
          if (next !== undefined) yield next;
          else if (failed !== undefined) throw failed;
          else if (signal.aborted) return;
          else
            await new Promise<void>((resolve) => {
              wake = resolve;
            });
        }
      } finally {
        self.open--;
      }
    },
    say: (each: Names) => say?.(each),
    fall: () => fall?.(new TrilithError("unavailable", "the agent went away")),
  };
  return self satisfies NameSource;
}

function setUp() {
  const clock = fakeClock();
  const agent = source();
  const followed = createFollowed({ source: agent, clock, random: { fraction: () => 0.5 } });
  return { clock, agent, followed };
}

describe("a followed service", () => {
  it("is asked for once; the next ones have the newest answer at hand, and hear of changes", async () => {
    const { clock, agent, followed } = setUp();
    const heard: unknown[] = [];
    followed.changed(WEB, (each) => heard.push(portsOf(each)));
    const asked = [followed.now(WEB), followed.now({ ...WEB, tags: [] })];
    await clock.settle();
    agent.say(names(1, 2));
    expect((await Promise.all(asked)).map(portsOf)).toEqual([
      [1, 2],
      [1, 2],
    ]);
    expect(portsOf(followed.peek(WEB))).toEqual([1, 2]);
    agent.say(names(2));
    await clock.settle();
    expect(portsOf(followed.peek(WEB))).toEqual([2]);
    expect(heard).toEqual([[1, 2], [2]]);
    expect(agent.follows).toBe(1);
    expect(followed.peek({ ...WEB, tags: ["a"] })).toBeUndefined();
  });

  it("keeps the last answer while nobody answers, also where a source that is back knows nobody yet", async () => {
    const { clock, agent, followed } = setUp();
    const first = followed.now(WEB);
    await clock.settle();
    agent.say(names(1));
    await first;
    agent.up = false;
    agent.fall();
    await clock.advance(1_000);
    expect(followed.peek(WEB)).toMatchObject({ fresh: false });
    expect(portsOf(followed.peek(WEB))).toEqual([1]);
    agent.up = true;
    await clock.advance(5_000);
    expect(agent.open).toBe(1);
    agent.say(names());
    await clock.settle();
    expect(portsOf(followed.peek(WEB))).toEqual([1]);
    await clock.advance(10_000);
    expect(portsOf(followed.peek(WEB))).toEqual([]);
    agent.say(names(3));
    await clock.settle();
    // Whoever says so in the middle of a stream knows.
    agent.say(names());
    await clock.settle();
    expect(portsOf(followed.peek(WEB))).toEqual([]);
  });

  it("says why where nothing was ever heard; who asks again has it tried at once", async () => {
    const { clock, agent, followed } = setUp();
    agent.up = false;
    await expect(followed.now(WEB)).rejects.toThrow("the agent is away");
    await clock.advance(20_000);
    const { follows } = agent;
    agent.up = true;
    const again = followed.now(WEB);
    await clock.settle();
    expect(agent.follows).toBe(follows + 1);
    agent.say(names(1));
    expect(portsOf(await again)).toEqual([1]);
  });

  it("is followed no more when nobody has asked for a minute; the next one waits at most a second for a newer answer", async () => {
    const { clock, agent, followed } = setUp();
    const first = followed.now(WEB);
    await clock.settle();
    agent.say(names(1));
    await first;
    await clock.advance(59_000);
    expect(agent.open).toBe(1);
    followed.peek(WEB);
    await clock.advance(59_000);
    expect(agent.open).toBe(1);
    await clock.advance(2_000);
    expect(agent.open).toBe(0);
    expect(clock.timers).toBe(0);
    const late = followed.now(WEB);
    await clock.advance(1_000);
    expect(await late).toMatchObject({ fresh: false, endpoints: names(1).endpoints });
    const other = followed.now(WEB);
    await clock.settle();
    agent.say(names(2));
    expect(portsOf(await other)).toEqual([2]);
  });

  it("does not leave those waiting who gave up, or whom nobody will answer", async () => {
    const { clock, followed } = setUp();
    const over = new AbortController();
    const given = followed.now(WEB, over.signal);
    over.abort(new Error("enough"));
    await expect(given).rejects.toThrow("enough");
    const silent = followed.now(WEB);
    const said = expect(silent).rejects.toThrow('the agent did not say where "web" is within 60000 ms');
    await clock.advance(60_000);
    await said;
    expect(clock.timers).toBe(0);
  });

  it("is forgotten when a thousand others were asked for since, but not while it is followed or listened to", async () => {
    const { clock, agent, followed } = setUp();
    const asked = async (service: string): Promise<Names> => {
      const answer = followed.now({ service, labels: {} });
      await clock.settle();
      agent.say(names(1));
      return await answer;
    };
    const isForgotten = async (service: string): Promise<boolean> => {
      agent.up = false;
      // Whoever has no answer at all is told what is wrong, all others get the last one.
      const answer = followed.now({ service, labels: {} }).then(
        () => false,
        () => true,
      );
      await clock.advance(2_000);
      agent.up = true;
      return await answer;
    };
    followed.changed({ service: "listened", labels: {} }, () => {});
    await asked("listened");
    await asked("old");
    await clock.advance(61_000);
    await asked("young");
    await clock.advance(61_000);
    for (let i = 0; i < 1_023; i++) await asked(`other-${i}`);
    expect([await isForgotten("listened"), await isForgotten("young"), await isForgotten("old")]).toEqual([
      false,
      true,
      true,
    ]);
    await clock.advance(61_000);
    expect([await isForgotten("other-5"), await isForgotten("listened")]).toEqual([false, false]);
    await clock.advance(61_000);
  });
});
