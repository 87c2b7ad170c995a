// Agents without a server on loopback: what one has the others answer, with health; clashes, keys, goodbyes, and what is refused.
import { afterEach, expect, it } from "vitest";
import { type RunningAgent, startAgent } from "../../../test/support/ground.ts";
import { eventually, freePort } from "../../../test/support/peers.ts";
import type { Settings } from "../../contracts/settings.ts";
import { NODE_ALIVE_CHECK } from "../../model/check.ts";
import type { Registration } from "../../model/instance.ts";
import { keyOf } from "../../model/record.ts";
import type { Trilith } from "../../trilith.ts";
import { createTrilith } from "../../trilith.ts";

const running: RunningAgent[] = [];
afterEach(async () => {
  await Promise.all(running.splice(0).map((agent) => agent.stop()));
});

const service = (id: string, more: Partial<Registration> = {}): Registration => ({
  id,
  name: id.split("-")[0] ?? id,
  tags: [],
  labels: {},
  address: "",
  port: 80,
  checks: [],
  ...more,
});

/** An agent on loopback that shows its own at `port` and was told of `hosts`. */
async function agent(
  node: string,
  port: number,
  hosts: readonly number[],
  more: Partial<Settings> & { readonly key?: string } = {},
): Promise<RunningAgent> {
  const { key, ...settings } = more;
  const started = await startAgent({
    node,
    peers: {
      find: "list",
      hosts: hosts.map((at) => `127.0.0.1:${at}`),
      port,
      ...(key === undefined ? {} : { key }),
    },
    ...settings,
  });
  running.push(started);
  return started;
}

async function ports(count: number): Promise<number[]> {
  const found = new Set<number>();
  while (found.size < count) found.add(await freePort());
  return [...found];
}

const where = ({ trilith }: RunningAgent, name: string): string[] =>
  trilith.directory
    .view()
    .residents(name)
    .filter(({ checks }) => checks.every(({ status }) => status !== "critical"))
    .map(({ instance }) => `${instance.node}/${instance.id}`);
const alive = (trilith: Trilith, node: string): string | undefined =>
  trilith.directory.view().get("check", keyOf.check(node, NODE_ALIVE_CHECK))?.status;
const sees = (one: RunningAgent, name: string, expected: readonly string[]): Promise<unknown> =>
  eventually(`${one.trilith.self.node} sees ${name} at ${expected.join(", ")}`, () => {
    expect(where(one, name)).toEqual(expected);
    return true;
  });
/** How many requests this process makes within a time. */
async function countRequests(ms: number): Promise<number> {
  const { subscribe, unsubscribe } = await import("node:diagnostics_channel");
  let count = 0;
  const counted = (): void => {
    count++;
  };
  subscribe("undici:request:create", counted);
  await new Promise((resolve) => setTimeout(resolve, ms));
  unsubscribe("undici:request:create", counted);
  return count;
}
const troubles = ({ trilith }: RunningAgent): string =>
  trilith
    .sources()
    .filter(({ ok }) => !ok)
    .map(({ text }) => text)
    .join("\n");

it("answers for every host with one place named, follows changes, and never tells of others", async () => {
  const [a = 0, b = 0, c = 0] = await ports(3);
  // Whoever calls is called back, and told of whom else is heard, now and later: nobody here was told of all.
  const [alpha, beta, gamma] = await Promise.all([
    agent("alpha", a, [b]),
    agent("beta", b, [a]),
    agent("gamma", c, [a]),
  ]);
  await alpha.trilith.agent.register("api", service("web-1", { tags: ["v1"], labels: { env: "prod" } }));
  await gamma.trilith.agent.register("api", service("web-3"));
  for (const one of [alpha, beta, gamma]) await sees(one, "web", ["alpha/web-1", "gamma/web-3"]);
  const copy = beta.trilith.directory.view().get("service", keyOf.service("alpha", "web-1"));
  expect(copy).toMatchObject({ tags: ["v1"], labels: { env: "prod" }, port: 80 });

  const members = (await (await fetch(`${beta.url}/v1/agent/members`)).json()) as { Name: string; Status: number }[];
  expect(members.map(({ Name, Status }) => `${Name} ${Status}`)).toEqual(["alpha 1", "beta 1", "gamma 1"]);

  await alpha.trilith.agent.register("api", service("web-1", { port: 81 }));
  await eventually("the port follows", () => beta.trilith.directory.view().residents("web")[0]?.instance.port === 81);
  await alpha.trilith.agent.maintenance("web-1", true, "repair");
  for (const one of [beta, gamma]) await sees(one, "web", ["gamma/web-3"]);
  await alpha.trilith.agent.maintenance("web-1", false);
  await alpha.trilith.agent.drain("web-1", true, { code: "draining", text: "soon", confirmed: true, atMs: 0 });
  await eventually("draining is told", () => beta.trilith.directory.view().residents("web")[0]?.instance.draining);
  await alpha.trilith.agent.deregister("api", "web-1");
  for (const one of [beta, gamma]) await sees(one, "web", ["gamma/web-3"]);

  // Beta hears alpha and gamma, and shows nothing of either.
  const abort = new AbortController();
  const shown = await fetch(`http://127.0.0.1:${b}/v1/peers/own`, { signal: abort.signal });
  let text = "";
  for await (const chunk of shown.body as ReadableStream<Uint8Array>) {
    text += Buffer.from(chunk).toString("utf8");
    if (text.includes('"kind":"own"') && text.endsWith("\n")) break;
  }
  abort.abort();
  expect(text).toContain('"beta"');
  expect(text).not.toMatch(/web-3|"name":"gamma"|"node":"gamma"/);
});

it("puts back what others write about a host: each is the only authority for itself", async () => {
  const [a = 0, b = 0] = await ports(2);
  const alpha = await agent("alpha", a, [b]);
  const beta = await agent("beta", b, [a]);
  await alpha.trilith.agent.register("api", service("web-1"));
  await sees(beta, "web", ["alpha/web-1"]);
  const from = (path: string, body: unknown): Promise<Response> =>
    fetch(`${beta.url}${path}`, { method: "PUT", body: JSON.stringify(body) });
  await from("/v1/catalog/deregister", { Node: "alpha" });
  await sees(beta, "web", ["alpha/web-1"]);
  await from("/v1/catalog/register", {
    Node: "alpha",
    Address: "127.0.0.1",
    Service: { ID: "false", Service: "false" },
  });
  await sees(beta, "false", []);
});

it("is out of answers at once when an agent stops, back when it is, and forgotten when it leaves", async () => {
  const [a = 0, b = 0] = await ports(2);
  const settings = { dev: false, storage: "memory", nodeId: "11111111-2222-3333-4444-555555555555" } as const;
  const alpha = await agent("alpha", a, [b], { dev: false, storage: "memory" });
  const beta = await agent("beta", b, [a], settings);
  await beta.trilith.agent.register("api", service("web-1"));
  await sees(alpha, "web", ["beta/web-1"]);
  await beta.stop();
  expect([where(alpha, "web"), alive(alpha.trilith, "beta")]).toEqual([[], "critical"]);
  const again = await agent("beta", b, [a], settings);
  await again.trilith.agent.register("api", service("web-1"));
  await sees(alpha, "web", ["beta/web-1"]);
  expect(alive(alpha.trilith, "beta")).toBe("passing");
  await fetch(`${again.url}/v1/agent/leave`, { method: "PUT" });
  await again.trilith.stopped();
  await again.stop();
  await eventually("beta is forgotten", () => alpha.trilith.directory.view().get("node", "beta") === undefined);
});

it("does not take others for gone because it was held up itself", async () => {
  const [a = 0, b = 0] = await ports(2);
  const alpha = await agent("alpha", a, [b]);
  const beta = await agent("beta", b, [a]);
  await beta.trilith.agent.register("api", service("web-1"));
  await sees(alpha, "web", ["beta/web-1"]);
  const { directory } = alpha.trilith;
  const lost = new AbortController();
  let changed = false;
  const watching = directory.changed("checks", directory.view().at("checks"), lost.signal).then(
    () => {
      changed = true;
    },
    () => {},
  );
  const end = performance.now() + 3_000;
  while (performance.now() < end);
  await new Promise((resolve) => setTimeout(resolve, 600));
  lost.abort();
  await watching;
  expect([changed, where(alpha, "web")]).toEqual([false, ["beta/web-1"]]);
});

it("leaves no socket, timer or listener behind when it stops, whatever it was about", async () => {
  const resources = (): string[] =>
    process
      .getActiveResourcesInfo()
      .filter((one) => /TCP|Timeout|Connect/.test(one))
      .sort();
  const before = resources();
  for (let round = 0; round < 5; round++) {
    const [a = 0, b = 0, nobody = 0] = await ports(3);
    const alpha = await agent("alpha", a, [b, nobody], round % 2 === 0 ? { key: "a secret of sufficient length" } : {});
    const beta = await agent("beta", b, [a], round % 2 === 0 ? { key: "a secret of sufficient length" } : {});
    await beta.trilith.agent.register("api", service("web-1"));
    if (round > 1) await sees(alpha, "web", ["beta/web-1"]);
    await Promise.all([alpha.stop(), beta.stop()]);
    expect([alpha.errors, beta.errors]).toEqual([[], []]);
  }
  await eventually("everything is released", () => resources().length <= before.length);
});

it("takes a host that was set up anew, or renamed, for what it is now", async () => {
  const [a = 0, b = 0] = await ports(2);
  const kept = { dev: false, storage: "memory" } as const;
  const alpha = await agent("alpha", a, [b], kept);
  const beta = await agent("beta", b, [a], { ...kept, nodeId: "11111111-2222-3333-4444-555555555555" });
  await beta.trilith.agent.register("api", service("web-old"));
  await sees(alpha, "web", ["beta/web-old"]);
  await beta.stop();
  const anew = await agent("beta", b, [a], { ...kept, nodeId: "66666666-7777-8888-9999-000000000000" });
  await anew.trilith.agent.register("api", service("web-new"));
  await sees(alpha, "web", ["beta/web-new"]);
  const ids = (): string[] =>
    alpha.trilith.directory
      .view()
      .residents("web")
      .map(({ instance }) => instance.id);
  expect(ids()).toEqual(["web-new"]);
  await anew.stop();
  const renamed = await agent("gamma", b, [a], { ...kept, nodeId: "66666666-7777-8888-9999-000000000000" });
  await renamed.trilith.agent.register("api", service("web-new"));
  await sees(alpha, "web", ["gamma/web-new"]);
  expect(alpha.trilith.directory.view().get("node", "beta")).toBeUndefined();
});

it("refuses hosts of one name, or with one node ID, on both sides, and says which", async () => {
  const [a = 0, b = 0, c = 0] = await ports(3);
  const alpha = await agent("alpha", a, [b]);
  const other = await agent("ALPHA", b, [a]);
  await other.trilith.agent.register("api", service("web-1"));
  await eventually(
    "both know",
    () => /is called "ALPHA"/.test(troubles(alpha)) && /is called "alpha"/.test(troubles(other)),
  );
  expect(where(alpha, "web")).toEqual([]);
  // They do not call each other back for ever.
  const asked = await countRequests(500);
  expect(asked).toBeLessThan(30);
  const diagnosis = (await (await fetch(`${alpha.url}/v1/trilith/doctor`)).json()) as { warnings: string[] };
  expect(diagnosis.warnings.join("\n")).toMatch(/peer 127\.0\.0\.1:\d+: .*give one of them another name/);
  const copied = await agent("beta", c, [a], { nodeId: alpha.trilith.self.nodeId });
  await eventually("a copied folder is told", () => /has this host's node ID/.test(troubles(copied)));
});

it("refuses a second host of a third one's name while the first is heard", async () => {
  const [a = 0, b = 0, c = 0] = await ports(3);
  const alpha = await agent("alpha", a, [b, c]);
  const beta = await agent("beta", b, [a]);
  await beta.trilith.agent.register("api", service("web-1"));
  await sees(alpha, "web", ["beta/web-1"]);
  const second = await agent("beta", c, [a]);
  await second.trilith.agent.register("api", service("web-2"));
  await eventually("alpha tells", () => /two hosts are called "beta"/.test(troubles(alpha)));
  expect(where(alpha, "web")).toEqual(["beta/web-1"]);
});

it("asks for the key both ways and never sends it", async () => {
  const key = "a secret of sufficient length";
  const [a = 0, b = 0, c = 0, d = 0] = await ports(4);
  const alpha = await agent("alpha", a, [b], { key });
  const beta = await agent("beta", b, [a], { key });
  await alpha.trilith.agent.register("api", service("web-1"));
  await sees(beta, "web", ["alpha/web-1"]);
  const stranger = await agent("gamma", c, [a], { key: "another secret of that length" });
  await eventually("the stranger is told", () =>
    /key for peers \(peers_key\) is not this agent's/.test(troubles(stranger)),
  );
  const keyless = await agent("delta", d, [a]);
  await eventually("so is one without", () =>
    /has a key for peers \(peers_key\), and you show none/.test(troubles(keyless)),
  );
  // Nor does anybody take the word of a listener without the key.
  await fetch(`http://127.0.0.1:${a}/v1/peers/own?port=${d}`);
  expect(where(alpha, "web")).toEqual(["alpha/web-1"]);
  expect(alpha.trilith.directory.view().count("node")).toBe(2);
});

it("refuses keys, sessions and locks with the way to get them, and still writes nodes and services", async () => {
  const [a = 0, b = 0] = await ports(2);
  const alpha = await agent("alpha", a, [b]);
  const way = /there are no keys, sessions and locks among agents without a server.*--join.*--etcd/;
  const asked = async (method: string, path: string, body?: unknown): Promise<[number, string]> => {
    const answer = await fetch(`${alpha.url}${path}`, {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    return [answer.status, await answer.text()];
  };
  for (const [method, path, body] of [
    ["GET", "/v1/kv/a"],
    ["GET", "/v1/kv/?recurse"],
    ["PUT", "/v1/kv/a", "x"],
    ["DELETE", "/v1/kv/a"],
    ["PUT", "/v1/session/create", {}],
    ["GET", "/v1/session/list"],
    ["PUT", "/v1/session/renew/11111111-2222-3333-4444-555555555555"],
    ["PUT", "/v1/session/destroy/11111111-2222-3333-4444-555555555555"],
    ["PUT", "/v1/txn", [{ KV: { Verb: "set", Key: "a", Value: "eA==" } }]],
    ["PUT", "/v1/txn", [{ KV: { Verb: "get", Key: "a" } }]],
  ] as const) {
    const [status, text] = await asked(method, path, body);
    expect(status, `${method} ${path}`).toBe(501);
    expect(text).toMatch(way);
  }
  const node = { Node: { Verb: "set", Node: { Node: "printer", Address: "192.0.2.9" } } };
  expect((await asked("PUT", "/v1/txn", [node]))[0]).toBe(200);
});

it("wants a key wherever others than the tailnet's can ask, and no server besides", () => {
  const make = (peers: NonNullable<Settings["peers"]>, more: Partial<Settings> = {}): Promise<void> =>
    createTrilith({
      dev: true,
      httpPort: 0,
      peers,
      protocols: { docker: false, process: false, dns: { port: -1 } },
      ...more,
    }).start();
  return Promise.all([
    expect(make({ find: "lan" })).rejects.toThrow(/peers_key: a LAN is open to everybody/),
    expect(make({ find: "list", hosts: ["192.0.2.1"] })).rejects.toThrow(/peers_key/),
    expect(make({ find: "list", hosts: ["192.0.2.1"], key: "short" })).rejects.toThrow(/at least 16 characters/),
    expect(make({ find: "list", hosts: [] })).rejects.toThrow(/at least one host/),
    expect(make({ find: "list", hosts: ["a b"] })).rejects.toThrow(/expected tailnet, lan, or hosts/),
    expect(async () =>
      make({ find: "list", hosts: ["127.0.0.1"] }, { join: { servers: ["http://127.0.0.1:1"], livenessMs: 1000 } }),
    ).rejects.toThrow(/choose one of them/),
  ]);
});
