// How clients take part in TLS: the same way has the same name and one context, different ways never share one. And what a host's interfaces are.
import { rootCertificates } from "node:tls";
import { describe, expect, test } from "vitest";
import { interfacesOf, secureContext, tlsName, tlsOptions } from "./net.ts";

describe("TLS of clients", () => {
  test("contexts are made once for what they hold", () => {
    const [a = "", b = ""] = rootCertificates;
    expect(secureContext({ skipVerify: true, serverName: "x" })).toBeUndefined();
    const one = secureContext({ ca: a });
    expect(secureContext({ ca: a, serverName: "x" })).toBe(one);
    expect(secureContext({ ca: b })).not.toBe(one);
    expect(secureContext({ cert: a })).not.toBe(one);
    expect(tlsOptions({ ca: a, alpn: ["h2"] })).toMatchObject({
      secureContext: one,
      rejectUnauthorized: true,
      ALPNProtocols: ["h2"],
    });
    expect(() => secureContext({ key: "rubbish" })).toThrow();
  });

  test("names tell every way from every other, however many texts there were", () => {
    const ways = ["x", "y"].flatMap((text) => [
      { ca: text },
      { cert: text },
      { key: text },
      { ca: text, cert: text },
      { ca: text, skipVerify: true },
      { ca: text, serverName: "s" },
      { ca: text, alpn: ["h2"] },
    ]);
    const names = ways.map(tlsName);
    expect(new Set(names).size).toBe(ways.length);
    expect(ways.map(tlsName)).toEqual(names);
    for (let i = 0; i < 200; i++) tlsName({ ca: `other ${i}` });
    for (const name of ways.map(tlsName)) expect(names).not.toContain(name);
  });
});

describe("a host's interfaces", () => {
  const eth0 = (address: string) => ({
    eth0: [
      {
        address,
        netmask: "255.255.0.0",
        family: "IPv4" as const,
        mac: "02:00:00:00:00:01",
        internal: false,
        cidr: `${address}/16`,
      },
      {
        address: "fe80::1",
        netmask: "ffff::",
        family: "IPv6" as const,
        mac: "02:00:00:00:00:01",
        internal: false,
        cidr: null,
        scopeid: 2,
      },
    ],
  });

  test("are as the system tells them; while it cannot, as it told them last", () => {
    let told: ReturnType<typeof eth0> | Error = eth0("10.1.0.1");
    const interfaces = interfacesOf(() => {
      if (told instanceof Error) throw told;
      return told;
    });
    const v6 = { name: "eth0", address: "fe80::1", family: 6, cidr: "fe80::1", internal: false };
    const first = [{ name: "eth0", address: "10.1.0.1", family: 4, cidr: "10.1.0.1/16", internal: false }, v6];
    expect(interfaces()).toEqual(first);
    told = new Error("uv_interface_addresses returned Unknown system error 24");
    expect(interfaces()).toEqual(first);
    told = eth0("10.1.0.2");
    expect(interfaces()).toMatchObject([{ address: "10.1.0.2", cidr: "10.1.0.2/16" }, v6]);
  });

  test("that were never told are an error", () => {
    const interfaces = interfacesOf(() => {
      throw new Error("no");
    });
    expect(interfaces).toThrow("reading this host's interfaces: no");
  });
});
