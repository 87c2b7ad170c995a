// Registrator's flags as Go reads them, and its URIs.
import { describe, expect, it } from "vitest";
import { parseRegistryUri } from "../backends/uri.ts";
import { faultOf, parseFlags, type RegistratorFlags, usage } from "./flags.ts";

const flagsOf = (...words: string[]): RegistratorFlags => {
  const parsed = parseFlags(words);
  if (!("flags" in parsed)) throw new Error(parsed.text);
  return parsed.flags;
};
const wrong = (...words: string[]): string => {
  const parsed = parseFlags(words);
  if ("flags" in parsed) throw new Error("nothing is wrong");
  return `${parsed.exitCode} ${parsed.text.split("\n")[0]}`;
};

describe("flags", () => {
  it("one dash or two, = or blank, booleans by themselves or with =", () => {
    expect(
      flagsOf(
        "-ttl",
        "60",
        "--ttl-refresh=30",
        "-internal",
        "-cleanup=false",
        "-explicit=T",
        "-tags",
        "-x",
        "--ip",
        "",
        "etcd://h/p",
      ),
    ).toMatchObject({
      ...{ ttlSeconds: 60, ttlRefreshSeconds: 30, internal: true, cleanup: false, explicit: true, tags: "-x", ip: "" },
      ...{ uri: "etcd://h/p", retryIntervalMs: 2000, deregister: "always" },
    });
    expect(flagsOf("-retry-attempts", "-1", "-resync=0x10", "--", "-odd")).toMatchObject({
      retryAttempts: -1,
      resyncSeconds: 16,
      uri: "-odd",
    });
  });

  it("what is wrong is said as Go says it, with exit code 2", () => {
    expect(wrong("-ttl", "ten", "x")).toBe('2 invalid value "ten" for flag -ttl: parse error');
    expect(wrong("-cleanup=maybe", "x")).toBe('2 invalid boolean value "maybe" for -cleanup: parse error');
    expect(wrong("-ttl")).toBe("2 flag needs an argument: -ttl");
    expect(wrong("---ttl", "x")).toBe("2 bad flag syntax: ---ttl");
    expect(wrong("consul://a", "-ttl", "3")).toBe("2 Extra unparsed arguments:");
    expect(wrong("-help")).toBe("0 Usage of registrator:");
  });

  it("usage tells every flag with its default", () => {
    expect(usage()).toContain(
      '  -deregister string\n    \tDeregister exited services "always" or "on-success" (default "always")\n',
    );
    expect(usage()).toContain(
      "  -retry-interval int\n    \tInterval (in millisecond) between retry-attempts. (default 2000)\n",
    );
    expect(usage().match(/^ {2}-/gm)).toHaveLength(12);
  });

  it("values that do not fit together", () => {
    expect(faultOf(flagsOf("-ttl", "30", "-ttl-refresh", "30", "x"))).toBe("-ttl must be greater than -ttl-refresh");
    expect(faultOf(flagsOf("-ttl", "31", "-ttl-refresh", "30", "x"))).toBeUndefined();
    expect(faultOf(flagsOf("-retry-interval", "-5", "x"))).toBe("-retry-interval must be greater than 0");
  });
});

describe("registry URIs", () => {
  it.each([
    ["consul://127.0.0.1:8500/x", "consul", "127.0.0.1:8500", "/x"],
    ["consul://", "consul", "", ""],
    ["consul-unix:///run/consul.sock", "consul-unix", "", "/run/consul.sock"],
    ["etcd://[::1]:2379/a%20b", "etcd", "[::1]:2379", "/a b"],
    ["zookeeper://a:2181,b:2181/base", "zookeeper", "a:2181,b:2181", "/base"],
    ["ETCD://h", "etcd", "h", ""],
    ["localhost:8500", "localhost", "", ""],
    ["consul", "", "", "consul"],
  ])("%s", (text, scheme, host, path) => {
    expect(parseRegistryUri(text)).toMatchObject({ scheme, host, path, text });
  });
  // By Go's net/url, whose text Registrator logs.
  it.each([
    ["consul://", "consul:"],
    ["CONSUL://H:1/P", "consul://H:1/P"],
    ["consul:///p", "consul:///p"],
    ["consul:foo", "consul:foo"],
    ["consul://u:p@h:1/x?a=1#f", "consul://u:p@h:1/x?a=1#f"],
    ["consul://h/a b%20ü", "consul://h/a%20b%20%C3%BC"],
    ["consul-unix:///run/c.sock", "consul-unix:///run/c.sock"],
    ["etcd://a:1,b:2/p", "etcd://a:1,b:2/p"],
  ])("%s is shown as %s", (text, shown) => {
    expect(parseRegistryUri(text)?.shown).toBe(shown);
  });
  it.each([
    "consul://h%41",
    "consul://h|x",
    "consul://{h}",
    "127.0.0.1:8500",
    ":foo",
    "consul://h:port",
    "consul://h o",
    "etcd://h/%zz",
    "etcd://h\n",
  ])("refused: %j", (text) => {
    expect(parseRegistryUri(text)).toBeUndefined();
  });
});
