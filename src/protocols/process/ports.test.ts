// Socket tables of /proc, and which of a family of processes' sockets count.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { listeningSockets, liveStat, lives, mergePorts, PortFinder } from "./ports.ts";

const HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
const row = (local: string, remote: string, state: string, inode: number): string =>
  `   0: ${local} ${remote} ${state} 00000000:00000000 00:00000000 00000000     0        0 ${inode} 1 0000000000000000 100 0 0 10 0\n`;

describe("socket tables", () => {
  it("give listening sockets with their addresses", () => {
    const tcp =
      HEAD +
      row("0100007F:1F90", "00000000:0000", "0A", 11) +
      row("00000000:0050", "00000000:0000", "0A", 12) +
      row("0100007F:A1B2", "0100007F:1F90", "01", 13) +
      row("0500000A:01BB", "00000000:0000", "0A", 14);
    expect(listeningSockets(tcp, "tcp")).toEqual([
      { protocol: "tcp", port: 8080, host: "127.0.0.1", inode: "11" },
      { protocol: "tcp", port: 80, host: "", inode: "12" },
      { protocol: "tcp", port: 443, host: "10.0.0.5", inode: "14" },
    ]);
  });

  it("read IPv6, mapped IPv4 included", () => {
    const zero = "00000000000000000000000000000000:0000";
    const tcp6 =
      HEAD +
      row("00000000000000000000000000000000:0050", zero, "0A", 1) +
      row("00000000000000000000000001000000:0051", zero, "0A", 2) +
      row("0000000000000000FFFF00000100007F:0052", zero, "0A", 3) +
      row("0000000000000000FFFF000000000000:0053", zero, "0A", 4) +
      row("B80D0120000000000000000001000000:0054", zero, "0A", 5);
    expect(listeningSockets(tcp6, "tcp").map(({ port, host }) => [port, host])).toEqual([
      [80, ""],
      [81, "::1"],
      [82, "127.0.0.1"],
      [83, ""],
      [84, "2001:db8::1"],
    ]);
  });

  it("take UDP sockets that have no peer", () => {
    const udp = HEAD + row("00000000:0035", "00000000:0000", "07", 1) + row("00000000:9999", "08080808:0035", "01", 2);
    expect(listeningSockets(udp, "udp").map(({ port }) => port)).toEqual([53]);
  });

  it("survive anything", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        listeningSockets(HEAD + text, "tcp");
        listeningSockets(HEAD + row(text, "00000000:0000", "0A", 1), "tcp");
      }),
    );
  });
});

it("ports of several sockets are one, at the widest address", () => {
  const at = (host: string, port = 80, protocol: "tcp" | "udp" = "tcp") => ({ protocol, port, host });
  expect(
    mergePorts([
      at("::1"),
      at("127.0.0.1"),
      at("10.0.0.1"),
      at("", 53, "udp"),
      at("127.0.0.1", 53),
      at("", 22),
      at("::1", 22),
    ]),
  ).toEqual([at("", 22), at("127.0.0.1", 53), at("10.0.0.1"), at("", 53, "udp")]);
});

/** A /proc of one's own: path → text, folder or link. */
function procOf(files: Record<string, string | readonly string[]>, links: Record<string, string> = {}) {
  return {
    proc: async (path: string) => {
      const found = files[path];
      return typeof found === "string" ? found : undefined;
    },
    procList: async (path: string) => {
      const found = files[path];
      return Array.isArray(found) ? [...(found as readonly string[])] : [];
    },
    procLink: async (path: string) => links[path],
  };
}
const stat = (pid: number, parent: number, start: number, state = "S"): string =>
  `${pid} (a ) b) ${state} ${parent} 5 5 34816 5 4194304 1 0 0 0 0 0 0 0 20 0 1 0 ${start} 0 0`;

describe("PortFinder", () => {
  const files: Record<string, string | readonly string[]> = {
    "10/stat": stat(10, 1, 100),
    "10/task": ["10"],
    "10/task/10/children": "11 ",
    "10/fd": ["0", "3"],
    "10/net/tcp":
      HEAD + row("00000000:1F90", "00000000:0000", "0A", 77) + row("00000000:0016", "00000000:0000", "0A", 99),
    "10/net/udp":
      HEAD +
      row("00000000:0035", "00000000:0000", "07", 81) +
      row("00000000:EA00", "00000000:0000", "07", 82) +
      row("00000000:1F90", "00000000:0000", "07", 83),
    "11/stat": stat(11, 10, 101),
    "11/task": ["11"],
    "11/task/11/children": "",
    "11/fd": ["3", "4", "5", "6"],
    "sys/net/ipv4/ip_local_port_range": "32768\t60999\n",
  };
  const links: Record<string, string> = {
    "10/ns/net": "net:[1]",
    "11/ns/net": "net:[1]",
    "10/fd/0": "/dev/null",
    "10/fd/3": "socket:[1234]",
    "11/fd/3": "socket:[77]",
    "11/fd/4": "socket:[81]",
    "11/fd/5": "socket:[82]",
    "11/fd/6": "socket:[83]",
  };

  it("finds what children listen on, not others' ports, nor the UDP ports of clients", async () => {
    const finder = new PortFinder(procOf(files, links), 10);
    expect(await finder.look()).toEqual([
      { protocol: "tcp", port: 8080, host: "" },
      { protocol: "udp", port: 53, host: "" },
      { protocol: "udp", port: 8080, host: "" },
    ]);
    expect(finder.hidden).toBe(false);
  });

  it("remembers children that lost their parent, but not others who got their number", async () => {
    const mine = { ...files };
    const finder = new PortFinder(procOf(mine, links), 10);
    await finder.look();
    mine["10/task/10/children"] = "";
    mine["11/stat"] = stat(11, 1, 101);
    mine["11/net/tcp"] = files["10/net/tcp"] as string;
    expect((await finder.look()).map(({ port }) => port)).toContain(8080);
    mine["11/stat"] = stat(11, 1, 999);
    expect(await finder.look()).toEqual([]);
  });

  it("looks into each network namespace of the family", async () => {
    const finder = new PortFinder(
      procOf(
        {
          ...files,
          "11/net/tcp": HEAD + row("00000000:0051", "00000000:0000", "0A", 77),
        },
        { ...links, "11/ns/net": "net:[2]" },
      ),
      10,
    );
    expect((await finder.look()).map(({ port }) => port)).toEqual([81]);
  });

  it("finds children by their parents where the kernel lists none", async () => {
    const mine: Record<string, string | readonly string[]> = {
      ...files,
      "": ["1", "10", "11", "self"],
      "1/stat": stat(1, 0, 1),
    };
    delete mine["10/task/10/children"];
    delete mine["11/task/11/children"];
    expect((await new PortFinder(procOf(mine, links), 10).look()).map(({ port }) => port)).toContain(8080);
  });

  it("spares the socket tables while the sockets stay the same, for a while", async () => {
    const mine = { ...files };
    const finder = new PortFinder(procOf(mine, links), 10);
    const before = await finder.look();
    mine["10/net/tcp"] = HEAD;
    for (let i = 0; i < 4; i++) expect(await finder.look(false)).toEqual(before);
    expect(await finder.look(false)).toEqual([
      { protocol: "udp", port: 53, host: "" },
      { protocol: "udp", port: 8080, host: "" },
    ]);
    mine["10/net/tcp"] = files["10/net/tcp"] as string;
    expect(await finder.look(true)).toEqual(before);
  });

  it("says when it may not look", async () => {
    const finder = new PortFinder(procOf({ ...files, "11/fd": [] }, links), 10);
    expect(await finder.look()).toEqual([]);
    expect(finder.hidden).toBe(true);
  });
});

it("a process that only waits to be collected does not live", async () => {
  expect(await liveStat(procOf({ "10/stat": stat(10, 1, 100) }), 10)).toEqual({
    parent: 1,
    group: 5,
    foreground: 5,
    startTicks: 100,
  });
  expect(await liveStat(procOf({ "10/stat": stat(10, 1, 100, "Z") }), 10)).toBeUndefined();
  expect(await liveStat(procOf({}), 10)).toBeUndefined();
});

describe("whether a process lives", () => {
  const stat = (state: string, ticks: number): string =>
    `7 (web) ${state} 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 ${ticks} 0`;
  const machine = (text: string | undefined, exists: boolean) => ({ proc: async () => text, exists: () => exists });

  it.each([
    ["the very process", stat("S", 42), true, 42, true],
    ["another one of its number", stat("S", 43), true, 42, false],
    ["one that only waits to be collected", stat("Z", 42), true, 42, false],
    ["one that is gone", undefined, false, 42, false],
    ["one that is there and cannot be looked at, as where no descriptors are left", undefined, true, 42, true],
    ["one without a start time, by its number", undefined, true, 0, true],
  ])("%s", async (_, text, exists, start, expected) => {
    expect(await lives(machine(text, exists), 7, start)).toBe(expected);
  });
});
