// Records with an identity: the same name, type, class and data are the same record, whoever says it.
import {
  CLASS,
  type DnsRecord,
  type Name,
  nameBytes,
  type RecordData,
  recordToWire,
  TOP_BIT_OF_CLASS,
  typeOfData,
} from "../../../wire/dns/index.ts";
import { nameKey } from "./names.ts";

/** A record apart from its time to live. */
export interface Rec {
  readonly name: Name;
  readonly nameKey: string;
  readonly type: number;
  readonly data: RecordData;
  /** Name and type: what a cache flush is about. */
  readonly key: string;
  /** Name, type and data; names within the data compare ignoring case. */
  readonly id: string;
  /** The data's bytes with names in full: what a tie is broken by [RFC 6762 §8.2]. */
  readonly raw: Uint8Array;
}

/** A record that this engine says at one place. */
export interface Owned extends Rec {
  readonly ttlS: number;
  /** True where nobody else may say another one under the name and type: it is probed for and flushes caches. */
  readonly unique: boolean;
  /** When it was last multicast, on the monotonic clock. */
  saidAtMs: number;
}

export function makeRec(name: Name, data: RecordData): Rec {
  const type = typeOfData(data);
  const named = nameKey(name);
  const key = `${named}/${type}`;
  const raw = recordToWire({ name, class: CLASS.IN, ttlS: 0, data }).slice(nameBytes(name) + 10);
  return { name, nameKey: named, type, data, key, id: `${key}/${identity(data, raw)}`, raw };
}

function identity(data: RecordData, raw: Uint8Array): string {
  switch (data.kind) {
    case "PTR":
    case "NS":
    case "CNAME":
      return nameKey(data.target);
    case "SRV":
      return `${data.priority} ${data.weight} ${data.port} ${nameKey(data.target)}`;
    default:
      return Buffer.from(raw.buffer, raw.byteOffset, raw.length).toString("latin1");
  }
}

export function owned(name: Name, data: RecordData, ttlS: number, unique: boolean): Owned {
  return { ...makeRec(name, data), ttlS, unique, saidAtMs: Number.NEGATIVE_INFINITY };
}

/** As it goes on the wire. */
export function onWire(rec: Rec, ttlS: number, flush: boolean): DnsRecord {
  return { name: rec.name, class: CLASS.IN | (flush ? TOP_BIT_OF_CLASS : 0), ttlS, data: rec.data };
}

/** Below 0 where `a` sorts before `b` by type and raw data [RFC 6762 §8.2]. */
function compare(a: Rec, b: Rec): number {
  if (a.type !== b.type) return a.type - b.type;
  return Buffer.compare(a.raw, b.raw);
}

/** Above 0 where our records for a name win against those of another who probes for it, below 0 where they lose, 0 for the same records. */
export function tieBreak(ours: readonly Rec[], theirs: readonly Rec[]): number {
  const a = [...ours].sort(compare);
  const b = [...theirs].sort(compare);
  for (let i = 0; i < a.length || i < b.length; i++) {
    const mine = a[i];
    const other = b[i];
    if (mine === undefined) return -1;
    if (other === undefined) return 1;
    const order = compare(mine, other);
    if (order !== 0) return order;
  }
  return 0;
}
