// DNS answers for a service of three instances: queries per second and processor time per query, beside nsd and CoreDNS in one run, interleaved.
import { execFile, spawn } from "node:child_process";
import { access, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { eventually, freePort, havePrograms, ownFolder, startProgram } from "../test/support/peers.ts";

const run = promisify(execFile);
const ROUNDS = Number(process.env["BENCH_ROUNDS"] ?? 5);
const SECONDS = Number(process.env["BENCH_SECONDS"] ?? 3);
const CORE_DNS = "github.com/coredns/coredns@v1.15.0";
const CORE_DNS_BUILD_MS = 6 * 60_000;
/** Processor time in /proc comes in hundredths of a second. */
const TICK_US = 10_000;

interface Contestant {
  readonly name: string;
  readonly port: number;
  readonly pids: () => Promise<readonly number[]>;
  stop(): Promise<void>;
}

const ZONE = `$ORIGIN consul.
$TTL 0
@ SOA ns hostmaster 1 3600 600 86400 0
@ NS ns
ns A 127.0.0.1
${[1, 2, 3]
  .map(
    (n) => `web.service A 192.0.2.${n}
web.service SRV 1 1 ${8000 + n} n${n}.node.dc1
n${n}.node.dc1 A 192.0.2.${n}`,
  )
  .join("\n")}
`;

async function trilith(name: string, ...args: string[]): Promise<Contestant> {
  const child = spawn(process.execPath, ["--import", "tsx", join(import.meta.dirname, "_dns-server.ts"), ...args], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const port = await new Promise<number>((resolve, reject) => {
    child.once("exit", (code) => reject(new Error(`the DNS server ended with ${code}`)));
    child.stdout.once("data", (line: Buffer) => resolve(Number(line.toString())));
  });
  return {
    name,
    port,
    pids: async () => [child.pid ?? 0],
    stop: () =>
      new Promise((resolve) => {
        child.once("exit", () => resolve());
        child.stdin.end();
      }),
  };
}

async function nsd(folder: string): Promise<Contestant> {
  const port = await freePort();
  await writeFile(join(folder, "zone"), ZONE);
  await writeFile(
    join(folder, "nsd.conf"),
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
  rrl-ratelimit: 0
remote-control:
  control-enable: no
zone:
  name: consul
  zonefile: zone
`,
  );
  const program = await startProgram(["nsd", "-d", "-c", join(folder, "nsd.conf")], join(folder, "nsd.log"));
  return { name: "nsd", port, pids: () => family(program.pid), stop: () => program.stop() };
}

/** CoreDNS from the Go module proxy, built once into .tmp; undefined with the reason where it cannot be had. */
async function coreDns(folder: string): Promise<Contestant | string> {
  const bin = join(import.meta.dirname, "..", ".tmp", "gobin");
  const binary = join(bin, "coredns");
  const there = await access(binary).then(
    () => true,
    () => false,
  );
  if (!there) {
    await mkdir(bin, { recursive: true });
    try {
      await run("go", ["install", CORE_DNS], { env: { ...process.env, GOBIN: bin }, timeout: CORE_DNS_BUILD_MS });
    } catch (error) {
      return `CoreDNS is left out: ${error instanceof Error ? error.message.split("\n")[0] : String(error)}`;
    }
  }
  const port = await freePort();
  await writeFile(join(folder, "Corefile"), `consul:${port} {\n  bind 127.0.0.1\n  file ${join(folder, "zone")}\n}\n`);
  const program = await startProgram([binary, "-conf", join(folder, "Corefile")], join(folder, "coredns.log"));
  return { name: "CoreDNS", port, pids: async () => [program.pid], stop: () => program.stop() };
}

/** A process and its children, nsd's workers among them. */
async function family(pid: number): Promise<number[]> {
  const children = (await readFile(`/proc/${pid}/task/${pid}/children`, "utf8")).trim();
  const below = children === "" ? [] : await Promise.all(children.split(" ").map((child) => family(Number(child))));
  return [pid, ...below.flat()];
}

async function processorUs(pids: readonly number[]): Promise<number> {
  let ticks = 0;
  for (const pid of pids) {
    const stat = await readFile(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    ticks += Number(fields[11]) + Number(fields[12]);
  }
  return ticks * TICK_US;
}

interface Measured {
  readonly perSecond: number;
  readonly processorUs: number;
}

async function measure({ port, pids }: Contestant, questions: string, seconds: number): Promise<Measured> {
  const ids = await pids();
  const before = await processorUs(ids);
  const { stdout } = await run("dnsperf", [
    "-s",
    "127.0.0.1",
    "-p",
    String(port),
    "-d",
    questions,
    "-l",
    String(seconds),
    "-c",
    "4",
    "-q",
    "64",
  ]);
  const after = await processorUs(ids);
  const completed = Number(/Queries completed:\s+(\d+)/.exec(stdout)?.[1]);
  const perSecond = Number(/Queries per second:\s+([\d.]+)/.exec(stdout)?.[1]);
  const lost = Number(/Queries lost:\s+(\d+)/.exec(stdout)?.[1]);
  if (!(completed > 0) || !/NOERROR \d+ \(100\.00%\)/.test(stdout) || lost > completed / 100)
    throw new Error(`dnsperf against port ${port} says:\n${stdout}`);
  return { perSecond, processorUs: (after - before) / completed };
}

const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;

if (!(await havePrograms("dnsperf", "nsd"))) process.exit(1);
const folder = await ownFolder("bench-dns");
const contestants: Contestant[] = [
  await trilith("Trilith"),
  await trilith("Trilith, compat consul", "consul"),
  await nsd(folder.path),
];
const last =
  process.env["BENCH_NO_COREDNS"] === "1" ? "CoreDNS is left out: BENCH_NO_COREDNS=1" : await coreDns(folder.path);
if (typeof last === "string") console.log(last);
else contestants.push(last);
try {
  for (const type of ["A", "SRV"]) {
    const questions = join(folder.path, type);
    await writeFile(questions, `web.service.consul ${type}\n`);
    const results = new Map<Contestant, Measured[]>(contestants.map((one) => [one, []]));
    for (const one of contestants)
      await eventually(`${one.name} answers`, async () => (await measure(one, questions, 1)).perSecond > 0);
    for (let round = 0; round < ROUNDS; round++)
      for (const one of contestants) results.get(one)?.push(await measure(one, questions, SECONDS));
    console.log(
      `\n${type} of web.service.consul, 3 instances; median of ${ROUNDS} interleaved rounds of ${SECONDS} s (least – most)`,
    );
    const ours = results.get(contestants[0] as Contestant) ?? [];
    for (const [{ name }, list] of results) {
      const rates = list.map(({ perSecond }) => perSecond);
      const costs = list.map(({ processorUs }) => processorUs);
      const ratio = (of: (one: Measured) => number): string => (median(ours.map(of)) / median(list.map(of))).toFixed(2);
      console.log(
        `${name.padEnd(24)} ${median(rates).toFixed(0).padStart(7)} queries/s (${Math.min(...rates).toFixed(0)} – ${Math.max(...rates).toFixed(0)}), ` +
          `${median(costs).toFixed(1).padStart(5)} µs processor time each (${Math.min(...costs).toFixed(1)} – ${Math.max(...costs).toFixed(1)}); ` +
          `Trilith is ${ratio(({ perSecond }) => perSecond)} × as fast, takes ${ratio(({ processorUs }) => processorUs)} × the time`,
      );
    }
  }
} finally {
  await Promise.all(contestants.map((one) => one.stop()));
  await folder.remove();
}
