// What the zone says about its names: the domain itself, its servers, what exists without records, and whose subject a name is.
import { keyOf } from "../../model/record.ts";
import {
  CLASS,
  type DnsRecord,
  endsWith,
  ipBytes,
  lowerLabel,
  type Message,
  type Name,
  type Question,
  RCODE,
  TYPE,
} from "../../wire/dns/index.ts";
import { type Asking, type From, familyOf, type Reply, refused, reply } from "./asking.ts";
import type { Errands } from "./errands.ts";
import { type Asked, consulLocality, datacenterOf, type InZone, readName } from "./names.ts";
import { addressRecord, hostName, nodeName, record, wantsAddress } from "./records.ts";
import type { Subjects } from "./subjects.ts";

/** How many names of ours one answer follows behind a CNAME: Consul's number, and ours. */
const CONSUL_MOST_HOPS = 3;
const MOST_HOPS = 8;
const MOST_NAME_SERVERS = 3;
/** A name server is a host, and its node's name is one label of its name [RFC 952]. */
const HOST_NAME = /^[A-Za-z0-9-]+$/;
/** The service that stands for the servers themselves (Consul's name). */
const SERVERS = "consul";

/** Answers for the zone as a whole; every name of ours begins here. */
export class Zone {
  readonly #all: Subjects;

  constructor(all: Subjects) {
    this.#all = all;
  }

  /** One question's answer, whatever it is about. */
  ask(message: Message, question: Question, from: From, errands: Errands | undefined): Reply {
    const { compat } = this.#all.policy;
    const { edns } = message;
    const asking: Asking = {
      question,
      owner: question.name,
      type: question.type,
      family: familyOf(question.type),
      edns,
      from,
      view: this.#all.parts.directory.view(),
      hops: compat ? CONSUL_MOST_HOPS : MOST_HOPS,
      errands,
    };
    const asked = this.read(question.name, question.type);
    if (!compat && question.class !== CLASS.IN && question.class !== CLASS.ANY) return refused();
    // Consul's multiplexer takes a DS record for the parent's business.
    const parents = compat && question.type === TYPE.DS && this.#all.outside.recursesFor(from);
    if (asked.where === "outside" || parents) return this.#all.outside.recurse(asking, message);
    if (asked.where === "reverse") return this.#all.nodes.reverse(asking, asked.labels, message);
    if (compat) {
      // Consul answers these for every name of the zone, existing or not.
      if (asking.type === TYPE.SOA) {
        const { servers, glue } = this.#nameServers(asking, asked);
        return reply([this.soa(asking, this.#soaZone(question.name))], glue, servers);
      }
      if (asking.type === TYPE.NS) {
        const { servers, glue } = this.#nameServers(asking, asked);
        return reply(servers, glue);
      }
      if (asking.type === TYPE.AXFR) return { ...reply(), rcode: RCODE.NOTIMP };
    } else if (asking.type === TYPE.AXFR || asking.type === TYPE.IXFR) return { ...reply(), rcode: RCODE.NOTIMP };
    return this.inZone(asking, asked);
  }

  /** What a name asks for; Consul lets the word "service" be left out for SRV only. */
  read(name: Name, type: number): Asked {
    return readName(name, this.#all.zones, !this.#all.policy.compat || type === TYPE.SRV);
  }

  /** The answer for a name of ours, by its subject. */
  inZone(asking: Asking, asked: InZone): Reply {
    switch (asked.kind) {
      case "apex":
        return this.#apex(asking, asked);
      case "service":
        return this.#all.services.service(asking, asked);
      case "node":
        return this.#all.nodes.node(asking, asked);
      case "addr":
        return this.#all.nodes.address(asking, asked);
      case "virtual":
        // Virtual addresses belong to the mesh, of which there is none: Consul then says nothing rather than no.
        if (this.#all.policy.compat && asked.parts.length > 0 && consulLocality(asked.suffix) !== undefined)
          return reply();
        return this.no(asking, RCODE.NXDOMAIN);
      case "query":
        return { ...this.#all.queries.prepared(asking, asked), chosen: true };
      case "connect":
        return this.#all.services.meshed(asking, asked);
      case "ingress":
        return this.no(asking, RCODE.NXDOMAIN);
      case "none":
        return this.#loose(asking, asked);
    }
  }

  /** Nothing to give: NXDOMAIN where the name does not exist, NOERROR where only the type does not; both with the SOA [RFC 2308]. */
  no(asking: Asking, rcode: number, zone?: Name): Reply {
    const soa = this.soa(asking, zone ?? this.#soaZone(asking.question.name));
    return { rcode, answers: [], additionals: [], authorities: [soa] };
  }

  /** Ours: NODATA where the name exists, else NXDOMAIN. Consul's: NXDOMAIN. */
  empty(asking: Asking, exists: () => boolean): Reply {
    return this.no(asking, !this.#all.policy.compat && exists() ? RCODE.NOERROR : RCODE.NXDOMAIN);
  }

  /** The domain whose SOA belongs to a name: Consul takes the alternative one only for names below it that spell it as configured. */
  #soaZone(name: Name): Name {
    const { primary, alternative } = this.#all.zones;
    if (alternative === undefined || !endsWith(name, alternative)) return primary;
    if (this.#all.policy.compat) {
      const spelled = alternative.every((label, i) => label === name[name.length - alternative.length + i]);
      return spelled && name.length > alternative.length ? alternative : primary;
    }
    return endsWith(name, primary) && primary.length > alternative.length ? primary : alternative;
  }

  /** The SOA of a zone. */
  soa(asking: Asking, zone: Name): DnsRecord {
    const { compat, minTtlS, soa, domain } = this.#all.policy;
    const host = zone[zone.length - 1] === "arpa" ? domain : zone;
    return record(zone, minTtlS, {
      kind: "SOA",
      primary: ["ns", ...host],
      mailbox: ["hostmaster", ...host],
      // Ours changes when something changed; Consul's is the time.
      serial: compat ? Math.floor(this.#all.parts.clock.now() / 1000) >>> 0 : asking.view.index >>> 0,
      refreshS: soa.refreshS,
      retryS: soa.retryS,
      expireS: soa.expireS,
      minTtlS,
    });
  }

  /** Up to three servers of the zone with their addresses: the nodes of the service "consul", else this node. */
  #nameServers(asking: Asking, asked: InZone): { servers: DnsRecord[]; glue: DnsRecord[] } {
    const { compat, nodeTtlS } = this.#all.policy;
    const { self } = this.#all.parts;
    const servers: DnsRecord[] = [];
    const glue: DnsRecord[] = [];
    const nodes = new Map<string, string>();
    for (const { resident } of this.#all.services.shuffled(
      this.#all.services.resolve({ service: SERVERS }, { ...asking, errands: undefined }).endpoints,
    ))
      nodes.set(resident.node.name, resident.node.address);
    if (nodes.size === 0 && !compat)
      nodes.set(self.node, asking.view.get("node", keyOf.node(self.node))?.address ?? self.advertiseAddress);
    for (const [node, address] of nodes) {
      if (servers.length === MOST_NAME_SERVERS) break;
      const name = nodeName(node.toLowerCase(), self.datacenter, asked.spelled.map(lowerLabel));
      if (name === undefined || !HOST_NAME.test(node)) continue;
      servers.push(record(asked.spelled, nodeTtlS, { kind: "NS", target: name }));
      const ip = ipBytes(address);
      if (ip !== undefined) glue.push(addressRecord(name, nodeTtlS, ip));
      // A name server must not be an alias [RFC 2181 §10.3]; Consul's may.
      const target = ip === undefined && compat ? hostName(address) : undefined;
      if (target !== undefined)
        glue.push(record(name, nodeTtlS, { kind: "CNAME", target }), ...this.#all.endpoints.follow(asking, target));
    }
    return { servers, glue };
  }

  #apex(asking: Asking, asked: InZone): Reply {
    if (this.#all.policy.compat) return this.no(asking, RCODE.NXDOMAIN);
    const answers: DnsRecord[] = [];
    const additionals: DnsRecord[] = [];
    if (asking.type === TYPE.SOA || asking.type === TYPE.ANY) answers.push(this.soa(asking, asked.zone));
    if (asking.type === TYPE.NS || asking.type === TYPE.ANY) {
      const { servers, glue } = this.#nameServers(asking, asked);
      answers.push(...servers);
      additionals.push(...glue);
    }
    return answers.length > 0 ? reply(answers, additionals) : this.no(asking, RCODE.NOERROR);
  }

  /** Names of the zone that no word explains: a datacenter's, and the server's own. */
  #loose(asking: Asking, asked: InZone): Reply {
    if (this.#all.policy.compat) return this.no(asking, RCODE.NXDOMAIN);
    if (asked.parts.length === 1 && asked.parts[0] === "ns") {
      const ip = ipBytes(this.#all.parts.self.advertiseAddress);
      return ip !== undefined && wantsAddress(asking.type, ip)
        ? reply([addressRecord(asking.owner, this.#all.policy.nodeTtlS, ip)])
        : this.no(asking, RCODE.NOERROR);
    }
    return this.empty(asking, () => this.#isDatacenterName(asked.parts));
  }

  /** `dc1`, `dc` and `dc1.dc`: nothing is there, but names lie below. */
  #isDatacenterName(labels: readonly string[]): boolean {
    const [first = "", second] = labels;
    if (labels.length === 1) return first === "dc" || this.isDatacenter(first);
    return labels.length === 2 && second === "dc" && this.isDatacenter(first);
  }

  /** True for our own datacenter and those that can be asked. */
  isDatacenter(datacenter: string | undefined): boolean {
    return (
      this.isOwnDatacenter(datacenter) || this.#all.parts.self.datacenters?.includes(datacenter as string) === true
    );
  }

  /** The datacenter that a name says: undefined = none; false = what stands there means nothing, or a peer, of which there are none. */
  datacenterOf({ suffix }: InZone): string | undefined | false {
    if (!this.#all.policy.compat) return datacenterOf(suffix);
    const locality = consulLocality(suffix);
    return locality === undefined || locality.peer !== undefined ? false : locality.datacenter;
  }

  /** True for this agent's own datacenter, also where none is said. */
  isOwnDatacenter(datacenter: string | undefined): boolean {
    return datacenter === undefined || datacenter === this.#all.parts.self.datacenter.toLowerCase();
  }
}
