// Another configuration of the hook while the agent runs: what is told is written, nothing else moves; switched off nobody is steered any more.
import { open, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type RunningAgent, startAgent } from "../../../test/support/ground.ts";
import { eventually, ownFolder } from "../../../test/support/peers.ts";
import { callbackLog } from "../../base/log.ts";
import { removeTemporaryFolder } from "../../base/temporary-folder.ts";
import type { Settings } from "../../contracts/settings.ts";
import { decodeHookTable, type HookTable, SUPERSEDED_AT } from "../../wire/hook-table.ts";

let folder: Awaited<ReturnType<typeof ownFolder>>;
const agents: RunningAgent[] = [];
beforeEach(async () => {
  folder = await ownFolder("shim-reload");
});
afterEach(async () => {
  for (const agent of agents.splice(0)) await agent.stop();
  await folder.remove();
});

const table = (): string => join(folder.path, "run", "table");
const read = async (): Promise<HookTable> => decodeHookTable(await readFile(table()));
const subjects = async (): Promise<readonly string[]> =>
  (await read()).services.map(
    ({ subject, slot, backends }) => `${slot} ${subject} ${backends.map(({ port }) => port)}`,
  );

/** An agent with two services; `become` reloads it with another configuration, and resolves to what was said. */
async function changing(first: unknown, more: Partial<Settings> = {}) {
  let protocols: Settings["protocols"] = { shim: first };
  const said: string[] = [];
  const agent = await startAgent(
    { ...more, protocols },
    {
      log: callbackLog((level, _part, text) => void said.push(`${level} ${text}`)),
      reread: async () => ({ ...more, protocols }),
    },
  );
  agents.push(agent);
  for (const [name, port] of [
    ["web", 8080],
    ["db", 5432],
  ] as const)
    await agent.trilith.agent.register("api", {
      ...{ id: name, name, tags: ["v1"], labels: {}, address: "192.0.2.1", port, checks: [] },
    });
  const become = async (shim: unknown, others: Settings["protocols"] = {}): Promise<readonly string[]> => {
    protocols = { ...others, shim };
    said.splice(0);
    await agent.trilith.reload();
    return said.filter((line) => !line.startsWith("debug"));
  };
  const asked = async (): Promise<number> => (await fetch(`${agent.url}/v1/trilith/hook`)).status;
  return { agent, become, asked };
}

test("what services get that ask for nothing is taken, and nothing is written where nothing is another one", async () => {
  const { agent, become, asked } = await changing({ table: table() });
  await asked();
  const [before, stood] = [await read(), await subjects()];
  await become({ table: table() });
  await asked();
  expect((await read()).generation).toBe(before.generation);
  const other = { table: table(), balance: "sticky", prefetch: 2, prefetchIdleMs: 500, tryMs: 77 };
  expect(await become(other)).toEqual(["info reading files again"]);
  await asked();
  expect((await read()).services.map(({ policy, prefetch, tryMs }) => ({ policy, prefetch, tryMs }))).toEqual(
    before.services.map(() => ({ policy: "sticky", prefetch: { most: 2, idleMs: 500 }, tryMs: 77 })),
  );
  // Names in a second domain come and go and come.
  for (const altDomain of ["alt.example", undefined, "alt.example"]) {
    await become(other, altDomain === undefined ? {} : { dns: { port: -1, altDomain } });
    await asked();
    const web = (await read()).services.find(({ subject }) => subject === "web");
    expect(web?.names.filter((name) => name.startsWith("web.service"))).toEqual([
      ...["web.service.consul", "web.service.dc1.consul"],
      ...(altDomain === undefined ? [] : ["web.service.alt.example", "web.service.dc1.alt.example"]),
    ]);
    expect(web?.policy).toBe("sticky");
  }
  expect(await subjects()).toEqual(stood);
  expect(await become({ table: join(folder.path, "elsewhere") })).toContain(
    "warn hook.table is another one now: it counts after a restart, as programs that run look for the table where it is",
  );
  await expect(become({ table: table(), balance: "fair" })).rejects.toThrow("hook.balance");
  await agent.trilith.agent.register("api", {
    ...{ id: "new", name: "new", tags: [], labels: {}, address: "192.0.2.1", port: 1, checks: [] },
  });
  await asked();
  expect((await read()).services.length).toBe(before.services.length + 1);
});

test("switched off, programs find nothing in the table, at once and later; on again, the same addresses are back", async () => {
  const { agent, become, asked } = await changing({ table: table() });
  await asked();
  const stood = await subjects();
  expect(stood.join()).toContain(" web 8080");
  const { v4 } = agent.trilith.magic.of({ service: "web" });
  const mapped = await open(table(), "r");
  try {
    expect(await become(false)).toContain("info shim is switched off");
    // Who has it looks for the next one, and that one is there for whoever looks only later.
    const word = Buffer.alloc(4);
    await mapped.read(word, 0, 4, SUPERSEDED_AT);
    expect(word.readUInt32LE()).toBe(1);
  } finally {
    await mapped.close();
  }
  expect(await read()).toMatchObject({ services: [], superseded: false });
  expect(await asked()).toBe(404);
  expect(agent.trilith.magic.subjectAt(v4)).toEqual({ service: "web" });
  expect(await become({ table: table() })).toContain("info shim is switched on");
  expect(await asked()).toBe(200);
  await eventually("it is whole again", async () => (await subjects()).join() === stood.join());
});

test("a table in a temporary folder is emptied, too, and stays for the programs that have it", async () => {
  const { agent, become } = await changing({});
  const { table: path } = (await (await fetch(`${agent.url}/v1/trilith/hook`)).json()) as { readonly table: string };
  expect(decodeHookTable(await readFile(path)).services).not.toEqual([]);
  try {
    await become(false);
    expect(decodeHookTable(await readFile(path)).services).toEqual([]);
  } finally {
    await removeTemporaryFolder(dirname(path));
  }
});

test("an agent that starts with the hook off empties what it left itself, and nothing of another agent", async () => {
  const data = join(folder.path, "data");
  const own = { dev: false, dataDir: data };
  const mine = async (): Promise<HookTable> => decodeHookTable(await readFile(join(data, "hook", "table")));
  const first = await changing(true, own);
  await first.asked();
  await agents.pop()?.stop();
  // Who only stops leaves what was right.
  expect((await mine()).services).not.toEqual([]);
  await changing(false, own);
  expect((await mine()).services).toEqual([]);
  await agents.pop()?.stop();
  const other = await changing({ table: table() });
  await other.asked();
  await changing({ enabled: false, table: table() }, { node: "beta" });
  expect((await read()).services).not.toEqual([]);
});
