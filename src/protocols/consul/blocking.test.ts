// Blocking queries: woken by their scope only, ended by time, and gone without a trace when the client goes.
import { afterEach, beforeEach, expect, it } from "vitest";
import { type RunningAgent, somebodyWaits, startAgent } from "../../../test/support/ground.ts";
import { eventually } from "../../../test/support/peers.ts";

let agent: RunningAgent;
// One for each: who still waits after a try that failed would be counted by the next.
beforeEach(async () => {
  agent = await startAgent();
});
afterEach(() => agent.stop());

const waiting = (): number => (agent.trilith.directory as unknown as { waiting: number }).waiting;
const put = (path: string, body = ""): Promise<Response> => fetch(agent.url + path, { method: "PUT", body });
const indexOf = async (path: string): Promise<string> => {
  const answer = await fetch(agent.url + path);
  await answer.arrayBuffer();
  return answer.headers.get("x-consul-index") as string;
};

/** The agent itself waits for a few things, and not for the same ones at every moment. */
const OWN_WAITERS = 5;

it("frees the waiters of 1000 aborted connections", { timeout: 150_000 }, async () => {
  const before = waiting();
  const index = await indexOf("/v1/health/service/web");
  const stop = new AbortController();
  const paths = ["/v1/health/service/web", "/v1/kv/a", "/v1/kv/a?recurse", "/v1/catalog/nodes", "/v1/health/state/any"];
  const indexes = new Map<string, string>();
  for (const path of paths) indexes.set(path, await indexOf(path));
  const ended = Array.from({ length: 1000 }, (_, i) => {
    const path = paths[i % paths.length] as string;
    const query = `${path.includes("?") ? "&" : "?"}index=${indexes.get(path) ?? index}&wait=10m`;
    return fetch(agent.url + path + query, { signal: stop.signal }).then(
      () => "answered",
      (error: Error) => error.name,
    );
  });
  await eventually("1000 wait", () => waiting() >= before + 1000 - OWN_WAITERS, 60_000);
  stop.abort();
  expect(new Set(await Promise.all(ended))).toEqual(new Set(["AbortError"]));
  await eventually("none of the 1000 waits", () => waiting() <= before + OWN_WAITERS, 60_000);
  expect((await fetch(`${agent.url}/v1/status/leader`)).status).toBe(200);
  expect(agent.errors).toEqual([]);
});

it("wakes the waiters of a service by its health and by nothing else", async () => {
  await put("/v1/agent/service/register", JSON.stringify({ Name: "woken", Check: { TTL: "1h", Status: "passing" } }));
  const index = await indexOf("/v1/health/service/woken");
  const waits = somebodyWaits(agent, "service:woken");
  let answered = false;
  const waiter = fetch(`${agent.url}/v1/health/service/woken?index=${index}&wait=60s`).then((answer) => {
    answered = true;
    return answer;
  });
  await waits;
  await put("/v1/agent/service/register", JSON.stringify({ Name: "other" }));
  await put("/v1/kv/unrelated", "x");
  await put("/v1/agent/service/register", JSON.stringify({ Name: "woken", Check: { TTL: "1h", Status: "passing" } }));
  // These writes are through all their answers: a waiter they woke would have begun to answer.
  await fetch(`${agent.url}/v1/status/leader`);
  expect(answered).toBe(false);
  await put("/v1/agent/check/warn/service:woken");
  const answer = await waiter;
  expect(Number(answer.headers.get("x-consul-index"))).toBeGreaterThan(Number(index));
  expect(answer.headers.get("x-consul-query-backend")).toBe("streaming");
});

it("lets a missing key sleep while others come and go, and wakes it when it appears", async () => {
  const index = await indexOf("/v1/kv/late");
  const waits = somebodyWaits(agent, "kv:late");
  const waiter = fetch(`${agent.url}/v1/kv/late?index=${index}&wait=60s`);
  await waits;
  await put("/v1/kv/early", "1");
  await put("/v1/kv/late", "2");
  expect(await ((await waiter).json() as Promise<{ Value: string }[]>)).toMatchObject([{ Value: "Mg==" }]);
});

it("ends by time without a change", async () => {
  const index = await indexOf("/v1/catalog/nodes");
  const before = waiting();
  const ask = (): Promise<Response> => fetch(`${agent.url}/v1/catalog/nodes?index=${index}&wait=20ms`);
  const answers = await Promise.all(Array.from({ length: 10 * OWN_WAITERS }, ask));
  expect(answers.map(({ headers }) => headers.get("x-consul-index"))).toEqual(answers.map(() => index));
  await eventually("none waits any more", () => waiting() <= before + OWN_WAITERS, 60_000);
});

it("blocks on the hash of a service, too", async () => {
  await put("/v1/agent/service/register", JSON.stringify({ Name: "hashed", Port: 1 }));
  const first = await fetch(`${agent.url}/v1/agent/service/hashed`);
  const hash = first.headers.get("x-consul-contenthash") as string;
  const waiter = fetch(`${agent.url}/v1/agent/service/hashed?hash=${hash}&wait=60s`);
  await put("/v1/agent/service/register", JSON.stringify({ Name: "hashed", Port: 1 }));
  await put("/v1/agent/service/register", JSON.stringify({ Name: "hashed", Port: 2 }));
  expect(await (await waiter).json()).toMatchObject({ Port: 2 });
});
