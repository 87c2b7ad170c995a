// Tests what lines of Avahi's file of static hosts say.
import fc from "fast-check";
import { expect, it } from "vitest";
import { parseStaticHosts } from "./static-hosts.ts";

it("reads an address and a name a line, past comments and blanks", () => {
  const text =
    "# hosts\n192.168.0.1 router.local\r\n\n  2001:db8::1\trouter.local.   # by IPv6, too\n192.168.0.1 ROUTER.local\n192.168.0.2 nas.office.local";
  expect(parseStaticHosts(text)).toEqual({
    hosts: [
      { name: "ROUTER.local", address: "192.168.0.1" },
      { name: "router.local", address: "2001:db8::1" },
      { name: "nas.office.local", address: "192.168.0.2" },
    ],
    faults: [],
  });
});

it("names the lines that say nothing, and takes the others", () => {
  const { hosts, faults } = parseStaticHosts(
    "router 192.168.0.1\n10.0.0.1\n10.0.0.2 a.local b.local\n10.0.0.3 bare\n10.0.0.4 web.example.com\nfe80::1%eth0 c.local\n10.0.0.5 good.local\n",
  );
  expect(hosts).toEqual([{ name: "good.local", address: "10.0.0.5" }]);
  expect(faults).toEqual([
    'line 1: "router" is no IP address: expected an address and a name, such as "192.168.0.1 router.local"',
    "line 2: no name behind 10.0.0.1: expected one, with a line each",
    "line 3: more than one name behind 10.0.0.2: expected one, with a line each",
    'line 4: "bare" is no name on the LAN: expected one such as "router.local"',
    'line 5: "web.example.com" is no name on the LAN: expected one such as "router.local"',
    'line 6: "fe80::1%eth0" is no IP address: expected an address and a name, such as "192.168.0.1 router.local"',
  ]);
});

it("any text is hosts and faults, never an exception", () => {
  const word = fc.oneof(
    fc.ipV4(),
    fc.ipV6(),
    fc.string(),
    fc.constantFrom("a.local", "#", " ", "\t", "..local", "é.local"),
  );
  fc.assert(
    fc.property(fc.array(fc.array(word, { maxLength: 4 })), (lines) => {
      const { hosts, faults } = parseStaticHosts(lines.map((words) => words.join(" ")).join("\n"));
      for (const { name } of hosts) expect(name.toLowerCase()).toMatch(/.\.local$/);
      for (const fault of faults) expect(fault).toMatch(/^line \d+: /);
    }),
  );
});
