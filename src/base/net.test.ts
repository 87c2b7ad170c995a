// What a host's interfaces are.
import { describe, expect, test } from "vitest";
import { interfacesOf } from "./net.ts";

describe("a host's interfaces", () => {
  const eth0 = (address: string) => ({
    eth0: [
      {
        address,
        netmask: "255.255.0.0",
        family: "IPv4" as const,
        mac: "02:00:00:00:00:01",
        internal: false,
        cidr: `${address}/16`,
      },
      {
        address: "fe80::1",
        netmask: "ffff::",
        family: "IPv6" as const,
        mac: "02:00:00:00:00:01",
        internal: false,
        cidr: null,
        scopeid: 2,
      },
    ],
  });

  test("are as the system tells them; while it cannot, as it told them last", () => {
    let told: ReturnType<typeof eth0> | Error = eth0("10.1.0.1");
    const interfaces = interfacesOf(() => {
      if (told instanceof Error) throw told;
      return told;
    });
    const v6 = { name: "eth0", address: "fe80::1", family: 6, cidr: "fe80::1", internal: false };
    const first = [{ name: "eth0", address: "10.1.0.1", family: 4, cidr: "10.1.0.1/16", internal: false }, v6];
    expect(interfaces()).toEqual(first);
    told = new Error("uv_interface_addresses returned Unknown system error 24");
    expect(interfaces()).toEqual(first);
    told = eth0("10.1.0.2");
    expect(interfaces()).toMatchObject([{ address: "10.1.0.2", cidr: "10.1.0.2/16" }, v6]);
  });

  test("that were never told are an error", () => {
    const interfaces = interfacesOf(() => {
      throw new Error("no");
    });
    expect(interfaces).toThrow("reading this host's interfaces: no");
  });
});
