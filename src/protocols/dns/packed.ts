// Answers packed once for many: the records of one list of endpoints as bytes, behind names that are pointers.
import type { Endpoint, Query } from "../../model/query.ts";
import {
  ipBytes,
  ipText,
  lowerLabel,
  type Name,
  nameBytes,
  nameToWire,
  recordBytes,
  recordToWire,
  sameName,
  TYPE,
} from "../../wire/dns/index.ts";
import type { Policy } from "./config.ts";
import { addressRecord, labelRecords, nodeName, record, type Spot, spotOf, srvKey } from "./records.ts";

/** A question for a service's addresses or ports, as the long way understood it. */
export interface Learned {
  /** The question's name. */
  readonly name: Name;
  readonly type: number;
  /** All of the lookup's query but who asks. */
  readonly query: Query;
  readonly ttlS: number;
  readonly datacenter: string;
  /** The domain that the name lies in, as configured. */
  readonly zone: Name;
}

/** Packed records of one list of endpoints, for one type of question. */
export interface Packed {
  readonly answers: readonly PackedAnswer[];
  readonly extras: readonly PackedExtra[];
}

/** One answer record behind its owner, which is a pointer to the question. */
export interface PackedAnswer {
  readonly bytes: Uint8Array;
  /** Where the target of an SRV record begins in the record, owner included; 0 for addresses. */
  readonly targetAt: number;
  /** The additional records that go with it, as indexes of `extras`; the first is the address of the target, which is sent for each answer. */
  readonly extras: readonly number[];
  /** Bytes with all names in full, of the record and of its first additional one. */
  readonly fullBytes: number;
  readonly fullExtraBytes: number;
}

/** One additional record. */
export interface PackedExtra {
  /** Without its owner where that is the target it goes with. */
  readonly bytes: Uint8Array;
  readonly pointsToTarget: boolean;
  /** Bytes of the owner in full, 0 where it is a pointer. */
  readonly ownerBytes: number;
}

/** A place in an answer whose address is no host name. */
type AddressedSpot = Spot & { readonly ip: Uint8Array };

/** The records of a list of endpoints; undefined where the long way has to be taken. */
export function pack(asked: Learned, endpoints: readonly Endpoint[], policy: Policy): Packed | undefined {
  const { compat } = policy;
  const [first] = endpoints;
  // Unequal weights make an uneven shuffle, which is the lookup's business.
  if (first === undefined || (!compat && endpoints.some(({ weight }) => weight !== first.weight))) return undefined;
  const spots: AddressedSpot[] = [];
  for (const endpoint of endpoints) {
    // Host names have to be followed.
    const ip = ipBytes(endpoint.address);
    const spot = ip && spotOf(endpoint, asked.name, asked.datacenter, asked.zone);
    if (ip === undefined || spot === undefined) return undefined;
    spots.push({ ...spot, ip });
  }
  const packed = asked.type === TYPE.SRV ? packSrv(asked, spots, policy) : packAddresses(asked, spots);
  return packed.answers.length === 0 ? undefined : packed;
}

function packSrv(asked: Learned, spots: readonly AddressedSpot[], policy: Policy): Packed {
  const { enableAdditionalNodeMetaTxt, nodeMetaTxt, compat } = policy;
  const answers: PackedAnswer[] = [];
  const extras: PackedExtra[] = [];
  const known = new Map<string, number>();
  const seen = new Set<string>();
  const extra = (key: string, make: () => PackedExtra): number => {
    let index = known.get(key);
    if (index === undefined) {
      index = extras.push(make()) - 1;
      known.set(key, index);
    }
    return index;
  };
  // The labels of a node may point to a target for their owner where every target of the node is the node's name.
  const elsewhere = new Set<string>();
  for (const { endpoint, target } of spots) {
    const { name } = endpoint.resident.node;
    const own = nodeName(name, asked.datacenter, asked.zone);
    if (own === undefined || !sameName(own, target)) elsewhere.add(name);
  }
  for (const spot of spots) {
    const { endpoint, ip, target } = spot;
    const { node } = endpoint.resident;
    const key = srvKey(spot, compat);
    if (seen.has(key)) continue;
    seen.add(key);
    const { port, weight } = endpoint;
    const srv = record(asked.name, asked.ttlS, { kind: "SRV", priority: 1, weight, port, target });
    const targetWire = nameToWire(target);
    const targetKey = target.map(lowerLabel).join(".");
    const address = addressRecord(target, asked.ttlS, ip);
    const mine = [
      extra(`${targetKey} ${ipText(ip)}`, () => ({
        bytes: recordToWire(address).subarray(targetWire.length),
        pointsToTarget: true,
        ownerBytes: 0,
      })),
    ];
    if (enableAdditionalNodeMetaTxt && nodeMetaTxt) {
      const owner = nodeName(node.name, asked.datacenter, asked.zone);
      const isTarget = !elsewhere.has(node.name);
      const ownerBytes = owner === undefined ? 0 : nameBytes(owner);
      for (const [i, text] of (owner === undefined ? [] : labelRecords(owner, node, asked.ttlS, compat)).entries())
        mine.push(
          extra(`${node.name} TXT ${i}`, () => ({
            bytes: isTarget ? recordToWire(text).subarray(ownerBytes) : recordToWire(text),
            pointsToTarget: isTarget,
            ownerBytes: isTarget ? 0 : ownerBytes,
          })),
        );
    }
    answers.push({
      bytes: recordToWire(srv).subarray(nameBytes(asked.name)),
      targetAt: 2 + 10 + 6,
      extras: mine,
      fullBytes: recordBytes(srv),
      fullExtraBytes: recordBytes(address),
    });
  }
  return { answers, extras };
}

/** A and AAAA records, each address once. */
function packAddresses(asked: Learned, spots: readonly AddressedSpot[]): Packed {
  const answers: PackedAnswer[] = [];
  const seen = new Set<string>();
  const ownerBytes = nameBytes(asked.name);
  for (const { ip } of spots) {
    if ((ip.length === 4) !== (asked.type === TYPE.A)) continue;
    const key = ipText(ip);
    if (seen.has(key)) continue;
    seen.add(key);
    const made = addressRecord(asked.name, asked.ttlS, ip);
    answers.push({
      bytes: recordToWire(made).subarray(ownerBytes),
      targetAt: 0,
      extras: [],
      fullBytes: recordBytes(made),
      fullExtraBytes: 0,
    });
  }
  return { answers, extras: [] };
}
