// Looking things up in the hook's table without reading all of it: services by name and by magic address.
import type { NetworkNamespace } from "../base/network-namespace.ts";
import { ipText } from "./dns/address.ts";
import {
  backendFrom,
  hookServiceAt,
  hookServiceNamed,
  openHookTable,
  readHookService,
  type TableService,
} from "./hook-table.ts";

/** A service of a table, but for its names. */
export type IndexedService = Omit<TableService, "names">;

/** A table that can be asked. The same service is the same object. */
export interface TableIndex {
  readonly generation: number;
  /** Without dots at its ends. */
  readonly domain: string;
  /** Whether a host name may be one of the table's: it ends in its domain. */
  isInDomain(host: string): boolean;
  /** By host name, ignoring case and a final dot. */
  named(host: string): IndexedService | undefined;
  /** Quick: false for nearly every address, as text, that is no magic one. */
  mayHold(address: string): boolean;
  /** The slot of a magic address: 4 bytes, or 16 (IPv4-mapped ones included); undefined outside of the ranges. */
  slotOf(address: Uint8Array): number | undefined;
  at(slot: number): IndexedService | undefined;
  /** The magic addresses of a slot. */
  addressesOf(slot: number): { readonly v4: string; readonly v6: string };
}

const MOST_ASKED = 4_096;

/** Opens a table, as a program in that network namespace reaches what stands in it (undefined = in the agent's). @throws InputError where it is none, is cut off or changed */
export function openTableIndex(bytes: Uint8Array, here?: NetworkNamespace): TableIndex {
  const table = openHookTable(bytes);
  const suffix = `.${table.domain}`;
  const { base, bits } = table.v4;
  const mask = bits === 0 ? 0 : (-1 << (32 - bits)) >>> 0;
  const prefix = table.v6.prefix.subarray(0, 12);
  const v6Start = ipText(table.v6.prefix).slice(0, 2).toLowerCase();
  const services = new Map<number, IndexedService>();
  const asked = new Map<string, IndexedService>();

  const service = (i: number | undefined): IndexedService | undefined => {
    if (i === undefined) return undefined;
    let found = services.get(i);
    if (found === undefined) {
      const read = readHookService(table, i);
      found = { ...read, backends: read.backends.map((each) => backendFrom(each, table.host, here)) };
      services.set(i, found);
    }
    return found;
  };
  const normal = (host: string): string => (host.endsWith(".") ? host.slice(0, -1) : host).toLowerCase();

  return {
    generation: table.generation,
    domain: table.domain,
    isInDomain: (host) => host.endsWith(suffix) || normal(host).endsWith(suffix),
    named(host) {
      let found = asked.get(host);
      if (found === undefined) {
        found = service(hookServiceNamed(table, normal(host)));
        if (found === undefined) return undefined;
        // The same name may be written in endless ways.
        if (asked.size >= MOST_ASKED) asked.clear();
        asked.set(host, found);
      }
      return found;
    },
    mayHold(address) {
      const number = numberOf(address);
      if (number !== undefined) return (number & mask) >>> 0 === base;
      return address.startsWith("::") || address.slice(0, 2).toLowerCase() === v6Start;
    },
    slotOf(address) {
      const view = new DataView(address.buffer, address.byteOffset, address.byteLength);
      if (address.length === 16 && prefix.every((byte, i) => byte === address[i])) return view.getUint32(12);
      const isMapped = address.length === 16 && view.getUint32(8) === 0xffff && view.getBigUint64(0) === 0n;
      if (address.length !== 4 && !isMapped) return undefined;
      const number = view.getUint32(address.length - 4);
      return (number & mask) >>> 0 === base ? number - base : undefined;
    },
    at: (slot) => service(hookServiceAt(table, slot)),
    addressesOf(slot) {
      const v4 = new DataView(new ArrayBuffer(4));
      v4.setUint32(0, base + slot);
      const v6 = table.v6.prefix.slice();
      new DataView(v6.buffer).setUint32(12, slot);
      return { v4: ipText(new Uint8Array(v4.buffer)), v6: ipText(v6) };
    },
  };
}

/** Dotted text as a number, without making anything: undefined where another character is in it. */
function numberOf(text: string): number | undefined {
  let whole = 0;
  let part = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === 0x2e) {
      whole = whole * 256 + part;
      part = 0;
    } else if (code >= 0x30 && code <= 0x39) part = part * 10 + code - 0x30;
    else return undefined;
  }
  return whole * 256 + part;
}
