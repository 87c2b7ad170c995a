// How clients take part in TLS: the same way has the same name and one context, different ways never share one.
import { rootCertificates } from "node:tls";
import { describe, expect, test } from "vitest";
import { secureContext, tlsName, tlsOptions } from "./tls.ts";

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
