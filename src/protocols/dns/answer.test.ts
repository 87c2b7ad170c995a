// Our own DNS rules: what exists is not denied, what does not fit is told, what is configured is obeyed; and packets of every sort.
import { describe, expect, it, vi } from "vitest";
import { checkChange, goneChange, nodeChange, serviceChange } from "../../../test/support/directory.ts";
import { dnsWorld, messageText, queryPacket } from "../../../test/support/dns.ts";
import type { MagicDoors } from "../../contracts/magic.ts";
import { type Change, keyOf } from "../../model/record.ts";
import {
  decodeMessage,
  type Message,
  nameFromText,
  nameToWire,
  RCODE,
  TYPE,
  textOfName,
} from "../../wire/dns/index.ts";
import type { Responder } from "./answer.ts";

const SOA = "consul. 1 SOA ns.consul. hostmaster.consul. 1";
const NX = `NXDOMAIN aa |  | ${SOA}`;
const NODATA = `NOERROR aa |  | ${SOA}`;

const node = (name: string, address: string, labels: Record<string, string> = {}): Change => ({
  op: "put",
  table: "node",
  key: keyOf.node(name),
  value: { id: "", name, address, datacenter: "dc1", taggedAddresses: {}, labels, external: true },
});

const web = [
  node("n1", "192.0.2.1", { rack: "r1" }),
  node("n2", "192.0.2.2"),
  serviceChange("n1", "w1", "web", { tags: ["v1", "Primary"], port: 81 }),
  serviceChange("n2", "w2", "web", { tags: ["v2"], port: 82, address: "10.0.0.2" }),
];

describe("services", () => {
  it("give addresses, ports and the labels of their nodes", async () => {
    const { directory, line } = await dnsWorld();
    await directory.write(web);
    expect(line("web.service.consul")).toBe(
      "NOERROR aa | web.service.consul. 0 A 10.0.0.2; web.service.consul. 0 A 192.0.2.1",
    );
    expect(line("web.service.consul", { type: "SRV" })).toBe(
      "NOERROR aa | web.service.consul. 0 SRV 1 1 81 n1.node.dc1.consul.; web.service.consul. 0 SRV 1 1 82 0a000002.addr.dc1.consul. |  | " +
        '0a000002.addr.dc1.consul. 0 A 10.0.0.2; n1.node.dc1.consul. 0 A 192.0.2.1; n1.node.dc1.consul. 0 TXT "rack=r1"',
    );
    expect(line("PRIMARY.Web.service.DC1.dc.Consul")).toBe(
      "NOERROR aa | PRIMARY.Web.service.DC1.dc.Consul. 0 A 192.0.2.1",
    );
    expect(line("_web._v2.consul", { type: "SRV" })).toContain("SRV 1 1 82");
  });

  it("have the address of each port's target, also where several ports have one address", async () => {
    const { directory, ask } = await dnsWorld();
    await directory.write([...web, serviceChange("n2", "w3", "web", { port: 83, address: "10.0.0.2" })]);
    const targets = (): readonly string[] =>
      ask("web.service.consul", { type: "SRV" })
        .additionals.filter(({ data }) => data.kind === "A")
        .map(({ name }) => textOfName(name))
        .sort();
    const each = ["0a000002.addr.dc1.consul.", "0a000002.addr.dc1.consul.", "n1.node.dc1.consul."];
    // The first answer is made the long way, later ones the short way.
    expect([targets(), targets()]).toEqual([each, each]);
  });

  it("exist while they are known: NODATA where nothing is to be given, NXDOMAIN where nothing is known", async () => {
    const { directory, line } = await dnsWorld();
    await directory.write([...web, serviceChange("n1", "six", "six", { address: "2001:db8::1" })]);
    expect(line("web.service.consul", { type: "AAAA" })).toBe(NODATA);
    expect(line("web.service.consul", { type: "TXT" })).toBe(NODATA);
    expect(line("web.service.consul", { type: "SOA" })).toBe(NODATA);
    expect(line("web.service.consul", { type: "NS" })).toBe(NODATA);
    expect(line("six.service.consul", { type: "A" })).toBe(NODATA);
    expect(line("six.service.consul", { type: "AAAA" })).toBe("NOERROR aa | six.service.consul. 0 AAAA 2001:db8::1");
    expect(line("none.service.consul")).toBe(NX);
    expect(line("v9.web.service.consul")).toBe(NX);
    expect(line("web.service.dc9.consul")).toBe(NX);
    expect(line("web.service.dc1.peer.consul")).toBe(NX);
    await directory.write([
      checkChange("n1", "c1", "critical", { serviceId: "w1" }),
      checkChange("n2", "c2", "critical", { serviceId: "w2" }),
    ]);
    expect(line("web.service.consul")).toBe(NODATA);
    expect(line("web.service.consul", { type: "SRV" })).toBe(NODATA);
    expect(line("v1.web.service.consul")).toBe(NODATA);
    expect(line("_web._tcp.service.consul", { type: "SRV" })).toBe(NODATA);
    await directory.write([goneChange("n1", "w1"), goneChange("n2", "w2")]);
    expect(line("web.service.consul")).toBe(NX);
  });

  it("names above names exist [RFC 8020]", async () => {
    const { directory, line } = await dnsWorld();
    await directory.write([
      ...web,
      serviceChange("n1", "t", "dots", { tags: ["a.b"] }),
      nodeChange("x.y", "192.0.2.9", { external: true }),
    ]);
    for (const name of [
      "service.consul",
      "node.consul",
      "addr.consul",
      "query.consul",
      "dc1.consul",
      "dc.consul",
      "dc1.dc.consul",
      "service.dc1.consul",
      "service.dc1.dc.consul",
      "_tcp.service.consul",
      "_v1.service.consul",
      "_tcp.consul",
      "_web._tcp.consul",
      "b.dots.service.consul",
      "y.node.consul",
    ])
      expect(line(name), name).toBe(NODATA);
    for (const name of [
      "dc9.consul",
      "service.dc9.consul",
      "_none.service.consul",
      "_web._none.consul",
      "z.node.consul",
      "x.consul",
      "c.dots.service.consul",
      "web.connect.consul",
      "web.virtual.consul",
      "web.ingress.consul",
      "x.query.consul",
    ])
      expect(line(name), name).toBe(NX);
  });

  it("take several tags in a name, but never where one instance carries the dotted tag", async () => {
    const { directory, line } = await dnsWorld();
    await directory.write([
      node("n1", "192.0.2.1"),
      node("n2", "192.0.2.2"),
      serviceChange("n1", "1", "web", { tags: ["v2", "eu"] }),
      serviceChange("n2", "2", "web", { tags: ["v2"] }),
      serviceChange("n1", "3", "app", { tags: ["v2", "eu"] }),
      serviceChange("n2", "4", "app", { tags: ["V2.eu"] }),
    ]);
    expect(line("v2.EU.web.service.consul")).toBe("NOERROR aa | v2.EU.web.service.consul. 0 A 192.0.2.1");
    expect(line("v2.us.web.service.consul")).toBe(NX);
    expect(line("v2.eu.app.service.consul")).toBe("NOERROR aa | v2.eu.app.service.consul. 0 A 192.0.2.2");
    await directory.write([checkChange("n2", "c", "critical", { serviceId: "4" })]);
    expect(line("v2.eu.app.service.consul")).toBe(NODATA);
  });

  it("take labels in a name, of the instance or of its node, alone and with tags", async () => {
    const { directory, line, ask } = await dnsWorld();
    await directory.write([
      node("n1", "192.0.2.1", { Zone: "A" }),
      node("n2", "192.0.2.2", { Zone: "b" }),
      serviceChange("n1", "1", "web", { tags: ["v2"], labels: { env: "Prod" } }),
      serviceChange("n2", "2", "web", { tags: ["v2"], labels: { env: "test", zone: "a", __proto__x: "1" } }),
      serviceChange("n2", "3", "app", { tags: ["env--prod"] }),
      serviceChange("n1", "4", "app", { labels: { env: "prod" } }),
    ]);
    const found = (name: string): string[] =>
      ask(name)
        .answers.map(({ data }) => (data.kind === "A" ? data.address : "?"))
        .sort();
    expect(found("ENV--prod.web.service.consul")).toEqual(["192.0.2.1"]);
    expect(found("zone--a.web.service.consul")).toEqual(["192.0.2.1", "192.0.2.2"]);
    expect(found("v2.env--test.zone--a.web.service.consul")).toEqual(["192.0.2.2"]);
    expect(line("env--qa.web.service.consul")).toBe(NX);
    expect(line("v1.env--prod.web.service.consul")).toBe(NX);
    expect(line("--x.web.service.consul")).toBe(NX);
    expect(line("constructor--x.web.service.consul")).toBe(NX);
    // A tag that is written so is a tag.
    expect(found("env--prod.app.service.consul")).toEqual(["192.0.2.2"]);
    await directory.write([checkChange("n1", "c", "critical", { serviceId: "1" })]);
    expect(line("env--prod.web.service.consul")).toBe(NODATA);
    const { directory: theirs, line: compat } = await dnsWorld({ compat: true });
    await theirs.write([serviceChange("home", "1", "web", { labels: { env: "prod" } })]);
    expect(compat("env--prod.web.service.consul")).toContain("NXDOMAIN");
  });

  it("leave out what drains or is in maintenance, and warnings only where asked to", async () => {
    const given = await dnsWorld();
    const strict = await dnsWorld({ config: { onlyPassing: true } });
    for (const { directory, line } of [given, strict]) {
      await directory.write([...web, checkChange("n1", "c1", "warning", { serviceId: "w1" })]);
      expect(line("v1.web.service.consul").includes("192.0.2.1")).toBe(line === given.line);
      await directory.write([serviceChange("n2", "w2", "web", { tags: ["v2"], port: 82, draining: true })]);
      expect(line("v2.web.service.consul")).toBe(NODATA);
      await directory.write([
        serviceChange("n2", "w2", "web", { tags: ["v2"], port: 82 }),
        checkChange("n2", "_node_maintenance", "critical"),
      ]);
      expect(line("v2.web.service.consul")).toBe(NODATA);
    }
  });

  it("follow host names within the domain, for the type asked for, and stop in circles", async () => {
    const { directory, line } = await dnsWorld();
    await directory.write([
      ...web,
      serviceChange("n1", "in", "inner", { address: "web.service.consul", port: 5 }),
      serviceChange("n1", "out", "outer", { address: "www.example.org", port: 443 }),
      serviceChange("n1", "r1", "ring", { address: "gnir.service.consul" }),
      serviceChange("n1", "r2", "gnir", { address: "ring.service.consul" }),
      serviceChange("n1", "bad", "bad", { address: "not..a name" }),
      serviceChange("n1", "self", "self", { address: "self.service.consul" }),
    ]);
    expect(line("inner.service.consul")).toBe(
      "NOERROR aa | inner.service.consul. 0 CNAME web.service.consul.; web.service.consul. 0 A 10.0.0.2; web.service.consul. 0 A 192.0.2.1",
    );
    expect(line("inner.service.consul", { type: "AAAA" })).toBe(
      "NOERROR aa | inner.service.consul. 0 CNAME web.service.consul.",
    );
    expect(line("inner.service.consul", { type: "SRV" })).toContain("SRV 1 1 5 web.service.consul. |  | n1.node");
    expect(line("outer.service.consul")).toBe("NOERROR aa | outer.service.consul. 0 CNAME www.example.org.");
    expect(line("ring.service.consul")).toMatch(
      /^NOERROR aa \| gnir.service.consul. 0 CNAME ring.service.consul.;.* ring/,
    );
    expect(line("bad.service.consul")).toBe(NODATA);
    expect(line("self.service.consul")).toBe("NOERROR aa | self.service.consul. 0 A 192.0.2.1");
  });

  it("have the TTL that is configured: by name, by the longest prefix, for all", async () => {
    const { directory, line } = await dnsWorld({
      config: {
        serviceTtlMs: { "*": 5000, Web: 30_000, "w*": 7000, "wo*": 8999 },
        nodeTtlMs: 11_000,
        soa: { minTtlS: 0 },
      },
    });
    await directory.write([...web, serviceChange("n1", "wo", "world"), serviceChange("n1", "o", "other")]);
    expect(line("v1.web.service.consul")).toContain(" 30 A");
    expect(line("world.service.consul")).toContain(" 8 A");
    expect(line("other.service.consul")).toContain(" 5 A");
    expect(line("n1.node.consul")).toContain("n1.node.consul. 11 A");
    expect(line("1.2.0.192.in-addr.arpa", { type: "PTR" })).toContain(" 11 PTR");
    expect(line("none.service.consul")).toContain("consul. 0 SOA");
  });
});

describe("prepared queries", () => {
  const service = {
    service: "web",
    onlyPassing: false,
    near: "",
    connect: false,
    peer: "",
    failover: { nearest: 0 },
  } as const;
  const query = { name: "", session: "", token: "", service, ttl: "" } as const;

  it("are asked for by name and ID, and have a time to live of their own", async () => {
    const { directory, prepared, line } = await dnsWorld({ config: { serviceTtlMs: { web: 5000 } } });
    await directory.write(web);
    const id = await prepared.create({ ...query, name: "Plain.dotted" });
    await prepared.create({ ...query, name: "two", ttl: "1m30.9s", service: { ...service, tags: ["!v1"] } });
    expect(line("plain.DOTTED.query.consul")).toBe(
      "NOERROR aa | plain.DOTTED.query.consul. 5 A 10.0.0.2; plain.DOTTED.query.consul. 5 A 192.0.2.1",
    );
    expect(line(`${id}.query.dc1.consul`)).toContain("A 10.0.0.2");
    expect(line("two.query.consul")).toBe("NOERROR aa | two.query.consul. 90 A 10.0.0.2");
    expect(line("_two._tcp.query.consul", { type: "SRV" })).toBe(
      "NOERROR aa | _two._tcp.query.consul. 90 SRV 1 1 82 0a000002.addr.dc1.consul. |  | " +
        "0a000002.addr.dc1.consul. 90 A 10.0.0.2",
    );
    for (const name of ["two.query.consul", "dotted.query.consul"]) expect(line(name, { type: "AAAA" })).toBe(NODATA);
    for (const name of ["three.query.consul", "two.query.dc9.consul", "two.query.a.b.c.consul"])
      expect(line(name)).toBe(NX);
  });

  it("exist where nobody answers, and are made by templates", async () => {
    const { directory, prepared, line } = await dnsWorld();
    await directory.write(web);
    const template = { type: "name_prefix_match", pattern: "^x-(.+)-(.+)$", removeEmptyTags: false };
    // biome-ignore lint/suspicious/noTemplateCurlyInString: the templates' own language.
    const texts = { service: "${match(1)}", tags: ["${match(2)}"] };
    const id = await prepared.create({ ...query, name: "x-", template, service: { ...service, ...texts } });
    expect(line("X-web-primary.query.consul")).toBe("NOERROR aa | X-web-primary.query.consul. 0 A 192.0.2.1");
    expect(line("x-web-v3.query.consul")).toBe(NODATA);
    expect(line(`${id}.query.consul`)).toMatch(/^SERVFAIL/);
  });

  it("tell for which network an answer was chosen", async () => {
    const { directory, prepared, ask } = await dnsWorld();
    await directory.write(web);
    await prepared.create({ ...query, name: "q" });
    const subnet = Uint8Array.of(0, 1, 24, 0, 192, 0, 2);
    const edns = { options: [{ code: 8, bytes: subnet }] };
    const scopeOf = (name: string): number | undefined => ask(name, { edns }).edns?.options[0]?.bytes[3];
    expect(scopeOf("q.query.consul")).toBe(24);
    expect(scopeOf("web.service.consul")).toBe(0);
  });
});

describe("nodes, addresses and the zone", () => {
  it("are found by name, and forwards and backwards by address", async () => {
    const { directory, line } = await dnsWorld();
    await directory.write([
      ...web,
      node("N.Dot", "2001:db8::6"),
      node("named", "host.example.org"),
      node("odd", "192.0.2.77", { "a=b": "c`d", "rfc1035-x": "plain", " k ": "v" }),
    ]);
    expect(line("n1.node.consul", { type: "ANY" })).toBe(
      'NOERROR aa | n1.node.consul. 0 A 192.0.2.1; n1.node.consul. 0 TXT "rack=r1"',
    );
    expect(line("odd.node.consul", { type: "TXT" })).toBe(
      'NOERROR aa | odd.node.consul. 0 TXT "` k` =v"; odd.node.consul. 0 TXT "a`=b=c``d"; odd.node.consul. 0 TXT "plain"',
    );
    expect(line("n1.node.consul", { type: "MX" })).toBe(NODATA);
    expect(line("n.dot.node.dc1.consul", { type: "AAAA" })).toBe(
      "NOERROR aa | n.dot.node.dc1.consul. 0 AAAA 2001:db8::6",
    );
    expect(line("named.node.consul", { type: "CNAME" })).toBe(
      "NOERROR aa | named.node.consul. 0 CNAME host.example.org.",
    );
    expect(line("c0000201.addr.consul")).toBe("NOERROR aa | c0000201.addr.consul. 0 A 192.0.2.1");
    expect(line("c0000201.addr.consul", { type: "AAAA" })).toBe(NODATA);
    expect(line("c00002.addr.consul")).toBe(NX);
    expect(line("c0000201.addr.dc9.consul")).toBe(NX);
    expect(line("1.2.0.192.in-addr.arpa", { type: "PTR" })).toBe(
      "NOERROR aa | 1.2.0.192.in-addr.arpa. 0 PTR n1.node.dc1.consul.",
    );
    expect(line("2.0.0.10.in-addr.arpa", { type: "PTR" })).toBe(
      "NOERROR aa | 2.0.0.10.in-addr.arpa. 0 PTR web.service.dc1.consul.",
    );
    expect(line("1.2.0.192.in-addr.arpa")).toMatch(/^NOERROR aa \| {2}\| in-addr.arpa. 1 SOA/);
    expect(line("2.0.192.in-addr.arpa", { type: "PTR" })).toMatch(/^NOERROR aa \| {2}\| in-addr.arpa. 1 SOA/);
    expect(line("9.9.9.10.in-addr.arpa", { type: "PTR" })).toMatch(/^NXDOMAIN aa \| {2}\| in-addr.arpa. 1 SOA/);
    expect(line("8.b.d.0.1.0.0.2.ip6.arpa", { type: "PTR" })).toMatch(/^NOERROR aa/);
    expect(line("01.2.0.192.in-addr.arpa", { type: "PTR" })).toMatch(/^NXDOMAIN/);
  });

  it("have an apex with SOA and NS, an SOA that numbers the changes, and nothing for strangers", async () => {
    const { directory, line, ask } = await dnsWorld({ config: { altDomain: "Alt.Example." } });
    expect(line("consul", { type: "NS" })).toBe(
      "NOERROR aa | consul. 0 NS home.node.dc1.consul. |  | home.node.dc1.consul. 0 A 10.1.0.1",
    );
    expect(line("alt.example", { type: "SOA" })).toBe(
      "NOERROR aa | alt.example. 1 SOA ns.alt.example. hostmaster.alt.example. 1",
    );
    expect(line("consul")).toBe(NODATA);
    expect(line("ns.consul")).toBe("NOERROR aa | ns.consul. 0 A 10.1.0.1");
    const serial = (): unknown => (ask("consul", { type: "SOA" }).answers[0]!.data as { serial: number }).serial;
    const before = serial();
    expect(serial()).toBe(before);
    await directory.write(web);
    expect(serial()).not.toBe(before);
    for (const name of ["example.com", ".", "web.service.xconsul", "home.arpa", "arpa"])
      expect(line(name), name).toBe("REFUSED");
    expect(line("web.service.consul", { class: 3 })).toBe("REFUSED");
    expect(line("consul", { type: "AXFR", tcp: true })).toBe("NOTIMP aa");
    expect(line("web.service.alt.example", { type: "SRV" })).toContain("n1.node.dc1.alt.example.");
  });
});

describe("sizes", () => {
  const many = async (count: number, options: Parameters<typeof dnsWorld>[0] = {}) => {
    const made = await dnsWorld(options);
    await made.directory.write(
      Array.from({ length: count }, (_, i) => [
        node(`a-node-with-a-long-name-${i}`, `198.51.${i >> 8}.${i & 255}`),
        serviceChange(`a-node-with-a-long-name-${i}`, "m", "many", { port: i }),
      ]).flat(),
    );
    return made;
  };

  it("are told by TC and by nothing else", async () => {
    const { ask, responder } = await many(60);
    const plain = ask("many.service.consul");
    expect(plain.truncated).toBe(true);
    expect(plain.answers).toHaveLength(29);
    expect(
      responder.respond(queryPacket("many.service.consul"), { address: "127.0.0.1", tcp: false })!.length,
    ).toBeLessThanOrEqual(512);
    const large = ask("many.service.consul", { edns: { udpBytes: 4096 } });
    expect([large.truncated, large.answers.length, large.edns?.udpBytes]).toEqual([false, 60, 4096]);
    const tcp = ask("many.service.consul", { type: "SRV", tcp: true });
    expect([tcp.truncated, tcp.answers.length, tcp.additionals.length]).toEqual([false, 60, 60]);
  });

  it("stay below 1232 bytes off loopback, and the OPT record always fits", async () => {
    const { ask, responder } = await many(60);
    const asked = { type: "SRV", from: "192.0.2.200", edns: { udpBytes: 65535, dnssecOk: true } } as const;
    const answer = ask("many.service.consul", asked);
    expect(answer.truncated).toBe(true);
    expect(answer.edns).toEqual({ udpBytes: 1232, version: 0, dnssecOk: true, options: [] });
    expect(
      responder.respond(queryPacket("many.service.consul", asked), { address: asked.from, tcp: false })!.length,
    ).toBeLessThanOrEqual(1232);
  });

  it("leave out additional records before they need TC", async () => {
    const { ask } = await many(7);
    const answer = ask("many.service.consul", { type: "SRV" });
    expect([answer.truncated, answer.answers.length]).toEqual([false, 7]);
    expect(answer.additionals.length).toBeLessThan(7);
  });

  it("keep configured limits without TC", async () => {
    const { ask } = await many(20, { config: { udpAnswerLimit: 4, aRecordLimit: 9 } });
    expect([ask("many.service.consul").answers.length, ask("many.service.consul").truncated]).toEqual([4, false]);
    expect(ask("many.service.consul", { edns: {} }).answers).toHaveLength(9);
    expect(ask("many.service.consul", { type: "SRV", edns: {} }).answers).toHaveLength(20);
  });

  it("hold thousands over TCP", async () => {
    const { ask } = await many(1000);
    const answer = ask("many.service.consul", { type: "SRV", tcp: true });
    expect(answer.truncated).toBe(false);
    expect(answer.answers).toHaveLength(1000);
  });

  it("come in another order each time", async () => {
    for (const compat of [true, false]) {
      const { ask } = await many(8, { compat });
      const firsts = Array.from({ length: 40 }, () => JSON.stringify(ask("many.service.consul").answers[0]?.data));
      expect(new Set(firsts).size).toBeGreaterThan(3);
    }
  });
});

describe("packets", () => {
  const bytes = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex.replaceAll(" ", ""), "hex"));
  const from = { address: "127.0.0.1", tcp: false };

  it("that are no questions get silence, broken ones FORMERR, other operations NOTIMP", async () => {
    const { responder } = await dnsWorld();
    const respond = (hex: string): string | undefined => {
      const answer = responder.respond(bytes(hex), from);
      return answer && messageText(decodeMessage(answer));
    };
    expect(respond("")).toBeUndefined();
    expect(respond("abcd01")).toBeUndefined();
    expect(respond("abcd8400 0001000000000000 036e7331 00 0001 0001")).toBeUndefined();
    expect(respond("ff".repeat(40))).toBeUndefined();
    expect(respond("abcd0100 0001000000000000")).toBe("FORMERR");
    expect(respond("abcd0100 0001000000000000 c00c 0001 0001")).toBe("FORMERR");
    expect(respond("abcd0100 0002000000000000 00 0001 0001 00 0001 0001")).toBe("FORMERR");
    expect(respond("abcd0100 0000000000000000")).toBe("FORMERR");
    expect(respond("abcd1000 0001000000000000 00 0001 0001")).toBe("NOTIMP");
    expect(respond("abcd2000 0001000000000000 00 0006 0001")).toBe("NOTIMP");
    expect(respond("abcd2800 0001000000000000 00 0006 0001")).toBe("NOTIMP");
    expect(respond("abcd0100 0001000000000001 00 0001 0001 00 0029 1000 00000000 0003 000800")).toBe("FORMERR");
    expect(respond("abcd0100 0001000000000001 00 0001 0001 00 0029 1000 00000000 0007 0008 0003 000118")).toBe(
      "FORMERR",
    );
  });

  it("echo their question, also with FORMERR where it can be read", async () => {
    const { responder } = await dnsWorld();
    const question = Buffer.from(nameToWire(nameFromText("WeB.consul"))).toString("hex");
    const broken = responder.respond(bytes(`abcd0100 0001000000000001 ${question} 0001 0001 00 0029`), from);
    const read = decodeMessage(broken!);
    expect([read.id, read.rcode, read.questions]).toEqual([
      0xabcd,
      RCODE.FORMERR,
      [{ name: ["WeB", "consul"], type: TYPE.A, class: 1 }],
    ]);
  });

  it("of an EDNS version to come get BADVERS, client subnets come back with scope 0", async () => {
    const { directory, ask, line } = await dnsWorld();
    await directory.write(web);
    expect(line("web.service.consul", { edns: { version: 1 } })).toBe("BADVERS");
    const subnet = { code: 8, bytes: bytes("00011818 0a0000") };
    expect(
      ask("web.service.consul", { edns: { options: [subnet, { code: 10, bytes: bytes("0102") }] } }).edns?.options,
    ).toEqual([{ code: 8, bytes: bytes("00011800 0a0000") }]);
  });

  it("that meet an error of ours get SERVFAIL, and the error is logged", async () => {
    const given = await dnsWorld();
    await given.directory.write([...web, serviceChange("n1", "x", "broken", { port: 70_000 })]);
    expect(given.line("broken.service.consul", { type: "SRV" })).toBe("SERVFAIL");
    // Every question of these tests is asked twice.
    expect(given.metrics.read().find(({ name }) => name === "dns_failures_total")?.value).toBe(2);
  });
});

describe("DNS-SD [RFC 6763]", () => {
  const printers = [
    node("n1", "192.0.2.1"),
    node("n2", "192.0.2.2"),
    serviceChange("n1", "p1", "ipp", { tags: ["colour"], labels: { rp: "queue" }, port: 631 }),
    serviceChange("n2", "P 2.0", "ipp", { port: 632 }),
    serviceChange("n1", "w1", "web", { labels: { "DNS-SD": "_http._tcp, wf" }, port: 80 }),
    serviceChange("n1", "u1", "tftp", { tags: ["udp"], port: 69 }),
  ];
  const pointers = (message: { answers: readonly { data: object }[] }): string[] =>
    message.answers.map(({ data }) => ("target" in data ? textOfName(data.target as string[]) : "?")).sort();

  it("tells where to browse, the types there are, and their instances", async () => {
    const { directory, ask, line } = await dnsWorld();
    await directory.write(printers);
    for (const name of ["b", "db", "lb"])
      expect(pointers(ask(`${name}._dns-sd._udp.consul`, { type: "PTR" }))).toEqual(["consul."]);
    expect(pointers(ask("_services._dns-sd._udp.Consul", { type: "PTR" }))).toEqual([
      "_http._tcp.Consul.",
      "_ipp._tcp.Consul.",
      "_tftp._udp.Consul.",
      "_web._tcp.Consul.",
      "_wf._tcp.Consul.",
    ]);
    expect(pointers(ask("_ipp._tcp.consul", { type: "PTR" }))).toEqual([
      "P\\0322\\.0\\032on\\032n2._ipp._tcp.consul.",
      "p1\\032on\\032n1._ipp._tcp.consul.",
    ]);
    expect(line("_colour._sub._ipp._tcp.consul", { type: "PTR" })).toBe(
      "NOERROR aa | _colour._sub._ipp._tcp.consul. 0 PTR p1\\032on\\032n1._ipp._tcp.consul. |  | " +
        "n1.node.dc1.consul. 0 A 192.0.2.1; p1\\032on\\032n1._ipp._tcp.consul. 0 SRV 1 1 631 n1.node.dc1.consul.; " +
        'p1\\032on\\032n1._ipp._tcp.consul. 0 TXT "rp=queue" "tags=colour"',
    );
    expect(line("P1 ON n1._ipp._tcp.consul", { type: "SRV" })).toBe(
      "NOERROR aa | P1\\032ON\\032n1._ipp._tcp.consul. 0 SRV 1 1 631 n1.node.dc1.consul. |  | n1.node.dc1.consul. 0 A 192.0.2.1",
    );
    expect(line("p 2\\.0 on n2._ipp._tcp.consul", { type: "TXT" })).toContain('TXT ""');
    expect(line("w1 on n1._http._tcp.consul", { type: "SRV" })).toContain("SRV 1 1 80 n1.node.dc1.consul.");
    expect(line("u1 on n1._tftp._udp.consul", { type: "SRV" })).toContain("SRV 1 1 69 n1.node.dc1.consul.");
    // RFC 2782's short form is what it was.
    expect(ask("_ipp._tcp.consul", { type: "SRV" }).answers).toHaveLength(2);
  });

  it("shows only what may be used, and denies only what does not exist", async () => {
    const { directory, ask, line } = await dnsWorld();
    await directory.write([...printers, checkChange("n1", "c", "critical", { serviceId: "p1" })]);
    expect(ask("_ipp._tcp.consul", { type: "PTR" }).answers).toHaveLength(1);
    for (const [name, types] of [
      ["p1 on n1._ipp._tcp.consul", ["SRV", "TXT", "A"]],
      ["_dns-sd._udp.consul", ["PTR", "SRV", "A"]],
      ["_udp.consul", ["A"]],
      ["r._dns-sd._udp.consul", ["PTR"]],
      ["b._dns-sd._udp.consul", ["A", "SRV"]],
      ["_http._tcp.consul", ["SRV", "A"]],
      ["_tftp._tcp.consul", ["PTR", "A"]],
      ["_sub._ipp._tcp.consul", ["PTR"]],
      ["_colour._sub._ipp._tcp.consul", ["PTR", "SRV"]],
    ] as const)
      for (const type of types) expect(line(name, { type }), `${name} ${type}`).toBe(NODATA);
    for (const name of [
      "x._dns-sd._udp.consul",
      "_none._tcp.consul",
      "p9 on n1._ipp._tcp.consul",
      "_none._sub._ipp._tcp.consul",
      "w1 on n1._ipp._tcp.consul",
      "_ipp._tcp.dc9.consul",
    ])
      expect(line(name, { type: "PTR" }), name).toBe(NX);
  });

  it("is not there where Consul's behaviour is asked for", async () => {
    const { directory, line } = await dnsWorld({ compat: true });
    await directory.write(printers);
    for (const name of ["b._dns-sd._udp.consul", "_ipp._tcp.consul", "p1 on n1._ipp._tcp.consul"])
      expect(line(name, { type: "PTR" })).toContain("NXDOMAIN");
  });

  it("cuts long names of instances without mixing them up", async () => {
    const { directory, ask } = await dnsWorld();
    const long = "ü".repeat(60);
    await directory.write([
      node("n1", "192.0.2.1"),
      serviceChange("n1", `${long}1`, "web", { port: 1 }),
      serviceChange("n1", `${long}2`, "web", { port: 2 }),
    ]);
    const names = ask("_web._tcp.consul", { type: "PTR", tcp: true }).answers.map(({ data }) =>
      data.kind === "PTR" ? data.target : [],
    );
    expect(new Set(names.map(textOfName)).size).toBe(2);
    const ports = names.map((name) =>
      ask(textOfName(name), { type: "SRV" }).answers.map(({ data }) => data.kind === "SRV" && data.port),
    );
    expect(ports.flat().sort()).toEqual([1, 2]);
  });
});

describe("magic addresses", () => {
  const given = [node("n1", "192.0.2.1"), serviceChange("n1", "w1", "web", { port: 81 })];
  const OPEN: MagicDoors = { all: true, isOpen: () => true, open: async () => {} };
  const from = { address: "127.0.0.1", tcp: false };
  const answered = (responder: Responder, packet = queryPacket("web.connect.consul")): Promise<Message> =>
    new Promise((resolve) => {
      const now = responder.respond(packet, from, (late) => resolve(decodeMessage(late)));
      if (now !== "later") resolve(decodeMessage(now as Uint8Array));
    });
  /** Doors that are opened by hand. */
  const doorsOf = (): { doors: MagicDoors; asked: string[]; open(): void } => {
    const asked: string[] = [];
    let opened = false;
    let done = (): void => {};
    const doors: MagicDoors = {
      all: false,
      isOpen: () => opened,
      open(service) {
        asked.push(service);
        return new Promise((resolve) => {
          done = resolve;
        });
      },
    };
    return {
      doors,
      asked,
      open() {
        opened = true;
        done();
      },
    };
  };

  it("are what a service's connect name means to programs on this host, while somebody listens there", async () => {
    const here = await dnsWorld({ doors: OPEN });
    await here.directory.write(given);
    const { v4 } = here.magic.of({ service: "web" });
    await here.magic.kept();
    expect(here.line("Web.connect.consul")).toBe(`NOERROR aa | Web.connect.consul. 0 A ${v4}`);
    expect(here.line("web.connect.consul", { type: "ANY", from: "::1" })).toBe(
      `NOERROR aa | web.connect.consul. 0 A ${v4}`,
    );
    for (const type of ["AAAA", "SRV", "TXT"] as const) expect(here.line("web.connect.consul", { type })).toBe(NODATA);
    expect(here.line("web.connect.consul", { from: "192.0.2.7" })).toBe(NX);
    expect(here.line("none.connect.consul")).toBe(NX);
    expect(here.line("v1.web.connect.consul")).toBe(NX);
    expect(here.line("web.connect.dc1.consul")).toBe(NX);
    expect(here.magic.subjectAt(v4)).toEqual({ service: "web" });
  });

  it("are nobody's where nobody listens, and where Consul's meaning is asked for", async () => {
    for (const options of [{}, { doors: OPEN, compat: true }]) {
      const { directory, line } = await dnsWorld(options);
      await directory.write(given);
      expect(line("web.connect.consul")).toMatch(/^NXDOMAIN/);
    }
  });

  it("are told when they are written down for good, not before", async () => {
    const { directory, magic, responder } = await dnsWorld({ doors: OPEN });
    await directory.write(given);
    const packet = queryPacket("web.connect.consul");
    expect(decodeMessage(responder.respond(packet, from) as Uint8Array).rcode).toBe(RCODE.SERVFAIL);
    expect(magic.settled).toBe(false);
    const answer = await answered(responder, packet);
    expect(magic.settled).toBe(true);
    expect(answer.answers).toHaveLength(1);
  });

  it("are told when their listeners are open, to who asks for an address from this host; for others nothing is opened", async () => {
    const { doors, asked, open } = doorsOf();
    const { directory, responder, line } = await dnsWorld({ doors });
    await directory.write(given);
    for (const name of ["web.service.consul", "none.connect.consul", "web.connect.dc1.consul"]) line(name);
    line("web.connect.consul", { from: "192.0.2.7" });
    await answered(responder, queryPacket("web.connect.consul", { type: "AAAA" }));
    expect(asked).toEqual([]);
    let told: Message | undefined;
    const answer = answered(responder).then((message) => {
      told = message;
    });
    await vi.waitFor(() => expect(asked).toEqual(["web"]));
    expect(told).toBeUndefined();
    open();
    await answer;
    expect(told?.answers).toHaveLength(1);
    await answered(responder);
    expect(asked).toEqual(["web"]);
  });

  it("are told after a fifth of a second although a listener is not open yet", async () => {
    const { doors, asked } = doorsOf();
    const { directory, responder, clock } = await dnsWorld({ doors });
    await directory.write(given);
    const answer = answered(responder);
    await vi.waitFor(() => expect(asked).toEqual(["web"]));
    await clock.advance(200);
    expect((await answer).answers).toHaveLength(1);
  });

  it("leave the name of a member of the mesh to its proxies, unless all services are listened for", async () => {
    const mesh = serviceChange("n1", "p1", "web-proxy", {
      port: 20_000,
      foreign: { Kind: "connect-proxy", Proxy: { DestinationServiceName: "web" } },
    });
    for (const [all, address] of [
      [true, "127."],
      [false, "192.0.2.1"],
    ] as const) {
      const { directory, responder } = await dnsWorld({ doors: { ...OPEN, all } });
      await directory.write([...given, mesh]);
      expect((await answered(responder)).answers).toMatchObject([
        { data: { kind: "A", address: expect.stringMatching(`^${address}`) } },
      ]);
    }
  });
});
