// DNS elsewhere as a source of a whole agent: what it finds, who stands by, what it has itself.
import { readFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { type ToldRecursor, toldRecursor } from "../../../test/support/dns-peers.ts";
import { type RunningAgent, startAgent } from "../../../test/support/ground.ts";
import { answersFrom } from "../../../test/support/zone.ts";

const ending: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ending.splice(0).toReversed()) await end();
});
const SOA = "example.com. 1 SOA ns.example.com. host.example.com. 1 2 3 4 1";

/** A server of a zone that the test changes. */
async function zone(...lines: string[]): Promise<{ lines: string[]; readonly server: ToldRecursor }> {
  const state = { lines };
  const server = await toldRecursor(answersFrom(() => [SOA, ...state.lines]));
  ending.push(() => server.stop());
  return Object.assign(state, { server });
}

async function agentOn(server: ToldRecursor, more: object = {}): Promise<RunningAgent> {
  const config = {
    services: [{ service: "web", name: "_http._tcp.example.com", tags: ["far"], labels: { env: "prod" } }],
    ...{
      resolvers: [server.place],
      floor: "100ms",
      cap: "100ms",
      timeout: "200ms",
      hold: "300ms",
      check_interval: "1s",
    },
    ...more,
  };
  const agent = await startAgent({
    protocols: { "dns-upstream": config },
  });
  ending.push(() => agent.stop());
  return agent;
}
const found = ({ trilith }: RunningAgent, service = "web"): string[] =>
  trilith.lookup
    .resolveNow({ service, order: "stable" })
    .endpoints.map(({ address, port, weight }) => `${address}:${port} ${weight}`)
    .sort();
const stateOf = ({ trilith }: RunningAgent): { ok: boolean; text: string } =>
  trilith.sources().find(({ name }) => name === "dns-upstream") as { ok: boolean; text: string };

describe("services from DNS elsewhere", () => {
  it("are instances on external nodes, with weights, tags and labels, and follow the zone", async () => {
    const here = await zone(
      "_http._tcp.example.com. 1 SRV 0 3 8080 a.example.com.",
      "_http._tcp.example.com. 1 SRV 0 0 8081 B.example.com.",
      "a.example.com. 1 A 192.0.2.1",
      "b.example.com. 1 A 192.0.2.2",
      "b.example.com. 1 AAAA 2001:db8::2",
    );
    const agent = await agentOn(here.server);
    await expect.poll(() => found(agent)).toEqual(["192.0.2.1:8080 300", "192.0.2.2:8081 1"]);
    const [, b] = agent.trilith.directory.view().residents("web");
    expect(b?.node).toMatchObject({ name: "b.example.com", address: "192.0.2.2", external: true });
    expect(b?.instance).toMatchObject({
      tags: ["far"],
      labels: { env: "prod", "dns-name": "_http._tcp.example.com", "dns-priority": "0" },
      taggedAddresses: { lan_ipv6: { address: "2001:db8::2", port: 8081 } },
      origin: { source: "dns-upstream", authority: "second-hand" },
    });
    here.lines = ["_http._tcp.example.com. 1 SRV 0 3 8080 a.example.com.", "a.example.com. 1 A 192.0.2.1"];
    await expect.poll(() => found(agent)).toEqual(["192.0.2.1:8080 3"]);
    expect(stateOf(agent)).toEqual({ name: "dns-upstream", ok: true, text: "1 name, 1 found" });
  });

  it("are the addresses of a name where a port is given", async () => {
    const here = await zone("db.example.com. 1 A 192.0.2.1", "db.example.com. 1 A 192.0.2.2");
    const agent = await agentOn(here.server, { services: { service: "db", name: "DB.example.com.", port: 5432 } });
    await expect.poll(() => found(agent, "db")).toEqual(["192.0.2.1:5432 1", "192.0.2.2:5432 1"]);
    expect(agent.trilith.directory.view().residents("db")[0]?.node.name).toBe("db.example.com");
  });

  it("stand by with a higher priority number until none of the lower answers", async () => {
    const listening = async (port = 0): Promise<Server> => {
      const server = createServer((socket) => socket.destroy());
      await new Promise<void>((done) => server.listen(port, "127.0.0.1", done));
      ending.push(() => new Promise((done) => (server.listening ? server.close(done) : done(undefined))));
      return server;
    };
    const [main, spare] = [await listening(), await listening()];
    const [port, other] = [main, spare].map((server) => (server.address() as { port: number }).port);
    const here = await zone(
      `_http._tcp.example.com. 1 SRV 10 0 ${port} a.example.com.`,
      `_http._tcp.example.com. 1 SRV 20 0 ${other} a.example.com.`,
      "a.example.com. 1 A 127.0.0.1",
    );
    const agent = await agentOn(here.server);
    await expect.poll(() => found(agent)).toEqual([`127.0.0.1:${port} 1`]);
    const residents = agent.trilith.directory.view().residents("web");
    const standby = residents.find(({ instance }) => instance.port === other);
    expect(standby?.checks.find(({ name }) => name === "standby")?.output).toBe(
      "stands by: priority 20 is used where none of priority 10 answers",
    );
    await new Promise((closed) => main.close(closed));
    await expect.poll(() => found(agent), { timeout: 10_000 }).toEqual([`127.0.0.1:${other} 1`]);
    await listening(port);
    await expect.poll(() => found(agent), { timeout: 10_000 }).toEqual([`127.0.0.1:${port} 1`]);
  });

  it("are not taken where this directory has them at first hand", async () => {
    const here = await zone("_http._tcp.example.com. 1 SRV 0 0 80 a.example.com.", "a.example.com. 1 A 192.0.2.1");
    const agent = await agentOn(here.server);
    await expect.poll(() => agent.trilith.directory.view().residents("web").length).toBe(1);
    await agent.trilith.agent.register("api", {
      ...{ id: "mine", name: "web", tags: [], labels: {}, address: "192.0.2.1", port: 80, checks: [] },
    });
    await expect
      .poll(() =>
        agent.trilith.directory
          .view()
          .residents("web")
          .map(({ instance }) => instance.id),
      )
      .toEqual(["mine"]);
  });

  it("are configured as the README says", async () => {
    const readme = readFileSync(join(import.meta.dirname, "README.md"), "utf8");
    const example = /<!-- example -->\n\n?```json\n([\s\S]*?)```/.exec(readme)?.[1] ?? "";
    const { protocols } = JSON.parse(example) as { protocols: Record<string, object> };
    const here = await zone(
      "_http._tcp.example.com. 1 SRV 0 0 80 a.example.com.",
      "a.example.com. 1 A 192.0.2.1",
      "db.example.com. 1 A 192.0.2.5",
    );
    const agent = await agentOn(here.server, { ...protocols["dns-upstream"], resolvers: [here.server.place] });
    await expect.poll(() => [...found(agent), ...found(agent, "db")]).toEqual(["192.0.2.1:80 1", "192.0.2.5:5432 1"]);
  });
});
