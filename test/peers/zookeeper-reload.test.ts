// A reload with a real ZooKeeper and kazoo's reader: what is still written is not missed by anybody for a moment, also on the way to another ensemble.
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { startAgent } from "../support/ground.ts";
import { eventually, ownFolder } from "../support/peers.ts";
import { haveKazoo, watchSet } from "../support/serversets.ts";
import { haveZooKeeper, startZooKeeper, type ZooKeeperServer } from "../support/zookeeper.ts";

const WEB = "/reload/web";
const ALSO = "/reload/also";

describe.runIf((await haveZooKeeper()) && (await haveKazoo()))("a reload", { timeout: 120_000 }, () => {
  let server: ZooKeeperServer;
  const ends: (() => Promise<unknown>)[] = [];
  beforeAll(async () => {
    server = await startZooKeeper();
  }, 120_000);
  afterAll(() => server?.remove());
  afterEach(async () => {
    for (const end of ends.splice(0).reverse()) await end();
  });

  it("of another announce, other words for the same servers, and none at all", async () => {
    const folder = await ownFolder("zookeeper-reload");
    ends.push(() => folder.remove());
    const announce = (...paths: readonly string[]) => paths.map((path) => ({ service: "web", path }));
    let zookeeper: object | false = { servers: server.address, session_timeout: "4s", announce: announce(WEB, ALSO) };
    const told = () => ({ dev: false, dataDir: `${folder.path}/data`, protocols: { zookeeper } });
    const { trilith, stop } = await startAgent(told(), { reread: async () => told() });
    ends.push(stop);
    const become = async (now: object | false): Promise<void> => {
      zookeeper = now;
      await trilith.reload();
    };
    await trilith.agent.register("api", {
      ...{ id: "w", name: "web", tags: [], labels: {}, address: "192.0.2.9", port: 90, checks: [] },
    });
    const state = (): string => trilith.sources().find(({ name }) => name === "zookeeper out")?.text ?? "";
    await eventually("both are written", () => state().includes("2 members written"), 30_000);
    const [web, also] = [
      await watchSet(folder.path, server.address, WEB),
      await watchSet(folder.path, server.address, ALSO),
    ];
    ends.push(
      () => web.stop("SIGKILL"),
      () => also.stop("SIGKILL"),
    );
    const last = async (seen: typeof web): Promise<number> => (await seen.seen()).at(-1)?.length ?? 0;
    await eventually("both are seen", async () => (await last(web)) === 1 && (await last(also)) === 1, 30_000);

    await become({ ...zookeeper, announce: announce(WEB) });
    await eventually("what is not asked for goes", async () => (await last(also)) === 0, 30_000);
    expect(await web.seen()).toHaveLength(1);
    // The same servers in other words: the member is taken over by another session.
    await become({ servers: `${server.address},${server.address}`, session_timeout: "4s", announce: announce(WEB) });
    await eventually("it is taken over", () => state().includes("1 member written"), 30_000);
    await become({ servers: server.address, session_timeout: "5s", announce: announce(WEB, ALSO) });
    await eventually("the other one is back", async () => (await last(also)) === 1, 30_000);
    expect((await web.seen()).filter((members) => members.length === 0)).toEqual([]);
    expect(
      new Set((await web.seen()).flatMap((members) => members.map(({ serviceEndpoint }) => serviceEndpoint.port))),
    ).toEqual(new Set([90]));
    expect((await web.seen()).filter((members) => members.length > 1)).toEqual([]);
    await become(false);
    await eventually("nothing is written any more", async () => (await last(web)) + (await last(also)) === 0, 30_000);
    expect([...(await web.faults()), ...(await also.faults())]).toEqual([]);
  });
});
