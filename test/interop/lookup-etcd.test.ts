// The lookup over a real etcd that is away: while the agent runs, and when it starts; answers come from the last known good and say so.
import { expect, it } from "vitest";
import type { Registration } from "../../src/model/instance.ts";
import { startEtcd } from "../support/etcd.ts";
import { type RunningAgent, startAgent } from "../support/ground.ts";
import { eventually, havePrograms, ownFolder } from "../support/peers.ts";

const here = await havePrograms("etcd", "etcdctl");

const registration: Registration = {
  id: "w1",
  name: "web",
  tags: ["v1"],
  labels: { zone: "a" },
  address: "192.0.2.9",
  port: 80,
  checks: [],
};

interface Found {
  readonly known: boolean;
  readonly fresh: boolean;
  readonly ageMs: number;
  readonly endpoints: readonly { readonly address: string; readonly node: string }[];
}
async function find(agent: RunningAgent): Promise<Found> {
  return (await (await fetch(`${agent.url}/v1/trilith/find/web?tag=V1&label=zone=a`)).json()) as Found;
}

it.skipIf(!here)("answers from what the last life knew until etcd is there again", async () => {
  const etcd = await startEtcd();
  const folders = [await ownFolder("lookup-a"), await ownFolder("lookup-b")];
  const agents: RunningAgent[] = [];
  const start = async (node: string, folder: number): Promise<RunningAgent> => {
    const agent = await startAgent({
      dev: false,
      node,
      dataDir: folders[folder]?.path ?? "",
      storage: "etcd",
      etcd: { endpoints: [etcd.endpoint], prefix: "/lookup/", livenessMs: 5000 },
    });
    agents.push(agent);
    return agent;
  };
  try {
    const first = await start("alpha", 0);
    const other = await start("beta", 1);
    await other.trilith.agent.register("api", registration);
    await eventually("alpha sees beta's service", async () => (await find(first)).endpoints.length === 1);
    expect(await find(first)).toMatchObject({ fresh: true, ageMs: 0, endpoints: [{ node: "beta" }] });

    await etcd.stop("SIGKILL");
    const stale = await eventually("alpha knows that etcd is away", async () => {
      const found = await find(first);
      return found.fresh ? undefined : found;
    });
    expect(stale).toMatchObject({ known: true, endpoints: [{ address: "192.0.2.9", node: "beta" }] });
    await first.stop();

    const again = await start("alpha", 0);
    const remembered = await find(again);
    expect(remembered).toMatchObject({
      known: true,
      fresh: false,
      endpoints: [{ address: "192.0.2.9", node: "beta" }],
    });
    expect(remembered.ageMs).toBeGreaterThan(0);
    const doctor = (await (await fetch(`${again.url}/v1/trilith/doctor`)).json()) as {
      store: unknown;
      warnings: string[];
    };
    expect(doctor.store).toMatchObject({ reachable: false, fresh: false });
    expect(doctor.warnings.join("\n")).toContain("the store cannot be reached");

    await etcd.start();
    await eventually("alpha's answers are fresh again", async () => (await find(again)).fresh);
    expect((await find(again)).endpoints).toMatchObject([{ address: "192.0.2.9" }]);
  } finally {
    for (const agent of agents) await agent.stop();
    await etcd.remove();
    for (const folder of folders) await folder.remove();
  }
});
