// A connector over a list of backends that the test holds, with real sockets on loopback; and small servers to stand behind it.
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { systemClock } from "../../src/base/clock.ts";
import { silentLog } from "../../src/base/log.ts";
import { createMetrics, type Metrics } from "../../src/base/metrics.ts";
import { systemRandom } from "../../src/base/random.ts";
import { systemTcp } from "../../src/base/tcp.ts";
import { systemUdp } from "../../src/base/udp.ts";
import type { Backend, Backends } from "../../src/contracts/connect.ts";
import { createBalancer } from "../../src/lookup/balance/create.ts";
import { type ConnectorParts, createConnector, type RunningConnector } from "../../src/lookup/connect/connector.ts";
import { freePort } from "./peers.ts";

export interface TestConnector {
  readonly connector: RunningConnector;
  readonly metrics: Metrics;
  /** What stands behind every name; may be changed. */
  backends: readonly Backend[];
  known: boolean;
  more: Partial<Backends>;
  /** "address:port" of each refused backend as the lookup would be told. */
  readonly refused: string[];
  readonly warned: string[];
}

/** To be stopped by the test: `connector.stop(0)`. */
export function testConnector(backends: readonly Backend[], parts: Partial<ConnectorParts> = {}): TestConnector {
  const metrics = createMetrics();
  const refused: string[] = [];
  const warned: string[] = [];
  const log = { ...silentLog, warn: (text: string) => void warned.push(text) };
  const self: TestConnector = {
    metrics,
    backends,
    known: true,
    more: {},
    refused,
    warned,
    connector: createConnector({
      find: () => ({ endpoints: self.backends, known: self.known, fresh: true, ...self.more }),
      balancer: createBalancer({ clock: systemClock, random: systemRandom }),
      refused: (service, address, port) => void refused.push(`${service} ${address}:${port}`),
      tcp: systemTcp,
      udp: systemUdp,
      clock: systemClock,
      log: { ...log, part: () => log },
      metrics,
      filesLimit: 65_536,
      interfaces: () => [],
      ...parts,
    }),
  };
  return self;
}

export const at = (port: number, more: Partial<Backend> = {}): Backend => ({
  address: "127.0.0.1",
  port,
  weight: 1,
  ...more,
});

export interface TestServer {
  readonly port: number;
  readonly sockets: ReadonlySet<Socket>;
  readonly server: Server;
  close(): Promise<void>;
}

/** A server on loopback that lets each connection end its directions one by one. */
export function serve(connection: (socket: Socket) => void, port = 0, host = "127.0.0.1"): Promise<TestServer> {
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.once("close", () => sockets.delete(socket));
    connection(socket);
  });
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, () =>
      resolve({
        port: (server.address() as AddressInfo).port,
        sockets,
        server,
        close: () =>
          new Promise((done) => {
            server.close(() => done());
            for (const socket of sockets) socket.destroy();
          }),
      }),
    );
  });
}

/** A port on which nobody listens, and which the system gives to nobody either. */
export const closedPort: () => Promise<number> = freePort;

/** Everything that comes until the end; rejects with the socket's error. */
export function all(socket: Socket): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    socket.on("data", (chunk: Buffer) => chunks.push(chunk));
    socket.once("end", () => resolve(Buffer.concat(chunks)));
    socket.once("error", reject);
  });
}

/** Connects, says something, ends its own direction and hears the rest. */
export async function ask(port: number, say = "", host = "127.0.0.1"): Promise<string> {
  const socket = connect({ port, host, allowHalfOpen: true });
  const heard = all(socket);
  socket.end(say);
  try {
    return (await heard).toString();
  } finally {
    socket.destroy();
  }
}
