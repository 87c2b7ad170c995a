// The DNS codec: names, addresses and messages survive the trip; limits and truncation hold; dns-packet agrees.
import * as oracle from "dns-packet";
import { describe, expect, it } from "vitest";
import { TrilithError } from "../../base/error.ts";
import {
  CLASS,
  type DnsRecord,
  decodeMessage,
  encodeMessage,
  endsWith,
  ipBytes,
  ipText,
  labelFromText,
  lowerLabel,
  type Message,
  MessageBuilder,
  nameFromText,
  nameToWire,
  RCODE,
  recordBytes,
  reverseName,
  sameName,
  TOP_BIT_OF_CLASS,
  TYPE,
  textFromLabel,
  textOfName,
} from "./index.ts";

const bytesOf = (hex: string): Uint8Array => Uint8Array.from(Buffer.from(hex.replaceAll(" ", ""), "hex"));
const header = {
  id: 1,
  response: true,
  opcode: 0,
  authoritative: true,
  truncated: false,
  recursionDesired: true,
  recursionAvailable: false,
  authenticData: false,
  checkingDisabled: false,
  rcode: 0,
};
const a = (name: string, address: string): DnsRecord => ({
  name: nameFromText(name),
  class: CLASS.IN,
  ttlS: 0,
  data: { kind: "A", address },
});

describe("names", () => {
  it("keep case, compare without it, and escape what is not printable", () => {
    const name = nameFromText("WeB.a\\.b.\\000\\255x.consul.");
    expect(name).toEqual(["WeB", "a.b", "\u0000\u00ffx", "consul"]);
    expect(textOfName(name)).toBe("WeB.a\\.b.\\000\\255x.consul.");
    expect(sameName(name, nameFromText("web.A\\.B.\\000\\255X.CONSUL"))).toBe(true);
    expect(textOfName([])).toBe(".");
    expect(nameFromText(".")).toEqual([]);
  });

  it("hold UTF-8 as bytes and lower only ASCII", () => {
    expect(nameFromText("Büro")).toEqual([labelFromText("Büro")]);
    expect(textFromLabel(labelFromText("Büro ☎"))).toBe("Büro ☎");
    expect(lowerLabel("ÀZ")).toBe("Àz");
    expect(sameName(["\u00c0"], ["\u00e0"])).toBe(false);
  });

  it("end with a zone only at a label's boundary", () => {
    expect(endsWith(nameFromText("web.service.consul"), nameFromText("CONSUL"))).toBe(true);
    expect(endsWith(nameFromText("web.service.xconsul"), nameFromText("consul"))).toBe(false);
    expect(endsWith([], nameFromText("consul"))).toBe(false);
  });

  it.each(["a..b", ".a", "a\\", "a\\25", "a\\256", `${"x".repeat(64)}.a`, "abcdefgh.".repeat(29)])(
    "refuse %j",
    (text) => {
      expect(() => nameFromText(text)).toThrow(TrilithError);
    },
  );

  it("may be 255 bytes long and no longer", () => {
    const labels = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61)];
    expect(nameToWire(labels)).toHaveLength(255);
    expect(() => nameToWire([...labels.slice(0, 3), "d".repeat(62)])).toThrow("255 are allowed");
  });
});

describe("addresses", () => {
  it.each([
    ["192.0.2.1", "192.0.2.1"],
    ["::", "::"],
    ["2001:DB8:0:0:0:0:0:6", "2001:db8::6"],
    ["1::", "1::"],
    ["::ffff:192.0.2.1", "192.0.2.1"],
    ["64:ff9b::192.0.2.1", "64:ff9b::c000:201"],
    ["1:0:0:2:0:0:0:3", "1:0:0:2::3"],
  ])("%s reads as %s", (text, canonical) => {
    const bytes = ipBytes(text);
    expect(bytes && ipText(bytes)).toBe(canonical);
  });

  it.each([
    "",
    "1.2.3",
    "1.2.3.4.5",
    "1.2.3.256",
    "01.2.3.4",
    "1..2.3",
    "a",
    ":",
    ":::",
    "1:",
    ":1",
    "1::2::3",
    "12345::",
    "1:2:3:4:5:6:7:8:9",
    "fe80::1%eth0",
    "1:2:3:4:5:6:7",
    "::1.2.3",
  ])("%j is none", (text) => expect(ipBytes(text)).toBeUndefined());

  it("have reverse names", () => {
    expect(textOfName(reverseName(ipBytes("192.0.2.1")!))).toBe("1.2.0.192.in-addr.arpa.");
    expect(textOfName(reverseName(ipBytes("2001:db8::6")!))).toBe(
      "6.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.",
    );
  });
});

describe("messages", () => {
  it("are what dns-packet reads and writes", () => {
    const message: Message = {
      ...header,
      questions: [{ name: nameFromText("web.service.consul"), type: TYPE.SRV, class: CLASS.IN }],
      answers: [
        {
          name: nameFromText("web.service.consul"),
          class: CLASS.IN,
          ttlS: 7,
          data: { kind: "SRV", priority: 1, weight: 2, port: 80, target: nameFromText("n1.node.dc1.consul") },
        },
      ],
      authorities: [],
      additionals: [a("n1.node.dc1.consul", "192.0.2.1")],
      edns: { udpBytes: 1232, version: 0, dnssecOk: false, options: [] },
    };
    const bytes = encodeMessage(message);
    const read = oracle.decode(Buffer.from(bytes));
    expect(read.answers?.[0]).toMatchObject({
      name: "web.service.consul",
      ttl: 7,
      data: { priority: 1, weight: 2, port: 80, target: "n1.node.dc1.consul" },
    });
    expect(read.additionals?.[0]).toMatchObject({ name: "n1.node.dc1.consul", data: "192.0.2.1" });
    expect(decodeMessage(bytes)).toEqual(message);
  });

  it("compress names but not SRV targets, and never where told not to", () => {
    const message: Message = {
      ...header,
      questions: [{ name: nameFromText("x.consul"), type: TYPE.SRV, class: CLASS.IN }],
      answers: [
        {
          name: nameFromText("x.consul"),
          class: CLASS.IN,
          ttlS: 0,
          data: { kind: "SRV", priority: 0, weight: 0, port: 0, target: nameFromText("x.consul") },
        },
      ],
      authorities: [],
      additionals: [],
    };
    const target = nameToWire(nameFromText("x.consul")).length;
    expect(encodeMessage(message)).toHaveLength(12 + 14 + 2 + 10 + 6 + target);
    expect(encodeMessage(message, { compressSrv: true })).toHaveLength(12 + 14 + 2 + 10 + 6 + 2);
    const plain = encodeMessage(message, { compress: false });
    expect(plain).toHaveLength(12 + 14 + recordBytes(message.answers[0]!));
    expect(decodeMessage(plain)).toEqual(message);
  });

  it("keep mDNS's top bit of the class and the type list of NSEC", () => {
    const message: Message = {
      ...header,
      questions: [{ name: nameFromText("_http._tcp.local"), type: TYPE.PTR, class: CLASS.IN | TOP_BIT_OF_CLASS }],
      answers: [
        {
          name: nameFromText("host.local"),
          class: CLASS.IN | TOP_BIT_OF_CLASS,
          ttlS: 120,
          data: { kind: "NSEC", next: nameFromText("host.local"), types: [1, 28, 33, 1000] },
        },
      ],
      authorities: [],
      additionals: [],
    };
    expect(decodeMessage(encodeMessage(message))).toEqual(message);
  });

  it("never outgrow their limit, and a record that does not fit leaves nothing behind", () => {
    const builder = new MessageBuilder({ maxBytes: 100 });
    expect(builder.edns({ udpBytes: 512, version: 0, dnssecOk: false, options: [] })).toBe(true);
    expect(builder.question({ name: nameFromText("web.service.consul"), type: TYPE.A, class: CLASS.IN })).toBe(true);
    let added = 0;
    while (builder.record("answers", a("web.service.consul", `192.0.2.${added}`))) added++;
    // 12 header, 24 question, 11 OPT, 16 for each record with a pointer as its name.
    expect(added).toBe(3);
    expect(builder.record("additionals", a("other.name.example", "192.0.2.9"))).toBe(false);
    const bytes = builder.finish({ ...header, truncated: true });
    expect(bytes.length).toBe(12 + 24 + 11 + 48);
    const read = decodeMessage(bytes);
    expect(read.answers).toHaveLength(3);
    expect(read.additionals).toEqual([]);
    expect(read.edns?.udpBytes).toBe(512);
    expect(read.truncated).toBe(true);
  });

  it("do not point to names of a record that was taken back", () => {
    const builder = new MessageBuilder({ maxBytes: 60 });
    const long = a("one.two.three.four.five.six.seven.eight.nine.ten", "192.0.2.1");
    expect(builder.record("answers", long)).toBe(false);
    expect(builder.record("answers", a("nine.ten", "192.0.2.2"))).toBe(true);
    expect(decodeMessage(builder.finish(header)).answers).toEqual([a("nine.ten", "192.0.2.2")]);
  });

  it("carry extended response codes in OPT, and refuse them without", () => {
    const message: Message = {
      ...header,
      rcode: RCODE.BADVERS,
      questions: [],
      answers: [],
      authorities: [],
      additionals: [],
      edns: { udpBytes: 1232, version: 0, dnssecOk: true, options: [{ code: 8, bytes: bytesOf("00011800") }] },
    };
    expect(decodeMessage(encodeMessage(message))).toEqual(message);
    const { edns: _, ...without } = message;
    expect(() => encodeMessage(without)).toThrow("needs EDNS");
  });

  it("say which byte is wrong", () => {
    const bad: readonly (readonly [string, string])[] = [
      ["abcd01", "header of 12 bytes"],
      ["abcd0100 0001000000000000 0377", "within a label"],
      ["abcd0100 0001000000000000 c00c00010001", "does not lead backwards"],
      ["abcd0100 0001000000000000 c00e c00c 00010001", "does not lead backwards"],
      [`abcd0100 0001000000000000 40${"61".repeat(64)} 0000010001`, "reserved form"],
      ["abcd0100 0001000000000000 80", "reserved form"],
      ["abcd0100 0001000000000000 03777777", "within a name"],
      ["abcd0100 0000000100000000 00 0001 0001 00000000 0003 010203", "an A record of 3 bytes"],
      ["abcd0100 0000000100000000 00 0001 0001 00000000 0004 0102", "runs past the message"],
      ["abcd0100 0000000100000000 00 0010 0001 00000000 0002 0541 42434445", "does not have the length"],
      ["abcd0100 0000000000000002 00 0029 0200 00000000 0000 00 0029 0200 00000000 0000", "second OPT"],
      ["abcd0100 0000000000000001 0161 00 0029 0200 00000000 0000", "not at the root"],
      ["abcd0100 0000000000000001 00 0029 0200 00000000 0003 000800", "cut off"],
    ];
    for (const [hex, text] of bad) {
      expect(() => decodeMessage(bytesOf(hex)), hex).toThrow(text);
      expect(() => decodeMessage(bytesOf(hex)), hex).toThrow(TrilithError);
    }
  });

  it("follow chains of pointers, but not for ever", () => {
    // Each two bytes point to the two before them, down to a root label in the header's last byte.
    const chain = (links: number): Uint8Array => {
      const bytes = [0xab, 0xcd, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0];
      const owner = [0, 0, 16, 0, 1, 0, 0, 0, 0, (links * 2) >> 8, (links * 2) & 255];
      const start = 12 + owner.length;
      const data = Array.from({ length: links }, (_, i) => {
        const target = i === 0 ? 12 : start + 2 * (i - 1);
        return [0xc0 | (target >> 8), target & 255];
      }).flat();
      // The chain stands in an opaque record; a second record's name is its last pointer.
      bytes[7] = 2;
      owner[1] = 0xff;
      owner[2] = 0x00;
      const last = start + 2 * (links - 1);
      return Uint8Array.from([
        ...bytes,
        ...owner,
        ...data,
        0xc0 | (last >> 8),
        last & 255,
        0,
        1,
        0,
        1,
        0,
        0,
        0,
        0,
        0,
        4,
        1,
        2,
        3,
        4,
      ]);
    };
    expect(decodeMessage(chain(60)).answers[1]?.name).toEqual([]);
    expect(() => decodeMessage(chain(70))).toThrow("too many compression pointers");
  });

  it("spell out compressed names within data that have no form of their own", () => {
    // The last name is "_sip" with a pointer to "example.org" in the question.
    const data = "0001 0002 0173 0455444f50 00 045f736970 c010";
    const packet = bytesOf(
      `abcd8180 0001000100000000 03737276076578616d706c65036f726700 0023 0001 c00c 0023 0001 0000001e 0013 ${data}`,
    );
    const { answers } = decodeMessage(packet);
    expect(answers[0]?.data).toEqual({
      kind: "other",
      type: 35,
      bytes: bytesOf("0001 0002 0173 0455444f50 00 045f736970 076578616d706c65 036f7267 00"),
    });
  });

  it("refuse to write what no message can carry", () => {
    const write = (record: DnsRecord): Uint8Array =>
      encodeMessage({ ...header, questions: [], answers: [record], authorities: [], additionals: [] });
    expect(() => write(a("a", "::1"))).toThrow("not an IPv4 address");
    expect(() => write({ ...a("a", "1.2.3.4"), ttlS: -1 })).toThrow("32-bit");
    expect(() => write({ ...a("a", "1.2.3.4"), class: 65536 })).toThrow("16-bit");
    expect(() => write({ ...a("a", "1.2.3.4"), name: ["☎"] })).toThrow("no byte");

    expect(() => write({ ...a("a", "1.2.3.4"), data: { kind: "TXT", strings: [new Uint8Array(256)] } })).toThrow("255");
  });
});
