// Networks in CIDR notation: what is one, and what lies within.
import fc from "fast-check";
import { expect, it } from "vitest";
import { networkFault, outwardAddresses, ownAddresses, withinNetworks } from "./networks.ts";

it("says what is no network", () => {
  for (const right of ["0.0.0.0/0", "10.1.2.3/8", "::1/128", "fd00::/7"]) expect(networkFault(right)).toBeUndefined();
  for (const wrong of ["", "10.0.0.1", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/8/9", "host/8", "10.0.0.0/-1"])
    expect(networkFault(wrong)).toContain(`"${wrong}" is no network`);
});

it("IPv4 within IPv6 and zones count as the bare address", () => {
  const within = withinNetworks(["10.0.0.0/8", "fe80::/10"]);
  expect(["10.1.2.3", "::ffff:10.1.2.3", "fe80::1%eth0"].map(within)).toEqual([true, true, true]);
  expect(["11.0.0.0", "::ffff:11.0.0.1", "::1", "", "name"].map(within)).toEqual([false, false, false, false, false]);
  expect(withinNetworks([])("127.0.0.1")).toBe(false);
});

it("as many leading bits are the same as the network has", () => {
  const number = (address: string): number => address.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
  fc.assert(
    fc.property(fc.ipV4(), fc.ipV4(), fc.integer({ min: 0, max: 32 }), (network, address, bits) => {
      const size = 2 ** (32 - bits);
      const same = Math.floor(number(network) / size) === Math.floor(number(address) / size);
      expect(withinNetworks([`${network}/${bits}`])(address)).toBe(same);
    }),
  );
});

it("this host's own are its interfaces' and loopback's, and what its containers' bridges hold", () => {
  const isOwn = ownAddresses(() => [
    { name: "eth0", address: "10.0.0.5", cidr: "10.0.0.5/24" },
    { name: "eth0", address: "fd00::5", cidr: "fd00::5/64" },
    { name: "docker0", address: "172.17.0.1", cidr: "172.17.0.1/16" },
    { name: "docker0", address: "fe80::42", cidr: "fe80::42/64" },
  ]);
  const own = ["127.3.0.1", "::1", "0.0.0.0", "::", "10.0.0.5", "FD00:0::5", "172.17.0.9", "fe80::42"];
  const others = ["10.0.0.6", "fd00::6", "172.18.0.1", "fe80::43", "localhost", ""];
  expect(own.filter((address) => !isOwn(address))).toEqual([]);
  expect(others.filter(isOwn)).toEqual([]);
});

it("others reach this host by what is no loopback, no link-local address and no bridge, IPv4 first", () => {
  const all = [
    { name: "lo", address: "127.0.0.1", family: 4, internal: true },
    { name: "docker0", address: "172.17.0.1", family: 4, internal: false },
    { name: "wlan0", address: "fe80::1", family: 6, internal: false },
    { name: "wlan0", address: "169.254.0.7", family: 4, internal: false },
    { name: "wlan0", address: "2001:db8::1", family: 6, internal: false },
    { name: "wlan0", address: "10.9.0.1", family: 4, internal: false },
    { name: "tailscale0", address: "100.64.0.1", family: 4, internal: false },
  ];
  const found = (names: string) =>
    outwardAddresses(all.filter(({ name }) => names.includes(name))).map(({ address }) => address);
  expect(found("lo docker0 wlan0 tailscale0")).toEqual(["10.9.0.1", "100.64.0.1", "2001:db8::1"]);
  expect(found("lo docker0")).toEqual(["172.17.0.1"]);
  expect(found("lo")).toEqual([]);
});
