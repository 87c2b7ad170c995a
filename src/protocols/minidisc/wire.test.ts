// Minidisc's lists and addresses: what goes out comes back, what is bad is dropped alone, what is written is what Go writes.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  addrPortText,
  decodeDelegate,
  decodeLine,
  decodeServices,
  encodeLine,
  encodeServices,
  parseAddrPort,
  type StreamedService,
  sameAt,
} from "./wire.ts";

const name = fc.string({ minLength: 1, maxLength: 20 }).filter((text) => !text.includes("\0"));
const host = fc.oneof(
  fc.ipV4(),
  fc.ipV6().filter((text) => !text.includes(".")),
);
const at = fc.record({ host, port: fc.integer({ min: 1, max: 65_535 }) });
const labels = fc.dictionary(fc.oneof(name, fc.constant("__proto__")), name);
const service: fc.Arbitrary<StreamedService> = fc.record({
  name,
  labels,
  at,
  tags: fc.array(name),
  also: fc.array(at, { maxLength: 2 }),
  health: fc.constantFrom("passing", "warning"),
});

describe("Minidisc's wire", () => {
  it("reads back what it wrote", () => {
    fc.assert(
      fc.property(fc.array(service, { maxLength: 5 }), (services) => {
        const { services: back, dropped } = decodeServices(encodeServices(services)) ?? {};
        expect(dropped).toEqual([]);
        expect(JSON.stringify(back)).toBe(
          JSON.stringify(services.map((each) => ({ name: each.name, labels: sorted(each.labels), at: each.at }))),
        );
        const line = decodeLine(encodeLine({ mark: "m", leads: true, services, delegates: [] }).trim());
        expect(JSON.parse(JSON.stringify(line?.services))).toEqual(JSON.parse(JSON.stringify(services)));
      }),
    );
  });

  it("never throws for what it reads", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.json()), (text) => {
        decodeServices(text);
        decodeLine(text);
        decodeDelegate(text);
        parseAddrPort(text);
      }),
    );
  });

  it("drops bad entries alone, whatever they are", () => {
    const good = { name: "good", labels: {}, addrPort: "100.64.0.1:80" };
    fc.assert(
      fc.property(fc.array(fc.jsonValue()), (strange) => {
        const read = decodeServices(JSON.stringify([...strange, good, ...strange]));
        expect(read?.services.filter((each) => each.name === "good")).toHaveLength(1);
        expect((read?.services.length ?? 0) + (read?.dropped.length ?? 0)).toBe(2 * strange.length + 1);
      }),
    );
  });

  it("writes as Go: keys in order, markup escaped, an empty list as []", () => {
    expect(encodeServices([])).toBe("[]");
    const one = {
      name: "a<b>&c",
      labels: { z: "1", "\u00e9": "2", a: "\u2028" },
      at: { host: "100.64.0.1", port: 80 },
    };
    expect(encodeServices([one])).toBe(
      '[{"name":"a\\u003cb\\u003e\\u0026c","labels":{"a":"\\u2028","z":"1","\u00e9":"2"},"addrPort":"100.64.0.1:80"}]',
    );
  });

  it.each([
    ["1.2.3.4:80", { host: "1.2.3.4", port: 80 }],
    ["[fd7a:115c:a1e0::1]:80", { host: "fd7a:115c:a1e0::1", port: 80 }],
    ["1.2.3.4:0", { host: "1.2.3.4", port: 0 }],
    ["1.2.3.4", undefined],
    ["1.2.3.4:65536", undefined],
    ["1.2.3.4:-1", undefined],
    ["1.2.3.4: 80", undefined],
    ["[1.2.3.4]:80", undefined],
    ["fd7a::1:80", undefined],
    ["[fe80::1%eth0]:80", undefined],
    ["host:80", undefined],
    ["01.2.3.4:80", undefined],
  ])("reads the address %s", (text, expected) => {
    expect(parseAddrPort(text)).toEqual(expected);
    if (expected !== undefined) expect(addrPortText(expected)).toBe(text);
  });

  it.each([
    ['{"addrPort":"100.64.0.1:000080"}', { host: "100.64.0.1", port: 80 }],
    ['{"ADDRPORT":"100.64.0.1:8\\u0030","more":[1]}', { host: "100.64.0.1", port: 80 }],
    ['{"addrPort":"[fe80::1%eth0]:80"}', { host: "fe80::1", port: 80 }],
    ['{"addrPort":null}', undefined],
    ['{"addrPort":""}', undefined],
    ["null", undefined],
    ["{}", undefined],
    ['{"addrPort":" 100.64.0.1:80"}', "bad"],
    ['{"addrPort":"100.64.0.1:0x50"}', "bad"],
    ['{"addrPort":"[100.64.0.1%eth0]:80"}', "bad"],
    ['{"addrPort":"[fe80::1%]:80"}', "bad"],
    ['{"addrPort":["100.64.0.1:80"]}', "bad"],
    ['"100.64.0.1:80"', "bad"],
  ])("reads the announcement %s as Go does", (body, expected) => {
    expect(decodeDelegate(body)).toEqual(expected);
  });

  it("knows an address in every spelling", () => {
    expect(sameAt({ host: "FD7A::0:1", port: 1 }, { host: "fd7a::1", port: 1 })).toBe(true);
    expect(sameAt({ host: "fd7a::1", port: 1 }, { host: "fd7a::1", port: 2 })).toBe(false);
  });
});

const sorted = (labels: Readonly<Record<string, string>>): Record<string, string> => {
  const into = Object.create(null) as Record<string, string>;
  for (const key of Object.keys(labels).sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))))
    into[key] = labels[key] ?? "";
  return into;
};
