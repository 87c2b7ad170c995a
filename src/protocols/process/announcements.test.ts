// What is announced for a process goes with it, and not with the one for which it was announced before.
import { describe, expect, it } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import { silentLog } from "../../base/log.ts";
import type { HeldService } from "../../contracts/agent.ts";
import { Announcements } from "./announcements.ts";

describe("what is announced", () => {
  it("stays where it is announced for another process while it is found out that the one before ended", async () => {
    const clock = fakeClock();
    const services = new Map<string, HeldService>();
    const hold = (id: string, pid: number): void => {
      const origin = { source: "announce", authority: "first-hand", foreignId: `${pid}:${pid * 100}:tcp` };
      services.set(id, { instance: { id, origin }, checks: [] } as unknown as HeldService);
    };
    const went: string[] = [];
    const looks: (() => void)[] = [];
    const announcements = new Announcements({
      clock,
      log: silentLog,
      processes: {
        exists: () => false,
        proc: () => new Promise((resolve) => looks.push(() => resolve(undefined))),
      },
      agent: {
        services: () => services,
        register: async () => {},
        report: async () => {},
        async deregister(_from, id, why) {
          services.delete(id);
          went.push(`${id}: ${why?.text}`);
        },
      },
      parse: () => undefined,
      changed: () => {},
    });
    hold("db", 1);
    hold("web", 1);
    announcements.start();
    await expect.poll(() => looks.length).toBe(1);
    // Announced for its successor by now.
    hold("web", 2);
    hold("db", 1);
    for (const look of looks.splice(0)) look();
    await expect.poll(() => looks.length).toBe(1);
    for (const look of looks.splice(0)) look();
    await expect.poll(() => went).toEqual(["db: process 1, for which it was announced, ended"]);
    await clock.advance(0);
    expect([...services.keys()]).toEqual(["web"]);
    const stopping = announcements.stop();
    await clock.advance(1000);
    await stopping;
  });
});
