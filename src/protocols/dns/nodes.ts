// Names of nodes and of addresses, and addresses backwards.
import type { Node } from "../../model/node.ts";
import { keyOf } from "../../model/record.ts";
import { onlyWithId } from "../../wire/consul-catalog.ts";
import { bytesOfHex, ipBytes, ipText, type Message, type Name, RCODE, TYPE } from "../../wire/dns/index.ts";
import { type Asking, type Reply, reply } from "./asking.ts";
import { serviceTtlMs } from "./config.ts";
import { consulLocality, datacenterOf, type InZone, reversed } from "./names.ts";
import { isOnOneLink } from "./networks.ts";
import { addressRecord, hostName, labelRecords, nodeName, record, serviceName, wantsAddress } from "./records.ts";
import type { Subjects } from "./subjects.ts";

/** Answers for nodes and addresses. */
export class Nodes {
  readonly #all: Subjects;

  constructor(all: Subjects) {
    this.#all = all;
  }

  /** `node.node[.dc].D`. */
  node(asking: Asking, asked: InZone): Reply {
    const { compat, nodeTtlS, nodeMetaTxt, enableAdditionalNodeMetaTxt } = this.#all.policy;
    const { type, owner } = asking;
    const datacenter = this.#all.zone.datacenterOf(asked);
    const isAddress = type === TYPE.A || type === TYPE.AAAA || type === TYPE.ANY;
    // Consul says nothing to other types, whether or not the node is there, and of whatever datacenter or peer.
    const untold = compat && !isAddress && type !== TYPE.TXT;
    if (untold && asked.parts.length > 0 && consulLocality(asked.suffix) !== undefined) return reply();
    if (datacenter === false) return this.#all.zone.no(asking, RCODE.NXDOMAIN);
    if (asked.parts.length === 0) return this.#all.zone.empty(asking, () => this.#all.zone.isDatacenter(datacenter));
    const text = asked.parts.join(".");
    const node = this.#nodeCalled(asking, text, datacenter);
    if (node === undefined)
      return this.#all.zone.empty(
        asking,
        () => this.#all.zone.isOwnDatacenter(datacenter) && this.#all.existence(asking.view).belowNode(text),
      );
    const made = reply();
    if (isAddress || (type === TYPE.CNAME && !compat)) {
      const ip = ipBytes(node.address);
      const target = ip === undefined ? hostName(node.address) : undefined;
      if (ip !== undefined && wantsAddress(type, ip)) made.answers.push(addressRecord(owner, nodeTtlS, ip));
      if (target !== undefined) {
        made.answers.push(record(owner, nodeTtlS, { kind: "CNAME", target }));
        made.answers.push(
          ...(compat
            ? this.#all.endpoints.follow(asking, target)
            : this.#all.endpoints.followed(asking, target, nodeTtlS)),
        );
      }
    }
    const asksText = type === TYPE.TXT || type === TYPE.ANY;
    const alias = made.answers[0]?.data.kind === "CNAME";
    if (nodeMetaTxt && (asksText || enableAdditionalNodeMetaTxt) && (compat || !alias))
      (asksText ? made.answers : made.additionals).push(...labelRecords(owner, node, nodeTtlS, compat));
    if (compat || made.answers.length > 0) return made;
    return this.#all.zone.no(asking, RCODE.NOERROR);
  }

  #nodeCalled({ view, errands }: Asking, name: string, datacenter: string | undefined): Node | undefined {
    if (datacenter === undefined || this.#all.zone.isOwnDatacenter(datacenter))
      return (
        view.get("node", keyOf.node(name)) ??
        (this.#all.policy.compat ? onlyWithId(view.list("node"), name) : undefined)
      );
    const { lookup } = this.#all.parts;
    if (lookup.nodeElsewhere === undefined) return undefined;
    return errands?.get(`node ${name} ${datacenter}`, () =>
      this.#all.services.within(name, async (limit) => lookup.nodeElsewhere?.(datacenter, name, limit)),
    )?.value;
  }

  /** `c0000201.addr[.dc].D`. */
  address(asking: Asking, asked: InZone): Reply {
    const { compat, nodeTtlS } = this.#all.policy;
    const [text] = asked.parts;
    const datacenter = datacenterOf(asked.suffix);
    const here = datacenter !== false && this.#all.zone.isDatacenter(datacenter);
    if (text === undefined) return this.#all.zone.empty(asking, () => here);
    const bytes = asked.parts.length > 1 ? undefined : bytesOfHex(text);
    if (bytes === undefined || (bytes.length !== 4 && bytes.length !== 16))
      return this.#all.zone.no(asking, RCODE.NXDOMAIN);
    // Consul does not look at the datacenter here.
    if (!compat && !here) return this.#all.zone.no(asking, RCODE.NXDOMAIN);
    const found = addressRecord(asking.owner, nodeTtlS, bytes);
    if (wantsAddress(asking.type, bytes)) return reply([found]);
    return compat ? reply([], [found]) : this.#all.zone.no(asking, RCODE.NOERROR);
  }

  /** The name of the node at an address, else of the first service there. */
  reverse(asking: Asking, labels: readonly string[], message: Message): Reply {
    const { compat, domain, nodeTtlS } = this.#all.policy;
    const { self } = this.#all.parts;
    const tree = labels[labels.length - 1];
    if (!compat && tree !== "in-addr" && tree !== "ip6") return this.#all.outside.recurse(asking, message);
    const zone = compat ? undefined : [tree as string, "arpa"];
    const bytes = reversed(labels);
    const at = bytes === undefined ? undefined : asking.view.atAddress(ipText(bytes));
    const node = at?.nodes[0];
    const service = at?.residents[0]?.instance.name;
    let target: Name | undefined;
    let ttlS = 0;
    if (node !== undefined) {
      target = nodeName(node.name, node.datacenter === "" ? self.datacenter : node.datacenter, domain);
      if (!compat) ttlS = nodeTtlS;
    } else if (service !== undefined) {
      target = serviceName(service, self.datacenter, domain);
      if (!compat) ttlS = Math.floor(serviceTtlMs(this.#all.policy.serviceTtlMs, service.toLowerCase()) / 1000);
    }
    if (target === undefined) {
      const exists = !compat && this.#all.existence(asking.view).belowReverse(labels);
      if (
        !exists &&
        this.#all.outside.recursesFor(asking.from) &&
        (compat || bytes === undefined || !isOnOneLink(bytes))
      )
        return this.#all.outside.recurse(asking, message);
      const no = this.#all.zone.no(asking, exists ? RCODE.NOERROR : RCODE.NXDOMAIN, zone);
      // Consul adds one because it was asked for and another because there is nothing.
      return compat && asking.type === TYPE.SOA ? { ...no, authorities: [...no.authorities, ...no.authorities] } : no;
    }
    const found = record(asking.owner, ttlS, { kind: "PTR", target });
    // Consul answers whatever type is asked for.
    if (compat) return reply([found], [], asking.type === TYPE.SOA ? [this.#all.zone.soa(asking, domain)] : []);
    return asking.type === TYPE.PTR || asking.type === TYPE.ANY
      ? reply([found])
      : this.#all.zone.no(asking, RCODE.NOERROR, zone);
  }
}
