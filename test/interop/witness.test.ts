// External nodes on a real etcd: two agents witness the same, one is killed, restarted, reaped; nothing flaps, and what nobody sees goes.
import { createServer } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import type { Node } from "../../src/model/node.ts";
import { keyOf } from "../../src/model/record.ts";
import { createTrilith, type Trilith } from "../../src/trilith.ts";
import { ImitatedConsul } from "../support/consul-imitation.ts";
import { etcdAgents } from "../support/etcd-agents.ts";
import { eventually, freePort, havePrograms, ownFolder } from "../support/peers.ts";

const here = await havePrograms("etcd", "etcdctl");
/** Each body that an agent is sent is the whole list of a source that sees things on external nodes. */
const TAKES_LISTS = `
  const { createServer } = await import("node:http");
  createServer(async (request, response) => {
    let text = "";
    for await (const chunk of request) text += chunk;
    const { list, gone } = JSON.parse(text);
    await trilith.agent.adopt("lan", { list, authority: "second-hand", gone: new Map(Object.entries(gone ?? {})) });
    response.end("ok");
  }).listen(Number(process.argv[2]), "127.0.0.1");
`;

const printer = {
  ...{ id: "ipp", name: "ipp", tags: ["a4"], labels: {}, address: "", port: 631, foreignId: "printer._ipp" },
  checks: [
    {
      id: "",
      name: "",
      notes: "",
      kind: "tcp",
      intervalMs: 300,
      timeoutMs: 500,
      detail: { address: "", useTls: false },
    },
  ],
  external: { node: { name: "printer", address: "127.0.0.1" } },
};

describe.skipIf(!here)("witnesses on a real etcd", () => {
  const agents = etcdAgents(3000, { antiEntropyMs: 2000 });
  async function agent(name: string) {
    const listPort = await freePort();
    const self = await agents.outside(name, 3000, { program: TAKES_LISTS, args: [String(listPort)] });
    return {
      ...self,
      async sees(list: readonly unknown[], gone: Readonly<Record<string, unknown>> = {}) {
        await eventually(`${name} takes the list`, async () => {
          const body = JSON.stringify({ list, gone });
          return (await fetch(`http://127.0.0.1:${listPort}`, { method: "POST", body })).ok;
        });
      },
    };
  }
  const by = (): readonly string[] | undefined =>
    (agents.witness.value("node", "printer") as Node | undefined)?.witnessed?.[0]?.by;
  const status = (): unknown =>
    (agents.witness.value("check", keyOf.check("printer", "service:ipp")) as { status?: string } | undefined)?.status;

  test("one instance, two witnesses: one killed, restarted, taken out; Consul's clients see an ordinary node", async () => {
    const target = await listener();
    const thing = { ...printer, port: target.port };
    const [alpha, beta] = [await agent("alpha"), await agent("beta")];
    await Promise.all([alpha.sees([thing]), beta.sees([thing])]);
    await agents.witness.until(
      "both are witnesses, the check passes",
      () => by()?.length === 2 && status() === "passing",
    );
    expect(by()).toEqual(["alpha", "beta"]);

    const nodes = (await (await fetch(`${beta.url}/v1/catalog/nodes`)).json()) as { Node: string; Meta: object }[];
    expect(nodes.find(({ Node }) => Node === "printer")?.Meta).toEqual({ "external-node": "true" });
    const health = (await (await fetch(`${beta.url}/v1/health/service/ipp?passing`)).json()) as {
      Checks: { CheckID: string }[];
    }[];
    expect(health.map(({ Checks }) => Checks.map(({ CheckID }) => CheckID))).toEqual([["service:ipp"]]);

    // An unchanged list, again and again, by both: nothing is written about it.
    const touched = (): number => agents.witness.changes.filter(({ key }) => key.startsWith("printer")).length;
    const before = touched();
    for (let i = 0; i < 5; i++) await Promise.all([alpha.sees([thing]), beta.sees([thing])]);
    await alpha.stop("SIGKILL");
    await agents.witness.until(
      "alpha is missed",
      () => agents.witness.value("alive", keyOf.alive("alpha")) === undefined,
    );
    expect(touched()).toBe(before);
    // Its checks are asked by the other one now.
    await target.close();
    await agents.witness.until("the survivor asks", () => status() === "critical");
    expect(by()).toEqual(["alpha", "beta"]);
    // Back again: adopted as it was.
    await alpha.start();
    await alpha.sees([thing]);
    expect(
      agents.witness.changes.filter(({ key, table }) => table === "service" && key.startsWith("printer")),
    ).toHaveLength(1);

    await alpha.stop("SIGKILL");
    await beta.sees([]);
    await agents.witness.until("beta is no witness", () => by()?.length === 1);
    expect(by()).toEqual(["alpha"]);
    // Nobody can ask alpha: its record goes as if reaped, and what it alone witnessed with it.
    await agents.witness.until(
      "alpha is missed",
      () => agents.witness.value("alive", keyOf.alive("alpha")) === undefined,
    );
    await fetch(`${beta.url}/v1/catalog/deregister`, { method: "PUT", body: JSON.stringify({ Node: "alpha" }) });
    await agents.witness.until("the printer is gone", () => agents.witness.value("node", "printer") === undefined);
    expect(agents.witness.value("service", keyOf.service("printer", "ipp"))).toBeUndefined();
    expect(agents.witness.value("check", keyOf.check("printer", "service:ipp"))).toBeUndefined();
  }, 60_000);

  test("goodbye takes it away at once, whoever still lists it", async () => {
    const thing = { ...printer, checks: [] };
    const [alpha, beta] = [await agent("alpha"), await agent("beta")];
    await Promise.all([alpha.sees([thing]), beta.sees([thing])]);
    await agents.witness.until("both are witnesses", () => by()?.length === 2);
    const why = { code: "goodbye", text: "sent TTL 0", confirmed: true, atMs: Date.now() };
    await beta.sees([], { "printer/ipp": why });
    await agents.witness.until("it is gone", () => agents.witness.value("node", "printer") === undefined);
    await alpha.sees([thing]);
    const puts = (): number =>
      agents.witness.changes.filter(({ key, value }) => key.startsWith("printer") && value !== undefined).length;
    const before = puts();
    await beta.sees([{ ...thing, id: "other", foreignId: "other" }]);
    await agents.witness.until("something else stands there", () => puts() > before);
    expect(agents.witness.value("service", keyOf.service("printer", "ipp"))).toBeUndefined();
    await beta.sees([thing]);
    await agents.witness.until("it is back, for both", () => by()?.length === 2);
  }, 60_000);
});

test("on disk: a restart adopts what stood, and writes nothing about it", async () => {
  const folder = await ownFolder("witness-lmdb");
  const whole = { list: [{ ...printer, checks: [] }], authority: "second-hand" as const };
  let at: number | undefined;
  try {
    for (let life = 0; life < 3; life++) {
      const trilith = createTrilith({
        ...{ node: "alpha", dataDir: folder.path, storage: "lmdb" as const, httpPort: -1 },
        protocols: { docker: false, process: false, file: false, dns: false },
      });
      await trilith.start();
      try {
        expect(trilith.lookup.resolveNow({ service: "ipp" }).endpoints).toHaveLength(life === 0 ? 0 : 1);
        await trilith.agent.adopt("lan", whole);
        await trilith.agent.synced();
        const node = trilith.directory.view().get("node", "printer");
        expect(node?.witnessed).toMatchObject([{ service: "ipp", by: ["alpha"] }]);
        at ??= node?.modifyIndex;
        expect(node?.modifyIndex).toBe(at);
        // A third life without the source takes its things out.
        if (life === 2) await trilith.agent.adopt("lan", { ...whole, list: [] });
        expect(trilith.directory.view().get("node", "printer") === undefined).toBe(life === 2);
      } finally {
        await trilith.stop();
      }
    }
  } finally {
    await folder.remove();
  }
}, 30_000);

describe.each(["Trilith", "Consul's API alone", "an imitated Consul"] as const)("client hosts of %s", (server) => {
  let ends: (() => Promise<unknown>)[] = [];
  afterEach(async () => {
    for (const end of ends.reverse()) await end();
    ends = [];
  });
  const quiet = { docker: false, process: false, file: false, dns: false };

  test("are witnesses together, and nothing is written while nothing changes", async () => {
    let url: string;
    if (server === "an imitated Consul") {
      const imitation = new ImitatedConsul(2_500);
      await imitation.start();
      ends.push(() => imitation.stop());
      url = imitation.url;
    } else {
      const httpPort = await freePort();
      const protocols = server === "Trilith" ? quiet : { ...quiet, api: false };
      const agent = createTrilith({ node: "server", dev: true, httpPort, advertiseAddress: "127.0.0.1", protocols });
      ends.push(() => agent.stop());
      await agent.start();
      url = `http://127.0.0.1:${httpPort}`;
    }
    const clients = [];
    for (const name of ["c1", "c2"]) {
      const client = createTrilith({
        ...{ node: name, dev: true, httpPort: -1, advertiseAddress: "127.0.0.1", antiEntropyMs: 1_000 },
        ...{ protocols: quiet, join: { servers: [url], livenessMs: 3_000 } },
      });
      ends.push(() => client.stop());
      await client.start();
      clients.push(client);
    }
    const [alpha, beta] = clients as [Trilith, Trilith];
    const list = [{ ...printer, checks: [] }];
    const by = (trilith: Trilith) => trilith.directory.view().get("node", "printer")?.witnessed?.[0]?.by;
    await alpha.agent.adopt("lan", { list, authority: "second-hand" });
    await eventually("alpha is a witness", () => by(beta)?.length === 1);
    await beta.agent.adopt("lan", { list, authority: "second-hand" });
    await eventually("both are", () => by(alpha)?.length === 2 && by(beta)?.length === 2);
    expect(by(alpha)).toEqual(["c1", "c2"]);
    expect(beta.agent.complaints()).toEqual([]);
    await beta.agent.synced();
    const shown = async (): Promise<unknown> => (await fetch(`${url}/v1/health/service/ipp`)).json();
    const before = await shown();
    expect(before).toMatchObject([
      { Node: { Node: "printer", Meta: { "external-node": "true" } }, Service: { ID: "ipp" } },
    ]);
    // Several whole comparisons.
    await new Promise((resolve) => setTimeout(resolve, 3_500));
    expect(await shown()).toEqual(before);
    await alpha.agent.adopt("lan", { list: [], authority: "second-hand" });
    await eventually("beta is alone", () => by(beta)?.length === 1);
    expect(by(beta)).toEqual(["c2"]);
    await beta.agent.adopt("lan", { list: [], authority: "second-hand" });
    await eventually("it is gone", async () => ((await shown()) as unknown[]).length === 0);
    await eventually("its node, too", () => alpha.directory.view().get("node", "printer") === undefined);
  }, 60_000);
});

async function listener(): Promise<{ port: number; close(): Promise<void> }> {
  const server = createServer((socket) => socket.destroy());
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  return { port, close: () => new Promise((resolve) => server.close(() => resolve())) };
}
