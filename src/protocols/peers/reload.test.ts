// Other hosts and another key for agents without a server while they run: who is heard is heard all the time, and what needs a restart is told with the reason.
import { afterEach, expect, it } from "vitest";
import { startAgent } from "../../../test/support/ground.ts";
import { eventually, freePort } from "../../../test/support/peers.ts";
import { type Clock, systemClock } from "../../base/clock.ts";
import { callbackLog } from "../../base/log.ts";
import { KEY_CHANGE_MS } from "./setup.ts";

const ends: (() => Promise<unknown> | unknown)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

type Peers = NonNullable<Parameters<typeof startAgent>[0]>["peers"];

/** An agent with one service called web, and what reloads it with another configuration of peers. */
async function agent(node: string, first: Peers, clock: Clock = systemClock) {
  let peers = first;
  const said: string[] = [];
  const settings = () => ({ node, ...(peers === undefined ? {} : { peers }) });
  const made = await startAgent(settings(), {
    clock,
    log: callbackLog((level, _part, text) => void said.push(`${level} ${text}`)),
    reread: async () => settings(),
  });
  ends.push(() => made.stop());
  await made.trilith.agent.register("api", {
    ...{ id: `web-${node}`, name: "web", tags: [], labels: {}, address: "", port: 80, checks: [] },
  });
  const heard = (): string =>
    made.trilith.directory
      .view()
      .residents("web")
      .filter(({ checks }) => checks.every(({ status }) => status !== "critical"))
      .map(({ instance }) => instance.node)
      .sort()
      .join();
  return {
    made,
    heard,
    hears: (nodes: string): Promise<unknown> => eventually(`${node} hears ${nodes}`, () => heard() === nodes),
    async become(next: Peers): Promise<readonly string[]> {
      peers = next;
      said.splice(0);
      await made.trilith.reload();
      return said.filter((line) => line.startsWith("warn"));
    },
  };
}

const at = (port: number): string => `127.0.0.1:${port}`;
async function ports(count: number): Promise<number[]> {
  const found = new Set<number>();
  while (found.size < count) found.add(await freePort());
  return [...found];
}

it("asks further hosts, and goes on with those it hears", async () => {
  const [a = 0, b = 0, c = 0, d = 0] = await ports(4);
  const list = (port: number, ...hosts: readonly number[]) => ({ find: "list", hosts: hosts.map(at), port }) as const;
  const alpha = await agent("alpha", list(a, b));
  const beta = await agent("beta", list(b, a));
  const gamma = await agent("gamma", list(c, d));
  for (const one of [alpha, beta]) await one.hears("alpha,beta");
  expect(gamma.heard()).toBe("gamma");
  let lost = 0;
  const looking = setInterval(() => {
    if (![alpha, beta].every((one) => one.heard().startsWith("alpha,beta"))) lost++;
  }, 1);
  ends.push(() => clearInterval(looking));
  expect(await alpha.become(list(a, b, c))).toEqual([]);
  // Whoever is asked asks back, and is told of the others.
  for (const one of [alpha, beta, gamma]) await one.hears("alpha,beta,gamma");
  expect(await alpha.become(list(a, c))).toEqual([]);
  clearInterval(looking);
  expect(lost).toBe(0);
  // Who is named no more is heard on, as whoever is heard.
  await alpha.made.trilith.agent.deregister("api", "web-alpha");
  for (const one of [alpha, beta, gamma]) await one.hears("beta,gamma");
  // What waits is told, and what hosts without a port are asked at stays, too.
  expect(
    await alpha.become({ find: "lan", hosts: [at(c)], port: d, bind: "127.0.0.1", key: "0123456789abcdef" }),
  ).toEqual([
    "warn peers is another one now: it counts after a restart, as how hosts find each other decides where this one shows its own",
    "warn peers_port is another one now: it counts after a restart, as other hosts ask at the port that they were told",
    "warn peers_bind is another one now: it counts after a restart, as other hosts ask at the address that they were told",
  ]);
  expect(await alpha.become(list(a, c))).toEqual([]);
  // With others than this host's own it would listen elsewhere.
  expect(await alpha.become({ find: "list", hosts: [at(c), "100.127.255.254"], port: a })).toEqual([
    "warn peers: this host shows its own at 127.0.0.1 until a restart, where not all of the hosts that are named now can ask it",
  ]);
  expect(await alpha.become(list(a, c))).toEqual([]);
  expect(await alpha.become(undefined)).toEqual(["warn peers is another one now: it counts after a restart"]);
  await expect(alpha.become({ find: "list", hosts: [], port: a })).rejects.toThrow("peers.hosts");
  await alpha.hears("beta,gamma");
});

it("takes another key: hosts that have it, too, hear each other all the time, and those that do not have some time to be told", async () => {
  const [a = 0, b = 0, c = 0] = await ports(3);
  const [before, after] = ["the key of before!", "the key of after!!"];
  const list = (port: number, key: string) =>
    ({ find: "list", hosts: [a, b, c].filter((each) => each !== port).map(at), port, key }) as const;
  /** The time for others to be told, as soon as the test wants it to be over. */
  const waiting: (() => void)[] = [];
  const clock: Clock = {
    ...systemClock,
    after: (ms, call, hold) => {
      if (ms !== KEY_CHANGE_MS) return systemClock.after(ms, call, hold);
      waiting.push(call);
      return { cancel: () => void waiting.splice(waiting.indexOf(call) >>> 0, 1) };
    },
  };
  const alpha = await agent("alpha", list(a, before), clock);
  const beta = await agent("beta", list(b, before), clock);
  const gamma = await agent("gamma", list(c, before), clock);
  for (const one of [alpha, beta, gamma]) await one.hears("alpha,beta,gamma");
  let lost = 0;
  const looking = setInterval(() => {
    if (![alpha, beta].every((one) => one.heard().startsWith("alpha,beta"))) lost++;
  }, 1);
  ends.push(() => clearInterval(looking));
  expect(await alpha.become(list(a, after))).toEqual([]);
  // Who comes with the old one is not let in any more, and who is there is told of changes.
  const refused = await agent("delta", { find: "list", hosts: [at(a)], port: (await ports(1))[0] ?? 0, key: before });
  await eventually("it is refused", () => refused.made.trilith.sources().some(({ ok }) => !ok));
  await beta.made.trilith.agent.register("api", {
    ...{ id: "more", name: "more", tags: [], labels: {}, address: "", port: 81, checks: [] },
  });
  await eventually("it is told", () => alpha.made.trilith.directory.view().residents("more").length === 1);
  expect(await beta.become(list(b, after))).toEqual([]);
  expect(waiting).toHaveLength(2);
  for (const call of waiting.splice(0)) call();
  // The third was not told in time.
  for (const one of [alpha, beta]) await one.hears("alpha,beta");
  await gamma.hears("gamma");
  expect(await gamma.become(list(c, after))).toEqual([]);
  for (const one of [alpha, beta, gamma]) await one.hears("alpha,beta,gamma");
  expect(lost).toBe(0);
});
