// A TCP proxy of Trilith in a process of its own, for bench/proxy.ts: prints its port, ends with its standard input. Its arguments are the backends' ports.
import { systemClock } from "../src/base/clock.ts";
import { silentLog } from "../src/base/log.ts";
import { createMetrics } from "../src/base/metrics.ts";
import { systemRandom } from "../src/base/random.ts";
import { openFilesLimit, systemTcp } from "../src/base/tcp.ts";
import { systemUdp } from "../src/base/udp.ts";
import { createBalancer } from "../src/lookup/balance/create.ts";
import { createConnector } from "../src/lookup/connect/connector.ts";

const endpoints = process.argv.slice(2).map((port) => ({ address: "127.0.0.1", port: Number(port), weight: 1 }));
const connector = createConnector({
  find: () => ({ endpoints, known: true, fresh: true }),
  balancer: createBalancer({ clock: systemClock, random: systemRandom }),
  tcp: systemTcp,
  udp: systemUdp,
  clock: systemClock,
  log: silentLog,
  metrics: createMetrics(),
  filesLimit: openFilesLimit(),
  interfaces: () => [],
});
const { port } = await connector.proxy({ host: "127.0.0.1", port: 0 }, { service: "web" });
console.log(port);
process.stdin.resume();
process.stdin.once("end", async () => {
  await connector.stop(0);
});
