// A DNS responder over a small world for tests, and questions for it: the answer comes back decoded by the project's own codec.
import { silentLog } from "../../src/base/log.ts";
import type { MagicDoors } from "../../src/contracts/magic.ts";
import { createResponder, type Responder } from "../../src/protocols/dns/answer.ts";
import { policyOf, readConfig } from "../../src/protocols/dns/config.ts";
import {
  CLASS,
  type DnsRecord,
  decodeMessage,
  type Edns,
  encodeMessage,
  type Message,
  nameFromText,
  RCODE,
  TYPE,
  textOfName,
} from "../../src/wire/dns/index.ts";
import { seededRandom, type World, world } from "./lookup.ts";

export interface AskOptions {
  readonly type?: keyof typeof TYPE;
  readonly class?: number;
  readonly tcp?: boolean;
  readonly from?: string;
  readonly edns?: Partial<Edns>;
}

export interface DnsWorld extends World {
  readonly responder: Responder;
  ask(name: string, options?: AskOptions): Message;
  /** `ask` as one line: "NOERROR aa | answers | authorities | additionals". */
  line(name: string, options?: AskOptions): string;
}

/** A query packet. */
export function queryPacket(name: string, options: AskOptions = {}, id = 4711): Uint8Array {
  return encodeMessage({
    id,
    response: false,
    opcode: 0,
    authoritative: false,
    truncated: false,
    recursionDesired: true,
    recursionAvailable: false,
    authenticData: false,
    checkingDisabled: false,
    rcode: 0,
    questions: [{ name: nameFromText(name), type: TYPE[options.type ?? "A"], class: options.class ?? CLASS.IN }],
    answers: [],
    authorities: [],
    additionals: [],
    ...(options.edns === undefined
      ? {}
      : { edns: { udpBytes: 4096, version: 0, dnssecOk: false, options: [], ...options.edns } }),
  });
}

/** A record as zone files write it, without its class. */
export function recordText({ name, ttlS, data }: DnsRecord): string {
  const rest = (): string => {
    switch (data.kind) {
      case "A":
      case "AAAA":
        return data.address;
      case "NS":
      case "CNAME":
      case "PTR":
        return textOfName(data.target);
      case "SRV":
        return `${data.priority} ${data.weight} ${data.port} ${textOfName(data.target)}`;
      case "TXT":
        return data.strings.map((text) => JSON.stringify(Buffer.from(text).toString())).join(" ");
      case "SOA":
        return `${textOfName(data.primary)} ${textOfName(data.mailbox)} ${data.minTtlS}`;
      default:
        return JSON.stringify(data);
    }
  };
  return `${textOfName(name)} ${ttlS} ${data.kind} ${rest()}`;
}

/** A message as one line. */
export function messageText(message: Message): string {
  const rcode = Object.entries(RCODE).find(([, code]) => code === message.rcode)?.[0] ?? String(message.rcode);
  const flags = `${message.authoritative ? " aa" : ""}${message.truncated ? " tc" : ""}`;
  const sections = [message.answers, message.authorities, message.additionals].map((records) =>
    records.map(recordText).sort().join("; "),
  );
  return [rcode + flags, ...sections].join(" | ").replace(/( \| )+$/, "");
}

/** Node "home" at 10.1.0.1 in datacenter dc1, answering for "consul" by our own rules unless told. */
export async function dnsWorld(
  options: {
    readonly compat?: boolean;
    readonly config?: object;
    readonly domain?: string;
    /** Who listens at magic addresses; nobody unless told. */
    readonly doors?: MagicDoors;
  } = {},
): Promise<DnsWorld> {
  const base = await world();
  if (options.doors !== undefined) base.magic.openBy(options.doors);
  const responder = createResponder({
    policy: policyOf(readConfig(options.config), options.compat ?? false, options.domain ?? "consul"),
    directory: base.directory,
    lookup: base.lookup,
    prepared: base.prepared,
    clock: base.clock,
    random: seededRandom(11),
    log: silentLog,
    metrics: base.metrics,
    magic: base.magic,
    self: { node: "home", datacenter: "dc1", advertiseAddress: "10.1.0.1" },
  });
  const once = (name: string, asked: AskOptions): Message => {
    const packet = responder.respond(queryPacket(name, asked), {
      address: asked.from ?? "127.0.0.1",
      tcp: asked.tcp ?? false,
    });
    if (packet === undefined) throw new Error(`no answer to ${name}`);
    return decodeMessage(packet);
  };
  const ask = (name: string, asked: AskOptions = {}): Message => {
    const first = once(name, asked);
    // What was answered once is answered from packed records then: it must be the same answer.
    const second = once(name, asked);
    const outline = ({ answers, authorities, additionals, ...rest }: Message): string =>
      JSON.stringify({ ...rest, answers: answers.length, authorities: authorities.length });
    if (outline(first) !== outline(second))
      throw new Error(`${name} was first answered ${messageText(first)}, then ${messageText(second)}`);
    return second;
  };
  return { ...base, responder, ask, line: (name, asked) => messageText(ask(name, asked)) };
}
