// Sources whose peer dies and comes back empty (really emptied, or by mistake): never empty for that, no ghosts in the end; and the laws of sources beside ZooKeeper and etcd.
import { writeFile } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../../src/base/clock.ts";
import { systemNet } from "../../src/base/net.ts";
import { openZooKeeper, type ZooKeeper } from "../../src/base/zookeeper.ts";
import { defaultSettings } from "../../src/contracts/settings.ts";
import { ImitatedConsul } from "../support/consul-imitation.ts";
import { toldRecursor } from "../support/dns-peers.ts";
import { type EtcdNode, startEtcd } from "../support/etcd.ts";
import { startAgent } from "../support/ground.ts";
import { goesWhenLessIsConfigured } from "../support/less-configured.ts";
import { eventually, freePort, havePrograms, ownFolder } from "../support/peers.ts";
import { haveKazoo, mayBeRead } from "../support/serversets.ts";
import { holdsForSiblings } from "../support/siblings.ts";
import { answersFrom } from "../support/zone.ts";
import { haveZooKeeper, startZooKeeper, type ZooKeeperServer } from "../support/zookeeper.ts";

const able = (await havePrograms("etcd", "etcdctl")) && (await haveZooKeeper()) && (await haveKazoo());
const ending: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ending.splice(0).toReversed()) await end();
});

const WHEN = [
  ["while the agent runs", false],
  ["while the agent is away", true],
] as const;

/** Hosts of which the last number is odd accept connections at `open`, those with an even one refuse them at `shut`. */
async function hosts(): Promise<{ readonly open: number; readonly shut: number }> {
  const server = createServer((socket) => socket.destroy());
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  ending.push(() => new Promise((done) => server.close(done)));
  return { open: (server.address() as AddressInfo).port, shut: await freePort() };
}

interface Emptied {
  readonly protocol: string;
  readonly raw: unknown;
  /** Nothing is in it any more, after it was away. */
  empty(): Promise<unknown>;
}

/** "web" at 192.0.2.1 to .4: two that live, two that do not. */
const places = ({ open, shut }: { open: number; shut: number }): readonly (readonly [string, number])[] =>
  [1, 2, 3, 4].map((n) => [`192.0.2.${n}`, n % 2 === 1 ? open : shut]);

/** `down`: the agent is not there while it happens. */
async function isNeverEmptyByMistake({ protocol, raw, empty }: Emptied, down = false): Promise<void> {
  const folder = await ownFolder("emptied-agent");
  ending.push(() => folder.remove());
  const settings = { protocols: { [protocol]: raw }, guard: { ...defaultSettings.guard, holdMs: 9_000 } };
  const start = async () => {
    const started = await startAgent(
      { ...settings, dev: false, dataDir: folder.path },
      {
        net: {
          ...systemNet,
          // Hosts of the documentation's network, which this test answers for.
          connect: (to, signal) =>
            systemNet.connect(
              "host" in to && to.host.startsWith("192.0.2.") ? { ...to, host: "127.0.0.1" } : to,
              signal,
            ),
        },
      },
    );
    ending.push(() => started.stop());
    return started;
  };
  let agent = await start();
  const found = (): string =>
    agent.trilith.lookup
      .resolveNow({ service: "web", order: "stable" })
      .endpoints.map(({ address }) => address.split(".").at(-1))
      .sort()
      .join("");
  const seen: string[] = [];
  const follow = new AbortController();
  await eventually("all are known", () => found() === "1234", 30_000);
  if (down) {
    await agent.stop();
    await empty();
    agent = await start();
  }
  const { lookup } = agent.trilith;
  const following = (async () => {
    for await (const _ of lookup.follow({ service: "web" }, follow.signal))
      if (seen.at(-1) !== found()) seen.push(found());
  })();
  ending.push(async () => {
    follow.abort(new Error("enough"));
    await following;
  });
  if (!down) await empty();
  await eventually("the guard holds them", () => lookup.held().length === 1, 40_000);
  expect(lookup.held()[0]?.text).toContain(`source "${protocol}" no longer lists them: `);
  // Those that refuse connections are gone for certain, the others may live.
  await eventually("a second opinion", () => found() === "13", 8_500);
  await eventually("what is gone goes", () => found() === "", 30_000);
  expect(lookup.held()).toEqual([]);
  expect(agent.trilith.directory.view().residents("web")).toEqual([]);
  await eventually("a reader has seen that, too", () => seen.at(-1) === "");
  // As a reader saw it: at no moment nothing, until the time for holding was over.
  const empties = seen.flatMap((each, i) => (each === "" ? [i] : []));
  expect(empties).toEqual([seen.length - 1]);
  expect(seen.at(-2)).toBe("13");
}

describe.runIf(able)("a peer that comes back empty", { timeout: 120_000 }, () => {
  let etcd: EtcdNode;
  let server: ZooKeeperServer;
  let zk: ZooKeeper;
  beforeAll(async () => {
    [etcd, server] = await Promise.all([startEtcd(), startZooKeeper()]);
  }, 120_000);
  afterAll(async () => {
    await Promise.all([etcd?.remove(), server?.remove()]);
  });
  /** Of ZooKeeper, for the running test: what a try before it made is elsewhere. */
  let top = "";
  let tries = 0;
  const connected = async (): Promise<void> => {
    await server.start();
    top = `/try-${++tries}`;
    zk = await openZooKeeper({ servers: server.address, sessionTimeoutMs: 10_000, clock: systemClock });
    ending.push(() => zk.close());
  };
  const put = async (set: string, at: readonly (readonly [string, number])[]): Promise<void> => {
    await zk.makePath(set);
    for (const [i, [host, port]] of at.entries())
      await zk.create(
        `${set}/member_000000000${i}`,
        JSON.stringify({ serviceEndpoint: { host, port }, additionalEndpoints: {}, status: "ALIVE" }),
        "persistent",
      );
  };

  it.each(WHEN)("etcd, its data removed, %s", async (_, down) => {
    await etcd.start();
    await etcd.ctl("del", "--prefix", "/");
    for (const [i, [host, port]] of places(await hosts()).entries())
      await etcd.ctl("put", `/services/web/w${i}`, `${host}:${port}`);
    await isNeverEmptyByMistake(
      {
        protocol: "etcd",
        raw: { endpoints: etcd.endpoint, registrator: "/services", hold: "500ms" },
        empty: async () => {
          await etcd.wipe();
          await etcd.start();
        },
      },
      down,
    );
  });

  it.each(WHEN)("ZooKeeper, its data removed, %s", async (_, down) => {
    await connected();
    await put(`${top}/web`, places(await hosts()));
    await isNeverEmptyByMistake(
      {
        protocol: "zookeeper",
        raw: { servers: server.address, sets: `${top}/*`, session_timeout: "2s" },
        empty: async () => {
          await server.wipe();
          await server.start();
        },
      },
      down,
    );
  });

  it.each(WHEN)("a name server that knows no name, %s", async (_, down) => {
    let zone: readonly string[] = places(await hosts()).flatMap(([host, port]) => {
      const target = `h${host.split(".").at(-1)}.example.com.`;
      return [`_http._tcp.example.com. 1 SRV 0 0 ${port} ${target}`, `${target} 1 A ${host}`];
    });
    const recursor = await toldRecursor(answersFrom(() => zone));
    ending.push(() => recursor.stop());
    const services = { service: "web", name: "_http._tcp.example.com", resolvers: recursor.place };
    await isNeverEmptyByMistake(
      {
        protocol: "dns-upstream",
        raw: { services, floor: "200ms", hold: "500ms" },
        empty: async () => {
          zone = [];
        },
      },
      down,
    );
  });

  it.each(WHEN)("a file that is truncated, %s", async (_, down) => {
    const folder = await ownFolder("emptied");
    ending.push(() => folder.remove());
    const file = join(folder.path, "web");
    await writeFile(
      file,
      places(await hosts())
        .map((at) => `${at.join(":")}\n`)
        .join(""),
    );
    await isNeverEmptyByMistake({ protocol: "flat", raw: { files: file }, empty: () => writeFile(file, "") }, down);
  });

  it.each(WHEN)("a Consul that was restarted with nothing, %s", async (_, down) => {
    const consul = new ImitatedConsul(10_000);
    for (const [i, [host, port]] of places(await hosts()).entries())
      consul.register(`host-${i}`, host, { ID: `web-${i}`, Service: "web", Port: port });
    await consul.start();
    ending.push(() => consul.stop());
    await isNeverEmptyByMistake(
      {
        protocol: "consul-upstream",
        raw: { upstreams: { url: consul.url }, hold: "500ms" },
        empty: async () => {
          await consul.stop();
          consul.restoreEmpty();
          await consul.start();
        },
      },
      down,
    );
  });

  it("of etcd: a failing prefix does not age its sibling", async () => {
    // A new store: users of a try before this one would be there already.
    await etcd.wipe();
    await etcd.start();
    await etcd.ctl("put", "/one/a/1", "192.0.2.1:80");
    await etcd.ctl("put", "/two/b/1", "192.0.2.2:80");
    const reads = ["role", "grant-permission", "reads", "read", "--prefix"];
    for (const words of ["user add root:secret", "user add reader:word", "role add reads"])
      await etcd.ctl(...words.split(" "));
    for (const prefix of ["/one/", "/two/"]) await etcd.ctl(...reads, prefix);
    await etcd.ctl("user", "grant-role", "reader", "reads");
    await etcd.ctl("user", "grant-role", "root", "root");
    await etcd.ctl("auth", "enable");
    const root = (...words: string[]): Promise<string> => etcd.ctl("--user=root:secret", ...words);
    const raw = { endpoints: etcd.endpoint, username: "reader", password: "word", registrator: ["/one", "/two"] };
    const agent = await startAgent({ protocols: { etcd: raw } });
    ending.push(
      () => etcd.wipe(),
      () => agent.stop(),
    );
    const why = /permission denied/;
    const { lookup } = agent.trilith;
    await holdsForSiblings(agent, {
      ...{ source: "etcd", failing: "a", well: "b", entry: "/one/", why },
      fail: async () => {
        await root("role", "revoke-permission", "reads", "/one/", "--prefix");
        // Watches that stand are not looked at again. While etcd is away, both are stale: that is another law.
        await etcd.stop();
        await etcd.start();
        await eventually(
          "the reason is told, and the sibling is fresh again",
          () =>
            lookup.explain({ service: "a" }).some(({ text }) => why.test(text)) &&
            lookup.resolveNow({ service: "b" }).fresh,
          45_000,
        );
      },
      mend: () => root(...reads, "/one/"),
    });
  });

  it("of ZooKeeper: a failing set does not age its sibling", async () => {
    await connected();
    await put(`${top}/a`, [["192.0.2.1", 80]]);
    await put(`${top}/b`, [["192.0.2.2", 80]]);
    const raw = { servers: server.address, sets: `${top}/*`, session_timeout: "2s" };
    const agent = await startAgent({ protocols: { zookeeper: raw } });
    ending.push(() => agent.stop());
    await holdsForSiblings(agent, {
      ...{
        source: "zookeeper",
        failing: "a",
        well: "b",
        entry: `${top}/a`,
        why: /cannot be read, what is known stays: /,
      },
      fail: async () => {
        await mayBeRead(server.address, `${top}/a`, false);
        await zk.create(`${top}/a/other`, "", "persistent");
      },
      mend: () => mayBeRead(server.address, `${top}/a`, true),
    });
  });

  it("of etcd: a prefix that is no longer asked for goes at once", async () => {
    await etcd.start();
    await etcd.ctl("del", "--prefix", "/");
    for (const [prefix, service] of [
      ["/one", "going"],
      ["/two", "staying"],
    ])
      for (const n of [1, 2, 3]) await etcd.ctl("put", `${prefix}/${service}/${service}-${n}`, `192.0.2.${n}:80`);
    const on = (...registrator: string[]) => ({ endpoints: etcd.endpoint, registrator });
    await goesWhenLessIsConfigured({
      ...{ protocol: "etcd", going: "going", staying: "staying" },
      ...{ more: on("/one", "/two"), less: on("/two") },
    });
  });

  it("of ZooKeeper: a set that is no longer asked for goes at once", async () => {
    await connected();
    const three = [1, 2, 3].map((n) => [`192.0.2.${n}`, 80] as const);
    for (const set of ["going", "staying"]) await put(`${top}/${set}`, three);
    const on = (...sets: string[]) => ({ servers: server.address, session_timeout: "2s", sets });
    await goesWhenLessIsConfigured({
      ...{ protocol: "zookeeper", going: "going", staying: "staying" },
      ...{ more: on(`${top}/going`, `${top}/staying`), less: on(`${top}/staying`) },
    });
  });
});
