// Networks in CIDR notation: what is one, and what lies within.
import fc from "fast-check";
import { expect, it } from "vitest";
import { networkFault, withinNetworks } from "./networks.ts";

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
