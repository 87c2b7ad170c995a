// Client hosts whose servers are away, strange, emptied or this host itself: what was known stays known, and what is wrong is told.
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { type Log, silentLog } from "../../src/base/log.ts";
import type { Settings } from "../../src/contracts/settings.ts";
import type { Registration } from "../../src/model/instance.ts";
import { authorizePeer } from "../../src/protocols/api/authorize.ts";
import { createTrilith, type Trilith } from "../../src/trilith.ts";
import { ImitatedConsul } from "../support/consul-imitation.ts";
import { eventually, freePort, ownFolder } from "../support/peers.ts";

const QUIET = { docker: false, process: false, file: false, dns: false };

let ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.reverse()) await end();
  ends = [];
});

async function host(
  node: string,
  given: Partial<Settings> = {},
  log: Log = silentLog,
): Promise<{ readonly agent: Trilith; readonly url: string; readonly port: number }> {
  const port = given.httpPort ?? (await freePort());
  const settings = { node, dev: given.dataDir === undefined, httpPort: port, protocols: QUIET, ...given };
  const agent = createTrilith({ advertiseAddress: "127.0.0.1", antiEntropyMs: 1_000, ...settings }, { log });
  ends.push(() => agent.stop());
  await agent.start();
  return { agent, url: `http://127.0.0.1:${port}`, port };
}

async function folder(name: string): Promise<string> {
  const made = await ownFolder(name);
  ends.push(() => made.remove());
  return `${made.path}/data`;
}

const join = (...servers: string[]): Pick<Settings, "join"> => ({ join: { servers, livenessMs: 2_000 } });
const service = (id: string, name: string): Registration => ({
  ...{ id, name, tags: [], labels: {}, address: "127.0.0.1", port: 80, checks: [] },
});
const there = (agent: Trilith, name: string): number => agent.lookup.resolveNow({ service: name }).endpoints.length;
const isFresh = (agent: Trilith): boolean => agent.directory.view().fresh;
const told = (agent: Trilith): { readonly ok: boolean; readonly text: string } => {
  const [state] = agent.sources().filter(({ name }) => name === "join");
  if (state === undefined) throw new Error("nothing is told of the servers");
  return state;
};
async function listening(server: Server): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  ends.push(() => new Promise((resolve) => server.close(resolve).closeAllConnections()));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
async function external(url: string, node: string, id: string, name: string): Promise<void> {
  const body = JSON.stringify({ Node: node, Address: "192.0.2.1", Service: { ID: id, Service: name, Port: 80 } });
  expect((await fetch(`${url}/v1/catalog/register`, { method: "PUT", body })).status).toBe(200);
}

describe("a server", () => {
  test("that is away when a client host starts for the first time is followed as soon as it is there", async () => {
    const port = await freePort();
    const dead = `http://127.0.0.1:${await freePort()}`;
    const client = await host("client", join(dead, `http://127.0.0.1:${port}`));
    await client.agent.agent.register("api", service("web-c", "web"));
    expect(told(client.agent)).toMatchObject({ ok: false, text: expect.stringContaining("ECONNREFUSED") });
    expect(client.agent.lookup.resolveNow({ service: "web" })).toMatchObject({ fresh: false });
    const server = await host("server", { httpPort: port });
    // The server has it a moment before it tells the client host so.
    const both = [server.agent, client.agent];
    await eventually(
      "carried",
      () => both.every((agent) => there(agent, "web") === 1) && isFresh(client.agent),
      30_000,
    );
    expect(told(client.agent)).toEqual({ name: "join", ok: true, text: `client host of ${server.url} (Trilith)` });
  });

  test("that comes back empty has taken nothing away; what this host has is registered there anew", {
    timeout: 40_000,
  }, async () => {
    const first = await host("server", { dataDir: await folder("lost-server") });
    await external(first.url, "e1", "db-1", "db");
    await external(first.url, "e2", "db-2", "db");
    const given = { ...join(first.url), dataDir: await folder("lost-client") };
    let client = await host("client", given);
    await client.agent.agent.register("api", service("web-c", "web"));
    await eventually("known", () => there(client.agent, "db") === 2 && there(first.agent, "web") === 1);
    const before = client.agent.directory.view().asOfMs;
    await first.agent.stop();
    await eventually("away", () => !isFresh(client.agent));

    const second = await host("server", { httpPort: first.port });
    await eventually("registered anew", () => there(second.agent, "web") === 1, 15_000);
    const answer = client.agent.lookup.resolveNow({ service: "db" });
    expect([answer.endpoints.length, answer.fresh]).toEqual([2, false]);
    expect(answer.ageMs).toBeGreaterThan(0);
    expect(client.agent.directory.view().asOfMs).toBeGreaterThanOrEqual(before - 5_000);
    expect(told(client.agent)).toMatchObject({ ok: false, text: expect.stringContaining("no longer knows 2 of 2") });
    // Nothing of it reaches the server: it was not this host that registered it.
    expect(there(second.agent, "db")).toBe(0);
    expect(second.agent.directory.view().get("node", "e1")).toBeUndefined();

    // Nor does a start of this host forget it.
    await client.agent.stop();
    client = await host("client", given);
    await eventually("connected", () => told(client.agent).text.includes("no longer knows"));
    expect(there(client.agent, "db")).toBe(2);

    // Most are back: the server is believed again.
    await external(second.url, "e1", "db-1", "db");
    await eventually("believed", () => isFresh(client.agent) && there(client.agent, "db") === 1);
    expect(told(client.agent).ok).toBe(true);
  });

  test("that removed something while this host was away is believed", async () => {
    const given = { dataDir: await folder("lost-server"), httpPort: await freePort() };
    const server = await host("server", given);
    await external(server.url, "e1", "db-1", "db");
    const clientGiven = { ...join(server.url), dataDir: await folder("lost-client") };
    const client = await host("client", clientGiven);
    await eventually("known", () => there(client.agent, "db") === 1);
    await client.agent.stop();
    const body = JSON.stringify({ Node: "e1" });
    await fetch(`${server.url}/v1/catalog/deregister`, { method: "PUT", body });
    // Also by a server that was started anew in between.
    await server.agent.stop();
    await host("server", given);
    const again = await host("client", clientGiven);
    await eventually("gone", () => isFresh(again.agent) && there(again.agent, "db") === 0);
  });

  test("that is this host itself, or has its directory from here, is told", async () => {
    const port = await freePort();
    const self = await host("loop", { ...join(`http://127.0.0.1:${port}`), httpPort: port });
    await eventually("told", () => told(self.agent).text.includes('is node "loop": this host itself'));
    const [aPort, bPort] = [await freePort(), await freePort()];
    const [a, b] = await Promise.all([
      host("a", { ...join(`http://127.0.0.1:${bPort}`), httpPort: aPort }),
      host("b", { ...join(`http://127.0.0.1:${aPort}`), httpPort: bPort }),
    ]);
    const isTold = ({ agent }: { agent: Trilith }): boolean =>
      told(agent).text.includes("agents that join each other have none");
    await eventually("told in a circle", () => isTold(a) || isTold(b), 15_000);
  });

  test("sees client hosts leave, and lets others take out who is dead", async () => {
    const server = await host("server");
    const kept = { ...join(server.url), dataDir: await folder("lost-leaving") };
    const [leaving, dying] = await Promise.all([
      host("leaving", kept),
      host("dying", { ...kept, dataDir: await folder("lost-dying") }),
    ]);
    const third = await host("third", join(server.url));
    await leaving.agent.agent.register("api", service("web-l", "web"));
    await dying.agent.agent.register("api", service("web-d", "web"));
    await eventually("known", () => there(third.agent, "web") === 2 && there(server.agent, "web") === 2);
    expect((await fetch(`${leaving.url}/v1/agent/leave`, { method: "PUT" })).status).toBe(200);
    // The program stops where it is asked to.
    await leaving.agent.stopped();
    await leaving.agent.stop();
    await eventually("left", () => server.agent.directory.view().get("node", "leaving") === undefined);
    await dying.agent.stop();
    await eventually("dead", () => there(server.agent, "web") === 0, 15_000);
    // Dead, but still a member until somebody takes it out, or the time for reaping comes.
    expect(server.agent.directory.view().get("node", "dying")).toBeDefined();
    const out = (node: string): Promise<Response> =>
      fetch(`${third.url}/v1/agent/force-leave/${node}?prune`, { method: "PUT" });
    expect((await out("dying")).status).toBe(200);
    await eventually("out", () => server.agent.directory.view().get("node", "dying") === undefined);
    await eventually("out for all", () => third.agent.directory.view().get("node", "dying") === undefined);
    expect((await out("nobody")).status).toBe(500);
    // Who joins already is asked to join: that is no mistake.
    expect((await fetch(`${third.url}/v1/agent/join/127.0.0.1`, { method: "PUT" })).status).toBe(200);
  });

  test("may be a client host itself", async () => {
    const server = await host("server");
    const middle = await host("middle", join(server.url));
    const client = await host("client", join(middle.url));
    await client.agent.agent.register("api", service("web-c", "web"));
    await eventually("through both", () => there(server.agent, "web") === 1 && there(client.agent, "web") === 1);
  });

  test("that refuses the token says so, and what it is that is refused", async () => {
    let asked = 0;
    const strict = createServer((request, response) => {
      asked++;
      // Whoever is on this host needs none.
      request.headers["x-forwarded-for"] = "10.1.0.7";
      try {
        authorizePeer(request, "right");
      } catch (error) {
        const { message } = error as Error;
        response.writeHead(403, { "content-type": "application/json" });
        response.end(JSON.stringify({ error: { code: "not-allowed", message } }));
      }
    });
    const url = await listening(strict);
    const how = "(--join-token, or join_token in its configuration); what is known is the last known good";
    const warnings: string[] = [];
    const log: Log = { ...silentLog, warn: (text) => void warnings.push(text), part: () => log };
    const without = await host("without", join(url), log);
    expect(told(without.agent)).toEqual({
      ...{ name: "join", ok: false },
      text: `${url}: a client host needs the token of the agent that it joins ${how}`,
    });
    // However often it is tried.
    await eventually("asked again and again", () => asked > 3);
    expect(warnings.filter((text) => text.includes(url))).toEqual([
      `${url} does not let this host in`,
      `the store remote is away, trying again: ${url}: a client host needs the token of the agent that it joins (--join-token, or join_token in its configuration)`,
    ]);
    const both = [url, url.replace("127.0.0.1", "localhost")];
    warnings.splice(0);
    asked = 0;
    await host("of-two", join(...both), log);
    await eventually("each was asked again and again", () => asked > 5, 30_000);
    expect(warnings.filter((text) => text.includes("does not let this host in"))).toEqual(
      both.map((one) => `${one} does not let this host in`),
    );
    const wrong = await host("wrong", { join: { servers: [url], livenessMs: 2_000, token: "wrong" } });
    expect(told(wrong.agent)).toEqual({
      ...{ name: "join", ok: false },
      text: `${url}: the token that this client host gives is not that of the agent that it joins ${how}`,
    });
  });

  test("that is away is told once, however often it is tried, with what to do where nobody listens", async () => {
    const warnings: string[] = [];
    const log: Log = {
      ...silentLog,
      warn: (text, fields) => void warnings.push(`${text} ${JSON.stringify(fields)}`),
      part: () => log,
    };
    let tried = 0;
    const hangsUp = createServer((request) => {
      tried++;
      request.socket.destroy();
    });
    const url = await listening(hangsUp);
    await host("hung-up", join(url), log);
    await eventually("tried again and again", () => tried > 4, 30_000);
    const away = `the directory of ${url} is away`;
    expect(warnings.filter((text) => text.startsWith(away))).toHaveLength(1);
    expect(warnings.join()).not.toContain("--client");
    const nobody = `http://127.0.0.1:${await freePort()}`;
    await host("refused", join(nobody), log);
    await eventually("told", () => warnings.some((text) => text.startsWith(`the directory of ${nobody} is away`)));
    expect(warnings.find((text) => text.startsWith(`the directory of ${nobody} is away`))).toContain(
      "an agent listens on loopback only, unless its --client names the address",
    );
  });

  test("that answers slowly or with something else is not waited for for ever", async () => {
    const strange = createServer((_, response) => void response.end("<html>It works!</html>"));
    // One that takes connections and says nothing.
    const mute = createServer(() => undefined);
    const server = await host("server");
    const client = await host("client", join(await listening(strange), await listening(mute), server.url));
    await eventually("the other one", () => told(client.agent).ok);
  });
});

describe("a Consul", () => {
  test("whose index goes back is read anew, and takes nothing away that it did not remove", async () => {
    const consul = new ImitatedConsul(10_000);
    await consul.start();
    ends.push(() => consul.stop());
    for (const n of [1, 2, 3]) consul.register(`e${n}`, `192.0.2.${n}`, { ID: `db-${n}`, Service: "db", Port: 80 });
    const client = await host("client", join(consul.url));
    await client.agent.agent.register("api", service("web-c", "web"));
    await eventually("known", () => there(client.agent, "db") === 3 && consul.service("client", "web-c") !== undefined);
    await eventually("everything is followed", () => consul.waiting >= 4);
    const index = client.agent.directory.view().index;
    consul.restoreEmpty();
    await eventually("noticed", () => told(client.agent).text.includes("no longer knows 3 of 3"), 15_000);
    expect(there(client.agent, "db")).toBe(3);
    await eventually("registered anew", () => consul.service("client", "web-c") !== undefined, 15_000);
    expect(consul.node("e1")).toBeUndefined();
    // Numbers of this side never go back.
    expect(client.agent.directory.view().index).toBeGreaterThan(index);
    for (const n of [1, 2]) consul.register(`e${n}`, `192.0.2.${n}`, { ID: `db-${n}`, Service: "db", Port: 81 });
    await eventually("believed again", () => isFresh(client.agent) && there(client.agent, "db") === 2, 15_000);
    expect(client.agent.lookup.resolveNow({ service: "db" }).endpoints.map(({ port }) => port)).toEqual([81, 81]);
  });
});
