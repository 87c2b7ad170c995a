// Service files: places in errors, and that no text does anything but be taken or refused.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { InputError } from "../../base/error.ts";
import { escapeXml } from "../../wire/xml.ts";
import { groupOf, parseServiceFile } from "./service-file.ts";
import { atoi, txtString } from "./service-file-values.ts";

const file = (inner: string, name = "<name>web</name>"): string =>
  `<?xml version="1.0"?>\n<service-group>\n  ${name}\n  <service>\n    ${inner}\n  </service>\n</service-group>\n`;
const HTTP = "<type>_http._tcp</type>";

test("the whole format in one file", () => {
  const text = `<?xml version="1.0" standalone='no'?><!--*-nxml-*-->
<!DOCTYPE service-group SYSTEM "avahi-service.dtd">
<service-group>
  <name replace-wildcards="yes">%h &amp; co</name>
  <service protocol="ipv6">
    <type>_http._tcp</type><subtype>_admin._sub._http._tcp</subtype>
    <domain-name>local</domain-name><host-name>www.local</host-name><port>8080</port>
    <txt-record>path=/</txt-record>
    <txt-record value-format="binary-hex">h=00ff</txt-record>
    <txt-record value-format="binary-base64">b=AAE=</txt-record>
  </service>
  <service><type>_ssh._tcp</type></service>
</service-group>`;
  const parsed = parseServiceFile(text, "w.service");
  expect(parsed.warnings).toEqual([]);
  expect(groupOf(parsed, "alpha", "w.service")).toEqual({
    name: "alpha & co",
    services: [
      {
        type: "_http._tcp",
        subtypes: ["_admin"],
        domain: "local",
        host: "www.local",
        port: 8080,
        family: 6,
        txt: [Buffer.from("path=/"), Buffer.from("h=\0\xff", "latin1"), Buffer.from("b=\0\x01", "latin1")],
      },
      { type: "_ssh._tcp", port: 0 },
    ],
  });
});

describe("an error names line, column and what would be right", () => {
  test.each([
    [file(`${HTTP}<weight>1</weight>`), /^f:5:28: <weight> does not belong into <service>; <type>, .*<txt-record> do$/],
    [file(HTTP, '<name lang="de">web</name>'), /^f:3:3: <name> has no attribute "lang"; there is "replace-wildcards"$/],
    [file(`${HTTP}<port x="1">80</port>`), /^f:5:28: <port> has no attribute "x"$/],
    [file("<type>http</type>"), /^f:5:5: "http" is no type of service such as "_http._tcp"$/],
    [file("<port>80</port>"), /^f:4:3: the service has no <type>$/],
    [file(HTTP, ""), /^f:2:1: the group has no <name>$/],
    [file(`${HTTP}<host-name>web</host-name>`), /^f:5:28: "web" is no host's whole name/],
    [file(`${HTTP}<txt-record value-format="binary-hex">a=0x</txt-record>`), /^f:5:28: "0x" is no hex value/],
    ["<service-group>\n<name>x</nam></service-group>", /^f:2:\d+: not well-formed XML: /],
    ["", /^f:1:1: there is no element$|^f:1:1: not well-formed/],
    [Buffer.from("<service-group>\n<name>\xff</name>", "latin1"), /^f:2: bytes that are not UTF-8$/],
  ])("%j", (content, message) => {
    expect(() => parseServiceFile(content, "f")).toThrow(message);
  });
});

test("a subtype that is none is skipped and told", () => {
  const { services, warnings } = parseServiceFile(file(`${HTTP}\n<subtype>_x._sub._http._tcp</subtype>`), "f");
  expect(services[0]?.subtypes).toBeUndefined();
  expect(warnings).toEqual([
    'f:6:1: "_x._sub._http._tcp" is skipped: it is no subtype of _http._tcp such as "_printer._sub._http._tcp"',
  ]);
});

test("nothing outside the file is read: an external entity is nothing", () => {
  const text = `<?xml version="1.0"?><!DOCTYPE service-group [<!ENTITY f SYSTEM "/etc/hostname">]>${file(HTTP, "<name>a&f;b</name>").slice(22)}`;
  expect(parseServiceFile(text, "f").name).toBe("ab");
});

test("entities cannot grow without end", () => {
  const bomb = `<!DOCTYPE service-group [<!ENTITY a "${"x".repeat(4000)}"><!ENTITY b "${"y".repeat(200)}">]>${file(HTTP).slice(22)}`;
  expect(() => parseServiceFile(bomb, "f")).toThrow(/too long/);
  expect(() =>
    parseServiceFile(`<!DOCTYPE s [<!ENTITY a "1"><!ENTITY b "&a;&a;">]>${file(HTTP).slice(22)}`, "f"),
  ).toThrow(/holds markup/);
});

test("ports as C's atoi reads them", () => {
  expect(["80", " +80x", "-1", "0x50", "", "x", "4294967376", "99999999999999999999"].map(atoi)).toEqual([
    80, 80, -1, 0, 0, 0, 80, -1,
  ]);
});

test("any text is taken or refused with a place", () => {
  const pieces = fc.constantFrom(
    ...[
      "<service-group>",
      "</service-group>",
      "<name>",
      "</name>",
      "<service>",
      "</service>",
      HTTP,
      "<port>",
      "</port>",
    ],
    ...[
      '<txt-record value-format="binary-hex">',
      "</txt-record>",
      "<!DOCTYPE a [",
      "]>",
      '<!ENTITY a "b">',
      "&a;",
      "%h",
    ],
  );
  fc.assert(
    fc.property(fc.array(fc.oneof(pieces, fc.string({ maxLength: 5 }))), (parts) => {
      try {
        parseServiceFile(parts.join(""), "f");
      } catch (error) {
        expect(error).toBeInstanceOf(InputError);
        expect((error as InputError).message).toMatch(/^f(:\d+){0,2}: /);
      }
    }),
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
      expect(() => parseServiceFile(bytes, "f")).toThrow(InputError);
    }),
  );
});

test("names and TXT strings of any text come through", () => {
  // What XML can hold: no control characters, and line ends are one character.
  const text = fc
    .string({ unit: "binary", minLength: 1, maxLength: 15 })
    .filter(
      (each) => escapeXml(each).replace(/&[a-z]+;/g, "") === each.replace(/[&<>"']/g, "") && !each.includes("\r"),
    );
  fc.assert(
    fc.property(text, text, (name, value) => {
      const parsed = parseServiceFile(
        file(`${HTTP}<txt-record>k=${escapeXml(value)}</txt-record>`, `<name>${escapeXml(name)}</name>`),
        "f",
      );
      expect(parsed.name).toBe(name);
      expect(parsed.services[0]?.txt).toEqual([Buffer.from(`k=${value}`)]);
    }),
  );
});

test("binary values of any bytes come through", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 252 }), (bytes) => {
      const whole = Buffer.concat([Buffer.from("k="), bytes]);
      expect(txtString(`k=${Buffer.from(bytes).toString("hex")}`, "binary-hex")).toEqual(whole);
      expect(txtString(`k=${Buffer.from(bytes).toString("base64")}`, "binary-base64")).toEqual(whole);
    }),
  );
});
