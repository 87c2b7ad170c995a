// What `--import trilith/hook` costs a Node program: connections that are not ours and those that are, beside plain Node in one run, interleaved.
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { promisify } from "node:util";
import { systemClock } from "../src/base/clock.ts";
import { systemRandom } from "../src/base/random.ts";
import { openShared } from "../src/base/shared-file.ts";
import { createBalancer } from "../src/lookup/balance/create.ts";
import { createRewrite } from "../src/lookup/node/rewrite.ts";
import { createCurrentTable } from "../src/lookup/node/table.ts";
import { writeTable } from "../test/support/hook-table-bytes.ts";
import { ownFolder } from "../test/support/peers.ts";

const run = promisify(execFile);
const ROUNDS = Number(process.env["BENCH_ROUNDS"] ?? 5);
const CONNECTIONS = Number(process.env["BENCH_CONNECTIONS"] ?? 10_000);
const CALLS = 2_000_000;
const hook = process.env["TRILITH_HOOK"] ?? join(import.meta.dirname, "../dist/hook.js");
const client = join(import.meta.dirname, "_node-hook-client.mjs");

const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;

const folder = await ownFolder("bench-node-hook");
const table = join(folder.path, "table");
const server = spawn(
  process.execPath,
  [
    "-e",
    'const s = require("net").createServer((c) => c.on("error", () => {})).listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, () => console.log(s.address().port)); process.stdin.resume().on("end", () => process.exit())',
  ],
  { stdio: ["pipe", "pipe", "inherit"] },
);
try {
  const port = String((await once(server.stdout, "data"))[0]).trim();
  const backends = Array.from({ length: 5 }, () => ({ address: "127.0.0.1", port: Number(port) }));
  const others = Array.from({ length: 1_000 }, (_, i) => [`other-${i}`, { backends }] as const);
  writeTable(table, { web: { backends }, ...Object.fromEntries(others) });

  const hooked = ["--import", hook];
  // Any --import at all changes how Node starts and, measurably, what follows.
  const empty = ["--import", "data:text/javascript,0"];
  const ways: readonly (readonly [name: string, flags: readonly string[], host: string])[] = [
    ["plain Node, 127.0.0.1", [], "127.0.0.1"],
    ["an empty --import, 127.0.0.1", empty, "127.0.0.1"],
    ["hooked, 127.0.0.1 (not ours)", hooked, "127.0.0.1"],
    ["plain Node, localhost", [], "localhost"],
    ["hooked, localhost (not ours)", hooked, "localhost"],
    ["hooked, web.service.consul", hooked, "web.service.consul"],
    ["hooked, its magic address", hooked, "127.128.0.1"],
  ];
  const seen = ways.map((): { medianUs: number[]; cpuUs: number[] } => ({ medianUs: [], cpuUs: [] }));
  const starts: number[][] = [[], [], []];
  const env = { ...process.env, NODE_OPTIONS: "", TRILITH_HOOK_TABLE: table };
  for (let round = 0; round < ROUNDS; round++) {
    for (const [i, [, flags, host]] of ways.entries()) {
      const { stdout } = await run(process.execPath, [...flags, client, host, port, String(CONNECTIONS)], { env });
      const { medianUs, cpuUs } = JSON.parse(stdout) as { medianUs: number; cpuUs: number };
      seen[i]?.medianUs.push(medianUs);
      seen[i]?.cpuUs.push(cpuUs);
    }
    for (let i = 0; i < 10; i++)
      for (const [k, flags] of [[], empty, hooked].entries()) {
        const began = performance.now();
        await run(process.execPath, [...flags, "-e", "require('net')"], { env });
        starts[k]?.push(performance.now() - began);
      }
  }
  console.log(
    `Node ${process.version}, ${ROUNDS} rounds of ${CONNECTIONS} connections one after the other, on loopback`,
  );
  for (const [i, [name]] of ways.entries())
    console.log(
      `${name.padEnd(32)} ${median(seen[i]?.medianUs ?? [])
        .toFixed(1)
        .padStart(7)} µs to connect, ${median(seen[i]?.cpuUs ?? [])
        .toFixed(1)
        .padStart(7)} µs of processor`,
    );
  const [plain, nothing, started] = starts.map((each) => median(each).toFixed(1));
  console.log(`start of a program: plain ${plain} ms, an empty --import ${nothing} ms, hooked ${started} ms`);

  const rewrite = createRewrite({
    table: createCurrentTable({ open: openShared, clock: systemClock, path: table }),
    balancer: createBalancer({ clock: systemClock, random: systemRandom }),
    caller: "0/bench",
  });
  const measure = (name: string, calls: number, what: () => unknown): void => {
    const rounds = Array.from({ length: 7 }, () => {
      const began = performance.now();
      for (let i = 0; i < calls; i++) what();
      return ((performance.now() - began) * 1e6) / calls;
    });
    console.log(`${name.padEnd(48)} ${median(rounds).toFixed(0).padStart(6)} ns`);
  };
  rewrite.name("web.service.consul");
  measure("looking at an address that is not ours: 10.1.2.3", CALLS, () => rewrite.connection("10.1.2.3", 80, 4));
  measure("… 127.0.0.1", CALLS, () => rewrite.connection("127.0.0.1", 80, 4));
  measure("… 2001:db8::1", CALLS, () => rewrite.connection("2001:db8::1", 80, 6));
  measure("looking at a name that is not ours", CALLS, () => rewrite.name("api.example.org"));
  measure("a name that is ours", CALLS / 20, () => rewrite.name("web.service.consul"));
  measure("an address that is ours, backend chosen", CALLS / 20, () => rewrite.connection("127.128.0.1", 80, 4)?.());
} finally {
  server.stdin.end();
  await folder.remove();
}
