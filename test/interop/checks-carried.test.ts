// Services and checks of a host on their way into a real etcd: nothing blocks while it is away, everything follows when it is back.
import { join } from "node:path";
import { expect, test } from "vitest";
import { createAgent, type RunningAgent } from "../../src/agent/agent.ts";
import { systemClock } from "../../src/base/clock.ts";
import { systemDisk } from "../../src/base/disk.ts";
import { memoryDurable } from "../../src/base/durable.ts";
import { silentLog } from "../../src/base/log.ts";
import { createMetrics } from "../../src/base/metrics.ts";
import { systemRandom } from "../../src/base/random.ts";
import { defaultSettings } from "../../src/contracts/settings.ts";
import { createDirectory, type LocalDirectory } from "../../src/directory/local.ts";
import { createEtcdStorage } from "../../src/directory/storage/etcd.ts";
import type { Registration } from "../../src/model/instance.ts";
import { keyOf } from "../../src/model/record.ts";
import { eventually, freePort, havePrograms, ownFolder, startProgram } from "../support/peers.ts";

const ready = await havePrograms("etcd");

const service = (i: number): Registration => ({
  id: `s${i}`,
  name: "web",
  tags: [],
  labels: {},
  address: "",
  port: 80,
  checks: [
    {
      id: "",
      name: "",
      notes: "",
      kind: "ttl",
      detail: {},
      intervalMs: 0,
      timeoutMs: 0,
      ttlMs: 600_000,
      initial: "passing",
    },
  ],
});

test.runIf(ready)(
  "a host's list reaches etcd in pieces, survives its absence, and is not written twice",
  async () => {
    const folder = await ownFolder("checks-carried");
    const client = `http://127.0.0.1:${await freePort()}`;
    const peer = `http://127.0.0.1:${await freePort()}`;
    const startEtcd = (): ReturnType<typeof startProgram> =>
      startProgram(
        [
          ...["etcd", "--data-dir", join(folder.path, "data"), "--initial-cluster", `default=${peer}`],
          ...["--listen-client-urls", client, "--advertise-client-urls", client],
          ...["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer],
        ],
        join(folder.path, "log"),
      );
    const base = { clock: systemClock, random: systemRandom, log: silentLog };
    const host = async (node: string): Promise<{ agent: RunningAgent; directory: LocalDirectory }> => {
      const storage = await createEtcdStorage(
        { endpoints: [client], prefix: "/checks/", livenessMs: 5000 },
        { ...base, disk: systemDisk },
      );
      const metrics = createMetrics();
      const directory = createDirectory(storage, { ...base, metrics });
      await directory.start();
      const agent = createAgent({
        ...base,
        metrics,
        directory,
        durable: memoryDurable(),
        shared: true,
        probes: new Map(),
        settings: { ...defaultSettings, antiEntropyMs: 1000 },
        self: { node, nodeId: `id-${node}`, datacenter: "dc1", advertiseAddress: "127.0.0.1" },
      });
      await agent.start();
      return { agent, directory };
    };
    let etcd = await startEtcd();
    const one = await host("one");
    const two = await host("two");
    try {
      const seenByTwo = (): number => two.directory.view().residents("web").length;
      const list = Array.from({ length: 400 }, (_, i) => service(i));
      await one.agent.adopt("docker", { list, authority: "first-hand" });
      await one.agent.synced();
      await eventually("the other host sees all", () => seenByTwo() === 400);
      expect(one.agent.complaints()).toEqual([]);
      for (const { checks } of two.directory.view().residents("web"))
        expect(checks.map(({ status }) => status)).toEqual(["passing", "passing"]);

      // Several rounds of comparing, and the same list again: nothing is written.
      const { index } = two.directory.view();
      await one.agent.adopt("docker", { list: structuredClone(list), authority: "first-hand" });
      await new Promise((resolve) => setTimeout(resolve, 3500));
      await two.directory.barrier();
      expect(two.directory.view().index).toBe(index);

      await etcd.stop();
      await eventually("the loss is noticed", () => !one.directory.view().fresh);
      await one.agent.register("api", service(1000));
      await one.agent.report("service:s7", { status: "critical", output: "down" });
      await one.agent.adopt("docker", { list: list.slice(1), authority: "first-hand" });
      expect(one.agent.services().size).toBe(400);
      expect(two.directory.view().get("service", keyOf.service("one", "s0"))).toBeDefined();
      etcd = await startEtcd();
      await one.agent.synced(AbortSignal.timeout(60_000));
      await two.directory.barrier();
      const view = two.directory.view();
      expect(view.get("service", keyOf.service("one", "s0"))).toBeUndefined();
      expect(view.get("service", keyOf.service("one", "s1000"))).toBeDefined();
      expect(view.get("check", keyOf.check("one", "service:s7"))).toMatchObject({ status: "critical", output: "down" });

      await one.agent.leave();
      await eventually(
        "the node is gone",
        () => two.directory.view().get("node", "one") === undefined && seenByTwo() === 0,
      );
    } finally {
      await one.agent.stop();
      await two.agent.stop();
      await one.directory.stop();
      await two.directory.stop();
      await etcd.stop();
      await folder.remove();
    }
  },
  120_000,
);
