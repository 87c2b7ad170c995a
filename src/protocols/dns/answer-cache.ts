// Answers of recursors, kept for as long as their TTLs allow and never more than so many bytes.
import type { Clock } from "../../base/clock.ts";
import { type DnsRecord, decodeMessage, type Message, RCODE } from "../../wire/dns/index.ts";

/** A positive answer is kept no longer than a day, a negative one no longer than an hour [RFC 2308 §5, RFC 8767 §4]. */
const MOST_S = 86_400;
const MOST_NEGATIVE_S = 3_600;
/** What one entry takes beside its packet. */
const ENTRY_BYTES = 256;

interface Kept {
  readonly packet: Uint8Array;
  readonly keptMs: number;
  readonly untilMs: number;
}

/** For how many seconds an answer may be kept: the smallest TTL of its answers; without any, what the SOA says [RFC 2308]. */
export function keepForS({ rcode, answers, authorities }: Message): number {
  if (rcode !== RCODE.NOERROR && rcode !== RCODE.NXDOMAIN) return 0;
  let ttlS = MOST_S;
  for (const answer of answers) ttlS = Math.min(ttlS, answer.ttlS);
  const last = answers[answers.length - 1];
  if (rcode === RCODE.NOERROR && last !== undefined && last.data.kind !== "CNAME") return ttlS;
  for (const { data, ttlS: soaTtlS } of authorities)
    if (data.kind === "SOA") return Math.min(ttlS, soaTtlS, data.minTtlS, MOST_NEGATIVE_S);
  return 0;
}

/** See the first line. */
export class AnswerCache {
  readonly #clock: Pick<Clock, "monotonic">;
  readonly #mostBytes: number;
  /** The one used longest ago comes first. */
  readonly #entries = new Map<string, Kept>();
  #bytes = 0;

  constructor(clock: Pick<Clock, "monotonic">, mostBytes: number) {
    this.#clock = clock;
    this.#mostBytes = mostBytes;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** The answer as it would be now, its TTLs counted down; undefined where there is none. */
  get(key: string): Message | undefined {
    const kept = this.#entries.get(key);
    if (kept === undefined) return undefined;
    const nowMs = this.#clock.monotonic();
    this.#drop(key, kept);
    if (nowMs >= kept.untilMs) return undefined;
    this.#add(key, kept);
    const ageS = Math.floor((nowMs - kept.keptMs) / 1000);
    const older = (record: DnsRecord): DnsRecord => ({ ...record, ttlS: Math.max(0, record.ttlS - ageS) });
    const message = decodeMessage(kept.packet);
    return {
      ...message,
      answers: message.answers.map(older),
      authorities: message.authorities.map(older),
      additionals: message.additionals.map(older),
    };
  }

  /** Keeps an answer for as long as it says. */
  put(key: string, packet: Uint8Array, message: Message): void {
    const ttlS = keepForS(message);
    const before = this.#entries.get(key);
    if (before !== undefined) this.#drop(key, before);
    if (ttlS <= 0 || packet.length + ENTRY_BYTES > this.#mostBytes) return;
    const keptMs = this.#clock.monotonic();
    this.#add(key, { packet: Uint8Array.from(packet), keptMs, untilMs: keptMs + ttlS * 1000 });
    for (const [oldest, kept] of this.#entries) {
      if (this.#bytes <= this.#mostBytes) break;
      this.#drop(oldest, kept);
    }
  }

  #add(key: string, kept: Kept): void {
    this.#entries.set(key, kept);
    this.#bytes += key.length + kept.packet.length + ENTRY_BYTES;
  }

  #drop(key: string, kept: Kept): void {
    this.#entries.delete(key);
    this.#bytes -= key.length + kept.packet.length + ENTRY_BYTES;
  }
}
