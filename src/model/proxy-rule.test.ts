// Ports that stand for services, as people write them.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { InputError } from "../base/error.ts";
import { mustDiffer, proxyRuleFromText } from "./proxy-rule.ts";

describe("a port that stands for a service", () => {
  it.each([
    ["6379=redis.service.consul", { port: 6379, protocol: "tcp", query: { service: "redis" } }],
    ["127.0.0.1:53/udp=dns", { host: "127.0.0.1", port: 53, protocol: "udp", query: { service: "dns" } }],
    [
      "[::1]:8080=primary.web",
      { host: "::1", port: 8080, protocol: "tcp", query: { service: "web", tags: ["primary"] } },
    ],
    ["localhost:1/tcp=a", { host: "127.0.0.1", port: 1, protocol: "tcp", query: { service: "a" } }],
    ["*:80=web", { host: "::", port: 80, protocol: "tcp", query: { service: "web" } }],
    ["80=web?env=prod", { port: 80, protocol: "tcp", query: { service: "web", labels: { env: "prod" } } }],
  ])("%s", (text, rule) => {
    expect(JSON.parse(JSON.stringify(proxyRuleFromText(text, "consul")))).toEqual(rule);
  });

  it.each([
    ["6379", /"6379": expected \[HOST:\]PORT\[\/udp\]=NAME, such as "6379=redis"/],
    ["redis=6379", /"redis" is not a port from 0 to 65535; expected \[HOST:\]PORT\[\/udp\], such as/],
    ["70000=web", /"70000" is not a port/],
    ["=web", /"" is not a port/],
    ["80=", /the service's name is missing/],
    ["80/sctp=web", /"\/sctp" is neither \/tcp nor \/udp/],
    ["web:80=web", /"web" is not an IP address of this host/],
    ["::1:80=web", /"::1" is not an IP address of this host \(IPv6 in brackets\)/],
    ["80=10.0.0.1", /an address is not a service/],
    ["80=redis:6379", /leave out ":6379"/],
    ["web?a=b", /expected \[HOST:\]PORT/],
  ])("refuses %j and says what would be right", (text, message) => {
    expect(() => proxyRuleFromText(text, "consul")).toThrow(message);
    expect(() => proxyRuleFromText(text, "consul", "here")).toThrow(/^here: /);
  });

  it("is one service's only", () => {
    const rules = (...texts: string[]) => texts.map((text) => proxyRuleFromText(text, "consul"));
    expect(() => mustDiffer(rules("80=a", "80/udp=b", "[::1]:80=c", "0=d", "0=e"), "127.0.0.1")).not.toThrow();
    expect(() => mustDiffer(rules("80=a", "127.0.0.1:80=b"), "127.0.0.1")).toThrow(
      /127\.0\.0\.1:80\/tcp is given twice/,
    );
  });

  it("any text is read or refused as input", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[[\]0-9a-f:./=?*u]*$/)), (text) => {
        try {
          expect(proxyRuleFromText(text, "consul").port).toBeLessThan(65_536);
        } catch (error) {
          expect(error).toBeInstanceOf(InputError);
        }
      }),
    );
  });
});
