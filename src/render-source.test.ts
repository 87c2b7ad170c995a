// What files are made from, by an agent that has something before it, refuses, or is a Consul: what is believed, and what is said.
import { createServer, type RequestListener, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, it } from "vitest";
import { type Clock, systemClock } from "./base/clock.ts";
import { systemDisk } from "./base/disk.ts";
import { createHttp } from "./base/http.ts";
import { systemRandom } from "./base/random.ts";
import type { Known } from "./render/needs.ts";
import { agentFollow } from "./render-source.ts";

const SOON = { timeout: 10_000 };
const undo: (() => unknown)[] = [];
afterEach(async () => {
  for (let step = undo.pop(); step !== undefined; step = undo.pop()) await step();
});

const row = (id: string) => ({
  Node: { Node: "n1", Address: "10.0.0.1" },
  Service: { ID: id, Service: "web", Address: "", Port: 80 },
  Checks: [],
});
const rows = (ids: readonly string[]): string => JSON.stringify(ids.map(row));

/** Follows `service "web"` at whatever answers there; tells what was told and said. */
async function followed(answer: RequestListener, timers: Pick<Clock, "after"> = systemClock) {
  const server: Server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const stop = new AbortController();
  const http = createHttp();
  const said: string[] = [];
  const told: (readonly string[])[] = [];
  const all: (readonly string[])[] = [];
  const pauses: number[] = [];
  const clock = {
    ...systemClock,
    after: timers.after,
    sleep: (ms: number, signal?: AbortSignal) => {
      pauses.push(ms);
      return systemClock.sleep(ms, signal);
    },
  };
  const follow = agentFollow({
    ...{ http, clock, random: systemRandom, disk: systemDisk, once: false },
    agent: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    onEvent: (event) => void said.push(event.event),
  });
  const following = follow({ kind: "service", service: "web", health: "routable" }, stop.signal, (known) => {
    all.push((known as Known["service"]).all.map(({ id }) => id));
    told.push((known as Known["service"]).answer.map(({ id, held }) => (held ? `${id}*` : id)));
  });
  undo.push(async () => {
    stop.abort();
    await following;
    await http.close();
    await new Promise((resolve) => server.close(resolve).closeAllConnections());
  });
  return { said, told, all, pauses };
}

it("takes a gateway before an agent that is away for no Consul", async () => {
  let isAway = true;
  const { said, told } = await followed((request, response) => {
    if (isAway) response.writeHead(502).end("<html>Bad Gateway</html>");
    else if (request.url?.startsWith("/v1/trilith/follow/")) {
      const endpoint = { address: "10.0.0.1", port: 80, weight: 1, node: "n1", id: "a", status: "passing" };
      response.write(`${JSON.stringify({ endpoints: [{ ...endpoint, tags: [], labels: {} }] })}\n`);
    } else if (!request.url?.includes("index="))
      response.writeHead(200, { "x-consul-index": "1" }).end(rows(["a", "b"]));
  });
  await expect.poll(() => said, SOON).toEqual(["away"]);
  isAway = false;
  // Its own answer, not all that is registered.
  await expect.poll(() => told.at(-1), SOON).toEqual(["a"]);
  await expect.poll(() => said, SOON).toEqual(["away", "back"]);
});

it("takes an agent that comes between two questions for one that was away", async () => {
  let isAway = true;
  const { said, told } = await followed((request, response) => {
    if (request.url === "/v1/trilith/list") isAway = false;
    if (isAway) response.writeHead(502).end("<html>Bad Gateway</html>");
    else if (request.url?.startsWith("/v1/trilith/follow/")) response.write(`${JSON.stringify({ endpoints: [] })}\n`);
    else if (!request.url?.includes("index=")) response.writeHead(200, { "x-consul-index": "1" }).end(rows(["a"]));
  });
  await expect.poll(() => told.at(-1), SOON).toEqual([]);
  await expect.poll(() => said, SOON).toEqual(["away", "back"]);
});

it("says that it is refused, and once, rather than that nobody is there", async () => {
  const { said, told, pauses } = await followed((request, response) => {
    if (request.url?.startsWith("/v1/trilith/")) response.writeHead(404).end("404 page not found");
    else response.writeHead(403).end("Permission denied");
  });
  await expect.poll(() => pauses.length, SOON).toBe(2);
  expect([said.filter((event) => event === "away"), said.length, told]).toEqual([[], 2, []]);
});

it("keeps what vanished at once from a Consul where it stood", async () => {
  let ids = ["a", "b", "c"];
  let change = (): void => {};
  const changed = new Promise<void>((resolve) => {
    change = resolve;
  });
  const { said, told } = await followed((request, response) => {
    if (request.url?.startsWith("/v1/trilith/")) response.writeHead(404).end("404 page not found");
    else if (!request.url?.includes("index=")) response.writeHead(200, { "x-consul-index": "1" }).end(rows(ids));
    else if (request.url.includes("index=1"))
      void changed.then(() => response.writeHead(200, { "x-consul-index": "2" }).end(rows(ids)));
  });
  await expect.poll(() => told.at(-1), SOON).toEqual(["a", "b", "c"]);
  ids = ["c"];
  change();
  await expect.poll(() => told.at(-1), SOON).toEqual(["a*", "b*", "c"]);
  expect(said).toEqual(["note"]);
});

it("keeps what vanished from an agent that is away when what vanished before is let go", async () => {
  let ids: readonly string[] | undefined = ["a", "b", "c"];
  const streams: ServerResponse[] = [];
  let release = (): void => {};
  const after: Clock["after"] = (ms, callback, keepAlive) => {
    // What is held is let go when the test says so.
    if (ms !== 60_000) return systemClock.after(ms, callback, keepAlive);
    release = callback;
    return { cancel: () => {} };
  };
  const { told, pauses } = await followed(
    (request, response) => {
      if (ids === undefined) response.destroy();
      else if (request.url?.startsWith("/v1/trilith/follow/")) {
        const endpoint = {
          address: "10.0.0.1",
          port: 80,
          weight: 1,
          node: "n1",
          status: "passing",
          tags: [],
          labels: {},
        };
        streams.push(response);
        response.write(`${JSON.stringify({ endpoints: ids.map((id) => ({ ...endpoint, id })) })}\n`);
      } else if (request.url?.includes("index=")) streams.push(response);
      else response.writeHead(200, { "x-consul-index": String(ids.length) }).end(rows(ids));
    },
    { after },
  );
  const goes = async (): Promise<void> => {
    ids = undefined;
    for (const stream of streams.splice(0)) stream.destroy();
    const before = pauses.length;
    await expect.poll(() => pauses.length, SOON).toBeGreaterThanOrEqual(before + 2);
  };
  await expect.poll(() => told.at(-1), SOON).toEqual(["a", "b", "c"]);
  await goes();
  ids = ["c", "d"];
  await expect.poll(() => told.at(-1), SOON).toEqual(["a*", "b*", "c", "d"]);
  await goes();
  release();
  expect(told.at(-1)).toEqual(["c", "d"]);
  ids = [];
  // It comes back before it was asked in vain again.
  await expect.poll(() => told.at(-1), SOON).toEqual(["c*", "d*"]);
});

it("does not take what is registered for what was, where that came later", async () => {
  let stream: ServerResponse | undefined;
  let late: ServerResponse | undefined;
  let change: ServerResponse | undefined;
  let questions = 0;
  const { all } = await followed((request, response) => {
    if (request.url?.startsWith("/v1/trilith/follow/")) {
      stream = response;
      response.write(`${JSON.stringify({ endpoints: [] })}\n`);
    } else if (request.url?.includes("index=1")) change = response;
    else if (request.url?.includes("index=")) return;
    else if (++questions < 3) response.writeHead(200, { "x-consul-index": "1" }).end(rows(["a"]));
    else late = response;
  });
  await expect.poll(() => [all.at(-1), change !== undefined], SOON).toEqual([["a"], true]);
  stream?.write(`${JSON.stringify({ endpoints: [] })}\n`);
  await expect.poll(() => late !== undefined, SOON).toBe(true);
  change?.writeHead(200, { "x-consul-index": "2" }).end(rows(["a", "b"]));
  await expect.poll(() => all.at(-1), SOON).toEqual(["a", "b"]);
  const before = all.length;
  late?.writeHead(200, { "x-consul-index": "1" }).end(rows(["a"]));
  await expect.poll(() => all.length, SOON).toBeGreaterThan(before);
  expect(all.at(-1)).toEqual(["a", "b"]);
});
