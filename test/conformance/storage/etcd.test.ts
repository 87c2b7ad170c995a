// The suite over a real etcd: every client is a process of its own as far as etcd can tell.
import { afterAll, beforeAll, describe } from "vitest";
import type { EtcdStorage } from "../../../src/directory/storage/etcd.ts";
import { type EtcdNode, etcdStorage, ownPrefix, startEtcd } from "../../support/etcd.ts";
import { havePrograms } from "../../support/peers.ts";
import { describeStorage } from "./suite.ts";

describe.skipIf(!(await havePrograms("etcd", "etcdctl")))("over etcd", () => {
  let node: EtcdNode;
  beforeAll(async () => {
    node = await startEtcd();
  });
  afterAll(() => node?.remove());

  describeStorage("etcd", async () => {
    const prefix = ownPrefix();
    const clients: EtcdStorage[] = [];
    const close = async (): Promise<void> => {
      for (const client of clients.splice(0)) await client.close();
    };
    return {
      async client() {
        const client = await etcdStorage([node.endpoint], { prefix });
        clients.push(client);
        return client;
      },
      async restart() {
        await close();
        return true;
      },
      async compact() {
        const status = await node.ctl("endpoint", "status", "-w", "json");
        await node.ctl("compact", /"revision":(\d+)/.exec(status)?.[1] ?? "");
      },
      end: close,
    };
  });
});
