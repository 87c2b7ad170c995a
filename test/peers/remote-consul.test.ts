// A client host of a real Consul: a stand-in made of the recorded answers, Trilith's own Consul dialect, and with TRILITH_PEER_CONSUL a user's program.
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Settings } from "../../src/contracts/settings.ts";
import { NODE_ALIVE_CHECK } from "../../src/model/check.ts";
import type { Registration } from "../../src/model/instance.ts";
import { keyOf } from "../../src/model/record.ts";
import { createTrilith, type Trilith } from "../../src/trilith.ts";
import { ImitatedConsul } from "../support/consul-imitation.ts";
import { eventually, freePort, ownFolder, startProgram } from "../support/peers.ts";

const PROGRAM = process.env["TRILITH_PEER_CONSUL"];
const LIVENESS_MS = 3_000;
/** A real Consul ends sessions of ten seconds after up to twenty. */
const deathMs = (): number => (peer === "stand-in" ? 20_000 : 60_000);

let ends: (() => Promise<unknown>)[] = [];
let consul: { readonly url: string; readonly imitation: ImitatedConsul | undefined };

type Peer = "stand-in" | "dialect" | "program";
const PEERS: readonly Peer[] = PROGRAM === undefined ? ["stand-in", "dialect"] : ["stand-in", "dialect", "program"];
let peer: Peer = "stand-in";

async function startPeer(): Promise<void> {
  if (peer === "dialect") {
    const httpPort = await freePort();
    const agent = createTrilith({
      node: "alpha",
      dev: true,
      httpPort,
      advertiseAddress: "127.0.0.1",
      // Nothing of Trilith's own: what is left is Consul's HTTP API.
      protocols: { docker: false, process: false, file: false, dns: false, api: false },
    });
    ends.push(() => agent.stop());
    await agent.start();
    consul = { url: `http://127.0.0.1:${httpPort}`, imitation: undefined };
    return;
  }
  if (peer === "stand-in") {
    const imitation = new ImitatedConsul(2_500);
    await imitation.start();
    ends.push(() => imitation.stop());
    consul = { url: imitation.url, imitation };
    return;
  }
  if (PROGRAM === undefined) throw new Error("no program is given");
  const folder = await ownFolder("peer-consul");
  const [http, dns, server, lan, wan, grpc] = await Promise.all(Array.from({ length: 6 }, freePort));
  const program = await startProgram(
    [
      ...[PROGRAM, "agent", "-dev", "-node=alpha", "-client=127.0.0.1", "-bind=127.0.0.1"],
      ...[`-http-port=${http}`, `-dns-port=${dns}`, `-server-port=${server}`, `-serf-lan-port=${lan}`],
      ...[`-serf-wan-port=${wan}`, `-grpc-port=${grpc}`, "-grpc-tls-port=-1"],
    ],
    `${folder.path}/log`,
  );
  ends.push(
    () => folder.remove(),
    () => program.stop(),
  );
  const url = `http://127.0.0.1:${http}`;
  await eventually(
    "Consul answers",
    async () => (await (await fetch(`${url}/v1/health/service/consul`)).text()).length > 5,
    60_000,
  );
  consul = { url, imitation: undefined };
}
afterEach(async () => {
  for (const end of ends.reverse()) await end();
  ends = [];
});

async function client(
  node: string,
  given: Partial<Settings> = {},
): Promise<{ readonly agent: Trilith; readonly url: string }> {
  const httpPort = await freePort();
  const agent = createTrilith({
    node,
    dev: given.dataDir === undefined,
    httpPort,
    advertiseAddress: "127.0.0.1",
    antiEntropyMs: 2_000,
    protocols: { docker: false, process: false, file: false, dns: false },
    join: { servers: [consul.url], livenessMs: LIVENESS_MS },
    ...given,
  });
  ends.push(() => agent.stop());
  await agent.start();
  return { agent, url: `http://127.0.0.1:${httpPort}` };
}
const service = (id: string, name: string, port: number, checks: Registration["checks"] = []): Registration => ({
  id,
  name,
  tags: ["v1"],
  labels: { zone: "a" },
  address: "127.0.0.1",
  port,
  checks,
});
const routable = (agent: Trilith, name: string): number => agent.lookup.resolveNow({ service: name }).endpoints.length;
async function json(path: string, at = consul.url): Promise<unknown> {
  return await (await fetch(at + path)).json();
}
async function put(path: string, body: unknown, at = consul.url): Promise<string> {
  const answer = await fetch(at + path, { method: "PUT", body: JSON.stringify(body) });
  const text = await answer.text();
  expect(answer.status, text).toBe(200);
  return text;
}
async function txn(...operations: unknown[]): Promise<void> {
  await put("/v1/txn", operations);
}

describe.each(PEERS)("a client host of a Consul (%s)", { timeout: 120_000 }, (which) => {
  beforeEach(async () => {
    peer = which;
    await startPeer();
  });

  test("what is registered here stands in its catalog, and what stands there is found here", async () => {
    const { agent, url } = await client("client");
    await agent.agent.register("api", service("web-c", "web", 8001));
    await agent.agent.synced(AbortSignal.timeout(20_000));
    const [there] = (await json("/v1/health/service/web")) as {
      Node: Record<string, unknown>;
      Service: Record<string, unknown>;
      Checks: Record<string, unknown>[];
    }[];
    expect(there?.Node).toMatchObject({ Node: "client", Address: "127.0.0.1", Meta: { "trilith-client": "true" } });
    expect(there?.Service).toMatchObject({
      ID: "web-c",
      Tags: ["v1"],
      Meta: { zone: "a" },
      Port: 8001,
      Address: "127.0.0.1",
    });
    // Never serfHealth: Consul's leader takes such nodes for members that are gone.
    expect(there?.Checks.map(({ CheckID, Status }) => [CheckID, Status])).toEqual([["trilith-alive", "passing"]]);
    // The agent's own view is unchanged by the way through Consul.
    expect(agent.directory.view().residents("web")).toMatchObject([
      { instance: { origin: { source: "api" } }, checks: [{ id: NODE_ALIVE_CHECK, status: "passing" }] },
    ]);
    expect(await json("/v1/health/service/consul", url)).toMatchObject([{ Node: { Node: "alpha" } }]);
    expect(await json("/v1/agent/members", url)).toMatchObject([
      { Name: "alpha", Status: 1, Tags: { role: "consul" } },
      { Name: "client", Status: 1, Tags: { role: "node" } },
    ]);

    await txn(
      { Node: { Verb: "set", Node: { Node: "ext", Address: "192.0.2.1" } } },
      {
        Service: {
          Verb: "set",
          Node: "ext",
          Service: { ID: "web-x", Service: "web", Port: 80, Tags: ["x"], Weights: { Passing: 3, Warning: 1 } },
        },
      },
      {
        Check: {
          Verb: "set",
          Check: { Node: "ext", CheckID: "up", Name: "up", Status: "passing", ServiceID: "web-x" },
        },
      },
    );
    await eventually("found", () => routable(agent, "web") === 2);
    const found = (await json("/v1/health/service/web", url)) as { Service: { ID: string; Weights: unknown } }[];
    expect(found.map(({ Service }) => Service.ID).sort()).toEqual(["web-c", "web-x"]);
    expect(found.find(({ Service }) => Service.ID === "web-x")?.Service.Weights).toEqual({ Passing: 3, Warning: 1 });
    await txn({
      Check: { Verb: "set", Check: { Node: "ext", CheckID: "up", Name: "up", Status: "critical", ServiceID: "web-x" } },
    });
    await eventually("out of answers", () => routable(agent, "web") === 1);
    // Another address shows only in the service itself.
    await txn({
      Service: { Verb: "set", Node: "ext", Service: { ID: "web-x", Service: "web", Port: 81, Tags: ["x"] } },
    });
    await eventually("changed", () =>
      agent.directory
        .view()
        .residents("web")
        .some(({ instance }) => instance.port === 81),
    );
    await txn({ Node: { Verb: "delete", Node: { Node: "ext" } } });
    await eventually("gone", () => agent.directory.view().get("node", "ext") === undefined);
    await eventually("gone with it", () => agent.directory.view().residents("web").length === 1);
    expect(consul.imitation?.strange.filter((path) => !path.startsWith("GET /v1/trilith/join/follow")) ?? []).toEqual(
      [],
    );
  });

  test("anti-entropy: what others change of this host's is set right, and nothing is written for nothing", async () => {
    const { agent } = await client("client");
    await agent.agent.register("api", {
      ...service("web-c", "web", 8001),
      checks: [
        {
          id: "",
          name: "",
          notes: "n",
          kind: "ttl",
          detail: {},
          intervalMs: 0,
          timeoutMs: 0,
          ttlMs: 600_000,
          initial: "passing",
        },
      ],
    });
    await agent.agent.synced(AbortSignal.timeout(20_000));
    const index = async (): Promise<string | null> => {
      const answer = await fetch(`${consul.url}/v1/catalog/services`);
      await answer.text();
      return answer.headers.get("x-consul-index");
    };
    const before = await eventually("what has to be written at a start is written", async () => {
      const now = await index();
      await new Promise((resolve) => setTimeout(resolve, 1_000));
      return now === (await index()) && now;
    });
    for (let i = 0; i < 20; i++) {
      await new Promise((resolve) => setTimeout(resolve, 250));
      expect(await index()).toBe(before);
    }
    await txn({ Service: { Verb: "set", Node: "client", Service: { ID: "web-c", Service: "web", Port: 1 } } });
    await eventually(
      "set right",
      async () => ((await json("/v1/health/service/web")) as { Service: { Port: number } }[])[0]?.Service.Port === 8001,
    );
    await txn({ Service: { Verb: "delete", Node: "client", Service: { ID: "web-c", Service: "web" } } });
    await eventually("back with its check", async () => {
      const [found] = (await json("/v1/health/service/web")) as { Checks: { CheckID: string }[] }[];
      return found?.Checks.some(({ CheckID }) => CheckID === "service:web-c");
    });
    await txn({ Service: { Verb: "set", Node: "client", Service: { ID: "ghost", Service: "ghost", Port: 1 } } });
    await eventually("no ghosts", async () => ((await json("/v1/health/service/ghost")) as unknown[]).length === 0);
    await agent.agent.report("service:web-c", { status: "critical", output: "down" });
    await eventually("its check", async () => {
      const [found] = (await json("/v1/health/service/web")) as {
        Checks: { CheckID: string; Status: string; Output: string }[];
      }[];
      return found?.Checks.some(
        ({ CheckID, Status, Output }) => CheckID === "service:web-c" && Status === "critical" && Output === "down",
      );
    });
    await agent.agent.deregister("api", "web-c");
    await eventually("gone", async () => ((await json("/v1/health/service/web")) as unknown[]).length === 0);
  });

  test("a dead client host turns critical by the word of another one, and is passing when it returns", {
    timeout: 150_000,
  }, async () => {
    const witness = await client("witness");
    const folder = await ownFolder("remote-consul");
    ends.push(() => folder.remove());
    const given = { dataDir: `${folder.path}/data` };
    const mortal = await client("mortal", given);
    await mortal.agent.agent.register("api", service("web-m", "web", 80));
    await eventually("found", () => routable(witness.agent, "web") === 1);
    const sign = (): unknown => witness.agent.directory.view().get("alive", keyOf.alive("mortal"));
    await eventually("its sign of life", () => sign() !== undefined);
    // Longer than a sign lasts: it is renewed.
    for (let i = 0; i < 15; i++) {
      await new Promise((resolve) => setTimeout(resolve, LIVENESS_MS / 10));
      expect(sign()).toBeDefined();
    }
    await mortal.agent.stop();
    await eventually(
      "critical",
      async () =>
        ((await json("/v1/health/state/any")) as { Node: string; CheckID: string; Status: string }[]).some(
          ({ Node, CheckID, Status }) => Node === "mortal" && CheckID === "trilith-alive" && Status === "critical",
        ),
      deathMs(),
    );
    await eventually("out of answers", () => routable(witness.agent, "web") === 0);
    expect(witness.agent.directory.view().get("check", keyOf.check("witness", NODE_ALIVE_CHECK))?.status).toBe(
      "passing",
    );
    await client("mortal", given);
    await eventually("passing again", () => routable(witness.agent, "web") === 1, deathMs());
  });

  test("what drains is routed to by nobody, and again when it does no longer", async () => {
    const { agent } = await client("client");
    const other = await client("other");
    await agent.agent.register("api", service("web-c", "web", 8001));
    await eventually("found", () => routable(other.agent, "web") === 1);
    const why = { code: "draining", text: "for the test", confirmed: true, atMs: Date.now() } as const;
    const passing = async (): Promise<number> => ((await json("/v1/health/service/web?passing")) as unknown[]).length;
    for (let i = 0; i < 3; i++) {
      await agent.agent.drain("web-c", true, why);
      await eventually("out of the other's answers", () => routable(other.agent, "web") === 0);
      await eventually("out of Consul's", async () => (await passing()) === 0);
      const [held] = other.agent.directory.view().residents("web");
      expect(held?.instance.draining).toBe(true);
      expect(held?.checks.map(({ id }) => id)).toEqual([NODE_ALIVE_CHECK]);
      await agent.agent.synced(AbortSignal.timeout(20_000));
      await agent.agent.drain("web-c", false, why);
      await eventually("in the other's answers", () => routable(other.agent, "web") === 1);
      await eventually("in Consul's", async () => (await passing()) === 1);
    }
  });

  test("keys, sessions and locks are Consul's own", async () => {
    const { agent, url } = await client("client");
    await agent.agent.synced(AbortSignal.timeout(20_000));
    expect(await put("/v1/kv/a", "v", url)).toBe("true");
    expect(await (await fetch(`${consul.url}/v1/kv/a?raw`)).text()).toBe('"v"');
    const { ID } = JSON.parse(await put("/v1/session/create", { LockDelay: "0s", TTL: "30s" }, url)) as { ID: string };
    expect(await put(`/v1/kv/lock?acquire=${ID}`, "", url)).toBe("true");
    expect(await json("/v1/kv/lock")).toMatchObject([{ Session: ID }]);
  });
});

describe("a client host of the stand-in", () => {
  beforeEach(async () => {
    peer = "stand-in";
    await startPeer();
  });

  test("Consul goes and comes back: the last known good, then everything anew", async () => {
    const imitation = consul.imitation as ImitatedConsul;
    const { agent, url } = await client("client");
    imitation.register("ext", "192.0.2.1", { ID: "db", Service: "db", Port: 5432 });
    await eventually("found", () => routable(agent, "db") === 1);
    await imitation.stop();
    await eventually("noticed", () => !agent.directory.view().fresh);
    expect(agent.lookup.resolveNow({ service: "db" })).toMatchObject({ fresh: false, endpoints: { length: 1 } });
    const answer = await fetch(`${url}/v1/agent/service/register`, {
      method: "PUT",
      body: '{"Name":"late","Port":1}',
    });
    expect(answer.status).toBe(200);
    imitation.deregister("ext");
    imitation.register("ext2", "192.0.2.2", { ID: "db2", Service: "db", Port: 5433 });
    const index = agent.directory.view().index;
    await imitation.start();
    await eventually(
      "anew",
      () => agent.directory.view().fresh && agent.directory.view().get("node", "ext2") !== undefined,
    );
    expect(agent.directory.view().get("node", "ext")).toBeUndefined();
    expect(agent.directory.view().index).toBeGreaterThan(index);
    await eventually("registered", () => imitation.service("client", "late") !== undefined);
  });

  test("many services cost three blocking queries, not one each", async () => {
    const imitation = consul.imitation as ImitatedConsul;
    for (let i = 0; i < 150; i++)
      imitation.register(`n${i % 10}`, `192.0.2.${i % 10}`, { ID: `s${i}`, Service: `s${i}`, Port: i + 1 }, [
        { CheckID: `c${i}`, Name: "c", Status: "passing", ServiceID: `s${i}` },
      ]);
    const { agent } = await client("client");
    await agent.agent.synced(AbortSignal.timeout(20_000));
    await eventually("all are known", () => [...agent.directory.view().serviceNames()].length === 151);
    // What has to be read at a start has been read.
    await eventually("quiet", async () => {
      imitation.counts.clear();
      await new Promise((resolve) => setTimeout(resolve, 300));
      return !imitation.counts.has("GET /v1/health/service");
    });
    imitation.counts.clear();
    imitation.register("n1", "192.0.2.1", undefined, [
      { CheckID: "c1", Name: "c", Status: "critical", ServiceID: "s1" },
    ]);
    await eventually("seen", () => routable(agent, "s1") === 0);
    // A check of one service has one service read.
    expect(imitation.counts.get("GET /v1/health/service") ?? 0).toBeLessThanOrEqual(3);
  });
});
