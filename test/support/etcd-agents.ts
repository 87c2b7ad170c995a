// Agents that share one real etcd: one etcd a file, a prefix a test, and what etcd itself shows without any agent in between.
import { afterAll, afterEach, beforeAll, beforeEach } from "vitest";
import type { Settings } from "../../src/contracts/settings.ts";
import { createTrilith, type Trilith } from "../../src/trilith.ts";
import { type AgentProcess, QUIET, startAgentProcess } from "./agent-process.ts";
import { type EtcdNode, etcdStorage, Follower, ownPrefix, startEtcd } from "./etcd.ts";
import { ownFolder } from "./peers.ts";

export interface EtcdAgents {
  readonly node: EtcdNode;
  /** Of the running test. */
  readonly prefix: string;
  readonly witness: Follower;
  /** What is undone after the running test, in reverse order. */
  readonly ends: (() => Promise<unknown>)[];
  /** An agent in this process. */
  inside(name: string): Promise<Trilith>;
  /** An agent as a process of its own. */
  outside(
    name: string,
    livenessMs?: number,
    more?: { readonly program?: string; readonly args?: readonly string[] },
  ): Promise<AgentProcess>;
}

/** Is called where tests are described; `settings` are added to every agent's. */
export function etcdAgents(livenessMs: number, settings: Partial<Settings> = {}): EtcdAgents {
  let node: EtcdNode;
  let prefix: string;
  let witness: Follower;
  let ends: (() => Promise<unknown>)[] = [];
  beforeAll(async () => {
    node = await startEtcd();
  });
  beforeEach(async () => {
    prefix = ownPrefix();
    const storage = await etcdStorage([node.endpoint], { prefix });
    witness = await Follower.start(storage);
    ends.push(
      () => storage.close(),
      () => witness.stop(),
    );
  });
  afterEach(async () => {
    // A test may have left it paused or ended.
    node.resume();
    await node.start();
    for (const end of ends.reverse()) await end();
    ends = [];
  });
  afterAll(() => node?.remove());

  const settingsOf = (name: string, ms = livenessMs) => ({
    node: name,
    storage: "etcd" as const,
    etcd: { endpoints: [node.endpoint], prefix, livenessMs: ms },
    advertiseAddress: "127.0.0.1",
    protocols: QUIET,
    ...settings,
  });
  return {
    get node() {
      return node;
    },
    get prefix() {
      return prefix;
    },
    get witness() {
      return witness;
    },
    get ends() {
      return ends;
    },
    async inside(name) {
      const folder = await ownFolder(`agent-${name}`);
      const trilith = createTrilith({ ...settingsOf(name), dataDir: folder.path, httpPort: -1 });
      ends.push(
        () => folder.remove(),
        () => trilith.stop(),
      );
      await trilith.start();
      return trilith;
    },
    async outside(name, ms, more) {
      const agent = await startAgentProcess(settingsOf(name, ms), more);
      ends.push(() => agent.remove());
      return agent;
    },
  };
}
