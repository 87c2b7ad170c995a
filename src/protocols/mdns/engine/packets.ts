// What is to be said, packed into packets that fit a link.
import {
  CLASS,
  type DnsRecord,
  type Header,
  MessageBuilder,
  type Name,
  type Question,
  TYPE,
} from "../../../wire/dns/index.ts";
import { LARGEST_PACKET_BYTES, PACKET_BYTES } from "./names.ts";
import { type Owned, onWire } from "./records.ts";

const QUERY: Header = {
  id: 0,
  response: false,
  opcode: 0,
  authoritative: false,
  truncated: false,
  recursionDesired: false,
  recursionAvailable: false,
  authenticData: false,
  checkingDisabled: false,
  rcode: 0,
};
const RESPONSE: Header = { ...QUERY, response: true, authoritative: true };

const builder = (maxBytes: number = PACKET_BYTES): MessageBuilder =>
  new MessageBuilder({ maxBytes, compressSrv: true });

/** Answers in as many packets as they take; additional records only where there is room. */
export function packAnswers(answers: readonly DnsRecord[], additionals: readonly DnsRecord[]): Uint8Array[] {
  const packets: Uint8Array[] = [];
  let packet = builder();
  const close = (): void => {
    if (packet.count("answers") > 0) packets.push(packet.finish(RESPONSE));
    packet = builder();
  };
  for (const record of answers) {
    if (packet.record("answers", record)) continue;
    close();
    if (packet.record("answers", record)) continue;
    // Larger than a packet: alone in one that the network takes to pieces.
    packet = builder(LARGEST_PACKET_BYTES);
    packet.record("answers", record);
    close();
  }
  if (packet.count("answers") > 0) for (const record of additionals) if (!packet.record("additionals", record)) break;
  close();
  return packets;
}

/** The answer to a resolver that is no mDNS one: its id and questions come back [RFC 6762 §6.7]. */
export function packLegacy(
  id: number,
  questions: readonly Question[],
  answers: readonly DnsRecord[],
  additionals: readonly DnsRecord[],
): Uint8Array {
  const packet = builder();
  for (const question of questions) packet.question(question);
  for (const record of answers) packet.record("answers", record);
  for (const record of additionals) packet.record("additionals", record);
  return packet.finish({ ...RESPONSE, id });
}

/** Questions, each with the answers known already; where those do not fit, more packets follow and all but the last say so (TC). */
export function packQuestions(asked: readonly { question: Question; known: readonly DnsRecord[] }[]): Uint8Array[] {
  const packets: Uint8Array[] = [];
  let packet = builder();
  let open = false;
  const close = (truncated: boolean): void => {
    if (open) packets.push(packet.finish({ ...QUERY, truncated }));
    packet = builder();
    open = false;
  };
  let known: DnsRecord[] = [];
  const finish = (): void => {
    for (const record of known) {
      if (packet.record("answers", record)) continue;
      close(true);
      packet.record("answers", record);
      open = true;
    }
    known = [];
    close(false);
  };
  for (const { question, known: more } of asked) {
    if (!packet.question(question)) {
      finish();
      packet.question(question);
    }
    open = true;
    known.push(...more);
  }
  finish();
  return packets;
}

/** Probes: each name with what is proposed for it, in one packet [RFC 6762 §8.1]. */
export function packProbes(names: readonly { name: Name; records: readonly Owned[] }[]): Uint8Array[] {
  const packets: Uint8Array[] = [];
  let batch: { name: Name; records: readonly Owned[] }[] = [];
  const build = (items: typeof batch, maxBytes?: number): Uint8Array | undefined => {
    const packet = builder(maxBytes);
    let fits = true;
    for (const { name } of items) fits = fits && packet.question({ name, type: TYPE.ANY, class: CLASS.IN });
    for (const { records } of items)
      for (const record of records) fits = fits && packet.record("authorities", onWire(record, record.ttlS, false));
    return fits ? packet.finish(QUERY) : undefined;
  };
  let built: Uint8Array | undefined;
  for (const item of names) {
    const larger = build([...batch, item]);
    if (larger !== undefined) {
      batch.push(item);
      built = larger;
      continue;
    }
    if (built !== undefined) packets.push(built);
    batch = [item];
    built = build(batch) ?? build(batch, LARGEST_PACKET_BYTES);
  }
  if (built !== undefined) packets.push(built);
  return packets;
}
