// DNS messages as objects: what a packet says, apart from how it is packed.
import type { Name } from "./name.ts";

/** What a record says. `other` carries any type without a form of its own as it came, but for names within, which are never compressed here [RFC 3597 §4]. */
export type RecordData =
  | { readonly kind: "A"; readonly address: string }
  | { readonly kind: "AAAA"; readonly address: string }
  | { readonly kind: "NS"; readonly target: Name }
  | { readonly kind: "CNAME"; readonly target: Name }
  | { readonly kind: "PTR"; readonly target: Name }
  | { readonly kind: "MX"; readonly preference: number; readonly exchange: Name }
  | {
      readonly kind: "SOA";
      readonly primary: Name;
      readonly mailbox: Name;
      readonly serial: number;
      readonly refreshS: number;
      readonly retryS: number;
      readonly expireS: number;
      readonly minTtlS: number;
    }
  /** Strings of at most 255 bytes each; at least one on the wire, where an empty list becomes one empty string [RFC 6763 §6.1]. */
  | { readonly kind: "TXT"; readonly strings: readonly Uint8Array[] }
  | {
      readonly kind: "SRV";
      readonly priority: number;
      readonly weight: number;
      readonly port: number;
      readonly target: Name;
    }
  /** Which types exist at a name; `types` in ascending order [RFC 4034 §4, RFC 6762 §6.1]. */
  | { readonly kind: "NSEC"; readonly next: Name; readonly types: readonly number[] }
  | { readonly kind: "other"; readonly type: number; readonly bytes: Uint8Array };

/** A resource record. `class` is the whole 16-bit field, so that mDNS's cache-flush bit is representable; `ttlS` counts seconds, 0 to 2³²−1. */
export interface DnsRecord {
  readonly name: Name;
  readonly class: number;
  readonly ttlS: number;
  readonly data: RecordData;
}

/** A question; `class` is the whole 16-bit field (mDNS's QU bit is its top bit). */
export interface Question {
  readonly name: Name;
  readonly type: number;
  readonly class: number;
}

export interface EdnsOption {
  readonly code: number;
  readonly bytes: Uint8Array;
}

/** The OPT pseudo-record [RFC 6891 §6.1.2]. */
export interface Edns {
  /** The largest UDP message the sender takes, as it says. */
  readonly udpBytes: number;
  readonly version: number;
  /** The DO bit. */
  readonly dnssecOk: boolean;
  readonly options: readonly EdnsOption[];
}

/** The header apart from the counts. `rcode` is the whole code, 12 bits where EDNS is there and 4 otherwise. */
export interface Header {
  readonly id: number;
  readonly response: boolean;
  readonly opcode: number;
  readonly authoritative: boolean;
  readonly truncated: boolean;
  readonly recursionDesired: boolean;
  readonly recursionAvailable: boolean;
  readonly authenticData: boolean;
  readonly checkingDisabled: boolean;
  readonly rcode: number;
}

/** A whole message; the OPT record is `edns` and not among the additional records. */
export interface Message extends Header {
  readonly questions: readonly Question[];
  readonly answers: readonly DnsRecord[];
  readonly authorities: readonly DnsRecord[];
  readonly additionals: readonly DnsRecord[];
  readonly edns?: Edns;
}
