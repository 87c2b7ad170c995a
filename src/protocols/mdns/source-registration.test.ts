// What a service of the LAN becomes: its addresses in order, its node, its labels, and the way back out of the directory.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { registrationFrom } from "../../contracts/second-hand.ts";
import type { Instance } from "../../model/instance.ts";
import type { Node } from "../../model/node.ts";
import { txtOf } from "../../model/txt.ts";
import type { Resolved } from "./engine.ts";
import { addressesOf, markOf, nodeOfHost, registrationOf, serviceOfType } from "./source-registration.ts";

const resolved = (more: Partial<Resolved> = {}): Resolved => ({
  ...{ interface: "eth0", family: 4, local: false, name: "P", type: "_ipp._tcp", domain: "local" },
  ...{ host: "printer.local", port: 631, priority: 0, weight: 0, txt: [], addresses: [at("10.0.0.9")] },
  ...more,
});
const at = (address: string): Resolved["addresses"][number] => ({ address, family: address.includes(":") ? 6 : 4 });
const bytes = (...texts: string[]): Uint8Array[] => texts.map((text) => Buffer.from(text));

describe("addresses", () => {
  it("are IPv4 before IPv6, whoever was heard first, and each once", () => {
    const v4 = resolved({ addresses: [at("10.0.0.10"), at("10.0.0.9")] });
    const v6 = resolved({ family: 6, addresses: [at("fd00::9"), at("fe80::9"), at("10.0.0.9")] });
    const all = ["10.0.0.10", "10.0.0.9", "fd00::9"];
    expect(addressesOf([v4, v6])).toEqual(all);
    expect(addressesOf([v6, v4])).toEqual(all);
  });

  it("that are link-local come last, IPv6's with the interface and only where there is no other", () => {
    expect(addressesOf([resolved({ addresses: [at("169.254.7.7"), at("fe80::9"), at("fd00::9")] })])).toEqual([
      "fd00::9",
      "169.254.7.7",
    ]);
    expect(addressesOf([resolved({ family: 6, addresses: [at("fe80::9")] })])).toEqual(["fe80::9%eth0"]);
  });
});

describe("names", () => {
  it.each([
    ["_http._tcp", "http"],
    ["_HTTP._TCP", "http"],
    ["_my-thing._udp", "my-thing"],
    ["_printer._sub._http._tcp", undefined],
    ["http", undefined],
  ])("of the type %s", (type, service) => {
    expect(serviceOfType(type)).toBe(service);
  });

  it.each([
    ["printer.local", "printer"],
    ["Printer.LOCAL", "Printer"],
    ["db.example.com", "db.example.com"],
    ["the printer/2.local", "the-printer-2"],
  ])("of the host %s", (host, node) => {
    expect(nodeOfHost(host)).toBe(node);
  });
});

describe("labels and tags", () => {
  it("are those that another Trilith announced, and its mark is none of them", () => {
    fc.assert(
      fc.property(
        fc.dictionary(fc.stringMatching(/^[a-z]{1,9}$/), fc.string({ maxLength: 40 }), { maxKeys: 8 }),
        fc.uniqueArray(fc.stringMatching(/^[a-z,\\]{1,9}$/), { maxLength: 5 }),
        (labels, tags) => {
          fc.pre(!Object.keys(labels).some((key) => /^_*tags$|^trilith$/i.test(key)));
          const txt = bytes(...txtOf(labels, tags), "trilith=an-id");
          const r = registrationOf([resolved({ txt })], "printer", []);
          expect(markOf(txt)).toBe("an-id");
          expect({ ...r?.labels }).toEqual({ ...labels, "mdns-instance": "P", "mdns-type": "_ipp._tcp" });
          expect(r?.tags).toEqual(tags);
        },
      ),
    );
  });

  it("are the same at every witness, whichever place each heard first", () => {
    const [one, two] = [resolved({ txt: bytes("a=1") }), resolved({ interface: "eth1", txt: bytes("a=2") })];
    expect(registrationOf([two, one], "printer", [])).toEqual(registrationOf([one, two], "printer", []));
  });
});

it("what stands in the directory is the registration that it was made from", () => {
  const seen = resolved({ txt: bytes("a=1", "tags=x"), addresses: [at("10.0.0.9"), at("fd00::9")] });
  const made = registrationOf([seen], "printer", ["10.0.0.1/24", "fd00::1/64"]);
  const { external, checks: _, foreignId = "", text = "", ...facts } = made ?? expect.fail("no registration");
  const origin = { source: "mdns", authority: "second-hand", foreignId, text } as const;
  const instance: Instance = { ...facts, node: "printer", origin };
  const node: Node = {
    ...{ id: "", name: "printer", datacenter: "dc1", taggedAddresses: {}, external: true },
    address: external?.node.address ?? "",
    labels: { "external-node": "true", ...external?.node.labels },
  };
  expect(registrationFrom(instance, node)).toEqual(made);
});
