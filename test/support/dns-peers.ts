// A DNS listener on free ports for tests with real clients and recursors, and a recursor that does as it is told.
import { execFile } from "node:child_process";
import { createSocket } from "node:dgram";
import { createServer, type Socket } from "node:net";
import { promisify } from "node:util";
import { systemClock } from "../../src/base/clock.ts";
import { systemDisk } from "../../src/base/disk.ts";
import { callbackLog } from "../../src/base/log.ts";
import { createMetrics } from "../../src/base/metrics.ts";
import { systemNet } from "../../src/base/net.ts";
import { systemRandom } from "../../src/base/random.ts";
import type { Lookup } from "../../src/contracts/lookup.ts";
import { dns } from "../../src/protocols/dns/setup.ts";
import { decodeMessage, encodeMessage, type Message } from "../../src/wire/dns/index.ts";
import { magicInMemory, preparedOf, type World } from "./lookup.ts";

const run = promisify(execFile);

export interface RunningDns {
  readonly port: number;
  /** Where each listener listens, as it said at start. */
  readonly where: readonly string[];
  /** What was logged, "level text". */
  readonly lines: readonly string[];
  readonly metrics: ReturnType<typeof createMetrics>;
  /** Real dig with these arguments; its whole output. */
  dig(...args: string[]): Promise<string>;
  /** `dig +short`, its lines in order. */
  short(...args: string[]): Promise<string[]>;
  stop(): Promise<void>;
}

/** Starts all listeners of the protocol over a world. The first one's port is a free one unless told. */
export async function startDns(
  here: Pick<World, "directory"> & { readonly lookup: Lookup },
  raw: object = {},
  options: {
    readonly compat?: "none" | "consul";
    readonly net?: typeof systemNet;
    readonly disk?: typeof systemDisk;
  } = {},
): Promise<RunningDns> {
  const lines: string[] = [];
  const metrics = createMetrics();
  const part = await dns.setup(dns.configure({ port: 0, ...raw }), {
    directory: here.directory,
    lookup: here.lookup,
    prepared: preparedOf(here.directory, here.lookup),
    magic: await magicInMemory(),
    clock: systemClock,
    random: systemRandom,
    log: callbackLog((level, _part, text) => void lines.push(`${level} ${text}`)),
    net: options.net ?? systemNet,
    disk: options.disk ?? systemDisk,
    self: {
      version: "0",
      node: "home",
      nodeId: "",
      datacenter: "dc1",
      domain: "consul",
      advertiseAddress: "10.1.0.1",
      bindAddress: "127.0.0.1",
      startedAtMs: 0,
      dev: true,
      compat: options.compat ?? "none",
      scripts: { fromApi: false, fromFiles: false },
      listening: new Map(),
    },
    metrics,
  });
  const listeners = part?.listeners ?? [];
  const where: string[] = [];
  for (const listener of listeners) where.push(await listener.start());
  const [first = ""] = where;
  const port = Number(first.slice(first.lastIndexOf(":") + 1));
  const dig = async (...args: string[]): Promise<string> =>
    (await run("dig", ["@127.0.0.1", "-p", String(port), "+time=8", "+tries=1", ...args])).stdout;
  return {
    port,
    where,
    lines,
    metrics,
    dig,
    short: async (...args) => (await dig("+short", ...args)).split("\n").filter((line) => line !== ""),
    async stop() {
      for (const listener of listeners.toReversed()) await listener.stop();
    },
  };
}

/** A recursor of a test's own on loopback. */
export interface ToldRecursor {
  readonly port: number;
  readonly place: string;
  /** What it was asked, "udp name TYPE-number", in order. */
  readonly asked: string[];
  stop(): Promise<void>;
}

/** What a told recursor answers: undefined = nothing at all. `raw` bytes are sent before the answer, as a forger would. */
export type Told = (
  query: Message,
  transport: "udp" | "tcp",
) =>
  | (Partial<Message> & { readonly raw?: readonly Uint8Array[] })
  | undefined
  | Promise<(Partial<Message> & { readonly raw?: readonly Uint8Array[] }) | undefined>;

/** Starts one that answers as `tell` says; what is not told is taken over from the question. */
export async function toldRecursor(tell: Told): Promise<ToldRecursor> {
  const asked: string[] = [];
  const answer = async (packet: Uint8Array, transport: "udp" | "tcp"): Promise<Uint8Array[]> => {
    const query = decodeMessage(packet);
    const [question] = query.questions;
    asked.push(`${transport} ${question?.name.join(".").toLowerCase()} ${question?.type}`);
    const told = await tell(query, transport);
    if (told === undefined) return [];
    const { raw = [], ...rest } = told;
    return [...raw, encodeMessage({ ...query, response: true, recursionAvailable: true, ...rest })];
  };
  const sockets = new Set<Socket>();
  for (;;) {
    const tcp = createServer((socket) => {
      sockets.add(socket);
      socket.once("close", () => sockets.delete(socket));
      socket.on("error", () => {});
      let got = Buffer.alloc(0);
      socket.on("data", async (chunk: Buffer) => {
        got = Buffer.concat([got, chunk]);
        while (got.length >= 2 && got.length >= 2 + got.readUInt16BE(0)) {
          const packet = got.subarray(2, 2 + got.readUInt16BE(0));
          got = got.subarray(2 + packet.length);
          for (const reply of await answer(packet, "tcp"))
            socket.write(Buffer.concat([Buffer.from([reply.length >> 8, reply.length & 255]), reply]));
        }
      });
    });
    await new Promise<void>((resolve, reject) => tcp.once("error", reject).listen(0, "127.0.0.1", resolve));
    const { port } = tcp.address() as { port: number };
    const udp = createSocket("udp4");
    const bound = await new Promise<boolean>((resolve) => {
      udp.once("error", () => resolve(false));
      udp.bind(port, "127.0.0.1", () => resolve(true));
    });
    if (!bound) {
      await new Promise((resolve) => tcp.close(resolve));
      continue;
    }
    udp.on("message", async (packet, from) => {
      for (const reply of await answer(packet, "udp")) udp.send(reply, from.port, from.address);
    });
    return {
      port,
      place: `127.0.0.1:${port}`,
      asked,
      async stop() {
        for (const socket of sockets) socket.destroy();
        await Promise.all([
          new Promise<void>((resolve) => udp.close(() => resolve())),
          new Promise((resolve) => tcp.close(resolve)),
        ]);
      },
    };
  }
}
