// The hook's table of 10,000 services: how soon a change is in it while others keep coming, what a write takes, and what it would take to write all of it anew.
import { readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { performance } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import type { Registration } from "../src/model/instance.ts";
import {
  decodeHookTable,
  type HookTable,
  hookServiceNamed,
  openHookTable,
  readHookService,
} from "../src/wire/hook-table.ts";
import { createHookTableEncoder, encodeHookTable } from "../src/wire/hook-table-encode.ts";
import { startAgent } from "../test/support/ground.ts";
import { eventually, ownFolder } from "../test/support/peers.ts";

const SERVICES = 10_000;
const RUN_MS = Number(process.env["RUN_MS"] ?? 15_000);
const EVERY_MS = 100;

const registration = (service: number, instance: number, port: number): Registration => ({
  ...{ id: `s${service}-${instance}`, name: `service-${service}`, tags: ["v1", "primary"], labels: {}, checks: [] },
  ...{ address: `10.${instance}.${service >> 8}.${service & 255}`, port },
});
const shown = (values: readonly number[], digits = 0): string => {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (share: number): string => (sorted[Math.floor((sorted.length - 1) * share)] as number).toFixed(digits);
  return `${at(0.5)} ms (${at(0)}–${at(1)}, ${sorted.length} times)`;
};
const cpuMs = (): number => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
};

const folder = await ownFolder("bench-hook-table");
const path = join(folder.path, "hook", "table");
const agent = await startAgent({ protocols: { minidisc: false, shim: { table: path } } });
try {
  const list = Array.from({ length: SERVICES * 3 }, (_, i) => registration(Math.floor(i / 3), i % 3, 8000));
  await agent.trilith.agent.adopt("bench", { list, authority: "second-hand" });
  await eventually(
    "all services are in the table",
    async () =>
      ((await (await fetch(`${agent.url}/v1/trilith/hook`)).json()) as { readonly services: number }).services >=
      SERVICES * 3,
    120_000,
  );
  await sleep(3_000);

  const delays: number[] = [];
  const began = performance.now();
  const cpuBefore = cpuMs();
  const { generation: first } = openHookTable(readFileSync(path));
  let file = statSync(path).ino;
  let waiting: { readonly service: number; readonly port: number; readonly since: number } | undefined;
  let changes = 0;
  while (performance.now() - began < RUN_MS) {
    const service = (changes * 7_919) % SERVICES;
    const port = 9_000 + (changes++ % 1_000);
    await agent.trilith.agent.register("api", registration(service, 0, port));
    waiting ??= { service, port, since: performance.now() };
    for (const until = performance.now() + EVERY_MS; performance.now() < until; await sleep(5)) {
      const now = statSync(path, { throwIfNoEntry: false })?.ino ?? file;
      if (now === file || waiting === undefined) continue;
      file = now;
      const table = openHookTable(readFileSync(path));
      const at = hookServiceNamed(table, `service-${waiting.service}.service.consul`);
      if (at === undefined || !readHookService(table, at).backends.some((each) => each.port === waiting?.port))
        continue;
      delays.push(performance.now() - waiting.since);
      waiting = undefined;
    }
  }
  const bytes = readFileSync(path);
  const table = decodeHookTable(bytes);
  const writes = table.generation - first;
  const agentCpuMs = (cpuMs() - cpuBefore) / writes;
  console.log(
    `${SERVICES} services × 3 instances × 2 tags: ${(bytes.length / 1e6).toFixed(1)} MB; ${changes} changes in ${RUN_MS / 1000} s, ${writes} writes, ${agentCpuMs.toFixed(0)} ms CPU of the whole agent for each`,
  );
  console.log(`a change is in the table after ${shown(delays)}`);

  const encoder = createHookTableEncoder();
  const whole: number[] = [];
  const alone: number[] = [];
  let now: HookTable = table;
  for (let round = 0; round < 20; round++) {
    const i = (round * 7_919) % now.services.length;
    const service = now.services[i] as (typeof now.services)[number];
    const backends = service.backends.map((each) => ({ ...each, port: 1 + round }));
    now = { ...now, services: now.services.with(i, { ...service, backends }) };
    const beforeEach = performance.now();
    await encoder.encode(now, async () => {});
    const between = performance.now();
    encodeHookTable(now);
    // The first ones also pack every service.
    if (round < 3) continue;
    alone.push(between - beforeEach);
    whole.push(performance.now() - between);
  }
  console.log(`the table's bytes with one change: ${shown(alone, 1)}; all of them anew: ${shown(whole, 1)}`);
} finally {
  await agent.stop();
  await folder.remove();
}
