// Configuration entries: what is read of them, what a reader is shown, and what is refused, in the words of Consul 1.19's source.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { codeOf, TrilithError } from "../../base/error.ts";
import { entryFault, readEntry } from "./config-kinds.ts";

const DEFAULTS = { TransparentProxy: {}, MeshGateway: {}, Expose: {} };

describe("reads", () => {
  it.each<[unknown, unknown]>([
    [
      { Kind: "service-defaults", Name: "web", Protocol: "HTTP" },
      { Kind: "service-defaults", Name: "web", Protocol: "http", ...DEFAULTS },
    ],
    [
      { kind: "service-defaults", name: "web", mesh_gateway: { mode: "local" }, max_inbound_connections: "7" },
      {
        ...{ Kind: "service-defaults", Name: "web", Protocol: "", ...DEFAULTS },
        ...{ MeshGateway: { Mode: "local" }, MaxInboundConnections: 7 },
      },
    ],
    [
      {
        ...{ Kind: "service-defaults", Name: "web", CreateIndex: 4, ModifyIndex: 5, Hash: 6, ExternalSNI: "" },
        ...{ Meta: { a: 1 }, LocalConnectTimeoutMs: 0, UpstreamConfig: { overrides: [{ name: "db" }] } },
        Expose: [{ Checks: "true" }],
      },
      {
        ...{ Kind: "service-defaults", Name: "web", Protocol: "", ...DEFAULTS, Meta: { a: "1" } },
        UpstreamConfig: { Overrides: [{ Name: "db", Peer: "", MeshGateway: {} }] },
        Expose: { Checks: true },
      },
    ],
    [{ Kind: "proxy-defaults" }, { Kind: "proxy-defaults", Name: "global", Config: null, ...DEFAULTS, AccessLogs: {} }],
    [
      { Kind: "proxy-defaults", Name: "", Config: { Protocol: "HTTP", max: [1] } },
      {
        ...{ Kind: "proxy-defaults", Name: "global", ...DEFAULTS, AccessLogs: {} },
        Config: { Protocol: "HTTP", max: [1] },
      },
    ],
    [
      { Kind: "mesh", TLS: { Incoming: {} } },
      { Kind: "mesh", Name: "mesh", TransparentProxy: { MeshDestinationsOnly: false }, TLS: { Incoming: {} } },
    ],
    [
      { kind: "http-route", name: "r", Rules: [{ x: 1 }], ModifyIndex: 4 },
      { Kind: "http-route", Name: "r", Rules: [{ x: 1 }] },
    ],
  ])("%j", (told, shown) => {
    const entry = readEntry(told);
    expect(JSON.parse(JSON.stringify(entry))).toEqual(shown);
    expect(entryFault(entry)).toBeUndefined();
    // What was shown may be told again.
    expect(readEntry(entry)).toEqual(entry);
  });
});

describe("cannot read", () => {
  it.each<[unknown, string]>([
    [{ Name: "x" }, "Payload does not contain a kind/Kind key at the top level"],
    [[], "Payload does not contain a kind/Kind key at the top level"],
    [{ Kind: 123 }, "Kind value in payload is not a string"],
    [{ Kind: "nonsense" }, "invalid config entry kind: nonsense"],
    [{ Kind: "toString" }, "invalid config entry kind: toString"],
    [{ Kind: "service-defaults", Name: "x", Colour: 1 }, '1 error occurred:\n\t* invalid config key "Colour"\n\n'],
    [
      { Kind: "service-defaults", Name: "x", Namespace: "a", MeshGateway: { Nope: 1 } },
      '2 errors occurred:\n\t* invalid config key "Namespace", namespaces are a consul enterprise feature\n\t* invalid config key "MeshGateway.Nope"\n\n',
    ],
  ])("%j", (told, text) => {
    expect(() => readEntry(told)).toThrow(new TrilithError("invalid", text));
  });
  it("a field of another type", () => {
    expect(() => readEntry({ Kind: "service-defaults", Name: "x", Protocol: {} })).toThrow(
      /'Protocol' expected type 'string'/,
    );
  });
});

describe("refuses", () => {
  const service = { Kind: "service-defaults", Name: "web" };
  it.each<[unknown, string]>([
    [{ Kind: "service-defaults" }, "Name is required"],
    [{ Kind: "service-resolver" }, "Name is required"],
    [{ Kind: "tcp-route" }, "Name is required"],
    [
      { Kind: "service-defaults", Name: "*" },
      "service-defaults name must be the name of a service, and not a wildcard",
    ],
    [{ Kind: "proxy-defaults", Name: "x" }, 'invalid name ("x"), only "global" is supported'],
    [{ Kind: "exported-services", Name: "x" }, 'exported-services Name must be "default"'],
    [
      { ...service, MutualTLSMode: "sometimes" },
      'Invalid MutualTLSMode "sometimes". Must be one of "", "strict", or "permissive".',
    ],
    [
      { ...service, BalanceInboundConnections: "maybe", Meta: { k: "v".repeat(513) } },
      '2 errors occurred:\n\t* Meta value for key "k" exceeds maximum length 512\n\t* invalid value for balance_inbound_connections: maybe\n\n',
    ],
    [
      { ...service, Destination: { Addresses: [], Port: 0 } },
      "2 errors occurred:\n\t* Destination must contain at least one valid address\n\t* Invalid Port number 0\n\n",
    ],
    [
      { ...service, Destination: { Addresses: ["a.example", "a.example", "*.b"], Port: 443 } },
      "2 errors occurred:\n\t* Duplicate address 'a.example' is not allowed\n\t* Destination address '*.b' is invalid Could not validate address *.b as an IP or Hostname\n\n",
    ],
    [
      { ...service, Destination: { Port: 1 }, UpstreamConfig: {} },
      "1 error occurred:\n\t* UpstreamConfig and Destination are mutually exclusive for service defaults\n\n",
    ],
    [
      { ...service, UpstreamConfig: { Defaults: { Name: "x" } } },
      "1 error occurred:\n\t* error in upstream defaults: Name must be empty\n\n",
    ],
    [{ Kind: "service-splitter", Name: "web" }, "no splits configured"],
    [
      { Kind: "service-splitter", Name: "web", Splits: [{ weight: 50 }, { Weight: 40 }] },
      "the sum of all split weights must be 100, not 90.000000",
    ],
    [{ Kind: "service-intentions", Name: "web" }, "At least one source is required"],
  ])("%j", (told, text) => expect(entryFault(readEntry(told))).toBe(text));
});

it("reads anything or says what is wrong with it, and nothing comes in by a name of its own", () => {
  const kinds = fc.constantFrom("service-defaults", "proxy-defaults", "mesh", "http-route", "service-splitter");
  const names = fc.constantFrom("MeshGateway", "UpstreamConfig", "Expose", "Meta", "Protocol", "__proto__", "Splits");
  fc.assert(
    fc.property(kinds, fc.dictionary(names, fc.jsonValue({ maxDepth: 3 })), (Kind, fields) => {
      try {
        const entry = readEntry({ ...fields, Kind, Name: "x" });
        entryFault(entry);
        expect(readEntry(JSON.parse(JSON.stringify(entry)))).toEqual(JSON.parse(JSON.stringify(entry)));
      } catch (error) {
        expect(codeOf(error)).toBe("invalid");
      }
    }),
  );
});
