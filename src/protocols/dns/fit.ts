// What of an answer goes into a message that may only be so large: Consul's recorded way and ours.
import {
  type DnsRecord,
  type Edns,
  HEADER_BYTES,
  type Header,
  lowerLabel,
  MessageBuilder,
  type Name,
  nameBytes,
  PLAIN_UDP_BYTES,
  type Question,
  recordBytes,
  TYPE,
} from "../../wire/dns/index.ts";

/** An answer before it is cut and packed. */
export interface Draft {
  readonly header: Header;
  readonly question: Question | undefined;
  readonly answers: readonly DnsRecord[];
  readonly authorities: readonly DnsRecord[];
  readonly additionals: readonly DnsRecord[];
  readonly edns: Edns | undefined;
}

/**
 * Packs what fits into `maxBytes`: answers first, with TC where one is left out; then authorities; then the additional records that still
 * fit, whose absence says nothing [RFC 2181 §9]. `mayTruncate` false leaves TC unset all the same.
 */
export function packWhatFits(draft: Draft, maxBytes: number, compress: boolean, mayTruncate: boolean): Uint8Array {
  const builder = new MessageBuilder({ maxBytes, compress });
  if (draft.edns !== undefined) builder.edns(draft.edns);
  if (draft.question !== undefined) builder.question(draft.question);
  const left =
    draft.answers.some((record) => !builder.record("answers", record)) ||
    draft.authorities.some((record) => !builder.record("authorities", record));
  if (!left) for (const record of draft.additionals) builder.record("additionals", record);
  return builder.finish(left && mayTruncate ? { ...draft.header, truncated: true } : draft.header);
}

/** As much as Consul lets into a message over TCP. */
export const CONSUL_MOST_TCP_BYTES = 65_523;
/** Consul counts the UDP header into the size that the asker offers. */
export const CONSUL_UDP_SLACK_BYTES = 8;
const CONSUL_MOST_TCP_ANSWERS = 4096;
export const CONSUL_MOST_TCP_SRV_ANSWERS = 1024;

/** A draft being cut down, the OPT record among the additional ones as Consul counts it. */
interface Cut {
  answers: readonly DnsRecord[];
  authorities: readonly DnsRecord[];
  additionals: readonly DnsRecord[];
  edns: Edns | undefined;
}

/**
 * Cuts as Consul 1.19.2 does [CONTRACTS 2.2]: over UDP without room beyond 512 bytes at most `plainAnswers` records, measured uncompressed; otherwise as many as
 * the limit holds; the authority section goes first, and with any answer goes every additional record that no kept SRV needs, the OPT record included.
 */
export function packAsConsul(
  draft: Draft,
  options: {
    readonly tcp: boolean;
    /** The largest message over UDP for this asker. */
    readonly udpBytes: number;
    readonly plainAnswers: number;
    readonly compress: boolean;
    readonly truncate: boolean;
  },
): Uint8Array {
  const { tcp, compress } = options;
  const cut: Cut = { ...draft };
  const all = draft.answers.length;
  const byName = firstByName(draft.additionals);
  const keep = (count: number): void => {
    cut.answers = cut.answers.slice(0, count);
    cut.additionals = neededBy(cut.answers, byName);
    cut.edns = undefined;
  };
  let measured = compress;
  let maxBytes = CONSUL_MOST_TCP_BYTES;
  let slack = 0;
  let shortened = false;
  if (tcp) {
    const most = draft.question?.type === TYPE.SRV ? CONSUL_MOST_TCP_SRV_ANSWERS : CONSUL_MOST_TCP_ANSWERS;
    if (all > most) cut.answers = cut.answers.slice(0, most);
  } else {
    maxBytes = options.udpBytes;
    slack = CONSUL_UDP_SLACK_BYTES;
    if (maxBytes === PLAIN_UDP_BYTES && all > options.plainAnswers) {
      measured = false;
      keep(options.plainAnswers);
    }
  }
  let size = sizeOf(draft, cut, measured);
  while (cut.answers.length > 1 && size > maxBytes - slack) {
    shortened = true;
    cut.authorities = [];
    size = sizeOf(draft, cut, measured);
    keep(size - maxBytes > 100 ? mostThatFit(draft, cut, byName, measured, maxBytes) : cut.answers.length - 1);
    size = sizeOf(draft, cut, measured);
  }
  if (!tcp) shortened = cut.answers.length < all;
  const header = shortened && options.truncate ? { ...draft.header, truncated: true } : draft.header;
  // A text that several answers need is counted for each, as Consul sends it, but sent once.
  cut.additionals = textsOnce(cut.additionals);
  // One record may still be too large for the limit: it is sent all the same.
  return pack(draft, cut, compress, undefined).finish(header);
}

function pack(draft: Draft, cut: Cut, compress: boolean, maxBytes: number | undefined): MessageBuilder {
  const builder = new MessageBuilder({ compress, ...(maxBytes === undefined ? {} : { maxBytes }) });
  if (cut.edns !== undefined) builder.edns(cut.edns);
  if (draft.question !== undefined) builder.question(draft.question);
  for (const section of ["answers", "authorities", "additionals"] as const)
    for (const record of cut[section]) builder.record(section, record);
  return builder;
}

function sizeOf(draft: Draft, cut: Cut, compress: boolean): number {
  if (compress) return pack(draft, cut, true, undefined).size;
  let size = HEADER_BYTES;
  if (draft.question !== undefined) size += nameBytes(draft.question.name) + 4;
  for (const records of [cut.answers, cut.authorities, cut.additionals])
    for (const record of records) size += recordBytes(record);
  if (cut.edns !== undefined) {
    size += 11;
    for (const option of cut.edns.options) size += 4 + option.bytes.length;
  }
  return size;
}

function mostThatFit(
  draft: Draft,
  cut: Cut,
  byName: ReadonlyMap<string, DnsRecord>,
  compress: boolean,
  maxBytes: number,
): number {
  let fits = 0;
  let tooMany = cut.answers.length + 1;
  while (tooMany - fits > 1) {
    const middle = (fits + tooMany) >> 1;
    const answers = cut.answers.slice(0, middle);
    const part = { answers, authorities: [], additionals: neededBy(answers, byName), edns: undefined };
    if (sizeOf(draft, part, compress) <= maxBytes) fits = middle;
    else tooMany = middle;
  }
  return fits;
}

function textsOnce(records: readonly DnsRecord[]): readonly DnsRecord[] {
  const seen = new Set<string>();
  return records.filter((record) => {
    if (record.data.kind !== "TXT") return true;
    const key = `${keyOf(record.name)} ${JSON.stringify(record.data)}`;
    return !seen.has(key) && seen.add(key);
  });
}

const keyOf = (name: Name): string => name.map(lowerLabel).join(".");

function firstByName(records: readonly DnsRecord[]): ReadonlyMap<string, DnsRecord> {
  const byName = new Map<string, DnsRecord>();
  for (const record of records) {
    const key = keyOf(record.name);
    if (!byName.has(key)) byName.set(key, record);
  }
  return byName;
}

/** The additional records that the SRV answers point to, through CNAMEs. */
function neededBy(answers: readonly DnsRecord[], byName: ReadonlyMap<string, DnsRecord>): DnsRecord[] {
  const needed: DnsRecord[] = [];
  const seen = new Set<string>();
  for (const { data } of answers) {
    if (data.kind !== "SRV") continue;
    let target: Name | undefined = data.target;
    while (target !== undefined) {
      const key = keyOf(target);
      target = undefined;
      if (seen.has(key)) break;
      seen.add(key);
      const found = byName.get(key);
      if (found === undefined) break;
      needed.push(found);
      if (found.data.kind === "CNAME") target = found.data.target;
    }
  }
  return needed;
}
