// The recorded scenarios of Consul, with an agent on a real etcd: a prefix and a data folder of its own for each.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type EtcdNode, startEtcd } from "../support/etcd.ts";
import { type Replayed, replayAll, scenarios } from "../support/kit.ts";
import { havePrograms } from "../support/peers.ts";

const here = await havePrograms("etcd", "etcdctl");

describe.skipIf(!here)("as Consul 1.19.2 answered, on etcd", () => {
  let node: EtcdNode | undefined;
  let rows: ReadonlyMap<string, Replayed>;
  beforeAll(async () => {
    node = await startEtcd();
    rows = await replayAll(`-etcd ${node.endpoint} -etcd-prefix /k$$/ -data-dir {folder}/$$ -advertise 127.0.0.1`);
  }, 600_000);
  afterAll(() => node?.remove());

  it.each(scenarios)("%s", (name) => {
    const row = rows.get(name);
    expect(row, `${name} was not run`).toBeDefined();
    expect(row?.differences).toEqual([]);
    expect(row?.passed).toBeGreaterThan(0);
  });
});
