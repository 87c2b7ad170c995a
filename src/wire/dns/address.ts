// IP addresses: text to bytes and back, reverse names, and the hexadecimal form in names.
import type { Name } from "./name.ts";

/** Four bytes from dotted text; undefined for anything else (leading zeros included, which some read as octal). */
export function ipv4Bytes(text: string): Uint8Array | undefined {
  const bytes = new Uint8Array(4);
  let part = 0;
  let value = -1;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === 0x2e) {
      if (value < 0 || part === 3) return undefined;
      bytes[part++] = value;
      value = -1;
    } else if (code >= 0x30 && code <= 0x39) {
      if (value === 0) return undefined;
      value = value < 0 ? code - 0x30 : value * 10 + code - 0x30;
      if (value > 255) return undefined;
    } else return undefined;
  }
  if (part !== 3 || value < 0) return undefined;
  bytes[3] = value;
  return bytes;
}

/** Sixteen bytes from IPv6 text [RFC 4291 §2.2]; undefined for anything else, zones (`%eth0`) included. */
export function ipv6Bytes(text: string): Uint8Array | undefined {
  let source = text;
  const words: number[] = [];
  // A dotted IPv4 tail stands for the last two words.
  const colon = source.lastIndexOf(":");
  if (colon < 0) return undefined;
  if (source.includes(".", colon)) {
    const tail = ipv4Bytes(source.slice(colon + 1));
    if (tail === undefined) return undefined;
    const [a = 0, b = 0, c = 0, d = 0] = tail;
    source = `${source.slice(0, colon + 1)}${((a << 8) | b).toString(16)}:${((c << 8) | d).toString(16)}`;
  }
  let gap = -1;
  let from = 0;
  if (source.startsWith("::")) {
    gap = 0;
    from = 2;
  } else if (source.startsWith(":")) return undefined;
  while (from < source.length) {
    let end = source.indexOf(":", from);
    if (end < 0) end = source.length;
    if (end === from) {
      if (gap >= 0) return undefined;
      gap = words.length;
      from = end + 1;
      continue;
    }
    if (end - from > 4 || words.length === 8) return undefined;
    let word = 0;
    for (let i = from; i < end; i++) {
      const digit = hexDigit(source.charCodeAt(i));
      if (digit < 0) return undefined;
      word = word * 16 + digit;
    }
    words.push(word);
    // A single colon at the end is no address; the second one of "::" shows as an empty group above.
    if (end === source.length - 1) return undefined;
    from = end + 1;
  }
  if (gap < 0 ? words.length !== 8 : words.length > 7) return undefined;
  const bytes = new Uint8Array(16);
  const zeros = 8 - words.length;
  for (let i = 0; i < words.length; i++) {
    const at = 2 * (gap >= 0 && i >= gap ? i + zeros : i);
    bytes[at] = (words[i] as number) >> 8;
    bytes[at + 1] = (words[i] as number) & 255;
  }
  return bytes;
}

function hexDigit(code: number): number {
  if (code >= 0x30 && code <= 0x39) return code - 0x30;
  if (code >= 0x61 && code <= 0x66) return code - 0x57;
  if (code >= 0x41 && code <= 0x46) return code - 0x37;
  return -1;
}

/** Four or sixteen bytes of an IP address in text; IPv4 within IPv6 (`::ffff:192.0.2.1`) is the IPv4 address. Undefined for anything else. */
export function ipBytes(text: string): Uint8Array | undefined {
  if (!text.includes(":")) return ipv4Bytes(text);
  const bytes = ipv6Bytes(text);
  if (bytes === undefined) return undefined;
  for (let i = 0; i < 10; i++) if (bytes[i] !== 0) return bytes;
  return bytes[10] === 255 && bytes[11] === 255 ? bytes.slice(12) : bytes;
}

/** The text of four bytes (dotted) or sixteen (as RFC 5952 wants it). */
export function ipText(bytes: Uint8Array): string {
  if (bytes.length === 4) return `${bytes[0]}.${bytes[1]}.${bytes[2]}.${bytes[3]}`;
  const words: number[] = [];
  for (let i = 0; i < 16; i += 2) words.push(((bytes[i] as number) << 8) | (bytes[i + 1] as number));
  let best = -1;
  let bestLength = 1;
  for (let i = 0; i < 8; ) {
    let end = i;
    while (end < 8 && words[end] === 0) end++;
    if (end - i > bestLength) {
      best = i;
      bestLength = end - i;
    }
    i = Math.max(end, i + 1);
  }
  const hex = (part: readonly number[]): string => part.map((word) => word.toString(16)).join(":");
  return best < 0 ? hex(words) : `${hex(words.slice(0, best))}::${hex(words.slice(best + bestLength))}`;
}

/** Bytes as lower-case hexadecimal digits. */
export function hexOf(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += (byte < 16 ? "0" : "") + byte.toString(16);
  return text;
}

/** The bytes that an even number of hexadecimal digits spells; undefined for anything else. */
export function bytesOfHex(text: string): Uint8Array | undefined {
  if (text.length % 2 !== 0) return undefined;
  const bytes = new Uint8Array(text.length / 2);
  for (let i = 0; i < bytes.length; i++) {
    const high = hexDigit(text.charCodeAt(2 * i));
    const low = hexDigit(text.charCodeAt(2 * i + 1));
    if (high < 0 || low < 0) return undefined;
    bytes[i] = high * 16 + low;
  }
  return bytes;
}

/** The name under which an address is looked up in reverse [RFC 1035 §3.5, RFC 3596 §2.5]. */
export function reverseName(bytes: Uint8Array): Name {
  if (bytes.length === 4) return [...[...bytes].reverse().map(String), "in-addr", "arpa"];
  return [...[...hexOf(bytes)].reverse(), "ip6", "arpa"];
}
