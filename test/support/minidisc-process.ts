// One Minidisc process of a kind (trilith, go, python) for tests that kill, stop and mix them: KIND IP LOCALAPI-SOCKET NAME:PORT…
import { systemClock } from "../../src/base/clock.ts";
import { createHttp } from "../../src/base/http.ts";
import { systemNet } from "../../src/base/net.ts";
import { systemRandom } from "../../src/base/random.ts";
import { createPeer } from "../../src/protocols/minidisc/peer.ts";
import { GoModel, PythonModel } from "./minidisc-models.ts";

const [kind = "", ip = "", socket = "", ...words] = process.argv.slice(2);
const services = words.map((word) => {
  const [name = "", port] = word.split(":");
  return { name, port: Number(port) };
});

if (kind === "trilith") {
  const peer = createPeer({
    clock: systemClock,
    random: systemRandom,
    net: systemNet,
    http: createHttp(),
    localApi: socket,
    statusMs: 500,
  });
  await peer.advertise(services);
  const tell = (): void => void process.stdout.write(`${JSON.stringify(peer.state().role)}\n`);
  tell();
  process.on("message", tell);
} else {
  const advertised = services.map(({ name, port }) => ({ name, labels: {}, addrPort: `${ip}:${port}` }));
  const model = kind === "go" ? new GoModel(ip, advertised) : new PythonModel(ip, advertised);
  await model.start();
  process.stdout.write(`${JSON.stringify({ role: model.role() })}\n`);
}
setInterval(() => {}, 60_000);
