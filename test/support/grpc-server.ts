// A gRPC server as a process: says its port to every caller, advertises itself, and on SIGTERM withdraws, finishes its calls and ends. Words: HOST NAME [LABEL=VALUE…].
import grpc from "@grpc/grpc-js";
import { systemClock } from "../../src/base/clock.ts";
import { createHttp } from "../../src/base/http.ts";
import { systemNet } from "../../src/base/net.ts";
import { systemRandom } from "../../src/base/random.ts";
import { advertise } from "../../src/index.ts";
import { createPeer } from "../../src/protocols/minidisc/peer.ts";
import { WHO } from "./grpc.ts";

const [host = "", name = "", ...words] = process.argv.slice(2);
const labels = Object.fromEntries(words.map((word) => word.split("=") as [string, string]));
const server = new grpc.Server();
let port = 0;
server.addService(WHO, {
  who: (_: unknown, answer: (error: null, text: string) => void) => {
    setTimeout(() => answer(null, String(port)), 5);
  },
});
port = await new Promise<number>((done, failed) =>
  server.bindAsync(`${host}:0`, grpc.ServerCredentials.createInsecure(), (error, bound) =>
    error === null ? done(bound) : failed(error),
  ),
);

/** With TS_SOCKET by a peer of this process, else by the agent of TRILITH_HTTP_ADDR. */
async function announce(): Promise<() => Promise<void>> {
  const localApi = process.env["TS_SOCKET"];
  if (localApi === undefined) {
    const advertised = await advertise({ name, port, address: host, labels });
    return () => advertised.stop();
  }
  const http = createHttp();
  const peer = createPeer({ clock: systemClock, random: systemRandom, net: systemNet, http, localApi });
  await peer.advertise({ name, port, labels });
  return async () => {
    await peer.stop();
    await http.close();
  };
}

const withdraw = await announce();
process.once("SIGTERM", async () => {
  await withdraw();
  server.tryShutdown(() => process.exit(0));
});
process.stdout.write(`${port}\n`);
