// The PROXY protocol: a header by which a proxy tells a backend who connected [haproxy doc/proxy-protocol.txt, versions 1 and 2].
import { ipBytes } from "./dns/address.ts";

/** One end of a connection; IPv4 may be written as IPv6 (::ffff:192.0.2.1). */
export interface ProxyEnd {
  readonly address: string;
  readonly port: number;
}

const SIGNATURE = [0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a];
const VERSION_2_PROXY = 0x21;
const TCP_OVER_IPV4 = 0x11;
const TCP_OVER_IPV6 = 0x21;

const plain = (address: string): string => address.replace(/^::ffff:(?=\d+\.)/i, "").replace(/%.*$/, "");
const mapped = (bytes: Uint8Array): Uint8Array =>
  bytes.length === 16 ? bytes : Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ...bytes);

/**
 * The header for a TCP connection from a client to the address that it connected to. Ends of two families are both written as IPv6;
 * an address that is none makes the header say that nothing is known (v1 "UNKNOWN", v2 unspecified).
 */
export function proxyHeader(version: 1 | 2, from: ProxyEnd, to: ProxyEnd): Uint8Array {
  const [source, target] = [from, to].map(({ address }) => ipBytes(plain(address)));
  if (version === 1) {
    if (source === undefined || target === undefined) return Buffer.from("PROXY UNKNOWN\r\n", "latin1");
    const v4 = source.length === 4 && target.length === 4;
    const text = ({ address }: ProxyEnd, bytes: Uint8Array): string =>
      !v4 && bytes.length === 4 ? `::ffff:${plain(address)}` : plain(address);
    return Buffer.from(
      `PROXY ${v4 ? "TCP4" : "TCP6"} ${text(from, source)} ${text(to, target)} ${from.port} ${to.port}\r\n`,
      "latin1",
    );
  }
  if (source === undefined || target === undefined) return Uint8Array.of(...SIGNATURE, VERSION_2_PROXY, 0, 0, 0);
  const v4 = source.length === 4 && target.length === 4;
  const addresses = v4 ? [source, target] : [mapped(source), mapped(target)];
  const bytes = Buffer.alloc(v4 ? 28 : 52);
  bytes.set(SIGNATURE);
  bytes[12] = VERSION_2_PROXY;
  bytes[13] = v4 ? TCP_OVER_IPV4 : TCP_OVER_IPV6;
  bytes.writeUInt16BE(bytes.length - 16, 14);
  let at = 16;
  for (const address of addresses) {
    bytes.set(address, at);
    at += address.length;
  }
  bytes.writeUInt16BE(from.port, at);
  bytes.writeUInt16BE(to.port, at + 2);
  return bytes;
}
