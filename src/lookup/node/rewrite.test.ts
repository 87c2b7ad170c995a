// What becomes of names, connections and datagrams: families, ports, transports, order.
import { describe, expect, it } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import { type SomeService, tableBytes } from "../../../test/support/hook-table-bytes.ts";
import type { Dial, OwnAddresses, Rewrite, Try } from "../../base/node-hook.ts";
import { systemRandom } from "../../base/random.ts";
import { createBalancer } from "../balance/create.ts";
import { createRewrite } from "./rewrite.ts";
import { createCurrentTable } from "./table.ts";

function setUp(services: Record<string, SomeService>): Rewrite {
  const clock = fakeClock();
  const file = {
    bytes: tableBytes(services),
    u32At: () => 0,
    isReplaced: () => false,
    close() {},
  };
  return createRewrite({
    table: createCurrentTable({ clock, open: () => file, path: "/table" }),
    balancer: createBalancer({ clock, random: systemRandom }),
    caller: "0/test",
  });
}

function all(dial: Dial | undefined): string[] | undefined {
  if (dial === undefined) return undefined;
  const tried: string[] = [];
  for (let next = dial(); next !== undefined; next = dial())
    tried.push(`${next.address} ${next.port}${next.limitMs === undefined ? "" : ` ${next.limitMs}`}`);
  return tried;
}

const A = { address: "10.0.0.1", port: 1001 };
const B = { address: "10.0.0.2", port: 1002 };
const SIX = { address: "fd00::6", port: 1006 };

describe("what is rewritten", () => {
  it("names: IPv4 and IPv6 by what the backends have; who asks for one family is given it", () => {
    const rewrite = setUp({
      web: { backends: [A, B] },
      six: { backends: [SIX] },
      both: { backends: [A, SIX] },
      mostly6: { backends: [A, SIX, { ...SIX, port: 7 }] },
      none: { backends: [] },
    });
    const any = (name: string): unknown => (rewrite.name(`${name}.service.consul`) as OwnAddresses).any;
    expect(["web", "six", "both", "mostly6", "none"].map(any)).toEqual([[4], [6], [4, 6], [6, 4], [4]]);
    expect(rewrite.name("web.connect.consul")).toMatchObject({ v4: "127.128.0.1", v6: "fd12:3456:789a::1" });
    expect(rewrite.name("other.service.consul")).toBeUndefined();
    expect(rewrite.name("example.org")).toBeUndefined();
  });

  it("connections: each backend once, of the socket's family, with a time for each but the last", () => {
    const rewrite = setUp({ web: { policy: "first", tryMs: 300, backends: [A, B, SIX] } });
    expect(all(rewrite.connection("127.128.0.1", 80, 4))).toEqual(["10.0.0.1 1001 300", "10.0.0.2 1002"]);
    const mapped = ["::ffff:10.0.0.1 1001 300", "::ffff:10.0.0.2 1002 300", "fd00::6 1006"];
    expect(all(rewrite.connection("fd12:3456:789a::1", 80, 6))).toEqual(mapped);
    expect(all(rewrite.connection("::ffff:127.128.0.1", 80, 6))).toEqual(mapped);
    expect(rewrite.connection("127.0.0.1", 80, 4)).toBeUndefined();
    expect(rewrite.connection("127.128.0.2", 80, 4)).toBeUndefined();
  });

  it("connections: of many backends each once, the failed ones of late last, and not without end", () => {
    const many = Array.from({ length: 200 }, (_, i) => ({ address: `10.0.${i}.1`, port: 1 }));
    const rewrite = setUp({ forty: { policy: "first", backends: many.slice(0, 40) }, all: { backends: many } });
    const once = all(rewrite.connection("127.128.0.1", 80, 4)) ?? [];
    expect([once.length, new Set(once).size]).toEqual([40, 40]);
    const [endless = []] = [all(rewrite.connection("127.128.0.2", 80, 4))];
    expect([endless.length, new Set(endless).size]).toEqual([128, 128]);
    const fail = rewrite.connection("127.128.0.1", 80, 4) as Dial;
    const failing: string[] = [];
    for (let i = 0; i < 39; i++) {
      const next = fail() as Try;
      failing.push(next.address);
      next.ended({ ok: false, code: "ECONNREFUSED" });
    }
    // The next connection begins with the one that did not fail.
    expect(failing).not.toContain((rewrite.connection("127.128.0.1", 80, 4) as Dial)()?.address);
  });

  it("connections: a backend that comes while others are tried is tried, too", async () => {
    const clock = fakeClock();
    let bytes = tableBytes({ web: { backends: [A] } });
    let superseded = 0;
    const table = createCurrentTable({
      clock,
      open: () => ({ bytes, u32At: () => superseded, isReplaced: () => false, close() {} }),
      path: "/table",
    });
    const rewrite = createRewrite({
      table,
      balancer: createBalancer({ clock, random: systemRandom }),
      caller: "0/test",
    });
    const dial = rewrite.connection("127.128.0.1", 80, 4) as Dial;
    expect([dial()?.port, dial()]).toEqual([A.port, undefined]);
    bytes = tableBytes({ web: { backends: [A, B] } });
    superseded = 1;
    await clock.advance(2_000);
    expect([dial()?.port, dial()]).toEqual([B.port, undefined]);
  });

  it("connections: the caller's port where a backend has none, no backend of the other transport, nothing where there is none", () => {
    const rewrite = setUp({
      ports: { backends: [{ ...A, port: 0 }] },
      udp: {
        backends: [
          { ...A, only: "udp" },
          { ...B, only: "tcp" },
        ],
      },
      none: { backends: [] },
    });
    expect(all(rewrite.connection("127.128.0.1", 8080, 4))).toEqual(["10.0.0.1 8080"]);
    expect(all(rewrite.connection("127.128.0.2", 80, 4))).toEqual(["10.0.0.2 1002"]);
    expect(all(rewrite.connection("127.128.0.3", 80, 4))).toEqual([]);
    expect(rewrite.datagram("127.128.0.2", 80, 4, {})).toEqual({ address: "10.0.0.1", port: 1001 });
    expect(rewrite.datagram("127.128.0.3", 80, 4, {})).toBe("nobody");
    expect(rewrite.datagram("127.0.0.1", 80, 4, {})).toBeUndefined();
  });

  it("connections: what refused is not the first to be tried again", () => {
    const rewrite = setUp({ web: { policy: "round-robin", backends: [A, B] } });
    for (let i = 0; i < 4; i++) {
      const dial = rewrite.connection("127.128.0.1", 80, 4) as Dial;
      for (let next = dial(); next !== undefined; next = dial())
        if (next.address === A.address) next.ended({ ok: false, code: "ECONNREFUSED" });
        else {
          next.ended({ ok: true, tookMs: 1 });
          break;
        }
    }
    const first = Array.from({ length: 20 }, () => rewrite.connection("127.128.0.1", 80, 4)?.()?.address);
    expect(new Set(first)).toEqual(new Set([B.address]));
  });

  it("datagrams: a socket keeps its backend, sockets are spread", () => {
    const backends = Array.from({ length: 8 }, (_, i) => ({ address: `10.0.0.${i}`, port: 53 }));
    const rewrite = setUp({ dns: { policy: "sticky", backends } });
    const seen = new Set<string>();
    for (let i = 0; i < 64; i++) {
      const socket = {};
      const ask = (): { address: string } => rewrite.datagram("127.128.0.1", 53, 4, socket) as { address: string };
      const { address } = ask();
      seen.add(address);
      for (let k = 0; k < 5; k++) expect(ask().address).toBe(address);
    }
    expect(seen.size).toBeGreaterThan(4);
  });
});
