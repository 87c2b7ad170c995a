// What DNS would answer about a service now, for `why`: real questions, asked of the responder as if from this host and from another.
import type { Self } from "../../contracts/ground.ts";
import type { Told } from "../../contracts/protocol.ts";
import {
  CLASS,
  type DnsRecord,
  decodeMessage,
  encodeMessage,
  labelFromText,
  type Message,
  type Name,
  nameFromText,
  RCODE,
  TYPE,
  textOfName,
} from "../../wire/dns/index.ts";
import type { Responder } from "./answer.ts";

const ASKED = ["A", "AAAA", "SRV"] as const;
const RCODES: ReadonlyMap<number, string> = new Map(Object.entries(RCODE).map(([name, code]) => [code, name]));

/** Asks for addresses and servers of a service, once for each kind of asker whose answer may differ. */
export function tellOf(
  responder: Responder,
  service: string,
  { domain, advertiseAddress }: Pick<Self, "domain" | "advertiseAddress">,
): readonly Told[] {
  const name = [labelFromText(service), labelFromText("service"), ...nameFromText(domain)];
  const elsewhere = /^(127\.|::1$)/.test(advertiseAddress) ? undefined : advertiseAddress;
  return ASKED.flatMap((type): Told[] => {
    const here = ask(responder, name, type, "127.0.0.1");
    const there = elsewhere === undefined ? here : ask(responder, name, type, elsewhere);
    const asked = `${textOfName(name)} ${type}: `;
    if (here === there) return [{ to: "everybody", text: asked + here }];
    return [
      { to: "this host", text: asked + here },
      { to: `hosts on the network of ${elsewhere}`, text: asked + there },
    ];
  });
}

function ask(responder: Responder, name: Name, type: (typeof ASKED)[number], address: string): string {
  const question: Message = {
    ...{ id: 1, response: false, opcode: 0, authoritative: false, truncated: false, recursionDesired: true },
    ...{ recursionAvailable: false, authenticData: false, checkingDisabled: false, rcode: 0 },
    questions: [{ name, type: TYPE[type], class: CLASS.IN }],
    ...{ answers: [], authorities: [], additionals: [] },
  };
  const packet = responder.respond(encodeMessage(question), { address, tcp: true });
  if (packet === undefined) return "no answer";
  const { rcode, answers } = decodeMessage(packet);
  if (rcode !== RCODE.NOERROR) return RCODES.get(rcode) ?? `code ${rcode}`;
  const texts = answers.map(textOf).sort();
  return texts.length === 0 ? "nothing of this type (NODATA)" : texts.join(", ");
}

function textOf({ data }: DnsRecord): string {
  switch (data.kind) {
    case "A":
    case "AAAA":
      return data.address;
    case "SRV":
      return `${textOfName(data.target)}:${data.port} (weight ${data.weight})`;
    case "CNAME":
      return `CNAME ${textOfName(data.target)}`;
    default:
      return data.kind;
  }
}
