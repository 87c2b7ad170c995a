// How many durable registrations a second: 16 clients on the data folder, beside a plain file synced per write and SQLite, interleaved in one run.
import { spawn } from "node:child_process";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { systemClock } from "../src/base/clock.ts";
import { openDurable } from "../src/base/durable.ts";
import { silentLog } from "../src/base/log.ts";
import { createMetrics } from "../src/base/metrics.ts";
import { systemRandom } from "../src/base/random.ts";
import { createDirectory } from "../src/directory/local.ts";
import { lmdbStorage } from "../src/directory/storage/lmdb.ts";
import { type Change, keyOf } from "../src/model/record.ts";
import { havePrograms, ownFolder } from "../test/support/peers.ts";

const CLIENTS = 16;
const ROUND_MS = 1500;
const ROUNDS = Number(process.env["ROUNDS"] ?? 7);

/** One round: how many operations were acknowledged, and the processor time they took. */
interface Round {
  readonly operations: number;
  readonly seconds: number;
  readonly cpuMicrosPerOperation: number;
}
interface Candidate {
  readonly name: string;
  round(): Promise<Round>;
  close(): Promise<void>;
}

const cpuMicros = (): number => {
  const { user, system } = process.cpuUsage();
  return user + system;
};

async function load(operation: (client: number, n: number) => Promise<unknown>): Promise<Round> {
  const cpu = cpuMicros();
  const start = performance.now();
  let operations = 0;
  await Promise.all(
    Array.from({ length: CLIENTS }, async (_, client) => {
      while (performance.now() - start < ROUND_MS) {
        await operation(client, operations);
        operations++;
      }
    }),
  );
  return {
    operations,
    seconds: (performance.now() - start) / 1000,
    cpuMicrosPerOperation: (cpuMicros() - cpu) / operations,
  };
}

function registration(client: number, n: number): Change[] {
  const node = "bench";
  const id = `web-${client}-${n % 200}`;
  return [
    {
      op: "put",
      table: "service",
      key: keyOf.service(node, id),
      value: {
        id,
        name: `web-${n % 50}`,
        node,
        tags: ["v1", `n${n}`],
        labels: { region: "eu" },
        address: "10.0.0.1",
        port: 1024 + (n % 60_000),
        weights: { passing: 1, warning: 1 },
        origin: { source: "api", authority: "first-hand" },
      },
    },
    {
      op: "put",
      table: "check",
      key: keyOf.check(node, `service:${id}`),
      value: {
        id: `service:${id}`,
        node,
        name: "",
        status: "passing",
        notes: "",
        output: `${n}`,
        serviceId: id,
        type: "ttl",
      },
    },
  ];
}

async function trilith(folder: string): Promise<Candidate> {
  const durable = await openDurable(join(folder, "trilith"));
  const directory = createDirectory(lmdbStorage(durable), {
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
    metrics: createMetrics(),
  });
  await directory.start();
  await directory.write([
    {
      op: "put",
      table: "node",
      key: "bench",
      value: { id: "", name: "bench", address: "10.0.0.1", datacenter: "dc1", taggedAddresses: {}, labels: {} },
    },
  ]);
  let n = 0;
  return {
    name: "Trilith directory on lmdb (service and check)",
    round: () => load((client) => directory.write(registration(client, n++))),
    async close() {
      await directory.stop();
      await durable.close();
    },
  };
}

/** The floor: what a disk gives to whoever syncs each write on its own. */
async function plainFile(folder: string): Promise<Candidate> {
  const file = await open(join(folder, "plain"), "a");
  let queue: Promise<unknown> = Promise.resolve();
  let n = 0;
  return {
    name: "append to a file, fdatasync per write",
    round: () =>
      load((client) => {
        const line = `${JSON.stringify(registration(client, n++))}\n`;
        const mine = queue.then(async () => {
          await file.write(line);
          await file.datasync();
        });
        queue = mine;
        return mine;
      }),
    close: () => file.close(),
  };
}

const SQLITE = `
import sqlite3, sys, threading, time, resource, json
path, clients, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
setup = sqlite3.connect(path, isolation_level=None)
setup.execute("pragma journal_mode=wal")
setup.execute("create table if not exists r (k text primary key, v text)")
setup.close()
def cpu():
    u = resource.getrusage(resource.RUSAGE_SELF)
    return u.ru_utime + u.ru_stime
for line in sys.stdin:
    counts = [0] * clients
    start, used = time.monotonic(), cpu()
    def work(c):
        db = sqlite3.connect(path, isolation_level=None, timeout=60)
        db.execute("pragma synchronous=full")
        n = 0
        while time.monotonic() - start < seconds:
            db.execute("begin immediate")
            for kind in ("service", "check"):
                db.execute("insert or replace into r values (?, ?)", (f"{kind}/{c}/{n % 200}", json.dumps({"id": c, "n": n, "pad": "x" * 200})))
            db.execute("commit")
            n += 1
        counts[c] = n
        db.close()
    threads = [threading.Thread(target=work, args=(c,)) for c in range(clients)]
    for t in threads: t.start()
    for t in threads: t.join()
    total = sum(counts)
    print(json.dumps({"operations": total, "seconds": time.monotonic() - start, "cpuMicrosPerOperation": (cpu() - used) * 1e6 / total}), flush=True)
`;

async function sqlite(folder: string): Promise<Candidate | undefined> {
  if (!(await havePrograms("python3"))) return undefined;
  const child = spawn("python3", ["-c", SQLITE, join(folder, "sqlite.db"), String(CLIENTS), String(ROUND_MS / 1000)], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    name: "SQLite (WAL, synchronous=full), a connection per client",
    async round() {
      child.stdin.write("go\n");
      const { value } = await lines.next();
      return JSON.parse(String(value)) as Round;
    },
    async close() {
      child.stdin.end();
      await new Promise((resolve) => child.once("close", resolve));
    },
  };
}

const median = (numbers: readonly number[]): number => {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
};

const folder = await ownFolder("bench-durable");
try {
  const candidates = [await trilith(folder.path), await plainFile(folder.path), await sqlite(folder.path)].filter(
    (each) => each !== undefined,
  );
  const results = new Map<string, Round[]>(candidates.map(({ name }) => [name, []]));
  for (let round = 0; round <= ROUNDS; round++)
    for (const candidate of candidates) {
      const result = await candidate.round();
      // The first round warms up.
      if (round > 0) results.get(candidate.name)?.push(result);
    }
  const rates = new Map<string, number>();
  console.log(`${CLIENTS} clients, ${ROUNDS} interleaved rounds of ${ROUND_MS / 1000} s; acknowledged = synced\n`);
  for (const [name, rounds] of results) {
    const perSecond = rounds.map(({ operations, seconds }) => operations / seconds);
    rates.set(name, median(perSecond));
    console.log(
      `${name}: median ${Math.round(median(perSecond))} writes/s (${Math.round(Math.min(...perSecond))} to ${Math.round(Math.max(...perSecond))}), ` +
        `${Math.round(median(rounds.map(({ cpuMicrosPerOperation }) => cpuMicrosPerOperation)))} µs processor time per write`,
    );
  }
  const [[, own = 1] = [], ...peers] = [...rates];
  console.log("");
  for (const [name, rate] of peers) console.log(`Trilith : ${name} = ${(own / rate).toFixed(2)} : 1`);
  for (const candidate of candidates) await candidate.close();
} finally {
  await folder.remove();
}
