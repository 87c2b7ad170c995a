// This host's addresses from Linux's own tables, and which of them are containers' bridges.
import { describe, expect, it } from "vitest";
import { bridgesAmong, ipv4From, ipv6From, localAddresses } from "./bridges.ts";

// As Linux 6.1 tells them: docker0 without a container on it, a network of Docker's, and the way out.
const ROUTE = `Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
docker0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
br-0123456789ab\t000012AC\t00000000\t0001\t0\t0\t0\t00F0FFFF\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
`;
const TRIE = `Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 172.16.0.0/14 2 0 2
        +-- 172.17.0.0/16 2 0 2
           |-- 172.17.0.0
              /16 link UNICAST
           |-- 172.17.0.1
              /32 host LOCAL
           |-- 172.17.255.255
              /32 link BROADCAST
           |-- 172.18.0.1
              /32 host LOCAL
     +-- 192.0.2.0/24 2 0 2
        |-- 192.0.2.2
           /32 host LOCAL
Local:
  +-- 127.0.0.0/8 2 0 2
        |-- 127.0.0.1
           /32 host LOCAL
        |-- 172.17.0.1
           /32 host LOCAL
`;
const SIX = `00000000000000000000000000000001 01 80 10 80       lo
fe80000000000000004200fffe000001 03 40 20 80  docker0
fd000000000000170000000000000001 03 40 00 82  docker0
fd000000000000180000000000000001 04 40 00 c0  docker1
`;

const short = (found: ReturnType<typeof ipv4From>): string[] =>
  found.map(({ name, address, network }) => `${name} ${address}/${network.bits}`);

describe("local addresses", () => {
  it("are read from route, fib_trie and if_inet6", async () => {
    expect(short(ipv4From(ROUTE, TRIE))).toEqual([
      "docker0 172.17.0.1/16",
      "br-0123456789ab 172.18.0.1/20",
      "eth0 192.0.2.2/24",
    ]);
    expect(short(ipv6From(SIX))).toEqual(["docker0 fe80::42:ff:fe00:1/64", "docker0 fd00:0:0:17::1/64"]);
    expect(ipv4From("", "")).toEqual([]);
    const disk = {
      readText: async (path: string) => {
        if (path === "/net/route") return ROUTE;
        if (path === "/net/fib_trie") return TRIE;
        throw new Error("ENOENT");
      },
    };
    const eth0 = { name: "eth0", address: "192.0.2.2", family: 4 as const, cidr: "192.0.2.2/24", internal: false };
    const all = await localAddresses({ interfaces: () => [eth0] }, disk, "/net");
    expect(short([...all])).toEqual(["eth0 192.0.2.2/24", "docker0 172.17.0.1/16", "br-0123456789ab 172.18.0.1/20"]);
  });

  it("are bridges by what they are called, or by what was asked for", () => {
    const found = [...ipv4From(ROUTE, TRIE), ...ipv6From(SIX)];
    const chosen = (wanted: true | string[]): string[] => bridgesAmong(found, wanted).map(({ address }) => address);
    expect(chosen(true)).toEqual(["172.17.0.1", "172.18.0.1", "fd00:0:0:17::1"]);
    expect(chosen(["docker0"])).toEqual(["172.17.0.1", "fd00:0:0:17::1"]);
    expect(chosen(["192.0.2.2", "br-none"])).toEqual(["192.0.2.2"]);
  });
});
