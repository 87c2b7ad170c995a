// The kernel's tables of sockets, as recorded from /proc/net on Linux 6.
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { describe, expect, it } from "vitest";
import { systemProcesses } from "../../../base/process.ts";
import { portsIn, portsTaken } from "./taken.ts";

const TCP = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:18EB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 15140 1 0000000000000000 100 0 0 10 0
   1: 0100007F:9C40 0100007F:18EB 01 00000000:00000000 00:00000000 00000000     0        0 15141 1 0000000000000000 20 4 30 10 -1
`;
const TCP6 = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1
`;
const UDP = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 6281: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 15142 2 0000000000000000 0
`;

describe("ports that are taken", () => {
  it("are those that are listened at, and bound ones of UDP", () => {
    expect([...portsIn(TCP, "tcp")]).toEqual([6379]);
    expect([...portsIn(TCP6, "tcp")]).toEqual([80]);
    expect([...portsIn(UDP, "udp")]).toEqual([53]);
    expect([...portsIn("", "tcp")]).toEqual([]);
  });

  it("are seen of a living process, IPv4 and IPv6", async () => {
    const proc = (path: string): Promise<string | undefined> => systemProcesses.proc(path);
    const v4 = createServer().listen(0, "127.0.0.1");
    const v6 = createServer().listen(0, "::1");
    const udp = createSocket("udp4").bind(0, "127.0.0.1");
    await Promise.all([once(v4, "listening"), once(v6, "listening"), once(udp, "listening")]);
    const tcp = await portsTaken(proc, process.pid, "tcp");
    expect([v4, v6].map((one) => tcp.has((one.address() as AddressInfo).port))).toEqual([true, true]);
    expect((await portsTaken(proc, process.pid, "udp")).has(udp.address().port)).toBe(true);
    v4.close();
    v6.close();
    udp.close();
    expect((await portsTaken(async () => undefined, 1, "tcp")).size).toBe(0);
  });
});
