// Consul's DNS beyond what was recorded, by its source [consul 1.19.2 agent/dns.go, miekg/dns]: localities, odd types, escapes, sizes, header bits.
import { describe, expect, it } from "vitest";
import { serviceChange } from "../../../test/support/directory.ts";
import { dnsWorld, queryPacket } from "../../../test/support/dns.ts";
import { type Change, keyOf } from "../../model/record.ts";
import { policyOf, readConfig } from "./config.ts";
import { createAccess } from "./networks.ts";

const SOA = "consul. 0 SOA ns.consul. hostmaster.consul. 0";
const NX = `NXDOMAIN aa |  | ${SOA}`;
const EMPTY = "NOERROR aa";

const node = (name: string, address: string, labels: Record<string, string> = {}): Change => ({
  op: "put",
  table: "node",
  key: keyOf.node(name),
  value: { id: "", name, address, datacenter: "dc1", taggedAddresses: {}, labels, external: true },
});
const web = [node("n1", "192.0.2.1", { rack: "r1" }), serviceChange("n1", "w1", "web", { tags: ["v1"], port: 81 })];
const service = {
  ...{ service: "web", onlyPassing: false, near: "", connect: false, peer: "" },
  failover: { nearest: 0 },
} as const;

describe("localities", () => {
  it("of services are a datacenter, pairs of which the last one counts, or a peer that nobody is", async () => {
    const { directory, line } = await dnsWorld({ compat: true });
    await directory.write(web);
    for (const name of ["dc1", "dc1.dc", "x.dc.dc1.dc"])
      expect(line(`web.service.${name}.consul`), name).toContain("A 192.0.2.1");
    for (const name of ["dc2", "dc1.dc.x.dc", "dc1.x", "a.b.c", "p.peer", "p.peer.dc1.dc", "default.ns", "sg.sg"])
      expect(line(`web.service.${name}.consul`), name).toBe(NX);
  });

  it("of nodes do not matter to types that nodes do not have", async () => {
    const { directory, line } = await dnsWorld({ compat: true });
    await directory.write(web);
    for (const name of ["dc2", "dc2.dc", "p.peer"]) {
      expect(line(`n1.node.${name}.consul`), name).toBe(NX);
      expect(line(`n1.node.${name}.consul`, { type: "MX" }), name).toBe(EMPTY);
    }
    expect(line("none.node.consul", { type: "MX" })).toBe(EMPTY);
    for (const name of ["node.consul", "n1.node.a.b.consul"]) expect(line(name, { type: "MX" }), name).toBe(NX);
  });

  it("of nodes may stand behind a node's ID", async () => {
    const { directory, line } = await dnsWorld({ compat: true });
    const id = "5f0c1d2e-aaaa-4bbb-8ccc-0123456789ab";
    await directory.write(
      web.map((change) =>
        change.op === "put" && change.table === "node"
          ? ({ ...change, value: { ...change.value, id } } as Change)
          : change,
      ),
    );
    for (const name of [id, "5f0c1d2e"]) expect(line(`${name}.node.dc1.consul`), name).toContain("A 192.0.2.1");
    expect(line("5f0c1d2f.node.consul")).toBe(NX);
  });

  it("of virtual addresses may be a peer, since nothing is what peers have, too", async () => {
    const { line } = await dnsWorld({ compat: true });
    for (const name of ["x.virtual", "x.virtual.dc2", "x.virtual.p.peer", "x.virtual.dc1.dc"])
      expect(line(`${name}.consul`), name).toBe(EMPTY);
    for (const name of ["virtual", "x.virtual.a.b", "x.virtual.a.ns", "x.connect", "x.ingress"])
      expect(line(`${name}.consul`), name).toBe(NX);
  });

  it("of prepared queries are one label; names may have dots in both forms", async () => {
    const { directory, prepared, line } = await dnsWorld({ compat: true });
    await directory.write(web);
    await prepared.create({ name: "geo.db", session: "", token: "", ttl: "", service });
    for (const name of ["geo.db.query", "geo.db.query.dc1", "_geo.db._tcp.query"])
      expect(line(`${name}.consul`), name).toContain("A 192.0.2.1");
    for (const name of ["geo.db.query.dc1.dc", "geo.db._tcp.query", "_geo.db.query"])
      expect(line(`${name}.consul`), name).toBe(NX);
  });

  it("behind addresses are not looked at, whatever they begin with", async () => {
    const { line } = await dnsWorld({ compat: true });
    for (const name of ["dc9", "_x", "a.b.c", "_a._b"])
      expect(line(`c0000201.addr.${name}.consul`), name).toContain("A 192.0.2.1");
    expect(line("c0000201.addr._x.consul", { type: "SRV" })).toBe(NX);
    expect(line("c000020.addr.consul")).toBe(NX);
    expect(line("c00002010.addr.consul")).toBe(NX);
    expect(line("x.c0000201.addr.consul")).toBe(NX);
  });
});

describe("the mesh", () => {
  it("has proxies and what is connected natively under the names of their services", async () => {
    const proxy = { Kind: "connect-proxy", Proxy: { DestinationServiceName: "Web" } };
    for (const compat of [true, false]) {
      const { directory, line } = await dnsWorld({ compat, config: { serviceTtlMs: { web: 7000 } } });
      await directory.write([
        ...web,
        serviceChange("n1", "w2", "web", { port: 82, address: "10.0.0.2", foreign: { Connect: { Native: true } } }),
        serviceChange("n1", "p1", "web-sidecar", { port: 21000, foreign: proxy }),
        serviceChange("n1", "p2", "other", {
          port: 21001,
          foreign: { ...proxy, Proxy: { DestinationServiceName: "x" } },
        }),
      ]);
      for (const name of ["web.connect.consul", "any.web.connect.dc1.consul"])
        expect(line(name), name).toBe(`NOERROR aa | ${name}. 7 A 10.0.0.2; ${name}. 7 A 192.0.2.1`);
      expect(line("web.connect.consul", { type: "SRV" })).toMatch(
        /7 SRV 1 1 21000 n1\.node.*7 SRV 1 1 82 0a000002\.addr/,
      );
      expect(line("x.connect.consul", { type: "SRV" })).toContain("SRV 1 1 21001 n1.node.dc1.consul.");
      for (const name of ["web-sidecar.connect", "none.connect", "connect", "web.connect.dc2"])
        expect(line(`${name}.consul`), name).toMatch(/^NXDOMAIN aa/);
    }
  });
});

describe("recursion", () => {
  it("is for private networks, never for the internet's", () => {
    const compat = createAccess(policyOf(readConfig({}), true, "consul").recursionFrom, () => []);
    const own = createAccess(policyOf(readConfig({}), false, "consul").recursionFrom, () => []);
    for (const address of ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
      expect([compat.allows(address), own.allows(address)], address).toEqual([true, true]);
    for (const address of ["10.1.2.3", "172.17.0.2", "::ffff:192.168.1.1", "100.100.1.1", "fd00::1", "fe80::1%eth0"])
      expect([compat.allows(address), own.allows(address)], address).toEqual([true, false]);
    for (const address of ["8.8.8.8", "172.32.0.1", "2001:db8::1", "192.0.2.1", "100.128.0.1"])
      expect([compat.allows(address), own.allows(address)], address).toEqual([false, false]);
  });
});

describe("records", () => {
  it("of the zone follow an alternative domain only where it is spelled as configured", async () => {
    const { line } = await dnsWorld({ compat: true, config: { altDomain: "alt.example" } });
    expect(line("none.service.alt.example")).toContain("| alt.example. 0 SOA ns.alt.example.");
    expect(line("none.service.Alt.example")).toContain("| consul. 0 SOA ns.consul.");
    expect(line("alt.example")).toContain("| consul. 0 SOA ns.consul.");
  });

  it("have two SOAs where the SOA of an unknown address is asked for", async () => {
    const { ask } = await dnsWorld({ compat: true });
    expect(ask("9.9.9.10.in-addr.arpa", { type: "SOA" }).authorities).toHaveLength(2);
    expect(ask("9.9.9.10.in-addr.arpa", { type: "PTR" }).authorities).toHaveLength(1);
    expect(ask("9.9.9.10.in-addr.arpa", { type: "NS" }).authorities).toHaveLength(1);
  });

  it("of labels have their backslashes read as escapes", async () => {
    const labels = { a: "c:\\temp", b: "\\065\\\\x", c: "end\\" };
    const { directory, line } = await dnsWorld({ compat: true });
    await directory.write([node("odd", "192.0.2.7", labels)]);
    expect(line("odd.node.consul", { type: "TXT" })).toBe(
      'NOERROR aa | odd.node.consul. 0 TXT "a=c:temp"; odd.node.consul. 0 TXT "b=A\\\\x"; odd.node.consul. 0 TXT "c=end"',
    );
  });

  it("of name servers may be aliases", async () => {
    const { directory, line } = await dnsWorld({ compat: true });
    await directory.write([node("s1", "host.example.org"), serviceChange("s1", "consul", "consul", { port: 8300 })]);
    expect(line("consul", { type: "NS" })).toBe(
      "NOERROR aa | consul. 0 NS s1.node.dc1.consul. |  | s1.node.dc1.consul. 0 CNAME host.example.org.",
    );
  });

  it("of host names answer every type but those that have records of their own", async () => {
    const { directory, line } = await dnsWorld({ compat: true });
    await directory.write([
      node("n1", "192.0.2.1"),
      serviceChange("n1", "e", "ext", { address: "www.example.org", port: 1 }),
      serviceChange("n1", "m1", "mix", { address: "www.example.org", port: 1 }),
      serviceChange("n1", "m2", "mix", { address: "192.0.2.9", port: 1 }),
    ]);
    for (const type of ["MX", "TXT", "CNAME", "PTR"] as const)
      expect(line("ext.service.consul", { type }), type).toBe(
        "NOERROR aa | ext.service.consul. 0 CNAME www.example.org.",
      );
    expect(line("mix.service.consul", { type: "MX" })).toContain("CNAME www.example.org.");
    expect(line("mix.service.consul", { type: "TXT" })).toBe("NOERROR aa | mix.service.consul. 0 A 192.0.2.9");
  });
});

describe("sizes", () => {
  it("count what several answers need for each of them, though texts are sent once", async () => {
    const { directory, ask } = await dnsWorld({ compat: true });
    const rack = "r".repeat(100);
    await directory.write([
      node("n1", "192.0.2.1", { rack }),
      ...Array.from({ length: 6 }, (_, i) => serviceChange("n1", `w${i}`, "web", { port: 81 + i })),
    ]);
    // Six times SRV, A and TXT are 1,079 bytes, with the node's records once only 409; an answer that is cut has none but the address.
    const cut = ask("web.service.consul", { type: "SRV", edns: { udpBytes: 1000 } });
    expect(cut.answers).toHaveLength(5);
    expect(cut.edns).toBeUndefined();
    expect(cut.additionals).toHaveLength(1);
    const whole = ask("web.service.consul", { type: "SRV", edns: { udpBytes: 4096 } });
    expect([whole.answers.length, whole.additionals.length]).toEqual([6, 6 + 1]);
  });
});

describe("packets", () => {
  it("that are not taken come back with their header bits", async () => {
    const { responder } = await dnsWorld({ compat: true });
    const from = { address: "127.0.0.1", tcp: false };
    for (const [word, rcode] of [
      [0x2f, 4], // opcode UPDATE
      [0x03, 1], // a query whose second question is missing
    ] as const) {
      const packet = queryPacket("web.service.consul");
      packet[2] = word;
      packet[3] = 0xb0;
      packet[5] = 2;
      const answer = responder.respond(packet, from) as Uint8Array;
      expect([answer[2], answer[3]]).toEqual([0x80 | (word & 0xfb), 0xb0 | rcode]);
    }
  });

  it("with a client's subnet are told that what is not there is not there for anybody", async () => {
    const { directory, prepared, ask } = await dnsWorld({ compat: true });
    await directory.write(web);
    await prepared.create({ name: "q", session: "", token: "", ttl: "", service });
    const edns = { options: [{ code: 8, bytes: Uint8Array.of(0, 1, 24, 0, 192, 0, 2) }] };
    const scopeOf = (name: string, type: "A" | "AAAA" = "A"): number | undefined =>
      ask(name, { type, edns }).edns?.options[0]?.bytes[3];
    expect(scopeOf("q.query.consul")).toBe(24);
    expect(scopeOf("q.query.consul", "AAAA")).toBe(24);
    expect(scopeOf("none.query.consul")).toBe(0);
    expect(scopeOf("web.service.consul")).toBe(0);
  });

  it("that meet an error are answered with authority where the name is ours", async () => {
    const { directory, line } = await dnsWorld({ compat: true });
    await directory.write([...web, serviceChange("n1", "x", "broken", { port: 70_000 })]);
    expect(line("broken.service.consul", { type: "SRV" })).toBe("SERVFAIL aa");
  });
});
