// Endpoints as answers: addresses, ports with the addresses they need, and the names that addresses consist of, followed.
import type { Endpoint } from "../../model/query.ts";
import { type DnsRecord, endsWith, ipText, type Name, RCODE, TYPE } from "../../wire/dns/index.ts";
import { type Asking, type Reply, reply } from "./asking.ts";
import type { InZone } from "./names.ts";
import { addressRecord, labelRecords, nodeName, record, type Spot, spotOf, srvKey, wantsAddress } from "./records.ts";
import type { Subjects } from "./subjects.ts";

/** Consul adds at most so many records of a followed CNAME without EDNS. */
const CONSUL_MOST_FOLLOWED = 5;

/** Makes records of endpoints. */
export class Endpoints {
  readonly #all: Subjects;

  constructor(all: Subjects) {
    this.#all = all;
  }

  /** Endpoints as records of the type asked for, in their order. */
  told(asking: Asking, asked: InZone, endpoints: readonly Endpoint[], ttlS: number, datacenter: string): Reply {
    const spots: Spot[] = [];
    for (const endpoint of endpoints) {
      const spot = spotOf(endpoint, asking.question.name, datacenter, asked.spelled);
      if (spot !== undefined) spots.push(spot);
    }
    const made = reply();
    if (asking.type === TYPE.SRV) this.addSrv(asking, spots, ttlS, datacenter, asked.spelled, made);
    else {
      this.#addAddresses(asking, spots, ttlS, made);
      if (!this.#all.policy.compat && asking.type === TYPE.ANY && made.answers[0]?.data.kind !== "CNAME")
        this.addSrv(asking, spots, ttlS, datacenter, asked.spelled, made);
    }
    return made.answers.length > 0 ? made : this.#all.zone.no(asking, RCODE.NOERROR);
  }

  /** A and AAAA records, each once; where there is none at all, the CNAME of an instance whose address is a name. */
  #addAddresses(asking: Asking, spots: readonly Spot[], ttlS: number, made: Reply): void {
    const { compat, aRecordLimit } = this.#all.policy;
    const most = Math.min(aRecordLimit === 0 ? Number.POSITIVE_INFINITY : aRecordLimit, this.#configured(asking));
    // Consul answers a question for TXT as one for addresses.
    const type = compat && asking.type === TYPE.TXT ? TYPE.ANY : asking.type;
    const seen = new Set<string>();
    let alias: Spot | undefined;
    let addressed = false;
    for (const spot of spots) {
      if (spot.ip === undefined) {
        alias ??= spot;
        continue;
      }
      addressed = true;
      if (!wantsAddress(type, spot.ip)) continue;
      const key = ipText(spot.ip);
      if (seen.has(key)) continue;
      seen.add(key);
      made.answers.push(addressRecord(asking.owner, ttlS, spot.ip));
      if (seen.size >= most) break;
    }
    if (made.answers.length > 0 || alias?.alias === undefined) return;
    // Where others have addresses, ours does not call the name an alias: it is one for no type or for all.
    if (addressed && !compat) return;
    const target = alias.alias;
    made.answers.push(record(asking.owner, ttlS, { kind: "CNAME", target }));
    for (const followed of this.followed(asking, target, ttlS)) made.answers.push(followed);
  }

  /** How many answers the configuration lets into a plain UDP message; Consul's limit is applied to the whole answer later. */
  #configured({ edns, from }: Asking): number {
    const { compat, plainAnswers } = this.#all.policy;
    return compat || from.tcp || edns !== undefined ? Number.POSITIVE_INFINITY : plainAnswers;
  }

  addSrv(asking: Asking, spots: readonly Spot[], ttlS: number, datacenter: string, domain: Name, made: Reply): void {
    const most = made.answers.length + this.#configured(asking);
    const seen = new Set<string>();
    const added = new Set<string>();
    const add = (extra: DnsRecord): void => {
      const key = `${extra.name.join(".")} ${JSON.stringify(extra.data)}`;
      if (added.has(key) && !this.#all.policy.compat) return;
      added.add(key);
      made.additionals.push(extra);
    };
    for (const spot of spots) {
      const { endpoint, ip, target } = spot;
      if (made.answers.length >= most) break;
      const { node } = endpoint.resident;
      const key = srvKey(spot, this.#all.policy.compat);
      if (seen.has(key)) continue;
      seen.add(key);
      made.answers.push(
        record(asking.owner, ttlS, { kind: "SRV", priority: 1, weight: endpoint.weight, port: endpoint.port, target }),
      );
      // Once for each SRV record, as Consul does, though targets repeat: HAProxy (2.6) gives each address to one server only, and the others flap.
      if (ip !== undefined) made.additionals.push(addressRecord(target, ttlS, ip));
      else for (const followed of this.followed(asking, target, ttlS)) add(followed);
      if (this.#all.policy.enableAdditionalNodeMetaTxt && this.#all.policy.nodeMetaTxt) {
        const name = nodeName(node.name, datacenter, domain);
        if (name !== undefined) for (const text of labelRecords(name, node, ttlS, this.#all.policy.compat)) add(text);
      }
    }
  }

  /** What a name that an address consists of leads to, as far as it is ours; with the TTL of the answer that leads there. */
  followed(asking: Asking, target: Name, ttlS: number): DnsRecord[] {
    const { compat } = this.#all.policy;
    const records: DnsRecord[] = [];
    for (const found of this.follow(asking, target)) {
      const { kind } = found.data;
      if (kind !== "CNAME" && kind !== "A" && kind !== "AAAA") continue;
      const asksAll = compat || asking.type === TYPE.SRV || asking.type === TYPE.ANY;
      if (!asksAll && kind !== "CNAME" && TYPE[kind] !== asking.type) continue;
      records.push({ ...found, ttlS });
      if (compat && asking.edns === undefined && records.length === CONSUL_MOST_FOLLOWED) break;
    }
    return records;
  }

  /** All records at a name of ours, through further names. */
  follow(asking: Asking, target: Name): readonly DnsRecord[] {
    const { primary, alternative } = this.#all.zones;
    const ours = (zone: Name): boolean => target.length > zone.length && endsWith(target, zone);
    if (asking.hops < 1) return [];
    if (!ours(primary) && (alternative === undefined || !ours(alternative)))
      return this.#all.outside.outside(asking, target);
    const asked = this.#all.zone.read(target, TYPE.ANY);
    if (asked.where !== "zone") return [];
    const question = { ...asking.question, name: target, type: TYPE.ANY };
    return this.#all.zone.inZone({ ...asking, question, owner: target, type: TYPE.ANY, hops: asking.hops - 1 }, asked)
      .answers;
  }
}
