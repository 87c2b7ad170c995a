// A real avahi-daemon that is killed says nothing: its services stay for the 120 s of their records, go as hearsay and are held in answers.
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { answerAt, removeServiceFiles, startAgentOn } from "../support/avahi-agent.ts";
import { type AvahiDaemon, type AvahiLan, haveAvahiLan, startAvahiLan } from "../support/avahi-lan.ts";
import { eventually, havePrograms } from "../support/peers.ts";

const possible = (await haveAvahiLan()) && (await havePrograms("curl"));
const file = (name: string, port: number): string =>
  `<service-group><name>${name}</name><service><type>_http._tcp</type><port>${port}</port></service></service-group>`;

describe.runIf(possible)("a killed avahi-daemon", () => {
  let lan: AvahiLan;
  const ends: (() => Promise<unknown>)[] = [];
  beforeAll(async () => {
    lan = await startAvahiLan("a", "b");
  });
  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) await end();
    await removeServiceFiles(lan.host("a"));
  });
  afterAll(() => lan?.close());
  const startAvahi = async (): Promise<AvahiDaemon> => {
    const daemon = await lan.host("a").avahi();
    ends.push(() => daemon.stop());
    return daemon;
  };

  it("is missed when its records run out, not before, and what it announced is held", async () => {
    await answerAt(ends, lan.host("a"), 8091, 8092, 8093);
    const daemon = await startAvahi();
    const agent = await startAgentOn(ends, lan.host("b"));
    for (const n of [1, 2, 3]) await daemon.serviceFile(`${n}.service`, file(`web${n}`, 8090 + n));
    const recorded = async (): Promise<number> => ((await agent.get("/v1/health/service/http")) as unknown[]).length;
    await eventually("all three", async () => (await recorded()) === 3);
    const killedAt = Date.now();
    await daemon.stop("SIGKILL");
    // Records of hosts live 120 s [RFC 6762 §10]; some were heard a while before the end.
    while (Date.now() - killedAt < 20_000) {
      expect(await recorded()).toBe(3);
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
    await eventually("recorded as gone", async () => (await recorded()) === 0, 150_000);
    expect((await agent.trilith("find", "http")).out.match(/^10\.77\.0\.10 +809\d /gm)).toHaveLength(3);
    const why = (await agent.trilith("why", "http")).out;
    expect(why).toMatch(/held/);
    expect(why).toMatch(/"web1" at host-a is not heard on the LAN any more/);
    // It comes back: nothing needs to be held.
    await startAvahi();
    await eventually("all three again", async () => (await recorded()) === 3);
    await eventually("no longer held", async () => !/held by/.test((await agent.trilith("why", "http")).out));
  }, 300_000);
});
