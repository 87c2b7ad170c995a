// External nodes and their witnesses: several agents see the same second-hand, and it stands as long as one of them does.
import { describe, expect, test } from "vitest";
import { fakeDurable } from "../../test/simulated/durable.ts";
import { asked, ends, entryOf, host, service, ttl } from "../../test/support/agent-host.ts";
import { silentLog } from "../base/log.ts";
import { createMetrics } from "../base/metrics.ts";
import { systemNet } from "../base/net.ts";
import { systemRandom } from "../base/random.ts";
import { defaultSettings } from "../contracts/settings.ts";
import type { SourceList } from "../contracts/source.ts";
import { createLookup } from "../lookup/lookup.ts";
import type { Registration } from "../model/instance.ts";
import { keyOf } from "../model/record.ts";

const printer = (more: Partial<Registration> = {}, node = "printer-7"): Registration =>
  service("ipp", {
    foreignId: "printer-7._ipp",
    port: 631,
    text: 'printer "printer-7" on the LAN',
    external: { node: { name: node, address: "192.0.2.77", labels: { room: "12" } } },
    ...more,
  });
const heard = (...list: Registration[]): SourceList => ({ list, authority: "second-hand" });
const gone = (code: "goodbye" | "missing", key = "printer-7/ipp"): SourceList => ({
  list: [],
  authority: "second-hand",
  gone: new Map([[key, { code, text: "said goodbye", confirmed: code === "goodbye", atMs: 0 }]]),
});

/** Two agents, "Alpha" and "beta", that share a directory and live. */
async function two() {
  const one = await host({}, { shared: true });
  const { directory, build, clock } = one;
  const live = (node: string) =>
    ({ op: "put", table: "alive", key: keyOf.alive(node), value: { node, life: node } }) as const;
  await directory.write([live("Alpha"), live("beta")]);
  const beta = build({
    self: { node: "beta", nodeId: "b", datacenter: "dc1", advertiseAddress: "192.0.2.2" },
    life: "beta",
    durable: fakeDurable(),
  });
  await beta.start();
  await one.agent.synced();
  await beta.synced();
  const by = (id = "ipp", node = "printer-7") =>
    directory
      .view()
      .get("node", keyOf.node(node))
      ?.witnessed?.find((one) => one.service === id)?.by;
  /** Lets both agents see what happened. */
  const settle = async (): Promise<void> => {
    for (let i = 0; i < 5; i++) {
      await clock.advance(100);
      await one.agent.synced();
      await beta.synced();
    }
  };
  return { ...one, alpha: one.agent, beta, by, settle };
}

describe("external nodes", () => {
  test("hold what a source lists there, as ordinary nodes without a sign of life", async () => {
    const { directory, agent } = await host();
    await agent.adopt("mdns", heard(printer(), service("own")));
    const view = directory.view();
    expect(view.get("node", "printer-7")).toMatchObject({
      name: "printer-7",
      address: "192.0.2.77",
      datacenter: "dc1",
      external: true,
      origin: { source: "mdns", authority: "second-hand" },
      witnessed: [{ service: "ipp", source: "mdns", foreignId: "printer-7._ipp", by: ["Alpha"] }],
    });
    expect({ ...view.get("node", "printer-7")?.labels }).toEqual({ "external-node": "true", room: "12" });
    expect(view.get("check", keyOf.check("printer-7", "serfHealth"))).toBeUndefined();
    expect(entryOf(directory, "ipp", "printer-7")).toMatchObject({
      name: "ipp",
      port: 631,
      node: "printer-7",
      origin: { source: "mdns", authority: "second-hand", foreignId: "printer-7._ipp" },
    });
    expect("external" in (entryOf(directory, "ipp", "printer-7") ?? {})).toBe(false);
    expect(entryOf(directory, "own")).toBeDefined();
    expect([...agent.services().keys()]).toEqual(["own"]);
    expect(agent.outside()).toMatchObject([{ instance: { id: "ipp", node: "printer-7" }, stands: true }]);
  });

  test("an unchanged list writes nothing, also after a restart; the node goes with its last instance", async () => {
    const { directory, agent, again, clock } = await host({ antiEntropyMs: 1000 });
    const second = printer({ id: "web", name: "web", foreignId: "w" });
    await agent.adopt("mdns", heard(printer(), second));
    const at = directory.view().index;
    await agent.adopt("mdns", heard(printer(), second));
    await clock.advance(5000);
    await agent.synced();
    await agent.stop();
    const next = await again();
    await next.adopt("mdns", heard(printer(), second));
    await clock.advance(5000);
    await next.synced();
    expect(directory.view().index).toBe(at);
    await next.adopt("mdns", heard(printer()));
    expect(entryOf(directory, "web", "printer-7")).toBeUndefined();
    expect(directory.view().get("node", "printer-7")?.witnessed).toHaveLength(1);
    await next.adopt("mdns", heard());
    expect(directory.view().get("node", "printer-7")).toBeUndefined();
    const graves = [...directory.view().list("grave")].filter(({ why }) => why?.code === "missing");
    expect(graves.at(-1)?.why).toMatchObject({ text: "is no longer in the list of mdns", confirmed: false });
  });

  test("what the source no longer lists after a restart goes, what another source lists stays", async () => {
    const { directory, agent, again } = await host();
    await agent.adopt("mdns", heard(printer()));
    await agent.adopt("zookeeper", heard(printer({ foreignId: "z" }, "zk-1")));
    await agent.stop();
    const next = await again();
    await next.adopt("mdns", heard());
    expect(directory.view().get("node", "printer-7")).toBeUndefined();
    expect(directory.view().get("node", "zk-1")).toBeDefined();
  });

  test("several witnesses hold one instance; it goes when the last no longer lists it", async () => {
    const { directory, alpha, beta, by, settle } = await two();
    await beta.adopt("mdns", heard(printer()));
    await settle();
    expect(by()).toEqual(["beta"]);
    const placed = entryOf(directory, "ipp", "printer-7")?.modifyIndex;
    await alpha.adopt("mdns", heard(printer()));
    await settle();
    expect(by()).toEqual(["Alpha", "beta"]);
    await beta.adopt("mdns", heard());
    await settle();
    expect(by()).toEqual(["Alpha"]);
    expect(entryOf(directory, "ipp", "printer-7")?.modifyIndex).toBe(placed);
    await alpha.adopt("mdns", heard());
    await settle();
    expect(directory.view().get("node", "printer-7")).toBeUndefined();
  });

  test("goodbye removes it at once; who still lists it does not bring it back, listing it anew does", async () => {
    const { directory, alpha, beta, by, settle } = await two();
    await alpha.adopt("mdns", heard(printer()));
    await beta.adopt("mdns", heard(printer()));
    await settle();
    await alpha.adopt("mdns", gone("goodbye"));
    await settle();
    expect(directory.view().get("node", "printer-7")).toBeUndefined();
    expect(beta.outside()).toMatchObject([{ stands: false }]);
    await beta.adopt("mdns", heard(printer()));
    await settle();
    expect(directory.view().get("node", "printer-7")).toBeUndefined();
    await alpha.adopt("mdns", heard(printer()));
    await settle();
    expect(by()).toEqual(["Alpha", "beta"]);
    await alpha.adopt("mdns", gone("missing"));
    await settle();
    expect(by()).toEqual(["beta"]);
  });

  test("a witness that dies counts until its node is reaped; then a survivor takes it out", async () => {
    const { directory, alpha, beta, by, settle, clock } = await two();
    await alpha.adopt("mdns", heard(printer()));
    await beta.adopt("mdns", heard(printer(), printer({ id: "only-beta", foreignId: "o" }, "other")));
    await settle();
    await beta.stop();
    await directory.write([{ op: "delete", table: "alive", key: keyOf.alive("beta") }]);
    await clock.advance(500);
    expect(by()).toEqual(["Alpha", "beta"]);
    expect(by("only-beta", "other")).toEqual(["beta"]);
    await directory.write([{ op: "delete", table: "node", key: keyOf.node("beta") }]);
    await clock.advance(500);
    expect(by()).toEqual(["Alpha"]);
    expect(directory.view().get("node", "other")).toBeUndefined();
    const graves = [...directory.view().list("grave")].filter(({ why }) => why?.code === "reaped");
    expect(graves[0]?.why).toMatchObject({ text: 'its last witness, node "beta", is gone', confirmed: false });
    expect(entryOf(directory, "ipp", "printer-7")).toBeDefined();
    await alpha.synced();
  });

  test("leaving is no longer witnessing", async () => {
    const { directory, alpha, beta, by, settle } = await two();
    await alpha.adopt("mdns", heard(printer()));
    await beta.adopt("mdns", heard(printer(), printer({ id: "only-beta", foreignId: "o" }, "other")));
    await settle();
    await beta.leave();
    expect(by()).toEqual(["Alpha"]);
    expect(directory.view().get("node", "other")).toBeUndefined();
  });

  test("who changes its statement writes it, and no other takes it back; who differs for long gives way to the first", async () => {
    const { directory, alpha, beta, settle, clock } = await two();
    await alpha.adopt("mdns", heard(printer()));
    await beta.adopt("mdns", heard(printer()));
    await settle();
    const port = () => entryOf(directory, "ipp", "printer-7")?.port;
    await beta.adopt("mdns", heard(printer({ port: 6310 })));
    await settle();
    expect(port()).toBe(6310);
    await alpha.adopt("mdns", heard(printer({ port: 6310 })));
    await settle();
    await beta.adopt("mdns", heard(printer({ port: 1 })));
    await settle();
    expect(port()).toBe(1);
    await clock.advance(70_000);
    await settle();
    expect(port()).toBe(6310);
    const at = directory.view().index;
    await clock.advance(200_000);
    await settle();
    expect(directory.view().index).toBe(at);
  });

  test("checks are asked by the living witness with the lowest name; its death hands them on", async () => {
    const { directory, alpha, beta, settle, told, clock } = await two();
    const checked = printer({ checks: [asked("told")] });
    await beta.adopt("mdns", heard(checked));
    await alpha.adopt("mdns", heard(checked));
    await settle();
    const held = (agent: typeof alpha): number => agent.outside()[0]?.checks.length ?? -1;
    expect([held(alpha), held(beta)]).toEqual([1, 0]);
    await clock.advance(20_000);
    await settle();
    const check = () => directory.view().get("check", keyOf.check("printer-7", "service:ipp"));
    expect(check()).toMatchObject({ status: "passing", output: "fine", serviceId: "ipp" });
    told.outcome = { status: "critical", output: "out of paper" };
    await clock.advance(11_000);
    await settle();
    expect(check()).toMatchObject({ status: "critical", output: "out of paper" });
    await alpha.stop();
    await directory.write([{ op: "delete", table: "alive", key: keyOf.alive("Alpha") }]);
    await clock.advance(500);
    expect(held(beta)).toBe(1);
    expect(check()?.status).toBe("critical");
    told.outcome = { status: "passing", output: "paper" };
    await clock.advance(25_000);
    expect(check()).toMatchObject({ status: "passing" });
    expect(beta.outside()[0]?.checks[0]?.history.length).toBeGreaterThan(0);
  });

  test("a source that knows the health says it with a check of kind none; pushed checks are complained about", async () => {
    const { directory, agent } = await host();
    const stated = (status: "passing" | "critical") =>
      printer({ checks: [{ ...asked("none"), id: "eureka", name: "status", initial: status, notes: status }, ttl()] });
    const check = () => directory.view().get("check", keyOf.check("printer-7", "eureka"));
    await agent.adopt("eureka", heard(stated("critical")));
    expect(check()).toMatchObject({ status: "critical", output: "critical", type: "" });
    await agent.adopt("eureka", heard(stated("passing")));
    expect(check()).toMatchObject({ status: "passing", output: "passing" });
    expect(agent.complaints()).toMatchObject([
      { from: "eureka", text: expect.stringMatching(/kind "ttl" is left out/) },
    ]);
    await agent.adopt("eureka", heard(printer()));
    expect(check()).toBeUndefined();
  });

  test("names of hosts with an agent, ids of others and bad nodes are complained about by name", async () => {
    const { directory, agent } = await host();
    await agent.adopt("mdns", heard(printer({}, "ALPHA"), printer({ id: "x" }, "a b")));
    expect(agent.complaints().map(({ text }) => text)).toEqual([
      'service "ipp": external node "a b": expected a name without blanks, slashes and control characters',
      'mdns has printer "printer-7" on the LAN on the external node "Alpha", but a host with an agent is called so: one of them needs another name',
    ]);
    await agent.adopt("mdns", heard(printer()));
    await agent.adopt("zookeeper", heard(printer()));
    expect(agent.complaints()).toMatchObject([
      { from: "zookeeper", text: expect.stringMatching(/is listed by mdns, too/) },
    ]);
    expect(entryOf(directory, "ipp", "printer-7")?.origin.source).toBe("mdns");
  });

  test("what many second-hand instances lose at once is held by the guard", async () => {
    const { directory, agent, clock, durable } = await host();
    const lookup = createLookup({
      directory,
      agent,
      clock,
      random: systemRandom,
      log: silentLog,
      metrics: createMetrics(),
      durable,
      guard: defaultSettings.guard,
      node: "Alpha",
      datacenter: "dc1",
      interfaces: () => [],
      net: systemNet,
      shared: false,
      sources: () => [],
      upstreams: () => [],
    });
    ends.push(() => lookup.stop());
    await lookup.start();
    const four = [1, 2, 3, 4].map((n) => printer({ foreignId: `p${n}` }, `p${n}`));
    await agent.adopt("mdns", heard(...four));
    expect(lookup.resolveNow({ service: "ipp" }).endpoints).toHaveLength(4);
    await agent.adopt("mdns", heard());
    const answer = lookup.resolveNow({ service: "ipp" });
    expect(answer.endpoints).toHaveLength(4);
    expect(answer.held).toBeDefined();
    expect(directory.view().residents("ipp")).toEqual([]);
  });

  test("someone who removes it by hand does not keep it away", async () => {
    const { directory, agent, clock } = await host({ antiEntropyMs: 1000 });
    await agent.adopt("mdns", heard(printer()));
    await directory.write([{ op: "delete", table: "node", key: "printer-7" }]);
    await clock.advance(2000);
    await agent.synced();
    expect(entryOf(directory, "ipp", "printer-7")).toBeDefined();
  });
});
