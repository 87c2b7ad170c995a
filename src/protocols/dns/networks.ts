// Networks of addresses: who may ask for recursion, and which reverse names concern this host alone.
import { ipBytes } from "../../wire/dns/index.ts";

/** An IP network: four or sixteen bytes, of which the first `bits` bits count. */
export interface Network {
  readonly bytes: Uint8Array;
  readonly bits: number;
}

/** Reads `10.0.0.0/8` or `fd00::/8`; a bare address is a network of one. Undefined for anything else. */
export function networkOf(text: string): Network | undefined {
  const [address = "", bitsText, ...rest] = text.split("/");
  const bytes = ipBytes(address);
  if (bytes === undefined || rest.length > 0) return undefined;
  const most = bytes.length * 8;
  if (bitsText === undefined) return { bytes, bits: most };
  const bits = /^\d{1,3}$/.test(bitsText) ? Number(bitsText) : Number.NaN;
  return bits <= most ? { bytes, bits } : undefined;
}

/** True where the address lies in the network. */
export function isIn(address: Uint8Array, { bytes, bits }: Network): boolean {
  if (address.length !== bytes.length) return false;
  const whole = bits >> 3;
  for (let i = 0; i < whole; i++) if (address[i] !== bytes[i]) return false;
  const rest = bits & 7;
  return rest === 0 || ((address[whole] as number) ^ (bytes[whole] as number)) >> (8 - rest) === 0;
}

/** Loopback, as text. */
export const LOOPBACK_NETWORKS: readonly string[] = ["127.0.0.0/8", "::1"];

/** Networks that nobody on the internet asks from [RFC 1918, RFC 3927, RFC 4193, RFC 4291 §2.5.6, RFC 6598], and loopback. */
export const PRIVATE_NETWORKS: readonly string[] = [
  ...LOOPBACK_NETWORKS,
  "10.0.0.0/8",
  "172.16.0.0/12",
  "192.168.0.0/16",
  "100.64.0.0/10",
  "169.254.0.0/16",
  "fc00::/7",
  "fe80::/10",
];

/** Addresses that mean something on one link only; nobody beyond knows their names [RFC 6303 §4]. */
const ONE_LINK: readonly Network[] = ["127.0.0.0/8", "::1", "169.254.0.0/16", "fe80::/10", "0.0.0.0/8", "::"].flatMap(
  (text) => networkOf(text) ?? [],
);

/** True for addresses whose reverse names are not to be asked of others. */
export function isOnOneLink(address: Uint8Array): boolean {
  return ONE_LINK.some((network) => isIn(address, network));
}

/** Who may ask for recursion. */
export interface Access {
  allows(address: string): boolean;
}

const MOST_REMEMBERED = 1024;

/** Access for fixed networks and those that come and go; `more` hands out the same list while nothing changed. */
export function createAccess(fixed: readonly Network[], more: () => readonly Network[]): Access {
  const remembered = new Map<string, boolean>();
  let list: readonly Network[] = [];
  return {
    allows(address) {
      const now = more();
      if (now !== list || remembered.size >= MOST_REMEMBERED) {
        list = now;
        remembered.clear();
      }
      let allowed = remembered.get(address);
      if (allowed === undefined) {
        const bytes = ipBytes((address.split("%")[0] as string).replace(/^::ffff:(?=\d+\.)/i, ""));
        allowed =
          bytes !== undefined && (fixed.some((one) => isIn(bytes, one)) || list.some((one) => isIn(bytes, one)));
        remembered.set(address, allowed);
      }
      return allowed;
    },
  };
}
