// The keys of `protocols.mdns`: what counts, and what is said about what is wrong.
import { describe, expect, it } from "vitest";
import { configureMdns } from "./setup-config.ts";

describe("mdns", () => {
  it("is off until it is asked for", () => {
    for (const off of [undefined, null, false]) expect(configureMdns(off)).toBeUndefined();
  });

  it("takes what it is told, and finds everything and announces what is labelled unless told", () => {
    expect(configureMdns(true)).toEqual({
      rules: { mode: "labelled", types: {} },
      discover: true,
      files: { folder: "/etc/avahi/services", leftToAvahi: true },
      hosts: { path: "/etc/avahi/hosts", leftToAvahi: true },
    });
    expect(
      configureMdns({
        ...{ interfaces: ["eth0"], publish: "all", types: { web: "http", dns: "_domain._udp" } },
        ...{ discover: ["_ipp._tcp", "http"], files: "/srv/avahi", host_name: "front" },
      }),
    ).toEqual({
      interfaces: ["eth0"],
      rules: { mode: "all", types: { web: "_http._tcp", dns: "_domain._udp" } },
      discover: ["_ipp._tcp", "_http._tcp"],
      files: { folder: "/srv/avahi", leftToAvahi: false },
      hostName: "front",
    });
    expect(configureMdns({ files: false })).not.toHaveProperty("files");
    expect(configureMdns({ files: false })).not.toHaveProperty("hosts");
    expect(configureMdns({ hosts: false })).not.toHaveProperty("hosts");
    expect(configureMdns({ files: false, hosts: "/srv/hosts" })).toMatchObject({
      hosts: { path: "/srv/hosts", leftToAvahi: false },
    });
  });

  it.each([
    ["yes", /^mdns: expected true, false or an object/],
    [{ interface: "eth0" }, /^mdns\.interface: unknown key; known are interfaces/],
    [{ interfaces: "eth0" }, /^mdns\.interfaces: expected a list such as/],
    [{ publish: "some" }, /^mdns\.publish: expected "labelled", "all" or "none", but got "some"/],
    [{ types: ["http"] }, /^mdns\.types: expected an object/],
    [{ types: { web: "_a_b._tcp" } }, /^mdns\.types\.web: "_a_b\._tcp" is no type of service/],
    [{ discover: ["sixteen-letters-"] }, /^mdns\.discover: "sixteen-letters-" is no type/],
    [{ files: 5 }, /^mdns\.files: expected a folder/],
    [{ hosts: true }, /^mdns\.hosts: expected a file of Avahi's static hosts, or false, but got true/],
    [{ host_name: "a.b" }, /^mdns\.host_name: expected one label/],
  ])("says what is wrong with %j", (raw, text) => {
    expect(() => configureMdns(raw)).toThrow(text);
  });
});
