// Real dig against the DNS listener: UDP, TCP, EDNS sizes, SRV, PTR; and the listener's life: ports, pipelining, idle connections.
import { execFile } from "node:child_process";
import { createSocket } from "node:dgram";
import { writeFile } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../../src/base/clock.ts";
import { systemDisk } from "../../src/base/disk.ts";
import { silentLog } from "../../src/base/log.ts";
import { createMetrics } from "../../src/base/metrics.ts";
import { systemNet } from "../../src/base/net.ts";
import { systemRandom } from "../../src/base/random.ts";
import type { Self } from "../../src/contracts/ground.ts";
import type { Listener } from "../../src/contracts/protocol.ts";
import { dns } from "../../src/protocols/dns/setup.ts";
import { decodeMessage, encodeMessage } from "../../src/wire/dns/index.ts";
import { nodeChange, serviceChange } from "../support/directory.ts";
import { queryPacket } from "../support/dns.ts";
import { type World, world } from "../support/lookup.ts";
import { eventually, freePort, havePrograms, ownFolder, startProgram } from "../support/peers.ts";

const run = promisify(execFile);
const haveDig = await havePrograms("dig");

const SELF: Self = {
  version: "0",
  node: "home",
  nodeId: "",
  datacenter: "dc1",
  domain: "consul",
  advertiseAddress: "10.1.0.1",
  bindAddress: "127.0.0.1",
  startedAtMs: 0,
  dev: true,
  compat: "none",
  scripts: { fromApi: false, fromFiles: false },
  listening: new Map(),
};

async function listenerOf(here: World, raw: object, compat: "none" | "consul" = "none"): Promise<Listener> {
  const part = await dns.setup(dns.configure(raw), {
    directory: here.directory,
    lookup: here.lookup,
    prepared: here.prepared,
    magic: here.magic,
    clock: systemClock,
    random: systemRandom,
    log: silentLog,
    net: systemNet,
    disk: systemDisk,
    self: { ...SELF, compat },
    metrics: createMetrics(),
  });
  const [listener] = part?.listeners ?? [];
  if (listener === undefined) throw new Error("the part has no listener");
  return listener;
}

const portOf = (where: string): number => Number(where.slice(where.lastIndexOf(":") + 1));

async function directory(): Promise<World> {
  const here = await world();
  await here.directory.write([
    nodeChange("n1", "192.0.2.1", { external: true }),
    nodeChange("six", "2001:db8::6", { external: true }),
    serviceChange("n1", "w1", "web", { tags: ["v1"], port: 81 }),
    serviceChange("six", "w2", "web", { port: 82 }),
    serviceChange("n1", "p", "printer", {
      port: 83,
      addresses: ["192.0.2.1", "fe80::1", "2001:db8::1"].map((host) => ({ host, port: 83, reach: "lan" })),
    }),
    ...Array.from({ length: 60 }, (_, i) =>
      serviceChange("n1", `m${i}`, "many", { address: `10.8.0.${i + 1}`, port: i }),
    ),
  ]);
  return here;
}

describe.runIf(haveDig)("dig", () => {
  let listener: Listener;
  let port: number;
  const dig = async (...args: string[]): Promise<string> =>
    (await run("dig", ["@127.0.0.1", "-p", String(port), "+time=3", "+tries=1", ...args])).stdout;
  const short = async (...args: string[]): Promise<string[]> =>
    (await dig("+short", ...args))
      .split("\n")
      .filter((line) => line !== "")
      .sort();

  beforeAll(async () => {
    listener = await listenerOf(await directory(), { port: 0 });
    port = portOf(await listener.start());
  });
  afterAll(() => listener.stop());

  it("finds a service's addresses and ports, over UDP and TCP", async () => {
    expect(await short("web.service.consul", "A")).toEqual(["192.0.2.1"]);
    expect(await short("web.service.consul", "AAAA")).toEqual(["2001:db8::6"]);
    for (const overTcp of [[], ["+tcp"]]) {
      expect(await short(...overTcp, "printer.service.consul", "A")).toEqual(["192.0.2.1"]);
      expect(await short(...overTcp, "printer.service.consul", "AAAA")).toEqual(["2001:db8::1"]);
    }
    expect(await short("+tcp", "web.service.consul", "SRV")).toEqual([
      "1 1 81 n1.node.dc1.consul.",
      "1 1 82 six.node.dc1.consul.",
    ]);
    expect(await dig("_web._v1.service.consul", "SRV")).toMatch(
      /ANSWER: 1, AUTHORITY: 0, ADDITIONAL: 2[\s\S]*n1\.node\.dc1\.consul\.\s+0\s+IN\s+A\s+192\.0\.2\.1/,
    );
  });

  it("finds names by address", async () => {
    expect(await short("-x", "192.0.2.1")).toEqual(["n1.node.dc1.consul."]);
    expect(await short("-x", "2001:db8::6")).toEqual(["six.node.dc1.consul."]);
    expect(await short("-x", "10.8.0.7")).toEqual(["many.service.dc1.consul."]);
  });

  it("turns to TCP where an answer does not fit, and takes more by EDNS", async () => {
    const truncated = await dig("+noedns", "+ignore", "many.service.consul");
    expect(truncated).toMatch(/flags: qr aa tc rd/);
    expect(await short("+noedns", "many.service.consul")).toHaveLength(60);
    expect(await dig("+ignore", "+bufsize=4096", "many.service.consul")).toMatch(/flags: qr aa rd;.*ANSWER: 60/);
    expect(await dig("+ignore", "+bufsize=600", "many.service.consul")).toMatch(/flags: qr aa tc rd/);
    expect(await dig("+subnet=198.51.100.0/24", "web.service.consul")).toContain("CLIENT-SUBNET: 198.51.100.0/24/0");
    expect(await dig("+edns=1", "+noednsnegotiation", "web.service.consul")).toContain("status: BADVERS");
  });

  it("is told NODATA, NXDOMAIN and REFUSED apart", async () => {
    expect(await dig("service.consul")).toMatch(/status: NOERROR[\s\S]*consul\.\s+1\s+IN\s+SOA/);
    expect(await dig("nobody.service.consul")).toMatch(/status: NXDOMAIN[\s\S]*consul\.\s+1\s+IN\s+SOA/);
    expect(await dig("example.com")).toContain("status: REFUSED");
    expect(await short("consul", "NS")).toEqual(["home.node.dc1.consul."]);
  });
});

const haveUnbound = await havePrograms("dig", "unbound");

describe.runIf(haveUnbound)("unbound in front, minimising names strictly and mixing their case", () => {
  it("finds names through us, and what is registered after it was told of nothing", async () => {
    const here = await directory();
    const listener = await listenerOf(here, { port: 0 });
    const stubPort = portOf(await listener.start());
    const folder = await ownFolder("dns-unbound");
    const port = await freePort();
    const config = join(folder.path, "unbound.conf");
    await writeFile(
      config,
      `server:
  interface: 127.0.0.1
  port: ${port}
  username: ""
  chroot: ""
  directory: "${folder.path}"
  pidfile: "${folder.path}/pid"
  use-syslog: no
  do-not-query-localhost: no
  qname-minimisation-strict: yes
  use-caps-for-id: yes
  harden-below-nxdomain: yes
  local-zone: "10.in-addr.arpa." nodefault
stub-zone:
  name: "consul"
  stub-addr: 127.0.0.1@${stubPort}
stub-zone:
  name: "10.in-addr.arpa"
  stub-addr: 127.0.0.1@${stubPort}
remote-control:
  control-enable: no
`,
    );
    const unbound = await startProgram(["unbound", "-d", "-c", config], join(folder.path, "unbound.txt"));
    const dig = async (...args: string[]): Promise<string> =>
      (await run("dig", ["@127.0.0.1", "-p", String(port), "+time=2", "+tries=1", ...args])).stdout;
    try {
      // The deepest name first: each label above it is asked for on the way down, and must not be denied.
      await eventually("unbound answers", async () =>
        (await dig("_web._v1.service.dc1.consul", "SRV")).includes(" 81 n1.node.dc1.consul."),
      );
      expect(await dig("v1.web.service.consul")).toMatch(/web\.service\.consul\.\s+0\s+IN\s+A\s+192\.0\.2\.1/);
      expect(await dig("many.service.consul")).toMatch(/ANSWER: 60/);
      expect(await dig("six.node.consul", "AAAA")).toContain("2001:db8::6");
      expect(await dig("-x", "10.8.0.7")).toContain("many.service.dc1.consul.");
      expect(await dig("late.service.consul")).toContain("status: NXDOMAIN");
      await here.directory.write([serviceChange("n1", "late", "late", { address: "10.8.0.99" })]);
      await eventually(
        "the new service shows",
        async () => (await dig("late.service.consul")).includes("10.8.0.99"),
        5000,
      );
    } finally {
      await unbound.stop();
      await listener.stop();
      await folder.remove();
    }
  });
});

describe("the listener", () => {
  const framed = (packet: Uint8Array): Buffer =>
    Buffer.concat([Buffer.from([packet.length >> 8, packet.length & 255]), packet]);
  const open = (port: number): Promise<Socket> =>
    new Promise((resolve, reject) => {
      const socket = connect(port, "127.0.0.1", () => resolve(socket));
      socket.once("error", reject);
    });
  /** Collects answers from a socket until it closes or `count` came. */
  const collect = (socket: Socket, count: number): Promise<number[]> =>
    new Promise((resolve) => {
      let got = Buffer.alloc(0);
      const ids: number[] = [];
      socket.on("data", (chunk: Buffer) => {
        got = Buffer.concat([got, chunk]);
        while (got.length >= 2 && got.length >= 2 + got.readUInt16BE(0)) {
          ids.push(got.readUInt16BE(2));
          got = got.subarray(2 + got.readUInt16BE(0));
        }
        if (ids.length === count) resolve(ids);
      });
      socket.once("close", () => resolve(ids));
    });
  const numbered = (id: number): Uint8Array => queryPacket("web.service.consul", { type: "SRV" }, id);

  it("answers pipelined questions in their order, whole or in pieces", async () => {
    const listener = await listenerOf(await directory(), { port: 0 });
    const port = portOf(await listener.start());
    const socket = await open(port);
    const stream = Buffer.concat(Array.from({ length: 300 }, (_, i) => framed(numbered(i))));
    const answers = collect(socket, 300);
    for (let at = 0; at < stream.length; at += 777) socket.write(stream.subarray(at, at + 777));
    expect(await answers).toEqual(Array.from({ length: 300 }, (_, i) => i));
    socket.destroy();
    await listener.stop();
  });

  it("waits for readers that do not read, and closes connections without questions", async () => {
    const listener = await listenerOf(await directory(), { port: 0, tcpIdleMs: 300 });
    const port = portOf(await listener.start());
    const idle = await open(port);
    const closed = new Promise((resolve) => idle.once("close", resolve));
    // Bytes that never become a whole question do not keep it open.
    idle.write(Buffer.from([0, 200, 1]));
    await closed;
    // 6000 answers of 3.5 KiB do not fit into any socket's buffer: questions wait until the reader reads.
    const lazy = await open(port);
    lazy.pause();
    lazy.write(
      Buffer.concat(
        Array.from({ length: 6000 }, (_, i) => framed(queryPacket("many.service.consul", { type: "SRV" }, i))),
      ),
    );
    const done = collect(lazy, 6000);
    lazy.resume();
    expect(await done).toEqual(Array.from({ length: 6000 }, (_, i) => i));
    lazy.destroy();
    await listener.stop();
  });

  it("closes the connection that has asked nothing for the longest when there are too many", async () => {
    const listener = await listenerOf(await directory(), { port: 0 });
    const port = portOf(await listener.start());
    const question = async (socket: Socket): Promise<readonly number[]> => {
      const answer = collect(socket, 1);
      socket.write(framed(numbered(7)));
      return await answer;
    };
    const first = await open(port);
    const second = await open(port);
    const closed = new Promise((resolve) => second.once("close", resolve));
    const others: Socket[] = [];
    for (let i = 0; i < 998; i++) others.push(await open(port));
    expect(await question(first)).toEqual([7]);
    const late = await open(port);
    expect(await question(late)).toEqual([7]);
    await closed;
    expect(await question(first)).toEqual([7]);
    for (const socket of [first, late, ...others]) socket.destroy();
    await listener.stop();
  });

  it("starts once, stops whole, and starts again", async () => {
    const here = await directory();
    const listener = await listenerOf(here, { port: 0, host: "127.0.0.1" });
    await listener.stop();
    const [first, second] = await Promise.all([listener.start(), listener.start()]);
    expect(first).toBe(second);
    const socket = await open(portOf(first));
    const ended = new Promise((resolve) => socket.once("close", resolve));
    await listener.stop();
    await ended;
    await listener.stop();
    const port = portOf(first);
    const free = createServer();
    await new Promise<void>((resolve, reject) => free.once("error", reject).listen(port, "127.0.0.1", resolve));
    await new Promise((resolve) => free.close(resolve));
    const again = await listenerOf(here, { port, host: ["127.0.0.1", "::1"] });
    expect(await again.start()).toBe(`127.0.0.1:${port}, [::1]:${port}`);
    await again.stop();
  });

  it("says which port is taken, and leaves nothing open then", async () => {
    const here = await directory();
    const taken = createSocket("udp4");
    const port = await freePort();
    await new Promise<void>((resolve) => taken.bind(port, "127.0.0.1", resolve));
    const listener = await listenerOf(here, { port });
    await expect(listener.start()).rejects.toMatchObject({
      code: "address-in-use",
      message: expect.stringContaining(`UDP 127.0.0.1:${port}`),
    });
    // TCP of the same number was opened first: it must be free again.
    const free = createServer();
    await new Promise<void>((resolve, reject) => free.once("error", reject).listen(port, "127.0.0.1", resolve));
    await new Promise((resolve) => free.close(resolve));
    await new Promise<void>((resolve) => taken.close(resolve));
    await listener.start();
    await listener.stop();
  });

  it("survives whatever is thrown at it", async () => {
    const listener = await listenerOf(await directory(), { port: 0 });
    const port = portOf(await listener.start());
    const socket = createSocket("udp4");
    let answers = 0;
    socket.on("message", () => answers++);
    const random = (length: number): Buffer => Buffer.from(systemRandom.bytes(length));
    const query = queryPacket("web.service.consul", { edns: {} });
    for (let i = 0; i < 400; i++) {
      const mutated = Buffer.from(query);
      mutated[systemRandom.below(mutated.length)] = systemRandom.below(256);
      socket.send(i % 2 === 0 ? mutated : random(systemRandom.below(200)), port, "127.0.0.1");
    }
    const last = encodeMessage({ ...decodeMessage(query), id: 1 });
    await eventually("an answer after the noise", () => {
      socket.send(last, port, "127.0.0.1");
      return answers > 0;
    });
    await new Promise<void>((resolve) => socket.close(() => resolve()));
    await listener.stop();
  });

  it("is off with port -1, and refuses what it does not know", async () => {
    expect(await dns.setup(dns.configure({ port: -1 }), undefined as never)).toBeUndefined();
    for (const [raw, text] of [
      [{ prot: 53 }, "dns.prot: is unknown; known are"],
      [{ port: 70000 }, "dns.port: must be a whole number from -1 to 65535, not 70000"],
      [{ host: "localhost" }, 'dns.host: "localhost" is not an IP address'],
      [{ serviceTtlMs: { web: "5s" } }, "dns.serviceTtlMs.web: must be whole milliseconds"],
      [{ soa: { minTtl: 1 } }, "dns.soa.minTtl: is unknown"],
      [{ altDomain: "." }, "dns.altDomain"],
      [[], "dns: must be an object"],
    ] as const)
      expect(() => dns.configure(raw)).toThrow(text);
    expect(dns.configure({ host: "127.0.0.1, 0.0.0.0 ::1" }).hosts).toEqual(["0.0.0.0", "::1"]);
    expect(dns.configure({ host: ["::", "127.0.0.1"] }).hosts).toEqual(["::"]);
  });
});
