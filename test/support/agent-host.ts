// An agent on a fake clock, with the real directory in memory, for the agent's own tests.

import { afterEach } from "vitest";
import { type AgentOptions, createAgent, type RunningAgent } from "../../src/agent/agent.ts";
import { silentLog } from "../../src/base/log.ts";
import { createMetrics } from "../../src/base/metrics.ts";
import { systemRandom } from "../../src/base/random.ts";
import type { Directory } from "../../src/contracts/directory.ts";
import type { Probe } from "../../src/contracts/probe.ts";
import { defaultSettings, type Settings } from "../../src/contracts/settings.ts";
import { createDirectory, type LocalDirectory } from "../../src/directory/local.ts";
import { memoryStorage } from "../../src/directory/storage/memory.ts";
import type { CheckSpec, Outcome } from "../../src/model/check.ts";
import type { Registration } from "../../src/model/instance.ts";
import type { Reason } from "../../src/model/reason.ts";
import { keyOf, scope } from "../../src/model/record.ts";
import { type FakeClock, fakeClock } from "../simulated/clock.ts";
import { type FakeDurable, fakeDurable } from "../simulated/durable.ts";

export const NODE_ID = "11111111-2222-3333-4444-555555555555";
/** A registration that says nothing but its id. */
export const service = (id: string, more: Partial<Registration> = {}): Registration => ({
  id,
  name: id,
  tags: [],
  labels: {},
  address: "",
  port: 80,
  checks: [],
  ...more,
});
/** A check that is pushed. */
export const ttl = (more: Partial<CheckSpec> = {}): CheckSpec => ({
  id: "",
  name: "",
  notes: "",
  kind: "ttl",
  detail: {},
  intervalMs: 0,
  timeoutMs: 0,
  ttlMs: 10_000,
  ...more,
});
/** A check that is asked by a probe of this kind. */
export const asked = (kind: string, more: Partial<CheckSpec> = {}): CheckSpec => {
  const { ttlMs: _, ...rest } = ttl({ kind, intervalMs: 10_000, ...more });
  return rest;
};
export const reason = (code: Reason["code"], text = "because"): Reason => ({ code, text, confirmed: true, atMs: 0 });

export const SELF: AgentOptions["self"] = {
  node: "Alpha",
  nodeId: NODE_ID,
  datacenter: "dc1",
  advertiseAddress: "192.0.2.1",
};

export interface Host {
  readonly clock: FakeClock;
  readonly durable: FakeDurable;
  readonly directory: LocalDirectory;
  readonly agent: RunningAgent;
  /** What the probe of kind "told" answers. */
  readonly told: { outcome: Outcome; asked: number };
  /** Another agent on what this one left. */
  again(more?: Partial<AgentOptions>): Promise<RunningAgent>;
  /** The agent in front of another directory. */
  build(more?: Partial<AgentOptions>): RunningAgent;
}

export const ends: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

export async function host(
  settings: Partial<Settings> = {},
  more: Partial<AgentOptions> = {},
  self: Partial<AgentOptions["self"]> = {},
): Promise<Host> {
  const clock = fakeClock();
  const durable = fakeDurable();
  const metrics = createMetrics();
  const directory = createDirectory(memoryStorage(), { clock, random: systemRandom, log: silentLog, metrics });
  await directory.start();
  ends.push(() => directory.stop());
  const told: Host["told"] = { outcome: { status: "passing", output: "fine" }, asked: 0 };
  const probe: Probe = {
    kind: "told",
    defaultTimeoutMs: 1000,
    parse: (raw) => raw,
    async run() {
      told.asked++;
      return told.outcome;
    },
  };
  const script: Probe = { ...probe, kind: "script" };
  const build = (other: Partial<AgentOptions> = {}): RunningAgent => {
    const agent = createAgent({
      directory,
      durable,
      shared: false,
      clock,
      random: systemRandom,
      log: silentLog,
      metrics,
      probes: new Map([
        ["told", probe],
        ["script", script],
      ]),
      settings: { ...defaultSettings, ...settings },
      self: { ...SELF, ...self },
      ...more,
      ...other,
    });
    ends.push(() => agent.stop());
    return agent;
  };
  const agent = build();
  await agent.start();
  return {
    clock,
    durable,
    directory,
    agent,
    told,
    build,
    async again(other) {
      const next = build(other);
      await next.start();
      return next;
    },
  };
}

export const entryOf = (directory: Directory, id: string, node = "alpha") =>
  directory.view().get("service", keyOf.service(node, id));
export const checkOf = (directory: Directory, id: string, node = "alpha") =>
  directory.view().get("check", keyOf.check(node, id));
export const mine = (directory: Directory): number => directory.view().at(scope.node("alpha"));
