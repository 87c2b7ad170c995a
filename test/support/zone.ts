// A zone in the words of zone files for told recursors: lines "name TTL TYPE data", changed at will.
import {
  type DnsRecord,
  type Message,
  nameFromText,
  RCODE,
  type RecordData,
  sameName,
  typeOfData,
} from "../../src/wire/dns/index.ts";

/** One line: "web.example.com. 60 A 192.0.2.1", "_http._tcp.example.com. 60 SRV 0 5 80 web.example.com.". */
export function recordOf(line: string): DnsRecord {
  const [name = "", ttl = "", type = "", ...data] = line.trim().split(/\s+/);
  return { name: nameFromText(name), class: 1, ttlS: Number(ttl), data: dataOf(type, data) };
}

function dataOf(type: string, [a = "", b = "", c = "", d = "", ...rest]: string[]): RecordData {
  switch (type) {
    case "A":
    case "AAAA":
      return { kind: type, address: a };
    case "CNAME":
    case "NS":
      return { kind: type, target: nameFromText(a) };
    case "SRV":
      return { kind: "SRV", priority: Number(a), weight: Number(b), port: Number(c), target: nameFromText(d) };
    case "SOA":
      return {
        ...{ kind: "SOA", primary: nameFromText(a), mailbox: nameFromText(b), serial: Number(c), refreshS: Number(d) },
        ...{ retryS: Number(rest[0]), expireS: Number(rest[1]), minTtlS: Number(rest[2]) },
      };
    default:
      throw new Error(`no type ${type} in tests' zones`);
  }
}

/** A server's answers out of such lines: aliases followed, NXDOMAIN and NODATA with the SOA that is among the lines. */
export function answersFrom(lines: () => readonly string[]): (query: Message) => Partial<Message> {
  return ({ questions }) => {
    const records = lines().map(recordOf);
    const soa = records.filter(({ data }) => data.kind === "SOA");
    const [question] = questions;
    if (question === undefined) return { rcode: RCODE.FORMERR };
    const answers: DnsRecord[] = [];
    let at = question.name;
    for (;;) {
      const here = records.filter(({ name }) => sameName(name, at));
      const found = here.filter(({ data }) => typeOfData(data) === question.type);
      if (found.length > 0) return { answers: [...answers, ...found] };
      const alias = here.find(({ data }) => data.kind === "CNAME");
      if (alias?.data.kind !== "CNAME" || answers.length > 20)
        return { answers, authorities: soa, rcode: here.length === 0 ? RCODE.NXDOMAIN : RCODE.NOERROR };
      answers.push(alias);
      at = alias.data.target;
    }
  };
}
