// Discovery on a simulated LAN and clock: what is announced comes into the directory, once, and goes for the reason for which it went.
import { describe, expect, it } from "vitest";
import { scene } from "../../../test/support/mdns-agents.ts";
import { AGENTS_TYPE } from "../../contracts/nearby.ts";
import { keyOf } from "../../model/record.ts";
import type { Service } from "./engine.ts";

const txt = (...texts: string[]): Uint8Array[] => texts.map((text) => Buffer.from(text));
const ipp = (more: Partial<Service> = {}): Service => ({
  ...{ type: "_ipp._tcp", port: 631, txt: txt("rp=ipp/print", "Color=T", "tags=a4,duplex") },
  ...more,
});

describe("a service of the LAN", () => {
  it("is an instance on the external node that its host is, with its name, labels and tags, and goes at once with its goodbye", async () => {
    const { clock, agent, host } = scene();
    const alpha = await agent("alpha", ["10.0.0.1/24"]);
    const printer = await host("printer", ["10.0.0.9/24", "fd00::9/64"]);
    const published = printer.publish({ name: "Living Room. Printer", services: [ipp()] });
    await clock.advance(2000);
    const [found, ...more] = alpha.found("ipp");
    expect(more).toEqual([]);
    expect(found).toMatchObject({
      ...{ node: "printer", id: "Living Room. Printer._ipp._tcp", name: "ipp", port: 631, address: "" },
      tags: ["a4", "duplex"],
      origin: { source: "mdns", authority: "second-hand" },
    });
    expect({ ...found?.labels }).toEqual({
      ...{ rp: "ipp/print", Color: "T" },
      ...{ "mdns-instance": "Living Room. Printer", "mdns-type": "_ipp._tcp" },
    });
    const view = alpha.trilith.directory.view();
    expect(view.get("node", keyOf.node("printer"))).toMatchObject({
      ...{ address: "10.0.0.9", external: true },
      labels: { "external-node": "true", "mdns-host": "printer.local" },
      witnessed: [{ source: "mdns", by: ["alpha"] }],
    });
    expect(alpha.trilith.lookup.resolveNow({ service: "ipp" }).endpoints).toMatchObject([
      { address: "10.0.0.9", port: 631 },
    ]);

    const leaving = published.withdraw();
    await clock.advance(1500);
    await leaving;
    expect(alpha.found("ipp")).toEqual([]);
    const graves = [...alpha.trilith.directory.view().list("grave")].flatMap(({ why }) => why ?? []);
    expect(graves.at(-1)).toMatchObject({ code: "goodbye", confirmed: true });
    expect(alpha.trilith.directory.view().get("node", keyOf.node("printer"))).toBeUndefined();
  });

  it("is one instance with both addresses where both families see it", async () => {
    const { clock, agent, host } = scene();
    const alpha = await agent("alpha", ["10.0.0.1/24", "fd00::1/64"]);
    const printer = await host("printer", ["10.0.0.9/24", "fd00::9/64"]);
    printer.publish({ name: "P", services: [ipp()] });
    await clock.advance(3000);
    expect(alpha.found("ipp")).toMatchObject([
      {
        addresses: [
          { host: "10.0.0.9", port: 631, reach: "lan", network: "10.0.0.9/24" },
          { host: "fd00::9", port: 631, reach: "lan", network: "fd00::9/64" },
        ],
        taggedAddresses: { lan_ipv4: { address: "10.0.0.9", port: 631 }, lan_ipv6: { address: "fd00::9", port: 631 } },
      },
    ]);
    const asker = (from: string) =>
      alpha.trilith.lookup.resolveNow({ service: "ipp", asker: from }).endpoints.map(({ address }) => address);
    expect([asker("fd00::55"), asker("10.0.0.55")]).toEqual([["fd00::9"], ["10.0.0.9"]]);
  });

  it("changes with its texts and its port, without having been gone", async () => {
    const { clock, agent, host } = scene();
    const alpha = await agent("alpha", ["10.0.0.1/24"]);
    const printer = await host("printer", ["10.0.0.9/24"]);
    const published = printer.publish({ name: "P", services: [ipp()] });
    await clock.advance(2000);
    const [before] = alpha.found("ipp");
    published.update([ipp({ port: 632, txt: txt("Color=F") })]);
    await clock.advance(2500);
    const [after] = alpha.found("ipp");
    expect(after).toMatchObject({ port: 632, tags: [], labels: { Color: "F" } });
    expect((after as { createIndex?: number }).createIndex).toBe((before as { createIndex?: number }).createIndex);
  });

  it("is held by the guard where many fall silent at once, and is not where they say goodbye", async () => {
    for (const silent of [true, false]) {
      const { clock, lan, agent, host } = scene(silent ? 1 : 2);
      const alpha = await agent("alpha", ["10.0.0.1/24"]);
      const hosts = await Promise.all([1, 2, 3].map((n) => host(`h${n}`, [`10.0.0.1${n}/24`])));
      for (const [n, each] of hosts.entries()) each.publish({ name: `P${n}`, services: [ipp()] });
      await clock.advance(3000);
      expect(alpha.found("ipp")).toHaveLength(3);
      if (silent) lan.split(["alpha"], ["h1", "h2", "h3"]);
      else {
        const stops = hosts.map((each) => each.stop());
        await clock.advance(1000);
        await Promise.all(stops);
      }
      await clock.advance(silent ? 125_000 : 1500);
      expect(alpha.found("ipp")).toEqual([]);
      const { endpoints, held } = alpha.trilith.lookup.resolveNow({ service: "ipp" });
      expect(endpoints).toHaveLength(silent ? 3 : 0);
      if (silent) expect(held?.text).toContain('source "mdns" no longer lists them');
      await alpha.stop();
    }
  });

  it("stays while this host's own cable is pulled, is said to be the last known, and goes where it is not there afterwards", async () => {
    const { clock, lan, agent, host } = scene();
    const alpha = await agent("alpha", ["10.0.0.1/24"]);
    const [stays, goes] = await Promise.all([host("stays", ["10.0.0.8/24"]), host("goes", ["10.0.0.9/24"])]);
    stays.publish({ name: "stays", services: [ipp()] });
    goes.publish({ name: "goes", services: [ipp()] });
    await clock.advance(3000);
    const names = (): string[] => alpha.found("ipp").map(({ node }) => node);
    expect(names()).toEqual(["goes", "stays"]);
    const state = () => alpha.trilith.sources().find(({ name }) => name === "mdns");
    lan.readdress("alpha");
    await clock.advance(300_000);
    expect(names()).toEqual(["goes", "stays"]);
    expect(state()).toMatchObject({ ok: false });
    expect(state()?.text).toContain("2 last known");
    expect(alpha.trilith.lookup.resolveNow({ service: "ipp" }).fresh).toBe(false);
    const stopping = goes.stop();
    await clock.advance(1000);
    await stopping;
    lan.readdress("alpha", "10.0.0.1/24");
    await clock.advance(5000);
    expect(names()).toEqual(["goes", "stays"]);
    await clock.advance(10_000);
    expect(names()).toEqual(["stays"]);
    expect(state()).toMatchObject({ ok: true });
    expect(alpha.trilith.lookup.resolveNow({ service: "ipp" }).fresh).toBe(true);
  });

  it("on a host with an agent in the directory is on a node beside the agent's", async () => {
    const { clock, agent, host } = scene();
    const alpha = await agent("alpha", ["10.0.0.1/24"]);
    const avahi = await host("alpha", ["10.0.0.1/24"]);
    avahi.publish({ name: "Files", services: [{ type: "_smb._tcp", port: 445 }] });
    await clock.advance(2500);
    expect(alpha.found("smb")).toMatchObject([{ node: "alpha-mdns", port: 445 }]);
    expect(alpha.trilith.agent.complaints()).toEqual([]);
  });

  it("that the directory has by another way is not there twice, and is there where that way goes", async () => {
    const { clock, agent, host } = scene();
    const alpha = await agent("alpha", ["10.0.0.1/24"]);
    const far = await host("far", ["10.0.0.9/24"]);
    const web = { name: "web", tags: [], labels: {}, address: "10.0.0.9", port: 80, checks: [] };
    await alpha.trilith.agent.register("api", { ...web, id: "web" });
    far.publish({ name: "W", services: [{ type: "_web._tcp", port: 80 }] });
    await clock.advance(2500);
    expect(alpha.found("web")).toEqual([]);
    await alpha.trilith.agent.deregister("api", "web");
    await clock.advance(1000);
    expect(alpha.found("web")).toMatchObject([{ node: "far", port: 80 }]);
  });

  it("comes in only of the types that are looked for", async () => {
    const { clock, agent, host } = scene();
    const alpha = await agent("alpha", ["10.0.0.1/24"], { discover: ["_ipp._tcp"] });
    const beta = await agent("beta", ["10.0.0.2/24"], { discover: false });
    const far = await host("far", ["10.0.0.9/24"]);
    far.publish({ name: "P", services: [ipp(), { type: "_web._tcp", port: 80 }] });
    await clock.advance(2500);
    expect(alpha.found("ipp")).toHaveLength(1);
    expect([...alpha.found("web"), ...beta.found("ipp")]).toEqual([]);
  });

  it("is no agent that shows its own to others: who those are is for the agents to find out", async () => {
    const { clock, agent, host } = scene();
    const alpha = await agent("alpha", ["10.0.0.1/24"]);
    const far = await host("far", ["10.0.0.9/24"]);
    far.publish({ name: "far", services: [{ type: AGENTS_TYPE, port: 8504 }, ipp()] });
    await clock.advance(2500);
    expect(alpha.found("ipp")).toHaveLength(1);
    expect(alpha.found("trilith")).toEqual([]);
  });
});
