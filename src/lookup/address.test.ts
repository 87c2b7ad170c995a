// Which address an asker gets: networks, reach, and what stays on its host.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { serviceChange } from "../../test/support/directory.ts";
import { INTERFACES } from "../../test/support/lookup.ts";
import type { Address, Instance, Resident } from "../model/instance.ts";
import {
  askerOf,
  chooseAddress,
  commonBits,
  createHere,
  inNetwork,
  isLoopback,
  isTailnet,
  parseIp,
  parseNetwork,
} from "./address.ts";

const here = createHere(
  "home",
  () => INTERFACES,
  () => 0,
);

function resident(node: { name: string; address: string }, more: Partial<Instance>): Resident {
  const change = serviceChange(node.name, "x", "web", { port: 80, ...more });
  const value = change.op === "put" ? (change.value as Instance) : undefined;
  return {
    instance: { ...(value as Instance), createIndex: 1, modifyIndex: 1 },
    node: {
      id: "",
      datacenter: "dc1",
      taggedAddresses: {},
      labels: {},
      createIndex: 1,
      modifyIndex: 1,
      ...node,
    },
    checks: [],
  };
}
const HOME = { name: "home", address: "10.1.0.1" };
const FAR = { name: "far", address: "10.2.0.1" };
const choose = (one: Resident, asker?: string): string | undefined => {
  const at = chooseAddress(one, askerOf(asker, here), here);
  return at === undefined ? undefined : `${at.host}:${at.port}`;
};

describe("reading addresses", () => {
  it("reads what the URL parser of the platform reads, byte for byte", () => {
    fc.assert(
      fc.property(fc.ipV6(), (text) => {
        const bytes = parseIp(text);
        const canonical = new URL(`http://[${text}]/`).hostname.slice(1, -1);
        expect(bytes).toEqual(parseIp(canonical));
        const groups = Array.from({ length: 8 }, (_, i) =>
          (((bytes?.[i * 2] ?? 0) << 8) | (bytes?.[i * 2 + 1] ?? 0)).toString(16),
        );
        expect(new URL(`http://[${groups.join(":")}]/`).hostname.slice(1, -1)).toBe(canonical);
      }),
    );
    fc.assert(
      fc.property(fc.ipV4(), (text) => {
        expect([...(parseIp(text) ?? []).slice(12)].join(".")).toBe(text);
        expect(parseIp(`::ffff:${text}`)).toEqual(parseIp(text));
      }),
    );
  });

  it("takes any text without falling over", () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        parseIp(text);
        parseNetwork(text);
      }),
    );
    for (const text of ["", "localhost", "1.2.3", "1.2.3.4.5", ":::", "bridge"]) expect(parseIp(text)).toBeUndefined();
    for (const text of ["10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/x", "::/129", "bridge", "10.0.0.0/"])
      expect(parseNetwork(text)).toBeUndefined();
  });

  it("knows networks", () => {
    const within = (ip: string, network: string) =>
      inNetwork(parseIp(ip) as Uint8Array, parseNetwork(network) as { bytes: Uint8Array; bits: number });
    expect(within("10.1.2.3", "10.1.0.0/16")).toBe(true);
    expect(within("10.2.2.3", "10.1.0.0/16")).toBe(false);
    expect(within("10.1.0.1", "10.1.0.1")).toBe(true);
    expect(within("fd00::1", "0.0.0.0/0")).toBe(false);
    expect(within("2001:db8::5", "2001:db8::/32")).toBe(true);
    expect(commonBits(parseIp("10.0.0.0") as Uint8Array, parseIp("10.0.0.1") as Uint8Array)).toBe(127);
    expect(
      ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"].every((ip) => isLoopback(parseIp(ip) as Uint8Array)),
    ).toBe(true);
    expect(["10.0.0.1", "::2", "::"].some((ip) => isLoopback(parseIp(ip) as Uint8Array))).toBe(false);
    expect(["100.64.0.1", "100.127.1.1", "fd7a:115c:a1e0::5"].every((ip) => isTailnet(parseIp(ip) as Uint8Array))).toBe(
      true,
    );
    expect(["100.128.0.1", "fd7a::1"].some((ip) => isTailnet(parseIp(ip) as Uint8Array))).toBe(false);
  });
});

describe("one address", () => {
  it("is the instance's, else its node's", () => {
    expect(choose(resident(FAR, {}), "10.5.5.5")).toBe("10.2.0.1:80");
    expect(choose(resident(FAR, { address: "web.example" }), "10.5.5.5")).toBe("web.example:80");
  });

  it("on loopback is for askers on a host of ours or its own, not for others", () => {
    const one = resident(HOME, { address: "127.0.0.1" });
    expect(choose(one)).toBe("127.0.0.1:80");
    expect(choose(one, "127.0.0.1")).toBe("127.0.0.1:80");
    expect(choose(one, "10.1.0.1")).toBe("127.0.0.1:80");
    expect(choose(one, "10.1.0.2")).toBeUndefined();
    expect(choose(resident(FAR, { address: "127.0.0.1" }), "10.2.0.1")).toBe("127.0.0.1:80");
    expect(choose(resident({ name: "far", address: "127.0.0.1" }, {}), "10.1.0.2")).toBe("127.0.0.1:80");
  });
});

describe("several addresses", () => {
  const addresses: readonly Address[] = [
    { host: "127.0.0.1", port: 8080, reach: "loopback" },
    { host: "172.17.0.5", port: 80, reach: "bridge", network: "172.17.0.0/16" },
    { host: "10.1.0.1", port: 8080, reach: "lan", network: "10.1.0.0/16" },
    { host: "100.70.0.1", port: 8080, reach: "tailnet" },
    { host: "fd00:1::1", port: 8080, reach: "lan", network: "fd00:1::/64" },
  ];
  const at = (node: { name: string; address: string }) =>
    resident(node, { address: "10.1.0.1", port: 8080, addresses });

  it.each([
    ["127.0.0.1", "127.0.0.1:8080"],
    ["172.17.0.9", "172.17.0.5:80"],
    ["10.1.4.4", "10.1.0.1:8080"],
    ["100.101.0.2", "100.70.0.1:8080"],
    ["fd00:1::77", "fd00:1::1:8080"],
    ["192.0.2.1", "10.1.0.1:8080"],
    [undefined, "10.1.0.1:8080"],
  ])("asked from %s on its own host's agent", (asker, expected) => {
    expect(choose(at(HOME), asker)).toBe(expected);
  });

  it("on another host: neither its loopback nor its bridge, although ours look the same", () => {
    expect(choose(at(FAR), "127.0.0.1")).toBe("10.1.0.1:8080");
    expect(choose(at(FAR), "172.17.0.9")).toBe("10.1.0.1:8080");
  });

  it("an overlay's members reach each other on every host, others the host's port", () => {
    for (const node of [HOME, FAR]) {
      const one = resident(node, {
        address: node.address,
        port: 32768,
        addresses: [
          { host: node.address, port: 32768, reach: "lan" },
          { host: "10.77.0.5", port: 80, reach: "overlay", network: "10.77.0.0/24" },
        ],
      });
      expect(choose(one, "10.77.0.9")).toBe("10.77.0.5:80");
      expect(choose(one, "192.0.2.1")).toBe(`${node.address}:32768`);
      expect(choose(one, undefined)).toBe(`${node.address}:32768`);
      const inside = resident(node, {
        address: "10.77.0.5",
        port: 80,
        addresses: [{ host: "10.77.0.5", port: 80, reach: "overlay", network: "10.77.0.0/24" }],
      });
      expect(choose(inside, "10.77.0.9")).toBe("10.77.0.5:80");
    }
  });

  it("the longest network wins", () => {
    const one = resident(FAR, {
      address: "10.2.0.1",
      addresses: [
        { host: "10.2.0.1", port: 1, reach: "lan", network: "10.0.0.0/8" },
        { host: "10.2.3.1", port: 2, reach: "lan", network: "10.2.3.0/24" },
      ],
    });
    expect(choose(one, "10.2.3.9")).toBe("10.2.3.1:2");
    expect(choose(one, "10.9.9.9")).toBe("10.2.0.1:1");
  });

  it("loopback only stays on its host", () => {
    const only = (node: { name: string; address: string }) =>
      resident(node, { address: "", addresses: [{ host: "127.0.0.1", port: 5, reach: "loopback" }] });
    expect(choose(only(HOME), "127.0.0.1")).toBe("127.0.0.1:5");
    expect(choose(only(HOME), "10.1.0.7")).toBeUndefined();
    expect(choose(only(FAR), "127.0.0.1")).toBeUndefined();
    expect(choose(only(FAR))).toBeUndefined();
    expect(choose(only(FAR), "10.2.0.1")).toBeDefined();
  });

  it("whose usual one stays at home gives others the widest", () => {
    const one = resident(FAR, {
      address: "172.17.0.5",
      addresses: [
        { host: "172.17.0.5", port: 80, reach: "bridge", network: "172.17.0.0/16" },
        { host: "10.2.0.1", port: 81, reach: "lan" },
      ],
    });
    expect(choose(one, "10.9.9.9")).toBe("10.2.0.1:81");
    expect(choose(one, "127.0.0.1")).toBe("10.2.0.1:81");
  });
});

describe("an address of the family that is asked for, whatever the asker's own is", () => {
  const home = createHere(
    "home",
    () => [
      ...INTERFACES,
      { name: "eth0", address: "fd00:1::7", family: 6, cidr: "fd00:1::7/64", internal: false },
      { name: "eth0", address: "fe80::7", family: 6, cidr: "fe80::7/64", internal: false },
      { name: "docker0", address: "fd00:d::1", family: 6, cidr: "fd00:d::1/64", internal: false },
    ],
    () => 0,
  );
  const of = (family: 4 | 6, one: Resident, asker?: string, at = home): string | undefined => {
    const place = chooseAddress(one, askerOf(asker, at), at, family);
    return place === undefined ? undefined : `${place.host} ${place.port}`;
  };
  const both = (
    node: { name: string; address: string },
    port: number,
    ...addresses: readonly Omit<Address, "port">[]
  ) => resident(node, { address: "", port, addresses: addresses.map((each) => ({ ...each, port })) });

  it("of the LAN: public ones for everybody, unique local ones on the link only, link-local ones for nobody", () => {
    const heard = both(
      FAR,
      80,
      { host: "10.2.0.1", reach: "lan" },
      { host: "fe80::5%eth0", reach: "lan", network: "fe80::5/64" },
      { host: "fd00:1::5", reach: "lan", network: "fd00:1::5/64" },
    );
    for (const asker of ["127.0.0.1", "10.1.4.4", "fd00:1::9", "fe80::9", "10.1.0.1"])
      expect(of(6, heard, asker), asker).toBe("fd00:1::5 80");
    for (const asker of ["172.17.0.9", "192.0.2.1", "2001:db8::1"])
      expect(of(6, heard, asker), asker).toBe("10.2.0.1 80");
    for (const asker of ["127.0.0.1", "fd00:1::9", "2001:db8::1", undefined])
      expect(of(4, heard, asker), asker).toBe("10.2.0.1 80");
    const onlyLinkLocal = both(FAR, 80, { host: "10.2.0.1", reach: "lan" }, { host: "fe80::5", reach: "lan" });
    for (const asker of ["127.0.0.1", "10.1.4.4"]) expect(of(6, onlyLinkLocal, asker)).toBe("10.2.0.1 80");
    const routed = both(FAR, 80, { host: "10.2.0.1", reach: "lan" }, { host: "2001:db8:5::5", reach: "lan" });
    for (const asker of ["127.0.0.1", "192.0.2.1", "172.17.0.9"]) expect(of(6, routed, asker)).toBe("2001:db8:5::5 80");
  });

  it("of several the one on the asker's link, then the one that is reached from furthest", () => {
    const one = both(
      FAR,
      80,
      { host: "10.2.0.1", reach: "lan" },
      { host: "2001:db8:5::5", reach: "lan" },
      { host: "2001:db8:6::6", reach: "public" },
      { host: "fd00:1::5", reach: "lan" },
    );
    expect(of(6, one, "10.1.4.4")).toBe("fd00:1::5 80");
    expect(of(6, one, "192.0.2.1")).toBe("2001:db8:6::6 80");
  });

  it("of the tailnet: for its members, and for this host where it is one", () => {
    const tailnet = { name: "lo1", address: "100.64.0.7", family: 4, cidr: "100.64.0.7/32", internal: false } as const;
    const member = createHere(
      "home",
      () => [...INTERFACES, tailnet],
      () => 0,
    );
    const one = both(
      FAR,
      80,
      { host: "100.70.0.1", reach: "tailnet", network: "100.64.0.0/10" },
      { host: "fd7a:115c:a1e0::5", reach: "tailnet", network: "fd7a:115c:a1e0::/48" },
    );
    expect(of(6, one, "100.101.0.2")).toBe("fd7a:115c:a1e0::5 80");
    expect(of(4, one, "fd7a:115c:a1e0::9")).toBe("100.70.0.1 80");
    expect(of(6, one, "127.0.0.1", member)).toBe("fd7a:115c:a1e0::5 80");
    expect(of(6, one, "127.0.0.1")).toBe("10.2.0.1 80");
    expect(of(6, one, "10.1.4.4", member)).toBe("10.2.0.1 80");
  });

  it("of a container: on its own host, for the host and the members of its network, at the port that is given without", () => {
    const bridge = { host: "172.17.0.5", reach: "bridge", network: "172.17.0.0/16" } as const;
    const six = { host: "fd00:d::5", reach: "bridge", network: "fd00:d::5/64" } as const;
    const inside = (node: { name: string; address: string }) =>
      resident(node, {
        address: "172.17.0.5",
        port: 80,
        addresses: [bridge, six].map((each) => ({ ...each, port: 80 })),
      });
    for (const asker of ["127.0.0.1", "172.17.0.9", "10.1.0.1"])
      expect(of(6, inside(HOME), asker), asker).toBe("fd00:d::5 80");
    expect(of(6, inside(HOME), "172.18.0.9")).toBeUndefined();
    expect(of(6, inside(FAR), "127.0.0.1")).toBeUndefined();
    const published = resident(HOME, {
      address: "10.1.0.1",
      port: 8080,
      addresses: [
        { host: "10.1.0.1", port: 8080, reach: "lan" },
        ...[bridge, six].map((each) => ({ ...each, port: 80 })),
      ],
    });
    expect(of(6, published, "172.17.0.9")).toBe("fd00:d::5 80");
    expect(of(6, published, "127.0.0.1")).toBe("10.1.0.1 8080");
  });

  it("of an overlay: for nobody whose membership its other address does not show", () => {
    const one = both(
      HOME,
      80,
      { host: "10.77.0.5", reach: "overlay", network: "10.77.0.0/24" },
      { host: "fd00:77::5", reach: "overlay", network: "fd00:77::5/64" },
    );
    expect(of(6, one, "fd00:77::9")).toBe("fd00:77::5 80");
    expect(of(6, one, "10.77.0.9")).toBe("10.77.0.5 80");
    expect(of(6, one, "192.0.2.1")).not.toBe("fd00:77::5 80");
  });

  it("of loopback: for programs on the host that ask over loopback", () => {
    const one = (node: { name: string; address: string }) =>
      both(node, 5, { host: "127.0.0.1", reach: "loopback" }, { host: "::1", reach: "loopback" });
    expect(of(6, one(HOME), "127.0.0.1")).toBe("::1 5");
    expect(of(4, one(HOME), "::1")).toBe("127.0.0.1 5");
    expect(of(6, one(FAR), "127.0.0.1")).toBeUndefined();
    expect(of(6, one(HOME), "10.1.4.4")).toBeUndefined();
  });

  it("never changes whether an instance is reached, nor at which port", () => {
    const host = fc.constantFrom("127.0.0.1", "::1", "10.1.0.1", "fd00:1::5", "fe80::5", "2001:db8::5", "web.example");
    const reach = fc.constantFrom<Address["reach"]>("loopback", "bridge", "overlay", "lan", "tailnet", "public");
    const address = fc.record({ host, reach, port: fc.constantFrom(80, 81) });
    const asker = fc.constantFrom(undefined, "127.0.0.1", "10.1.4.4", "fd00:1::9", "192.0.2.1", "172.17.0.9");
    fc.assert(
      fc.property(fc.array(address), host, asker, fc.constantFrom(HOME, FAR), (addresses, own, text, node) => {
        const one = resident(node, { address: own, port: 80, addresses });
        const without = chooseAddress(one, askerOf(text, home), home);
        for (const family of [4, 6] as const) {
          const withFamily = chooseAddress(one, askerOf(text, home), home, family);
          expect(withFamily?.port).toBe(without?.port);
          if (without?.host.includes(":") === (family === 6) && !without.host.startsWith("fe80"))
            expect(withFamily).toEqual(without);
        }
      }),
    );
  });
});
