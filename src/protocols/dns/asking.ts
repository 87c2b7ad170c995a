// What an answer is made from, one question on its way, and the sections that come of it.
import type { Clock } from "../../base/clock.ts";
import type { Log } from "../../base/log.ts";
import type { Metrics } from "../../base/metrics.ts";
import type { Random } from "../../base/random.ts";
import type { Directory, View } from "../../contracts/directory.ts";
import type { Self } from "../../contracts/ground.ts";
import type { Lookup } from "../../contracts/lookup.ts";
import type { Magic } from "../../contracts/magic.ts";
import type { Prepared } from "../../contracts/prepared.ts";
import { type DnsRecord, type Edns, type Name, type Question, RCODE, TYPE } from "../../wire/dns/index.ts";
import type { Policy } from "./config.ts";
import type { Errands } from "./errands.ts";
import type { Access } from "./networks.ts";
import type { Recursors } from "./recursors.ts";

/** What answers are made from. */
export interface AnswerParts {
  readonly policy: Policy;
  readonly directory: Pick<Directory, "view">;
  readonly lookup: Pick<Lookup, "resolveNow" | "resolve" | "nodeElsewhere">;
  readonly prepared: Pick<Prepared, "list" | "elsewhere" | "execute" | "executeNow">;
  /** For names that are not ours, and who may ask for them; absent = nobody resolves them. */
  readonly recursion?: { readonly recursors: Recursors; readonly access: Access };
  readonly clock: Pick<Clock, "now" | "monotonic" | "after">;
  readonly random: Random;
  readonly log: Log;
  readonly metrics: Metrics;
  /** Absent = nobody listens at magic addresses. */
  readonly magic?: Pick<Magic, "of" | "kept" | "settled" | "doors">;
  readonly self: Pick<Self, "node" | "datacenter" | "datacenters" | "advertiseAddress">;
}

/** Where a packet came from. */
export interface From {
  /** The asker's IP address. */
  readonly address: string;
  readonly tcp: boolean;
}

/** One question on its way to an answer. */
export interface Asking {
  readonly question: Question;
  /** The name that answers belong to: the question's, or that of a CNAME being followed. */
  readonly owner: Name;
  readonly type: number;
  /** The family of the addresses that the question is for; none for SRV, ANY and others. */
  readonly family: 4 | 6 | undefined;
  readonly edns: Edns | undefined;
  readonly from: From;
  readonly view: View;
  /** Names that may still be followed. */
  readonly hops: number;
  /** Who fetches what only others know; absent where nobody waits for it. */
  readonly errands: Errands | undefined;
}

/** The sections of an answer. */
export interface Reply {
  readonly rcode: number;
  readonly answers: DnsRecord[];
  readonly authorities: DnsRecord[];
  readonly additionals: DnsRecord[];
  /** Set where the zone has nothing to say about the name. */
  readonly foreign?: true;
  /** Set where a recursor gave the answer. */
  readonly recursed?: true;
  /** Set where the answer was chosen for the asker's network. */
  readonly chosen?: true;
}

/** An answer with these sections. */
export const reply = (
  answers: DnsRecord[] = [],
  additionals: DnsRecord[] = [],
  authorities: DnsRecord[] = [],
): Reply => ({
  rcode: RCODE.NOERROR,
  answers,
  authorities,
  additionals,
});

/** The family of address that questions of a type ask for; undefined where both or none are. */
export function familyOf(type: number): 4 | 6 | undefined {
  return type === TYPE.A ? 4 : type === TYPE.AAAA ? 6 : undefined;
}

/** Nothing of ours. */
export const refused = (): Reply => ({ ...reply(), rcode: RCODE.REFUSED, foreign: true });

/** 127.0.0.0/8 and ::1, also written as IPv4 within IPv6. */
export function isLoopback(address: string): boolean {
  return address.startsWith("127.") || address === "::1" || address.startsWith("::ffff:127.");
}
