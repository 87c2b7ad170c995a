// Which instances become members of which server sets, with what content, and why others do not. Pure.
import { ipFamily } from "../../base/net.ts";
import type { Instance } from "../../model/instance.ts";
import { labelsOf } from "../../model/label-tags.ts";
import type { AnnounceRule } from "./config.ts";
import { encodeMember, type MemberEndpoint } from "./member.ts";
import { isTold, MARK, MARK_ID, SOURCE } from "./registrations.ts";

/** An instance with the address at which it is reached. */
export interface Candidate {
  readonly instance: Instance;
  readonly address: string;
}

/** One member that is to be there. */
export interface WantedMember {
  /** Of the set. */
  readonly path: string;
  /** Which instance it is, for the metadata: unique for the writing node. */
  readonly id: string;
  readonly service: string;
  readonly at: MemberEndpoint;
  /** The member's JSON. */
  readonly text: string;
}

export interface Plan {
  readonly wanted: readonly WantedMember[];
  readonly not: readonly { readonly id: string; readonly why: string }[];
}

export interface PlanHost {
  readonly nodeId: string;
  /** Where readers of the server sets are on this host only, so that loopback addresses serve them. */
  readonly loopback: boolean;
}

/** "zookeeper-endpoint-http" = "8080" or "host:8080": an additional endpoint. */
const ENDPOINT_LABEL = /^zookeeper-endpoint-(.+)$/;

/** The address of an instance for others: one that is reached from afar where it states several. */
function addressForOthers({ address, port, addresses = [] }: Instance, nodeAddress: string): MemberEndpoint {
  const usable = (host: string): boolean => host !== "" && host !== "0.0.0.0" && host !== "::";
  const far = addresses.find(({ reach }) => reach === "lan" || reach === "public" || reach === "tailnet");
  if (address !== "" && usable(address) && !isLoopback(address)) return { host: address, port };
  if (far !== undefined) return { host: far.host, port: far.port };
  return { host: usable(address) ? address : nodeAddress, port };
}

const isLoopback = (host: string): boolean =>
  host === "localhost" || host === "::1" || (ipFamily(host) === 4 && host.startsWith("127."));

/** True where servers are on this host alone: "127.0.0.1:2181,localhost". */
export function areLoopback(servers: string): boolean {
  const [hosts = ""] = servers.split("/");
  return hosts.split(",").every((server) => isLoopback(server.replace(/:\d+$/, "")));
}

/** What becomes of the candidates of one rule: all of them routable, none of them from ZooKeeper. */
export function planMembers(candidates: readonly Candidate[], rule: AnnounceRule, host: PlanHost): Plan {
  const wanted: WantedMember[] = [];
  const not: { id: string; why: string }[] = [];
  for (const { instance, address } of candidates) {
    const { name, tags, labels, origin } = instance;
    if (rule.service !== "*" && name.toLowerCase() !== rule.service.toLowerCase()) continue;
    if (rule.service === "*" && name === "consul") continue;
    if (!rule.tags.every((tag) => tags.some((one) => one.toLowerCase() === tag.toLowerCase()))) continue;
    const id = rule.from === "host" ? instance.id : `${instance.node}/${instance.id}`;
    const path = rule.path.replaceAll("{service}", name);
    const at = addressForOthers(instance, address);
    if (origin.source === SOURCE) not.push({ id, why: "it came from ZooKeeper" });
    else if (rule.from === "host" && origin.authority !== "first-hand")
      not.push({ id, why: "it is another's: only its owner writes it" });
    else if (at.port === 0) not.push({ id, why: "it has no port" });
    else if (isLoopback(at.host) && !host.loopback)
      not.push({ id, why: `it is reached on this host only (${at.host})` });
    else if (!/^(\/[^/\s]+)+$/.test(path)) not.push({ id, why: `"${path}" is not a path of a znode` });
    else {
      const shard = /^\d{1,9}$/.test(labels[rule.shard] ?? "") ? Number(labels[rule.shard]) : undefined;
      const additional = new Map<string, MemberEndpoint>();
      for (const [key, value] of Object.entries(labels)) {
        const [, endpoint] = ENDPOINT_LABEL.exec(key) ?? [];
        const [, other, digits] = /^(?:(.+):)?(\d{1,5})$/.exec(value) ?? [];
        if (endpoint === undefined || digits === undefined) continue;
        additional.set(endpoint, { host: other?.replace(/^\[(.*)\]$/, "$1") ?? at.host, port: Number(digits) });
      }
      const told = Object.entries(labels).filter(
        ([key]) => isTold(key) && !(key === rule.shard && shard !== undefined),
      );
      const metadata = Object.assign(Object.create(null), labelsOf(Object.fromEntries(told), tags.filter(isTold)), {
        [MARK]: host.nodeId,
        [MARK_ID]: id,
      });
      const text = encodeMember({
        serviceEndpoint: at,
        additionalEndpoints: additional,
        status: "ALIVE",
        ...(shard === undefined ? {} : { shard }),
        metadata,
      });
      wanted.push({ path, id, service: name, at, text });
    }
  }
  return { wanted, not };
}
