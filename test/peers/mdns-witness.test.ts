// Agents with mDNS over restarts, silence and one etcd, beside real Avahi daemons on a LAN of namespaces: last known good, held, one instance with its witnesses.
import { mkdtemp } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { answerAt, browsed, removeServiceFiles, startAgentOn as startOn } from "../support/avahi-agent.ts";
import { type AvahiDaemon, type AvahiHost, type AvahiLan, haveAvahiLan, startAvahiLan } from "../support/avahi-lan.ts";
import { eventually, havePrograms, startProgram } from "../support/peers.ts";

const possible = (await haveAvahiLan()) && (await havePrograms("curl", "etcd", "avahi-publish"));
const ends: (() => Promise<unknown>)[] = [];
const startAgentOn = (host: AvahiHost, ...flags: string[]) => startOn(ends, host, ...flags);

/** For the running test. */
async function startAvahi(host: AvahiHost): Promise<AvahiDaemon> {
  const daemon = await host.avahi();
  ends.push(() => daemon.stop());
  return daemon;
}

const file = (name: string, port: number): string =>
  `<service-group><name>${name}</name><service><type>_http._tcp</type><port>${port}</port><txt-record>path=/${name}</txt-record></service></service-group>`;

describe.runIf(possible)("what agents know of a LAN", { timeout: 120_000 }, () => {
  let lan: AvahiLan;
  let daemon: AvahiDaemon;
  const [a, b, c, d] = ["a", "b", "c", "d"].map((name) => () => lan.host(name)) as [
    () => AvahiHost,
    () => AvahiHost,
    () => AvahiHost,
    () => AvahiHost,
  ];

  beforeAll(async () => {
    lan = await startAvahiLan("a", "b", "c", "d");
  });
  beforeEach(async () => {
    daemon = await startAvahi(a());
  });
  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) await end();
    await removeServiceFiles(a());
  });
  afterAll(() => lan?.close());

  it("is kept over a restart while its announcer is silent, and held when it went by hearsay", async () => {
    const data = await mkdtemp(join(d().folder, "kept-"));
    await answerAt(ends, a(), 8091, 8092, 8093);
    let agent = await startAgentOn(d(), "--data-dir", data);
    for (const n of [1, 2, 3]) await daemon.serviceFile(`${n}.service`, file(`web${n}`, 8090 + n));
    const instances = async (): Promise<number> => ((await agent.get("/v1/health/service/http")) as unknown[]).length;
    await eventually("all three", async () => (await instances()) === 3);
    await daemon.stop("SIGKILL");
    expect(await instances()).toBe(3);
    await agent.stop();
    agent = await startAgentOn(d(), "--data-dir", data);
    expect(await instances()).toBe(3);
    expect((await agent.trilith("doctor")).out).toMatch(/3 found \(3 last known, not heard yet\)/);
    await eventually("recorded as gone", async () => (await instances()) === 0);
    const held = (await agent.trilith("find", "http")).out;
    expect(held.match(/^10\.77\.0\.10 +809\d /gm)?.length).toBe(3);
    expect((await agent.trilith("why", "http")).out).toMatch(/held.*[\s\S]*was not heard on the LAN within 10 s/);
  });

  it("is one instance with a witness each where they share an etcd, and what they announce is left to them", async () => {
    const at = `http://${b().ipv4}:2379`;
    const peers = "http://127.0.0.1:2380";
    const data = await mkdtemp(join(b().folder, "etcd-"));
    const etcd = await startProgram(
      b().command(
        ...["etcd", "--data-dir", data, "--listen-client-urls", at, "--advertise-client-urls", at],
        ...[
          "--listen-peer-urls",
          peers,
          "--initial-advertise-peer-urls",
          peers,
          "--initial-cluster",
          `default=${peers}`,
        ],
      ),
      join(b().folder, "etcd.log"),
    );
    ends.push(() => etcd.stop());
    const [one, two] = await Promise.all([startAgentOn(c(), "--etcd", at), startAgentOn(d(), "--etcd", at)]);
    const publisher = a().spawn("avahi-publish", "-s", "printer", "_ipp._tcp", "631");
    ends.push(async () => void publisher.kill("SIGKILL"));
    await one.register({ Name: "shop", Port: 8080, Meta: { mdns: "true" } });
    await eventually("announced", async () => (await browsed(a(), "_shop._tcp")).length === 1);
    for (const agent of [one, two]) {
      await eventually("two witnesses", async () =>
        /seen by host-c, host-d/.test((await agent.trilith("why", "ipp")).out),
      );
      expect(await agent.get("/v1/catalog/service/ipp")).toMatchObject([{ Node: "host-a", ServicePort: 631 }]);
      expect(await agent.get("/v1/catalog/service/shop")).toMatchObject([{ Node: "host-c", ServicePort: 8080 }]);
    }
    // An agent comes up on the announcer's host: its node's name is its own from now on.
    const three = await startAgentOn(a(), "--etcd", at);
    for (const agent of [one, two, three]) {
      await eventually("on a node beside the new agent's", async () => {
        const [found, ...more] = (await agent.get("/v1/catalog/service/ipp")) as { Node: string }[];
        return more.length === 0 && found?.Node === "host-a-mdns";
      });
      await eventually("three witnesses", async () =>
        /seen by host-a, host-c, host-d/.test((await agent.trilith("why", "ipp")).out),
      );
      expect((await agent.trilith("doctor")).out).not.toMatch(/another name/);
    }
    publisher.kill("SIGTERM");
    for (const agent of [one, two, three])
      await eventually("gone", async () => ((await agent.get("/v1/catalog/service/ipp")) as unknown[]).length === 0);
    await Promise.all([one, two, three].map((agent) => agent.stop()));
  });

  it("is left to the agent of its host where agents see each other without a server", async () => {
    await startAvahi(c());
    const publisher = c().spawn("avahi-publish", "-s", "printer", "_ipp._tcp", "631");
    ends.push(async () => void publisher.kill("SIGKILL"));
    const key = ["--peers-key", "the key of this LAN"];
    const first = await startAgentOn(d(), "--peers", c().ipv4, "--peers-bind", d().ipv4, ...key);
    const nodes = async (agent: typeof first): Promise<string> =>
      ((await agent.get("/v1/catalog/service/ipp")) as { Node: string }[]).map(({ Node }) => Node).join();
    await eventually("on the node of its host", async () => (await nodes(first)) === "host-c");
    // The host gets an agent of its own, of that name.
    const second = await startAgentOn(c(), "--peers", d().ipv4, "--peers-bind", c().ipv4, ...key);
    await second.register({ Name: "shop", Port: 8080, Meta: { "mdns-type": "_http._tcp" } });
    for (const agent of [first, second]) {
      await eventually("beside the agent's node", async () => (await nodes(agent)) === "host-c-mdns");
      await eventually("the agent's own, once", async () => {
        const found = (await agent.get("/v1/catalog/service/shop")) as { Node: string }[];
        return found.length === 1 && found[0]?.Node === "host-c";
      });
    }
    await eventually("announced", async () => (await browsed(a(), "_http._tcp")).length === 1);
    expect(await first.get("/v1/catalog/service/http")).toEqual([]);
    await Promise.all([first.stop(), second.stop()]);
  });
});
