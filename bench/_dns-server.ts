// The DNS listener alone in a process of its own, for bench/dns.ts: a service "web" with three instances, printed port, until its input ends.
import { systemClock } from "../src/base/clock.ts";
import { systemDisk } from "../src/base/disk.ts";
import { memoryDurable } from "../src/base/durable.ts";
import { silentLog } from "../src/base/log.ts";
import { createMetrics } from "../src/base/metrics.ts";
import { systemNet } from "../src/base/net.ts";
import { systemRandom } from "../src/base/random.ts";
import { defaultSettings } from "../src/contracts/settings.ts";
import { createDirectory } from "../src/directory/local.ts";
import { createPrepared } from "../src/directory/prepared.ts";
import { memoryStorage } from "../src/directory/storage/memory.ts";
import { createMagic } from "../src/lookup/connect/magic.ts";
import { createLookup } from "../src/lookup/lookup.ts";
import { type Change, keyOf } from "../src/model/record.ts";
import { dns } from "../src/protocols/dns/setup.ts";

const compat = process.argv[2] === "consul" ? "consul" : "none";
const ground = { clock: systemClock, random: systemRandom, log: silentLog, metrics: createMetrics() };
const directory = createDirectory(memoryStorage(), ground);
await directory.start();
const changes: Change[] = [1, 2, 3].flatMap((n): Change[] => [
  {
    op: "put",
    table: "node",
    key: keyOf.node(`n${n}`),
    value: {
      id: "",
      name: `n${n}`,
      address: `192.0.2.${n}`,
      datacenter: "dc1",
      taggedAddresses: {},
      labels: {},
      external: true,
    },
  },
  {
    op: "put",
    table: "service",
    key: keyOf.service(`n${n}`, "web"),
    value: {
      id: "web",
      name: "web",
      node: `n${n}`,
      tags: [],
      labels: {},
      address: "",
      port: 8000 + n,
      origin: { source: "api", authority: "first-hand" },
    },
  },
]);
await directory.write(changes);
const lookup = createLookup({
  ...ground,
  directory,
  guard: defaultSettings.guard,
  node: "bench",
  datacenter: "dc1",
  interfaces: () => systemNet.interfaces(),
  shared: false,
});
await lookup.start();
const part = await dns.setup(dns.configure({ port: 0 }), {
  ...ground,
  directory,
  lookup,
  prepared: createPrepared({
    ...{ ...ground, directory, lookup, node: "bench", datacenter: "dc1", datacenters: [] },
    nearestFirst: (_view, _near, items) => items,
    elsewhere: () => undefined,
  }),
  magic: await createMagic({ durable: memoryDurable(), random: ground.random, settings: {}, interfaces: () => [] }),
  net: systemNet,
  disk: systemDisk,
  self: {
    version: "0",
    node: "bench",
    nodeId: "",
    datacenter: "dc1",
    domain: "consul",
    advertiseAddress: "127.0.0.1",
    bindAddress: "127.0.0.1",
    startedAtMs: 0,
    dev: true,
    compat,
    scripts: { fromApi: false, fromFiles: false },
    listening: new Map(),
  },
});
const [listener] = part?.listeners ?? [];
const where = (await listener?.start()) ?? "";
process.stdout.write(`${where.slice(where.lastIndexOf(":") + 1)}\n`);
process.stdin.resume();
process.stdin.once("end", async () => {
  await listener?.stop();
  await lookup.stop();
  await directory.stop();
});
