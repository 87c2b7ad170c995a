// Multicast DNS on a simulated LAN: what is answered, when, to whom and when not (RFC 6762 §6, §7).
import { describe, expect, it } from "vitest";
import { type Message, TYPE } from "../../src/wire/dns/index.ts";
import { asks, HTTP, packet, ptr, responses, type World, web, world } from "./mdns-world.ts";

describe("an answer", () => {
  const setUp = async (): Promise<World> => {
    const w = world();
    const a = await w.host("host-a");
    a.publish({ name: "web", services: web() });
    await w.clock.advance(10_000);
    return w;
  };
  const delayMs = async (w: World, part: Partial<Message>, waitMs = 1500): Promise<number | undefined> => {
    const at = w.clock.monotonic();
    w.lan.inject("x", "10.0.0.9", packet({ response: false, authoritative: false, ...part }));
    await w.clock.advance(waitMs);
    const [first] = responses(w.lan.from("10.0.0.1", at));
    return first === undefined ? undefined : first.atMs - at;
  };

  it("comes at once for what is ours alone, after 20 to 120 ms for what is shared, after 400 to 500 ms where more known answers follow", async () => {
    const w = await setUp();
    expect(await delayMs(w, { questions: [asks(TYPE.SRV, "web", ...HTTP)] })).toBeLessThan(10);
    const shared = await delayMs(w, { questions: [asks(TYPE.PTR, ...HTTP)] });
    expect(shared).toBeGreaterThanOrEqual(20);
    expect(shared).toBeLessThanOrEqual(122);
    const more = await delayMs(w, { questions: [asks(TYPE.PTR, ...HTTP)], truncated: true });
    expect(more).toBeGreaterThanOrEqual(400);
    expect(more).toBeLessThanOrEqual(502);
    await w.stopAll();
  });

  it("is silenced by a known answer in a later packet of the same asker, not of another", async () => {
    const w = await setUp();
    const ask = { response: false, authoritative: false };
    const question = packet({ ...ask, questions: [asks(TYPE.PTR, ...HTTP)], truncated: true });
    const known = packet({ ...ask, answers: [ptr("web", 4000)] });
    w.lan.inject("x", "10.0.0.9", question);
    await w.clock.advance(50);
    const at = w.clock.monotonic();
    w.lan.inject("x", "10.0.0.9", known);
    await w.clock.advance(1500);
    expect(responses(w.lan.from("10.0.0.1", at))).toEqual([]);
    w.lan.inject("x", "10.0.0.9", question);
    await w.clock.advance(50);
    w.lan.inject("y", "10.0.0.8", known);
    await w.clock.advance(1500);
    expect(responses(w.lan.from("10.0.0.1", at))).toHaveLength(1);
    await w.stopAll();
  });

  it("is given once a second, and not where another host gave it meanwhile", async () => {
    const w = await setUp();
    const at = w.clock.monotonic();
    const question = packet({ response: false, authoritative: false, questions: [asks(TYPE.PTR, ...HTTP)] });
    for (let i = 0; i < 10; i++) {
      w.lan.inject("x", "10.0.0.9", question);
      await w.clock.advance(100);
    }
    await w.clock.advance(3000);
    const times = responses(w.lan.from("10.0.0.1", at)).map(({ atMs }) => atMs);
    expect(times.length).toBeLessThanOrEqual(2);
    for (const [i, time] of times.slice(1).entries()) expect(time - (times[i] as number)).toBeGreaterThanOrEqual(999);
    const before = w.clock.monotonic();
    w.lan.inject("x", "10.0.0.9", question);
    await w.clock.advance(10);
    w.lan.inject("y", "10.0.0.8", packet({ answers: [ptr("web", 4500)] }));
    await w.clock.advance(2000);
    expect(responses(w.lan.from("10.0.0.1", before))).toEqual([]);
    await w.stopAll();
  });

  it("goes back alone where that is wanted and all heard it lately, else to all", async () => {
    const w = await setUp();
    const unicast = { ...asks(TYPE.SRV, "web", ...HTTP), class: 0x8001 };
    const at = w.clock.monotonic();
    await delayMs(w, { questions: [unicast] });
    expect(w.lan.from("10.0.0.1", at).map(({ to }) => to)).toEqual(["10.0.0.9"]);
    await w.clock.advance(60_000);
    const later = w.clock.monotonic();
    await delayMs(w, { questions: [unicast] });
    expect(w.lan.from("10.0.0.1", later).map(({ to }) => to)).toEqual(["224.0.0.251"]);
    await w.stopAll();
  });

  it("is given all the same where another host gave it a shorter life", async () => {
    const w = await setUp();
    const at = w.clock.monotonic();
    const ask = { response: false, authoritative: false };
    w.lan.inject("x", "10.0.0.9", packet({ ...ask, questions: [asks(TYPE.PTR, ...HTTP)] }));
    await w.clock.advance(10);
    w.lan.inject("y", "10.0.0.8", packet({ answers: [ptr("web", 3000)] }));
    await w.clock.advance(2000);
    expect(responses(w.lan.from("10.0.0.1", at))).toHaveLength(1);
    await w.stopAll();
  });

  it("is given unasked where another host said less than half of its life", async () => {
    const w = await setUp();
    for (const [ttlS, times] of [
      [2250, 0],
      [2249, 1],
    ] as const) {
      const at = w.clock.monotonic();
      w.lan.inject("y", "10.0.0.8", packet({ answers: [ptr("web", ttlS)] }));
      await w.clock.advance(2000);
      expect(responses(w.lan.from("10.0.0.1", at))).toHaveLength(times);
    }
    await w.stopAll();
  });

  it("defends a name at once, four times a second at most", async () => {
    const w = await setUp();
    const plain = { questions: [asks(TYPE.SRV, "web", ...HTTP)] };
    const data = { kind: "SRV", priority: 0, weight: 0, port: 9, target: ["other", "local"] } as const;
    const probe = {
      questions: [asks(TYPE.ANY, "web", ...HTTP)],
      authorities: [{ name: ["web", ...HTTP], class: 1, ttlS: 120, data }],
    };
    expect(await delayMs(w, plain, 300)).toBeLessThan(10);
    expect(await delayMs(w, probe, 100)).toBeLessThan(10);
    const again = await delayMs(w, probe, 900);
    expect(again).toBeGreaterThanOrEqual(149);
    expect(again).toBeLessThan(160);
    await w.stopAll();
  });
});
