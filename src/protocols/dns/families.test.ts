// A and AAAA of services with addresses of both families: each is told to whoever asks for it, over whichever family the question came.
import { describe, expect, it } from "vitest";
import { nodeChange, serviceChange } from "../../../test/support/directory.ts";
import { dnsWorld } from "../../../test/support/dns.ts";
import type { Address } from "../../model/instance.ts";

const FAR_NODE = nodeChange("far", "192.0.2.1", { external: true });
const lan = (host: string): Address => ({ host, port: 80, reach: "lan" });
const printer = serviceChange("far", "p", "printer", {
  address: "",
  port: 80,
  tags: ["colour"],
  addresses: [lan("192.0.2.1"), lan("fe80::1"), lan("2001:db8::1")],
});
const tailnet = serviceChange("far", "t", "wiki", {
  address: "100.70.0.1",
  port: 80,
  addresses: [
    { host: "100.70.0.1", port: 80, reach: "tailnet", network: "100.64.0.0/10" },
    { host: "fd7a:115c:a1e0::1", port: 80, reach: "tailnet", network: "fd7a:115c:a1e0::/48" },
  ],
});

describe.each([false, true])("addresses of both families, as Consul %s", (compat) => {
  it("are told by family over either, the long way and the short, with tags, in plain and prepared names", async () => {
    const { directory, prepared, line } = await dnsWorld({ compat });
    await directory.write([FAR_NODE, printer]);
    const service = {
      ...{ service: "printer", onlyPassing: false, near: "", connect: false, peer: "" },
      failover: { nearest: 0 },
    } as const;
    await prepared.create({ name: "find", session: "", token: "", ttl: "", service });
    // Asked three times: the short way has a list of its own for each type, also when they take turns.
    for (const from of ["127.0.0.1", "10.9.9.9", "::1", "2001:db8:9::9"])
      for (const name of ["printer.service.consul", "colour.printer.service.consul", "find.query.consul"])
        for (let i = 0; i < 3; i++) {
          expect(line(name, { from }), `${name} from ${from}`).toBe(`NOERROR aa | ${name}. 0 A 192.0.2.1`);
          expect(line(name, { from, type: "AAAA" }), `${name} from ${from}`).toBe(
            `NOERROR aa | ${name}. 0 AAAA 2001:db8::1`,
          );
        }
  });

  it("are those of the name's own that a service's name leads to", async () => {
    const { directory, line } = await dnsWorld({ compat });
    await directory.write([
      FAR_NODE,
      printer,
      serviceChange("far", "a", "alias", { address: "printer.service.consul" }),
    ]);
    expect(line("alias.service.consul", { type: "AAAA" })).toContain("printer.service.consul. 0 AAAA 2001:db8::1");
    expect(line("alias.service.consul", { type: "A", from: "::1" })).toContain("printer.service.consul. 0 A 192.0.2.1");
  });

  it("of a network are told to its members alone", async () => {
    const { directory, line } = await dnsWorld({ compat });
    await directory.write([FAR_NODE, tailnet]);
    for (let i = 0; i < 2; i++) {
      expect(line("wiki.service.consul", { type: "AAAA", from: "100.101.0.2" })).toContain("AAAA fd7a:115c:a1e0::1");
      expect(line("wiki.service.consul", { type: "AAAA", from: "127.0.0.1" })).not.toContain(" AAAA ");
      expect(line("wiki.service.consul", { from: "fd7a:115c:a1e0::9" })).toContain(" A 100.70.0.1");
    }
  });

  it("stand beside each other where instances have one or the other; none is NODATA, not NXDOMAIN", async () => {
    const { directory, line } = await dnsWorld({ compat });
    const only = serviceChange("far", "four", "printer", { address: "192.0.2.4", port: 80 });
    const six = serviceChange("far", "six", "printer", { address: "2001:db8::6", port: 80 });
    await directory.write([FAR_NODE, printer, only, six, serviceChange("far", "x", "four", { address: "192.0.2.4" })]);
    expect(line("printer.service.consul", { type: "AAAA" })).toBe(
      "NOERROR aa | printer.service.consul. 0 AAAA 2001:db8::1; printer.service.consul. 0 AAAA 2001:db8::6",
    );
    expect(line("printer.service.consul")).toContain("192.0.2.1; printer.service.consul. 0 A 192.0.2.4");
    expect(line("four.service.consul", { type: "AAAA" })).toMatch(/^NOERROR aa \| {2}\|/);
  });
});
