// The recorded scenarios of Consul, with an agent on a real etcd: a prefix and a data folder of its own for each.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type EtcdNode, startEtcd } from "../support/etcd.ts";
import { type Replays, replayAll, scenarios } from "../support/kit.ts";
import { havePrograms } from "../support/peers.ts";

const here = await havePrograms("etcd", "etcdctl");

describe.skipIf(!here)("as Consul 1.19.2 answered, on etcd", () => {
  let node: EtcdNode | undefined;
  let replays: Replays;
  beforeAll(async () => {
    node = await startEtcd();
    replays = await replayAll(`-etcd ${node.endpoint} -etcd-prefix /k$$/ -data-dir {folder}/$$ -advertise 127.0.0.1`);
  }, 600_000);
  afterAll(() => node?.remove());

  it.each(scenarios)("%s", async (name) => {
    const { differences, passed } = await replays.of(name);
    expect(differences).toEqual([]);
    expect(passed).toBeGreaterThan(0);
  });
});
