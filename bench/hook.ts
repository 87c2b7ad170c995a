// The hook in C: what it adds to connects that are not ours and to those that are, and Redis reached by it, directly and through HAProxy, in one run.
import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { hookTable } from "../test/support/hook-table.ts";
import { eventually, freePort, havePrograms, ownFolder, startProgram } from "../test/support/peers.ts";

const run = promisify(execFile);
const ROUNDS = Number(process.env["BENCH_ROUNDS"] ?? 9);
/** With a connection for each there are fewer, so that a host that tracks connections has room for all of them. */
const OPERATIONS = { new: 2_000, keep: 20_000 } as const;
const root = join(import.meta.dirname, "..");
if (!(await havePrograms("cc", "redis-server", "redis-cli", "haproxy"))) process.exit(1);

const folder = await ownFolder("bench-hook");
const library = join(folder.path, "libtrilith.so");
const client = join(folder.path, "client");
await run("cc", ["-shared", "-fPIC", "-O2", "-o", library, join(root, "native/libtrilith.c")]);
await run("cc", ["-O2", "-o", client, join(import.meta.dirname, "_hook-client.c")]);

const median = (numbers: readonly number[]): number => numbers.toSorted((a, b) => a - b)[numbers.length >> 1] ?? 0;
const show = (numbers: readonly number[], digits: number): string =>
  `${median(numbers).toFixed(digits)} (${Math.min(...numbers).toFixed(digits)}–${Math.max(...numbers).toFixed(digits)})`;

const redis = await freePort();
const proxy = await freePort();
const table = hookTable(join(folder.path, "table/table"));
await table.put([
  { name: "bench", ports: [redis] },
  // As it is in life: two to choose from, so that a try has a time limit.
  { name: "bench-two", ports: [redis, redis] },
]);
const hooked = { LD_PRELOAD: library, TRILITH_HOOK_TABLE: table.path };
const measure = async (env: NodeJS.ProcessEnv, ...words: string[]): Promise<number[]> =>
  (await run(client, words, { env: { ...process.env, ...env } })).stdout.trim().split(" ").map(Number);

await writeFile(
  join(folder.path, "haproxy.cfg"),
  `defaults
  mode tcp
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen redis
  bind 127.0.0.1:${proxy}
  server redis 127.0.0.1:${redis}
`,
);
const server = await startProgram(
  ["redis-server", "--port", String(redis), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
  join(folder.path, "redis.log"),
);
const haproxy = await startProgram(
  ["haproxy", "-db", "-f", join(folder.path, "haproxy.cfg")],
  join(folder.path, "haproxy.log"),
);
/** CPU time of a process and its threads so far, in microseconds. */
const cpuUs = async (pid: number): Promise<number> => {
  const fields = (await readFile(`/proc/${pid}/stat`, "utf8")).split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) * 10_000;
};

try {
  for (const port of [redis, proxy])
    await eventually(`something listens on ${port}`, async () =>
      (await run("redis-cli", ["-p", String(port), "PING"])).stdout.startsWith("PONG"),
    );

  const plain: number[] = [];
  const added: number[] = [];
  const option: number[] = [];
  const optionAdded: number[] = [];
  const direct: number[] = [];
  const byName: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    const [without = 0, optionWithout = 0] = await measure({}, "foreign", "2000000");
    const [withHook = 0, optionWithHook = 0] = await measure(hooked, "foreign", "2000000");
    plain.push(without);
    added.push(withHook - without);
    option.push(optionWithout);
    optionAdded.push(optionWithHook - optionWithout);
    const [known = 0, ours = 0] = await measure(hooked, "ours", "5000", String(redis));
    direct.push(known);
    byName.push(ours - known);
  }
  console.log(`${ROUNDS} rounds, median (least–most)`);
  console.log(`a connect that is not ours: ${show(plain, 1)} ns without the hook, which adds ${show(added, 1)} ns`);
  console.log(`a setsockopt: ${show(option, 1)} ns without the hook, which adds ${show(optionAdded, 1)} ns`);
  console.log(`a connect that is ours: ${show(direct, 2)} µs to the known port; by name ${show(byName, 2)} µs more`);

  const WAYS = {
    direct: { env: {}, host: "127.0.0.1", port: redis },
    hook: { env: hooked, host: "bench-two.service.consul", port: 6379 },
    haproxy: { env: {}, host: "127.0.0.1", port: proxy },
  } as const;
  for (const [kind, label] of [
    ["new", "a connection for each operation"],
    ["keep", "one connection"],
  ] as const) {
    const rows: Record<string, number[][]> = { direct: [], hook: [], haproxy: [] };
    for (let round = 0; round < ROUNDS; round++)
      for (const [way, { env, host, port }] of Object.entries(WAYS)) {
        const before = await cpuUs(haproxy.pid);
        const row = await measure(env, "operations", String(OPERATIONS[kind]), host, String(port), kind);
        row.push((row[3] ?? 0) + ((await cpuUs(haproxy.pid)) - before) / OPERATIONS[kind]);
        rows[way]?.push(row);
      }
    console.log(`\nRedis PING, ${label}`);
    for (const [way, all] of Object.entries(rows)) {
      const column = (i: number): number[] => all.map((row) => row[i] ?? 0);
      console.log(
        `${way.padEnd(8)} ${show(column(0), 0)} a second; median ${show(column(1), 1)} µs, 99 % within ${show(column(2), 1)} µs; CPU of client and proxy ${show(column(4), 2)} µs an operation`,
      );
    }
  }
} finally {
  await haproxy.stop("SIGTERM");
  await server.stop("SIGKILL");
  await folder.remove();
}
