// Starting with 100,000 instances on disk: time to the first DNS answer and to HTTP, and memory, beside nsd with the same records as a zone.

import { createSocket } from "node:dgram";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createTrilith } from "../src/index.ts";
import type { Change } from "../src/model/record.ts";
import { keyOf } from "../src/model/record.ts";
import { freePort, havePrograms, ownFolder, startProgram } from "../test/support/peers.ts";

const INSTANCES = Number(process.env["BENCH_INSTANCES"] ?? 100_000);
const PER_SERVICE = 10;
const ROUNDS = Number(process.env["BENCH_ROUNDS"] ?? 5);
const root = join(import.meta.dirname, "..");

/** A question for SRV records of a name below the domain. */
function question(name: string): Buffer {
  const labels = name.split(".").map((label) => Buffer.concat([Buffer.from([label.length]), Buffer.from(label)]));
  return Buffer.concat([Buffer.from([0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]), ...labels, Buffer.from([0, 0, 33, 0, 1])]);
}

/** Asks every 2 ms until an answer with records comes; milliseconds from `startedMs`. */
function firstAnswer(port: number, name: string, startedMs: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = createSocket("udp4");
    const ask = question(name);
    const timer = setInterval(() => socket.send(ask, port, "127.0.0.1"), 2);
    const limit = setTimeout(() => finish(new Error("no answer within 60 s")), 60_000);
    const finish = (result: number | Error): void => {
      clearInterval(timer);
      clearTimeout(limit);
      socket.close();
      if (typeof result === "number") resolve(result);
      else reject(result);
    };
    socket.on("error", () => {});
    socket.on("message", (bytes) => {
      if (bytes.readUInt16BE(6) > 0) finish(performance.now() - startedMs);
    });
  });
}

async function residentMiB(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+)/.exec(text)?.[1] ?? 0) / 1024;
}

/** Memory of a process and its children. */
async function memoryMiB(pid: number): Promise<number> {
  const children = (await readFile(`/proc/${pid}/task/${pid}/children`, "utf8")).trim().split(" ").filter(Boolean);
  const rest = await Promise.all(children.map((child) => memoryMiB(Number(child))));
  return rest.reduce((sum, one) => sum + one, await residentMiB(pid));
}

const median = (numbers: readonly number[]): number => numbers.toSorted((a, b) => a - b)[numbers.length >> 1] ?? 0;
const show = (numbers: readonly number[]): string =>
  `${median(numbers).toFixed(0)} (${Math.min(...numbers).toFixed(0)}–${Math.max(...numbers).toFixed(0)})`;

async function fill(dataDir: string): Promise<void> {
  const trilith = createTrilith({ node: "alpha", dataDir, httpPort: -1, protocols: { dns: false, docker: false } });
  await trilith.start();
  const changes: Change[] = [];
  const nodes = 1000;
  for (let n = 0; n < nodes; n++) {
    const name = `node${n}`;
    changes.push({
      op: "put",
      table: "node",
      key: keyOf.node(name),
      value: {
        id: "",
        name,
        address: `10.0.${n >> 8}.${n & 255}`,
        datacenter: "dc1",
        taggedAddresses: {},
        labels: {},
        external: true,
      },
    });
  }
  for (let i = 0; i < INSTANCES; i++) {
    const node = `node${i % nodes}`;
    const id = `service${Math.floor(i / PER_SERVICE)}-${i % PER_SERVICE}`;
    changes.push({
      op: "put",
      table: "service",
      key: keyOf.service(node, id),
      value: {
        id,
        node,
        name: `service${Math.floor(i / PER_SERVICE)}`,
        tags: ["v1", "blue"],
        labels: { zone: "a" },
        address: "",
        port: 20_000 + (i % 10_000),
        origin: { source: "catalog", authority: "first-hand" },
      },
    });
    changes.push({
      op: "put",
      table: "check",
      key: keyOf.check(node, `service:${id}`),
      value: {
        id: `service:${id}`,
        node,
        name: "alive",
        status: "passing",
        notes: "",
        output: "",
        serviceId: id,
        type: "ttl",
      },
    });
  }
  for (let at = 0; at < changes.length; at += 1000) {
    const written = await trilith.directory.write(changes.slice(at, at + 1000));
    if (written.result !== "written") throw new Error(`filling failed: ${written.result}`);
  }
  await trilith.stop();
}

interface Run {
  readonly dnsMs: number;
  readonly httpMs?: number;
  readonly memoryMiB: number;
  readonly cpuMs: number;
}

async function cpuMs(pid: number): Promise<number> {
  const fields = (await readFile(`/proc/${pid}/stat`, "utf8")).split(") ")[1]?.split(" ") ?? [];
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

async function runTrilith(folder: string, dataDir: string): Promise<Run> {
  const [http, dns] = [await freePort(), await freePort()];
  const startedMs = performance.now();
  const program = await startProgram(
    [
      process.execPath,
      join(root, "dist/cli/main.js"),
      "agent",
      "-quiet",
      "-node=alpha",
      `-data-dir=${dataDir}`,
      `-http-port=${http}`,
      `-dns-port=${dns}`,
      "-docker-host=off",
    ],
    join(folder, "trilith.log"),
  );
  const dnsMs = await firstAnswer(dns, "service5000.service.consul", startedMs);
  let httpMs: number | undefined;
  while (httpMs === undefined) {
    const found = await fetch(`http://127.0.0.1:${http}/v1/health/service/service5000`).then(
      async (response) => (await response.json()) as unknown[],
      () => [],
    );
    if (found.length === PER_SERVICE) httpMs = performance.now() - startedMs;
  }
  const result = { dnsMs, httpMs, memoryMiB: await memoryMiB(program.pid), cpuMs: await cpuMs(program.pid) };
  await program.stop();
  return result;
}

async function runNsd(folder: string): Promise<Run> {
  const port = await freePort();
  const config = join(folder, "nsd.conf");
  await writeFile(
    config,
    `server:
  ip-address: 127.0.0.1@${port}
  server-count: 1
  username: ""
  chroot: ""
  zonesdir: "${folder}"
  pidfile: "${folder}/nsd.pid"
  xfrdfile: "${folder}/xfrd.state"
  zonelistfile: "${folder}/zone.list"
  cookie-secret-file: "${folder}/cookie"
remote-control:
  control-enable: no
zone:
  name: consul
  zonefile: zone
`,
  );
  const startedMs = performance.now();
  const program = await startProgram(["nsd", "-d", "-c", config], join(folder, "nsd.log"));
  const dnsMs = await firstAnswer(port, "service5000.service.consul", startedMs);
  const result = { dnsMs, memoryMiB: await memoryMiB(program.pid), cpuMs: await cpuMs(program.pid) };
  await program.stop();
  return result;
}

async function writeZone(folder: string): Promise<void> {
  const lines = ["$ORIGIN consul.", "$TTL 0", "@ SOA ns hostmaster 1 3600 600 86400 0", "@ NS ns", "ns A 127.0.0.1"];
  for (let n = 0; n < 1000; n++) lines.push(`node${n}.node.dc1 A 10.0.${n >> 8}.${n & 255}`);
  for (let i = 0; i < INSTANCES; i++) {
    const name = `service${Math.floor(i / PER_SERVICE)}.service`;
    lines.push(`${name} SRV 1 1 ${20_000 + (i % 10_000)} node${i % 1000}.node.dc1`);
    lines.push(`${name} A 10.0.${(i % 1000) >> 8}.${(i % 1000) & 255}`);
  }
  await writeFile(join(folder, "zone"), `${lines.join("\n")}\n`);
}

const folder = await ownFolder("bench-start-up");
try {
  const peer = await havePrograms("nsd");
  const dataDir = join(folder.path, "data");
  const empty = join(folder.path, "empty");
  await mkdir(empty);
  const fillingMs = performance.now();
  await fill(dataDir);
  console.log(
    `filled with ${INSTANCES} instances and as many checks in ${((performance.now() - fillingMs) / 1000).toFixed(1)} s`,
  );
  if (peer) await writeZone(folder.path);
  const trilith: Run[] = [];
  const nsd: Run[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    trilith.push(await runTrilith(folder.path, dataDir));
    if (peer) nsd.push(await runNsd(folder.path));
  }
  const line = (name: string, runs: readonly Run[]): void =>
    console.log(
      `${name.padEnd(8)} first DNS answer ${show(runs.map((r) => r.dnsMs))} ms${runs[0]?.httpMs === undefined ? "" : `, first HTTP answer ${show(runs.map((r) => r.httpMs ?? 0))} ms`}, processor time ${show(runs.map((r) => r.cpuMs))} ms, memory ${show(runs.map((r) => r.memoryMiB))} MiB`,
    );
  line("trilith", trilith);
  if (peer) {
    line("nsd", nsd);
    const ratio = (of: (r: Run) => number): string => (median(trilith.map(of)) / median(nsd.map(of))).toFixed(1);
    console.log(
      `ratio    first answer × ${ratio((r) => r.dnsMs)}, memory × ${ratio((r) => r.memoryMiB)} (median of ${ROUNDS})`,
    );
  }
} finally {
  await folder.remove();
}
