// Looking around: who answers is first, who refuses or is silent is left out and told, and nothing stays open.
import { getEventListeners } from "node:events";
import { beforeEach, describe, expect, it } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import type { Backend } from "../../contracts/connect.ts";
import type { Target } from "../balance/balancer.ts";
import { lookAround } from "./look.ts";
import { errnoOf } from "./tries.ts";

const targets = (count: number): Target<Backend>[] =>
  Array.from({ length: count }, (_, i) => ({
    service: "web",
    port: i,
    backend: { address: "10.0.0.1", port: i, weight: 1 },
  }));

describe("looking around", () => {
  let clock: ReturnType<typeof fakeClock>;
  const reports: string[] = [];
  const begun: number[] = [];
  let open = 0;
  let destroyed = 0;
  beforeEach(() => {
    // What a try before this one left waiting waits for ever.
    clock = fakeClock();
    reports.length = 0;
    begun.length = 0;
    open = 0;
    destroyed = 0;
  });
  /** `answers`: after how many milliseconds a port does; the others are silent, but for those that refuse. */
  const around = (count: number, answers: Record<number, number>, refuse: readonly number[], signal?: AbortSignal) =>
    lookAround(
      {
        clock,
        errnoOf,
        balancer: { report: ({ port }, outcome) => void reports.push(`${port} ${outcome.ok ? "ok" : outcome.code}`) },
        tcp: {
          connect({ port }, options) {
            begun.push(port);
            open++;
            return new Promise((resolve, reject) => {
              const close = (error: unknown): void => {
                open--;
                reject(error);
              };
              options?.signal?.addEventListener("abort", () => close(options.signal?.reason));
              if (refuse.includes(port)) close(Object.assign(new Error("refused"), { code: "ECONNREFUSED" }));
              else if (answers[port] !== undefined)
                clock.after(answers[port], () => {
                  const socket = { on: () => socket, destroy: () => void destroyed++ };
                  open--;
                  resolve(socket as never);
                });
            });
          },
        },
      },
      targets(count),
      { ms: 1_000, ...(signal === undefined ? {} : { signal }) },
    );
  const portsOf = (found: readonly Target<Backend>[]): number[] => found.map(({ port }) => port);

  it("two at first, then four more, eight more; the first that answers is first, silent ones are told", async () => {
    const found = around(20, { 13: 1 }, []);
    await clock.advance(99);
    expect(begun).toEqual([0, 1]);
    await clock.advance(1);
    expect(begun).toHaveLength(6);
    await clock.advance(150);
    expect(portsOf(await found)).toEqual([13, 6, 7, 8, 9, 10, 11, 12, 14, 15, 16, 17, 18, 19]);
    expect(reports).toEqual([0, 1, 2, 3, 4, 5].map((port) => `${port} ETIMEDOUT`));
    expect([open, destroyed]).toEqual([0, 1]);
  });

  it("who was silent only a little longer than the answer took is not told as silent", async () => {
    // The second wave begins 100 ms after the first one; four times 30 ms is longer than that, four times 20 ms is not.
    const quickly = around(6, { 4: 20 }, []);
    await clock.advance(120);
    expect(portsOf(await quickly)).toEqual([4, 2, 3, 5]);
    expect(reports.splice(0)).toEqual(["0 ETIMEDOUT", "1 ETIMEDOUT"]);
    const slowly = around(6, { 4: 30 }, []);
    await clock.advance(130);
    expect(portsOf(await slowly)).toEqual([4, 0, 1, 2, 3, 5]);
    expect([reports, open]).toEqual([[], 0]);
  });

  it("those that refuse are replaced at once; nobody at all is nobody", async () => {
    expect(portsOf(await around(6, {}, [0, 1, 2, 3, 4, 5]))).toEqual([]);
    expect(reports).toHaveLength(6);
    const silent = around(3, {}, [1]);
    await clock.advance(1_000);
    expect([portsOf(await silent), open]).toEqual([[], 0]);
    expect(reports.slice(6).sort()).toEqual(["0 ETIMEDOUT", "1 ECONNREFUSED", "2 ETIMEDOUT"]);
  });

  it("ends with its signal, which says nothing about anybody", async () => {
    const over = new AbortController();
    const found = around(3, {}, [], over.signal);
    over.abort(new Error("enough"));
    await expect(found).rejects.toThrow("enough");
    expect([reports, open]).toEqual([[], 0]);
    await expect(around(3, {}, [], AbortSignal.abort(new Error("before")))).rejects.toThrow("before");
    expect(begun).toHaveLength(2);
  });

  it("leaves nothing behind at a signal that lasts", async () => {
    const { signal } = new AbortController();
    const found = around(3, { 0: 1 }, [], signal);
    expect(getEventListeners(signal, "abort")).toHaveLength(1);
    await clock.advance(10);
    expect(portsOf(await found)).toEqual([0, 1, 2]);
    const silent = around(3, {}, [], signal);
    await clock.advance(1_000);
    await silent;
    expect(getEventListeners(signal, "abort")).toEqual([]);
  });
});
