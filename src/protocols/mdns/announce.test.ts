// Announcing on a simulated LAN and clock: who is announced, when it says goodbye, and that nothing goes round in circles.
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { scene } from "../../../test/support/mdns-agents.ts";
import { eventually, ownFolder } from "../../../test/support/peers.ts";
import type { Registration } from "../../model/instance.ts";
import type { Mdns, Resolved } from "./engine.ts";

const service = (name: string, more: Partial<Registration> = {}): Registration => ({
  ...{ id: name, name, tags: [], labels: {}, address: "", port: 8080, checks: [] },
  ...more,
});
const labelled = (name: string, more: Partial<Registration> = {}): Registration =>
  service(name, { labels: { mdns: "true" }, ...more });

/** The last that was resolved of an instance. */
function resolving(
  mdns: Mdns,
  name: string,
  type: string,
): { readonly now: Resolved | undefined; readonly texts: string[] } {
  let now: Resolved | undefined;
  mdns.resolve({ name, type }, (event) => {
    now = event.kind === "resolved" ? event.found : undefined;
  });
  return {
    get now() {
      return now;
    },
    get texts() {
      return (now?.txt ?? []).map((bytes) => Buffer.from(bytes).toString());
    },
  };
}

describe("a service of this host", () => {
  it("is announced where a label asks for it, with its labels and tags, and says goodbye when it goes", async () => {
    const { clock, agent, host, browse } = scene();
    const alpha = await agent("alpha", ["10.0.0.1/24"]);
    const other = await host("other", ["10.0.0.9/24"]);
    const names = browse(other, "_shop._tcp");
    await alpha.trilith.agent.register("api", service("quiet"));
    await alpha.trilith.agent.register(
      "api",
      labelled("shop", { labels: { mdns: "true", zone: "a" }, tags: ["v2", "mdns"] }),
    );
    const seen = resolving(other, "shop on alpha", "_shop._tcp");
    await clock.advance(2000);
    expect([...names]).toEqual(["shop on alpha"]);
    expect(seen.now).toMatchObject({ host: "alpha.local", port: 8080, addresses: [{ address: "10.0.0.1" }] });
    expect(seen.texts).toEqual(["zone=a", "tags=v2", `trilith=${alpha.trilith.self.nodeId}`]);
    // Other labels: the same instance with other texts.
    await alpha.trilith.agent.register("api", labelled("shop", { labels: { mdns: "true", zone: "b" } }));
    await clock.advance(2000);
    expect(seen.texts).toEqual(["zone=b", `trilith=${alpha.trilith.self.nodeId}`]);
    await alpha.trilith.agent.deregister("api", "shop");
    await clock.advance(1500);
    expect([...names]).toEqual([]);
  });

  it("says goodbye while it is critical, drained or in maintenance, and when the agent stops", async () => {
    const { clock, agent, host, browse } = scene();
    const alpha = await agent("alpha", ["10.0.0.1/24"]);
    const { agent: own } = alpha.trilith;
    const names = browse(await host("other", ["10.0.0.9/24"]), "_shop._tcp");
    const check = {
      ...{ id: "c", name: "c", notes: "", kind: "ttl", detail: {}, intervalMs: 0, timeoutMs: 0, ttlMs: 1e9 },
      initial: "passing" as const,
    };
    await own.register("api", labelled("shop", { checks: [check] }));
    const there = async (yes: boolean): Promise<void> => {
      await clock.advance(2500);
      expect([...names]).toEqual(yes ? ["shop on alpha"] : []);
    };
    await there(true);
    await own.report("c", { status: "critical", output: "ill" });
    await there(false);
    await own.report("c", { status: "warning", output: "better" });
    await there(true);
    const why = { code: "draining", text: "goes", confirmed: true, atMs: 0 } as const;
    await own.drain("shop", true, why);
    await there(false);
    await own.drain("shop", false, why);
    await there(true);
    await own.maintenance("", true, "all of it");
    await there(false);
    await own.maintenance("", false);
    await there(true);
    await alpha.stop();
    await there(false);
  });

  it("is called, typed and chosen by labels and rules; what cannot be announced is complained about", async () => {
    const { clock, agent, host, browse } = scene();
    const alpha = await agent("alpha", ["10.0.0.1/24", "eth1=10.1.0.1/24"], { types: { docs: "http" } });
    const { agent: own } = alpha.trilith;
    const web = browse(await host("other", ["10.0.0.9/24"]), "_http._tcp");
    await own.register("api", service("docs"));
    await own.register("api", service("master", { labels: { mdns_type: "_http._tcp", "mdns.name": "master %h" } }));
    await own.register("api", service("none", { labels: { mdns: "false", "mdns-type": "_http._tcp" } }));
    const bad = [
      labelled("loop", { address: "127.0.0.1" }),
      labelled("bridge", { address: "172.17.0.2" }),
      labelled("a-very-long-name-of-a-service"),
      labelled("portless", { port: 0 }),
    ];
    for (const each of bad) await own.register("api", each);
    const far = labelled("far", { address: "db.example.com", labels: { "mdns-type": "http", "mdns-name": "far" } });
    await own.register("api", far);
    await clock.advance(2500);
    expect([...web].sort()).toEqual(["docs on alpha", "far", "master alpha"]);
    const complaints = own.complaints().map(({ about, text }) => `${about} ${text}`);
    expect(complaints).toHaveLength(4);
    expect(complaints.join("\n")).toMatch(
      /a-very-long-name.*label mdns-type[\s\S]*bridge.*172\.17\.0\.2 is none of this host's[\s\S]*loop.*on this host only[\s\S]*portless.*no port/,
    );
  });

  it("keeps its name apart from others of this host, and gets another one where the LAN has it", async () => {
    const { clock, agent, host, browse } = scene();
    const other = await host("other", ["10.0.0.9/24"]);
    const names = browse(other, "_http._tcp");
    other.publish({ name: "master", services: [{ type: "_http._tcp", port: 1 }] });
    await clock.advance(2000);
    const alpha = await agent("alpha", ["10.0.0.1/24"]);
    const named = (id: string, port: number, labels: object): Registration =>
      service("web", { id, port, labels: { "mdns-type": "_http._tcp", ...labels } });
    await alpha.trilith.agent.register("api", named("web-1", 81, {}));
    await alpha.trilith.agent.register("api", named("web-2", 82, {}));
    await alpha.trilith.agent.register("api", named("web-3", 83, { "mdns-name": "master" }));
    await clock.advance(4000);
    expect([...names].sort()).toEqual(["master", "master #2", "web on alpha", "web on alpha (82)"]);
    // Its own under another name is not somebody else's.
    expect(alpha.found("http").map(({ port }) => port)).toEqual([1]);
  });

  it('is announced without a label where "publish" is "all", and only on the interface that it listens on', async () => {
    const { clock, agent, host, browse } = scene();
    const alpha = await agent("alpha", ["10.0.0.1/24", "eth1=10.1.0.1/24"], { publish: "all" });
    const near = browse(await host("near", ["10.0.0.9/24"]), "_shop._tcp");
    const far = browse(await host("far", ["eth1=10.1.0.9/24"]), "_shop._tcp");
    await alpha.trilith.agent.register("api", service("shop"));
    await alpha.trilith.agent.register("api", service("shop", { id: "one", port: 81, address: "10.1.0.1" }));
    await clock.advance(2500);
    expect([...near]).toEqual(["shop on alpha (8080)"]);
    expect([...far].sort()).toEqual(["shop on alpha", "shop on alpha (8080)"]);
    expect(alpha.trilith.agent.complaints()).toEqual([]);
  });

  it("that another program of this host announces is left to it, and is announced when that one stops", async () => {
    const { clock, agent, host, browse } = scene();
    const alpha = await agent("alpha", ["10.0.0.1/24"]);
    const avahi = await host("alpha", ["10.0.0.1/24"]);
    avahi.publish({ name: "Web", services: [{ type: "_http._tcp", port: 8080 }] });
    await clock.advance(2000);
    const names = browse(await host("other", ["10.0.0.9/24"]), "_http._tcp");
    await alpha.trilith.agent.register("api", service("web", { labels: { "mdns-type": "_http._tcp" } }));
    await clock.advance(3000);
    expect([...names]).toEqual(["Web"]);
    const stopping = avahi.stop();
    await clock.advance(1000);
    await stopping;
    await clock.advance(3000);
    expect([...names]).toEqual(["web on alpha"]);
  });
});

describe("service files of this host", () => {
  it("are announced and in the directory, and never anybody else's, not even a moment after they are gone", async () => {
    const { clock, agent, host, browse } = scene();
    const folder = await ownFolder("mdns-files");
    const files = ["front", "side", "back"].map((name) => ({ name, path: join(folder.path, `${name}.service`) }));
    const service = "<service><type>_http._tcp</type><port>80</port><txt-record>a=b</txt-record></service>";
    for (const { name, path } of files)
      await writeFile(path, `<service-group><name>${name}</name>${service}</service-group>`);
    const alpha = await agent("alpha", ["10.0.0.1/24"], { files: folder.path });
    const names = browse(await host("other", ["10.0.0.9/24"]), "_http._tcp");
    const nodes = new Set<string>();
    const passes = async (): Promise<void> => {
      await clock.advance(20);
      for (const { node } of alpha.found("http")) nodes.add(node);
    };
    const until = (what: string, there: boolean) =>
      eventually(what, async () => {
        await passes();
        return names.size === (there ? 3 : 0);
      });
    await until("announced", true);
    expect(alpha.found("http")).toHaveLength(3);
    // Whatever is made of it here, it is no other host's.
    await alpha.trilith.agent.override("back._http._tcp", ["hidden"], "test");
    for (let i = 0; i < 50; i++) await passes();
    expect(alpha.found("http")).toMatchObject([
      { node: "alpha", id: "front._http._tcp", port: 80, labels: { a: "b", "mdns-instance": "front" } },
      { node: "alpha", id: "side._http._tcp" },
    ]);
    // So other networks, which a host tells of its own, are told it, too.
    expect(alpha.found("http").map(({ origin }) => origin.authority)).toEqual(["first-hand", "first-hand"]);
    await alpha.trilith.agent.undoOverride("back._http._tcp");
    await alpha.trilith.agent.maintenance("side._http._tcp", true, "paint");
    await eventually("in maintenance", async () => {
      await passes();
      return names.size === 2 && !names.has("side");
    });
    await alpha.trilith.agent.maintenance("side._http._tcp", false);
    await until("back again", true);
    for (let i = 0; i < 50; i++) await passes();
    for (const { path } of files) await rm(path);
    await until("gone", false);
    for (let i = 0; i < 250; i++) await passes();
    expect(alpha.found("http")).toEqual([]);
    // This host knows: nothing is held back.
    expect(alpha.trilith.lookup.resolveNow({ service: "http" })).toMatchObject({ endpoints: [] });
    expect([...nodes]).toEqual(["alpha"]);
    await folder.remove();
  });
});

describe("between agents", () => {
  it("what this host has at second hand is not announced", async () => {
    const { clock, agent, host, browse } = scene();
    const alpha = await agent("alpha", ["10.0.0.1/24"], { publish: "all" });
    const names = browse(await host("other", ["10.0.0.9/24"]), "_shop._tcp");
    await alpha.trilith.agent.adopt("eureka", { list: [service("shop")], authority: "second-hand" });
    await clock.advance(3000);
    expect([...names]).toEqual([]);
    await alpha.trilith.agent.adopt("eureka", { list: [], authority: "second-hand" });
    await alpha.trilith.agent.adopt("eureka", { list: [service("shop")], authority: "first-hand" });
    await clock.advance(3000);
    expect([...names]).toEqual(["shop on alpha"]);
  });

  it("what came from the LAN is not announced again, and what an agent announces is found by one of another directory", async () => {
    const { clock, lan, agent, host } = scene();
    const far = await host("far", ["10.0.0.9/24"]);
    far.publish({ name: "P", services: [{ type: "_ipp._tcp", port: 631 }] });
    const alpha = await agent("alpha", ["10.0.0.1/24"], { publish: "all" });
    const beta = await agent("beta", ["10.0.0.2/24"], { publish: "all" });
    await alpha.trilith.agent.register("api", service("shop", { labels: { zone: "a" }, tags: ["v2"] }));
    await clock.advance(4000);
    for (const each of [alpha, beta]) expect(each.found("ipp")).toMatchObject([{ node: "far" }]);
    expect(alpha.found("shop")).toEqual([]);
    const [shop] = beta.found("shop");
    expect(shop).toMatchObject({ node: "alpha", port: 8080, tags: ["v2"], labels: { zone: "a" } });
    expect(shop?.labels).not.toHaveProperty("trilith");
    const sent = [...lan.from("10.0.0.1"), ...lan.from("10.0.0.2")].flatMap(({ message }) => message.answers);
    expect(sent.filter(({ data }) => data.kind === "SRV" && data.port === 631)).toEqual([]);
    expect(sent.filter(({ data }) => data.kind === "SRV").length).toBeGreaterThan(0);
  });

  it("what an agent of the same directory announces is left to that agent", async () => {
    const { clock, agent } = scene();
    const alpha = await agent("alpha", ["10.0.0.1/24"]);
    const beta = await agent("beta", ["10.0.0.2/24"], { publish: "all" });
    // Beta's host, as it stands in a directory that both share.
    const { nodeId } = beta.trilith.self;
    await alpha.trilith.directory.write([
      {
        ...{ op: "put", table: "node", key: "beta" },
        value: { id: nodeId, name: "beta", address: "10.0.0.2", datacenter: "dc1", taggedAddresses: {}, labels: {} },
      },
    ]);
    await beta.trilith.agent.register("api", service("shop"));
    await clock.advance(3000);
    expect(alpha.found("shop")).toEqual([]);
    await alpha.trilith.directory.write([{ op: "delete", table: "node", key: "beta" }]);
    await clock.advance(1000);
    expect(alpha.found("shop")).toMatchObject([{ node: "beta" }]);
  });
});
