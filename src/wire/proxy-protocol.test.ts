// PROXY protocol headers, byte for byte after HAProxy's document.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { proxyHeader } from "./proxy-protocol.ts";

const text = (...args: Parameters<typeof proxyHeader>): string => Buffer.from(proxyHeader(...args)).toString("latin1");
const hex = (...args: Parameters<typeof proxyHeader>): string => Buffer.from(proxyHeader(...args)).toString("hex");
const at = (address: string, port: number): { address: string; port: number } => ({ address, port });
const SIGNATURE = "0d0a0d0a000d0a515549540a";

describe("the header of version 1", () => {
  it("has both ends in text", () => {
    expect(text(1, at("192.168.0.1", 56324), at("192.168.0.11", 443))).toBe(
      "PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
    );
    expect(text(1, at("::ffff:192.0.2.1", 1), at("::FFFF:192.0.2.2", 2))).toBe(
      "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
    );
    expect(text(1, at("fe80::1%eth0", 65535), at("2001:db8::2", 1))).toBe("PROXY TCP6 fe80::1 2001:db8::2 65535 1\r\n");
    expect(text(1, at("192.0.2.1", 1), at("2001:db8::2", 2))).toBe("PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 1 2\r\n");
    expect(text(1, at("", 0), at("192.0.2.2", 2))).toBe("PROXY UNKNOWN\r\n");
  });

  it("is never longer than the document allows", () => {
    fc.assert(
      fc.property(fc.ipV6(), fc.ipV6(), fc.nat(65535), (from, to, port) => {
        expect(text(1, at(from, port), at(to, port)).length).toBeLessThanOrEqual(107);
      }),
    );
  });
});

describe("the header of version 2", () => {
  it("has both ends in bytes", () => {
    expect(hex(2, at("192.0.2.1", 258), at("::ffff:192.0.2.2", 443))).toBe(
      `${SIGNATURE}2111000cc0000201c0000202010201bb`,
    );
    expect(hex(2, at("2001:db8::1", 1), at("2001:db8::2", 2))).toBe(
      `${SIGNATURE}2121002420010db800000000000000000000000120010db800000000000000000000000200010002`,
    );
    expect(hex(2, at("192.0.2.1", 1), at("::1", 2))).toBe(
      `${SIGNATURE}2121002400000000000000000000ffffc00002010000000000000000000000000000000100010002`,
    );
    expect(hex(2, at("nowhere", 1), at("::1", 2))).toBe(`${SIGNATURE}21000000`);
  });
});
