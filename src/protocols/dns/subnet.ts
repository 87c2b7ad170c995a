// The EDNS client-subnet option [RFC 7871].
import { EDNS_OPTION, type Edns, ipText, RCODE } from "../../wire/dns/index.ts";
import type { Reply } from "./asking.ts";

/** The bytes of the client-subnet option; undefined where there is none. */
export function clientSubnet(edns: Edns): Uint8Array | undefined {
  return edns.options.find(({ code }) => code === EDNS_OPTION.CLIENT_SUBNET)?.bytes;
}

/** True for a well-formed client-subnet option [RFC 7871 §6]. */
export function isSubnet(bytes: Uint8Array): boolean {
  if (bytes.length < 4) return false;
  const family = ((bytes[0] as number) << 8) | (bytes[1] as number);
  const bits = bytes[2] as number;
  if (family === 0) return bits === 0 && bytes.length === 4;
  const most = family === 1 ? 32 : family === 2 ? 128 : 0;
  return bits <= most && bytes.length === 4 + Math.ceil(bits / 8);
}

/** The option as it is sent back: how many bits of the network the answer was made for, 0 = for all, as every "no" is [RFC 7871 §7.2.1, §7.4]. */
export function scoped(subnet: Uint8Array, { chosen, rcode }: Reply): Uint8Array {
  const bits = chosen === true && rcode === RCODE.NOERROR ? (subnet[2] as number) : 0;
  return Uint8Array.from(subnet, (byte, i) => (i === 3 ? bits : byte));
}

/** The address that a well-formed client-subnet option begins with; undefined where it names none. */
export function subnetAddress(subnet: Uint8Array): string | undefined {
  if (subnet[2] === 0) return undefined;
  const bytes = new Uint8Array(subnet[1] === 1 ? 4 : 16);
  bytes.set(subnet.subarray(4));
  return ipText(bytes);
}
