// A member of a server set as JSON, as Finagle and Aurora read and write it, to and from objects. Pure.
import { InputError, messageOf } from "../../base/error.ts";
import type { Labels } from "../../model/node.ts";

export interface MemberEndpoint {
  readonly host: string;
  readonly port: number;
}

/** What a member says. */
export interface Member {
  /** Absent where only additional endpoints are stated. */
  readonly serviceEndpoint?: MemberEndpoint;
  /** By name. */
  readonly additionalEndpoints: ReadonlyMap<string, MemberEndpoint>;
  /** "ALIVE" where it takes calls; "STARTING", "STOPPING", "DEAD" … */
  readonly status: string;
  readonly shard?: number;
  /** Key=value pairs, as newer Finagles have them. */
  readonly metadata: Labels;
  /** Additional endpoints that are none ("*": all), and why; absent where all are. They cost the member nothing else. */
  readonly faults?: readonly { readonly endpoint: string; readonly text: string }[];
}

/** The names of members; whatever else stands in a set, weights (`vector.ts`) aside, is somebody else's. */
export const MEMBER_PREFIX = "member_";
export const isMemberName = (name: string): boolean => name.startsWith(MEMBER_PREFIX);

/** The numbers of Thrift's enumeration, which some writers put in place of the words. */
const STATUS_BY_NUMBER = ["DEAD", "STARTING", "ALIVE", "STOPPING", "STOPPED", "WARNING"];
const LONGEST = 64 << 10;

/** What a node of a set holds. @throws InputError where it is no JSON, or longer than `whose` data may be */
export function jsonOf(bytes: Uint8Array, whose: string, longest: number): unknown {
  if (bytes.length > longest) throw new InputError("", `${bytes.length} bytes are more than ${whose}'s ${longest}`);
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch {
    throw new InputError("", bytes.length === 0 ? "it is empty" : "it is not JSON");
  }
}

/** @throws InputError that says what is wrong with it */
export function decodeMember(bytes: Uint8Array): Member {
  const told = objectOf(jsonOf(bytes, "a member", LONGEST), "expected an object with serviceEndpoint and status");
  const main = told["serviceEndpoint"];
  const serviceEndpoint = main === undefined || main === null ? undefined : endpointOf(main, "serviceEndpoint");
  const additional = new Map<string, MemberEndpoint>();
  const faults: { endpoint: string; text: string }[] = [];
  const tried = (endpoint: string, work: () => void): void => {
    try {
      work();
    } catch (error) {
      // Whoever has nothing else is no member.
      if (serviceEndpoint === undefined) throw error;
      faults.push({ endpoint, text: messageOf(error) });
    }
  };
  const others = told["additionalEndpoints"] ?? {};
  tried("*", () => {
    for (const [name, each] of Object.entries(objectOf(others, "additionalEndpoints: expected an object")))
      tried(name, () => additional.set(name, endpointOf(each, `additionalEndpoints.${name}`)));
  });
  if (serviceEndpoint === undefined && additional.size === 0) throw new InputError("", "it has no serviceEndpoint");
  const shard = told["shard"];
  return {
    ...(serviceEndpoint === undefined ? {} : { serviceEndpoint }),
    additionalEndpoints: additional,
    status: statusOf(told["status"]),
    ...(typeof shard === "number" && Number.isInteger(shard) ? { shard } : {}),
    metadata: metadataOf(told["metadata"]),
    ...(faults.length === 0 ? {} : { faults }),
  };
}

function objectOf(value: unknown, fault: string): Record<string, unknown> {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new InputError("", fault);
  return value as Record<string, unknown>;
}

function endpointOf(value: unknown, where: string): MemberEndpoint {
  const { host, port } = objectOf(value, `${where}: expected {"host": …, "port": …}`);
  if (typeof host !== "string" || !/^[^\s/]+$/.test(host) || host.length > 255)
    throw new InputError(where, `host ${JSON.stringify(host)}: expected an address or a name`);
  if (typeof port !== "number" || !Number.isInteger(port) || port < 1 || port > 65_535)
    throw new InputError(where, `port ${JSON.stringify(port)}: expected a number from 1 to 65535`);
  return { host: host.replace(/^\[(.*)\]$/, "$1"), port };
}

function statusOf(value: unknown): string {
  const status = typeof value === "number" ? STATUS_BY_NUMBER[value] : value;
  if (typeof status !== "string" || status === "")
    throw new InputError("status", `${JSON.stringify(value)}: expected "ALIVE"`);
  return status.toUpperCase();
}

function metadataOf(value: unknown): Labels {
  const labels: Record<string, string> = Object.create(null);
  if (typeof value === "object" && value !== null && !Array.isArray(value))
    for (const [key, each] of Object.entries(value)) if (typeof each === "string") labels[key] = each;
  return labels;
}

/** In the order in which Finagle and Aurora write it, without spaces. */
export function encodeMember(member: Member): string {
  const { serviceEndpoint, additionalEndpoints, status, shard, metadata } = member;
  return JSON.stringify({
    ...(serviceEndpoint === undefined ? {} : { serviceEndpoint }),
    additionalEndpoints: Object.fromEntries(additionalEndpoints),
    status,
    ...(shard === undefined ? {} : { shard }),
    ...(Object.keys(metadata).length === 0 ? {} : { metadata }),
  });
}
