// A program that follows the tailnet with a peer of its own and says what it sees, a JSON line a change: LOCALAPI-SOCKET. Ends by a signal.
import { systemClock } from "../../src/base/clock.ts";
import { createHttp } from "../../src/base/http.ts";
import { systemNet } from "../../src/base/net.ts";
import { systemRandom } from "../../src/base/random.ts";
import { createPeer } from "../../src/protocols/minidisc/peer.ts";

const [socket = ""] = process.argv.slice(2);
const peer = createPeer({
  clock: systemClock,
  random: systemRandom,
  net: systemNet,
  http: createHttp(),
  localApi: socket,
});
const stop = new AbortController();
// A peer keeps no program running.
setInterval(() => {}, 60_000);
process.once("SIGTERM", async () => {
  stop.abort();
  await peer.stop();
  process.exit(0);
});
for await (const { services } of peer.follow(stop.signal))
  process.stdout.write(
    `${JSON.stringify({
      atMs: Date.now(),
      services: services.map(({ name, address, port, labels, fresh }) => ({
        name,
        at: `${address}:${port}`,
        labels,
        fresh,
      })),
    })}\n`,
  );
