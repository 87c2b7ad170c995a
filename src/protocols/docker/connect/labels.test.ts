// Connectable's labels, every spelling and every mistake.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { hasConnectLabels, portText, readConnectLabels } from "./labels.ts";

const read = (labels: Readonly<Record<string, string>>): { ports: string[]; faults: readonly string[] } => {
  const { ports, faults } = readConnectLabels(labels, "consul");
  return { ports: ports.map((one) => `${portText(one)}=${one.service}`), faults };
};

describe("connect labels", () => {
  it("are read in both of Connectable's spellings", () => {
    expect(
      read({
        "connect.6000": "redis.service.consul",
        "connect[3306]": "master.mysql.service.consul",
        "connect.53/udp": "dns",
        "connect[53/tcp]": "dns?env=prod",
        maintainer: "somebody",
      }),
    ).toEqual({ ports: ["53=dns?env=prod", "53/udp=dns", "3306=master.mysql", "6000=redis"], faults: [] });
  });

  it("of others are left alone", () => {
    const others = {
      "connect.some.vendor": "x",
      connect: "x",
      "connect.": "x",
      "connect[]": "x",
      "connect[x y]": "x",
      "xconnect.80": "x",
      "connect[80": "x",
    };
    expect(read(others)).toEqual({ ports: [], faults: [] });
    expect(hasConnectLabels(others)).toBe(false);
    expect(hasConnectLabels({ "connect.80": "" })).toBe(true);
  });

  it("that are wrong cost nothing but themselves, and say what would be right", () => {
    const { ports, faults } = read({
      "connect.0": "a",
      "connect.65536": "a",
      "connect.80/sctp": "a",
      "connect.80x": "a",
      "connect.81": "",
      "connect.82": "redis:6379",
      "connect.83": "redis.service.example",
      "connect.84": "good",
    });
    expect(ports).toEqual(["84=good"]);
    expect(faults).toHaveLength(7);
    expect(faults).toContain(
      'label connect.65536: "65536" is no port: expected a port from 1 to 65535, the one that programs in the container connect to, "/udp" behind it for UDP: connect.6379=redis, connect.53/udp=dns',
    );
    expect(faults.filter((one) => one.includes("expected a port from 1 to 65535"))).toHaveLength(4);
    expect(faults.join("\n")).toMatch(/label connect\.81: .*the service's name is missing/);
    expect(faults.join("\n")).toMatch(/label connect\.82: .*leave out ":6379"/);
    expect(faults.join("\n")).toMatch(/label connect\.83: .*this agent's domain is "consul"/);
  });

  it("with a word where the port should be are told, but for the image's own", () => {
    const labels = { "connect.http": "web", "connect[dns/udp]": "dns", "connect.title": "Connect" };
    expect(hasConnectLabels({ "connect.http": "web" })).toBe(true);
    const { ports, faults } = readConnectLabels(labels, "consul", { "connect.title": "Connect" });
    expect(ports).toEqual([]);
    expect(faults).toEqual([
      expect.stringMatching(/^label connect\.http: "http" is no port: expected .*connect\.6379=redis/),
      expect.stringMatching(/^label connect\[dns\/udp\]: "dns\/udp" is no port: /),
    ]);
  });

  it("of the image are not the container's", () => {
    const labels = { "connect.80": "web", "connect.81": "api", "connect.82": "db" };
    const image = { "connect.80": "web", "connect.81": "other" };
    const { ports, faults } = readConnectLabels(labels, "consul", image);
    expect(ports.map(({ service }) => service)).toEqual(["api", "db"]);
    expect(faults).toEqual([`label connect.80 is the image's own: it counts with "docker": {"connect": "images"}`]);
  });

  it("for one port: the same service is one port, of two the first one counts and the other is told", () => {
    expect(read({ "connect.80": "web", "connect[80]": "web.service.consul" })).toEqual({
      ports: ["80=web"],
      faults: [],
    });
    expect(read({ "connect.80": "web", "connect[80]": "api" })).toEqual({
      ports: ["80=web"],
      faults: ["label connect[80]: port 80 is web by label connect.80 already"],
    });
  });

  it("whatever they are: a port or a fault for each that is ours, and never an exception", () => {
    const key = fc.oneof(
      fc
        .tuple(fc.nat(70_000), fc.constantFrom("", "/udp", "/tcp", "/x"), fc.boolean())
        .map(([port, protocol, dotted]) => (dotted ? `connect.${port}${protocol}` : `connect[${port}${protocol}]`)),
      fc.string(),
    );
    fc.assert(
      fc.property(fc.dictionary(key, fc.oneof(fc.constantFrom("web", "a.web", "web?x=1"), fc.string())), (labels) => {
        const { ports, faults } = readConnectLabels(labels, "consul");
        const asked = Object.keys(labels).filter((one) => hasConnectLabels({ [one]: "" }));
        expect(ports.length + faults.length).toBeLessThanOrEqual(asked.length);
        expect(ports.length + faults.length > 0).toBe(asked.length > 0);
        for (const { port } of ports) expect(port >= 1 && port <= 65_535).toBe(true);
        expect(new Set(ports.map(portText)).size).toBe(ports.length);
      }),
    );
  });
});
