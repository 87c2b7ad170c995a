// The whole agent against a second-hand source that lies: what Docker and files may say at once, hearsay may not; also over a restart.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import type { Settings } from "../../src/contracts/settings.ts";
import type { SourceList } from "../../src/contracts/source.ts";
import type { Registration } from "../../src/model/instance.ts";
import { createTrilith, type Trilith } from "../../src/trilith.ts";

const SIX = [1, 2, 3, 4, 5, 6];

function whole(numbers: readonly number[], authority: SourceList["authority"]): SourceList {
  return {
    authority,
    list: numbers.map(
      (n): Registration => ({
        id: `member-${n}`,
        name: "db",
        tags: [],
        labels: {},
        address: `192.0.2.${n}`,
        port: 5000 + n,
        checks: [],
        foreignId: `member_000000000${n}`,
      }),
    ),
  };
}

async function started(dataDir?: string): Promise<Trilith> {
  const settings: Partial<Settings> = {
    node: "alpha",
    httpPort: 0,
    protocols: { docker: false, dns: { port: 0 }, file: false, process: false },
    ...(dataDir === undefined ? { dev: true, storage: "memory" } : { dataDir }),
  };
  const agent = createTrilith(settings);
  await agent.start();
  return agent;
}

interface Found {
  readonly known: boolean;
  readonly held?: { readonly text: string };
  readonly endpoints: readonly { readonly port: number; readonly held?: true }[];
}
async function find(agent: Trilith): Promise<Found> {
  const answer = await fetch(`http://${agent.self.listening.get("http")}/v1/trilith/find/db?order=stable`);
  return (await answer.json()) as Found;
}
const ports = ({ endpoints }: Found): number[] => endpoints.map(({ port }) => port).sort();

it("six, one, none: held, told, released", async () => {
  const agent = await started();
  try {
    await agent.agent.adopt("elsewhere", whole(SIX, "second-hand"));
    await agent.agent.synced();
    expect(ports(await find(agent))).toEqual([5001, 5002, 5003, 5004, 5005, 5006]);
    await agent.agent.adopt("elsewhere", whole([1], "second-hand"));
    await agent.agent.synced();
    const held = await find(agent);
    expect(ports(held)).toHaveLength(6);
    expect(held.endpoints.filter((endpoint) => endpoint.held)).toHaveLength(5);
    expect(held.held?.text).toContain('source "elsewhere" no longer lists them');
    await agent.agent.adopt("elsewhere", whole([], "second-hand"));
    await agent.agent.synced();
    expect(ports(await find(agent))).toHaveLength(6);
    expect(agent.directory.view().residents("db")).toEqual([]);
    agent.lookup.confirmLost("db", "192.0.2.3", 5003);
    expect(ports(await find(agent))).toEqual([5001, 5002, 5004, 5005, 5006]);
    const url = `http://${agent.self.listening.get("http")}/v1/trilith/release/db`;
    expect(await (await fetch(url, { method: "POST" })).json()).toEqual({ service: "db", released: true });
    expect(await find(agent)).toMatchObject({ known: false, endpoints: [] });
  } finally {
    await agent.stop();
  }
});

it("a first-hand source is believed at once", async () => {
  const agent = await started();
  try {
    await agent.agent.adopt("docker", whole(SIX, "first-hand"));
    await agent.agent.synced();
    expect(ports(await find(agent))).toHaveLength(6);
    await agent.agent.adopt("docker", whole([], "first-hand"));
    await agent.agent.synced();
    expect(await find(agent)).toMatchObject({ known: false, endpoints: [] });
  } finally {
    await agent.stop();
  }
});

it("a source that lies right after a restart meets what the earlier life knew", async () => {
  const dataDir = await mkdtemp(join(tmpdir(), "trilith-lying-"));
  let agent = await started(dataDir);
  try {
    await agent.agent.adopt("elsewhere", whole(SIX, "second-hand"));
    await agent.agent.synced();
    await agent.stop();
    agent = await started(dataDir);
    // Not a word from the source yet: the last list stands.
    expect(ports(await find(agent))).toHaveLength(6);
    await agent.agent.adopt("elsewhere", whole([2], "second-hand"));
    await agent.agent.synced();
    const held = await find(agent);
    expect(ports(held)).toHaveLength(6);
    expect(held.endpoints.filter((endpoint) => endpoint.held)).toHaveLength(5);
  } finally {
    await agent.stop();
    await rm(dataDir, { recursive: true, force: true });
  }
});
