// Gives out magic addresses: a slot by the hash of the subject's text, kept for good in the data folder and never given to another.
import type { Durable, DurableWrite } from "../../base/durable.ts";
import { InputError, TrilithError } from "../../base/error.ts";
import type { Interface } from "../../base/net.ts";
import type { Random } from "../../base/random.ts";
import {
  type Magic,
  type MagicAddress,
  type MagicDoors,
  type MagicRange,
  type Subject,
  subjectOf,
  subjectText,
} from "../../contracts/magic.ts";
import type { Settings } from "../../contracts/settings.ts";
import { ipBytes, ipText, ipv4Bytes, ipv6Bytes } from "../../wire/dns/address.ts";
import { readAsked } from "./asked.ts";

const TABLE = "magic";
const PREFIX = { table: "self", key: "magic-v6" } as const;
const DEFAULT_V4 = "127.128.0.0/9";
/** Smaller ranges are full too soon, and larger ones are never only ours. */
const MOST_BITS_V4 = 28;
const LEAST_BITS_V4 = 8;
/** Where no address of the internet lies [RFC 6890]: loopback, private, shared, link-local, tests, documentation, reserved. */
const NOBODYS_V4: readonly (readonly [first: number, prefixBits: number])[] = [
  [0x7f000000, 8],
  [0x0a000000, 8],
  [0xac100000, 12],
  [0xc0a80000, 16],
  [0x64400000, 10],
  [0xa9fe0000, 16],
  [0xc6120000, 15],
  [0xc0000200, 24],
  [0xc6336400, 24],
  [0xcb007100, 24],
  [0xf0000000, 4],
];
const V6_BITS = 96;

/** What magic addresses are made with. */
export interface MagicParts {
  readonly durable: Durable;
  readonly random: Pick<Random, "bytes">;
  readonly settings: NonNullable<Settings["magic"]>;
  /** This host's own addresses, which must not lie in the range. */
  readonly interfaces: () => readonly Interface[];
}

/** Reads what was given out before. @throws InputError where a range is wrong; TrilithError as `Durable.write` */
export async function createMagic({ durable, random, settings, interfaces }: MagicParts): Promise<Magic> {
  const range = rangeOf(settings, await prefixOf(settings, durable, random));
  mustNotHold(range, interfaces());
  const slots = new Map<string, number>();
  const subjects = new Map<number, string>();
  for await (const [key, value] of durable.entries(TABLE)) {
    const slot = Number.parseInt(key, 16);
    // Where the range was made smaller, what lies outside of it gets another; its old one stays written down, should the range grow again.
    if (!(slot >= 1 && slot <= range.capacity)) continue;
    const text = Buffer.from(value).toString("utf8");
    slots.set(text, Math.min(slot, slots.get(text) ?? slot));
    subjects.set(slot, text);
  }
  const asked = await readAsked(durable);
  let doors: MagicDoors | undefined;
  let unkept: DurableWrite[] = [];
  let keeping: Promise<void> = Promise.resolve();
  let underWay = 0;

  const give = (text: string): number => {
    if (subjects.size >= range.capacity)
      throw new TrilithError(
        "too-large",
        `no magic address is left for "${text}": all ${range.capacity} of ${range.v4.text} are given out, for good; ` +
          `choose a larger range (magic.v4, for example ${DEFAULT_V4})`,
      );
    let slot = (hashOf(text) % range.capacity) + 1;
    while (subjects.has(slot)) slot = (slot % range.capacity) + 1;
    slots.set(text, slot);
    subjects.set(slot, text);
    unkept.push({ table: TABLE, key: slot.toString(16).padStart(8, "0"), value: Buffer.from(text, "utf8") });
    return slot;
  };

  const addressesOf = (slot: number): MagicAddress => {
    const v6 = range.v6.prefix.slice();
    new DataView(v6.buffer).setUint32(12, slot);
    const v4 = new Uint8Array(4);
    new DataView(v4.buffer).setUint32(0, range.v4.base + slot);
    return { v4: ipText(v4), v6: ipText(v6), slot };
  };

  const slotAt = (address: string): number | undefined => {
    const bytes = ipBytes(address);
    if (bytes === undefined) return undefined;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (bytes.length === 16)
      return bytes.subarray(0, 12).every((byte, i) => byte === range.v6.prefix[i]) ? view.getUint32(12) : undefined;
    const slot = view.getUint32(0) - range.v4.base;
    return slot >= 1 && slot <= range.capacity ? slot : undefined;
  };

  return {
    of(subject) {
      const text = subjectText(subject);
      return addressesOf(slots.get(text) ?? give(text));
    },
    subjectAt(address): Subject | undefined {
      const slot = slotAt(address);
      const text = slot === undefined ? undefined : subjects.get(slot);
      return text === undefined ? undefined : subjectOf(text);
    },
    kept() {
      if (unkept.length === 0) return keeping;
      const writes = unkept;
      unkept = [];
      const before = keeping.catch(() => undefined);
      underWay++;
      keeping = before.then(async () => {
        try {
          await durable.write(writes);
        } catch (error) {
          // Tried again by whoever asks next.
          unkept = [...writes, ...unkept];
          throw error;
        } finally {
          underWay--;
        }
      });
      return keeping;
    },
    get settled() {
      return underWay === 0 && unkept.length === 0;
    },
    range,
    asked,
    get doors() {
      return doors;
    },
    openBy(opener) {
      doors = opener;
    },
  };
}

/** FNV-1a, 32 bits, of the UTF-8 bytes. */
function hashOf(text: string): number {
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(text, "utf8")) hash = Math.imul(hash ^ byte, 0x0100_0193) >>> 0;
  return hash;
}

/** Programs that mean this host itself must reach it. */
function mustNotHold(range: MagicRange, interfaces: readonly Interface[]): void {
  for (const { address } of interfaces) {
    const bytes = ipBytes(address.replace(/%.*$/, ""));
    if (bytes === undefined) continue;
    if (bytes.length === 16) {
      if (bytes.subarray(0, 12).every((byte, i) => byte === range.v6.prefix[i]))
        throw new InputError(
          "magic.v6",
          `${range.v6.text} holds this host's own address ${address}: take another range`,
        );
      continue;
    }
    const number = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
    if (number >= range.v4.base && number < range.v4.base + 2 ** (32 - range.v4.bits))
      throw new InputError("magic.v4", `${range.v4.text} holds this host's own address ${address}: take another range`);
  }
}

/** The first 12 bytes of every IPv6 magic address: from the settings, else this host's own, made once [RFC4193-3.2]. */
async function prefixOf(
  settings: MagicParts["settings"],
  durable: Durable,
  random: Pick<Random, "bytes">,
): Promise<Uint8Array> {
  if (settings.v6 !== undefined) return checkedV6(settings.v6);
  const kept = durable.get(PREFIX.table, PREFIX.key);
  if (kept?.length === 16 && kept[0] === 0xfd) return Uint8Array.from(kept);
  const made = new Uint8Array(16);
  made[0] = 0xfd;
  made.set(random.bytes(5), 1);
  await durable.write([{ ...PREFIX, value: made }]);
  return made;
}

/** @throws InputError where a range that is told cannot be one of magic addresses */
export function checkMagicRanges({ v4, v6 }: MagicParts["settings"]): void {
  if (v4 !== undefined) checkedV4(v4);
  if (v6 !== undefined) checkedV6(v6);
}

function rangeOf(settings: MagicParts["settings"], prefix: Uint8Array): MagicRange {
  const { base, bits } = checkedV4(settings.v4 ?? DEFAULT_V4);
  const first = new Uint8Array(4);
  new DataView(first.buffer).setUint32(0, base);
  return {
    v4: { base, bits, text: `${ipText(first)}/${bits}` },
    v6: { prefix, bits: V6_BITS, text: `${ipText(prefix)}/${V6_BITS}` },
    capacity: 2 ** (32 - bits) - 2,
  };
}

function split(where: string, text: string, example: string): { readonly address: string; readonly bits: number } {
  const [, address, bits] = /^([^/]+)\/(\d{1,3})$/.exec(text) ?? [];
  if (address === undefined) throw new InputError(where, `expected a range such as "${example}", but got "${text}"`);
  return { address, bits: Number(bits) };
}

function checkedV4(text: string): { readonly base: number; readonly bits: number } {
  const where = "magic.v4";
  const { address, bits } = split(where, text, DEFAULT_V4);
  const bytes = ipv4Bytes(address);
  if (bytes === undefined) throw new InputError(where, `expected a range such as "${DEFAULT_V4}", but got "${text}"`);
  if (bits < LEAST_BITS_V4 || bits > MOST_BITS_V4)
    throw new InputError(where, `"${text}": expected a range from /${LEAST_BITS_V4} to /${MOST_BITS_V4}`);
  const base = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
  const size = 2 ** (32 - bits);
  if (base % size !== 0) {
    const right = new Uint8Array(4);
    new DataView(right.buffer).setUint32(0, base - (base % size));
    throw new InputError(
      where,
      `"${text}" does not begin with its first address: do you mean ${ipText(right)}/${bits}?`,
    );
  }
  const holds = (first: number, last: number): boolean => base <= last && base + size > first;
  if (holds(0x7f000000, 0x7f00ffff))
    throw new InputError(
      where,
      `"${text}" holds 127.0.0.1 and other addresses below 127.0.0.0/16 that are in use on most hosts: take ${DEFAULT_V4}`,
    );
  if (holds(0, 0x00ffffff) || holds(0xe0000000, 0xefffffff) || holds(0xffffffff, 0xffffffff))
    throw new InputError(
      where,
      `"${text}" holds addresses that no program can connect to (0.0.0.0/8, multicast, broadcast)`,
    );
  if (!NOBODYS_V4.some(([first, prefixBits]) => bits >= prefixBits && (base ^ first) >>> (32 - prefixBits) === 0))
    throw new InputError(
      where,
      `"${text}" holds addresses of the internet, which programs may mean: expected a range of loopback or private addresses, such as ${DEFAULT_V4}`,
    );
  return { base, bits };
}

function checkedV6(text: string): Uint8Array {
  const where = "magic.v6";
  const example = "fd12:3456:789a::/48";
  const { address, bits } = split(where, text, example);
  const bytes = ipv6Bytes(address);
  if (bytes === undefined) throw new InputError(where, `expected a range such as "${example}", but got "${text}"`);
  if ((bytes[0]! & 0xfe) !== 0xfc)
    throw new InputError(where, `"${text}": expected a unique local range (fc00::/7), for example ${example}`);
  if (bits < 8 || bits > V6_BITS) throw new InputError(where, `"${text}": expected a range from /8 to /${V6_BITS}`);
  for (let bit = bits; bit < 128; bit++)
    if ((bytes[bit >> 3]! & (0x80 >> (bit & 7))) !== 0)
      throw new InputError(where, `"${text}" does not begin with its first address: the bits after /${bits} must be 0`);
  return Uint8Array.from(bytes);
}
