// Consul definitions: both spellings, Consul's own words of refusal, and the way into the model.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { InputError } from "../../base/error.ts";
import { nearestName } from "../../base/nearest-name.ts";
import type { CheckSpec } from "../../model/check.ts";
import type { Registration } from "../../model/instance.ts";
import { decodeCheck, decodeService } from "./decode.ts";
import { checkFault, metaFault, serviceFault } from "./faults.ts";
import { unknownFieldText } from "./reader.ts";
import { checkSpecOf, registrationOf } from "./registration.ts";

const keep = (_kind: string, detail: unknown): unknown => detail;

describe("services by the API's spelling", () => {
  it("reads every field in any case", () => {
    const service = decodeService(
      {
        ID: "api-1",
        name: "api",
        TAGS: ["v1"],
        Meta: { version: "1.2.3" },
        Port: 8443,
        Address: "10.1.2.3",
        TaggedAddresses: { wan: { Address: "198.51.100.7", Port: 443 } },
        Weights: { Passing: 10, Warning: 2 },
        enable_tag_override: true,
        Kind: "connect-proxy",
        Proxy: { DestinationServiceName: "web" },
        Check: { TTL: "30s", Notes: "kept" },
        Checks: [{ HTTP: "http://127.0.0.1/", Interval: 10_000_000_000, Args: null }],
      },
      { spelling: "api" },
    );
    expect(service.unknown).toEqual([]);
    expect(serviceFault(service)).toBeUndefined();
    const registration: Registration = registrationOf(service, keep);
    expect(registration).toMatchObject({
      id: "api-1",
      name: "api",
      tags: ["v1"],
      labels: { version: "1.2.3" },
      address: "10.1.2.3",
      port: 8443,
      taggedAddresses: { wan: { address: "198.51.100.7", port: 443 } },
      weights: { passing: 10, warning: 2 },
      enableTagOverride: true,
      foreign: { Kind: "connect-proxy", Proxy: { DestinationServiceName: "web" } },
      checks: [
        { kind: "ttl", ttlMs: 30_000, notes: "kept", foreign: { TTL: "30s" } },
        { kind: "http", intervalMs: 10_000, foreign: { HTTP: "http://127.0.0.1/", Interval: "10s" } },
      ],
    });
  });

  it("knows CheckID in a service and ID alone, not the other way round", () => {
    const nested = decodeService({ Name: "a", Check: { checkid: "c", TTL: "1s" } }, { spelling: "api" });
    expect(nested.checks[0]?.id).toBe("c");
    const wrong = decodeService({ Name: "a", Check: { check_id: "c", TTL: "1s" } }, { spelling: "api" });
    expect(wrong.unknown.map(unknownFieldText)).toEqual(['json: unknown field "check_id"']);
    expect(decodeCheck({ ID: "c", Name: "n", TTL: "1s" }, { spelling: "api" }).id).toBe("c");
    expect(decodeCheck({ CheckID: "c" }, { spelling: "api" }).unknown.map((u) => u.key)).toEqual(["CheckID"]);
  });

  it("takes an empty check as none and an unnamed weight as 0", () => {
    const service = decodeService({ Name: "a", Check: {}, Weights: { Warning: 1 } }, { spelling: "api" });
    expect(service.checks).toEqual([]);
    expect(serviceFault(service)).toBe("Invalid Weights: Passing must be greater than 0");
  });
});

describe("Consul's own words", () => {
  it.each<[unknown, string | undefined]>([
    [{ ID: "x" }, "Missing service name"],
    [
      { Name: "m", Meta: { "a b": "v" } },
      "Invalid Service Meta: Couldn't load metadata pair ('a b', 'v'): Key contains invalid characters",
    ],
    [
      { Name: "m", Meta: { "consul-x": "v" } },
      "Invalid Service Meta: Couldn't load metadata pair ('consul-x', 'v'): Key prefix 'consul-' is reserved for internal use",
    ],
    [
      { Name: "w", Weights: { Passing: 65_536, Warning: 1 } },
      "Invalid Weights: DNS Weight must be between 0 and 65535",
    ],
    [{ Name: "a", Address: "0.0.0.0" }, "Invalid service address"],
    [
      { Name: "w", Weights: { Passing: 0, Warning: 1 }, Meta: { "": "v" } },
      "Invalid Weights: Passing must be greater than 0",
    ],
    [
      { Name: "n", Connect: { Native: true }, Checks: [{}] },
      "Validation failed: 1 error occurred:\n\t* Port or SocketPath must be set for a Connect native service.\n\n",
    ],
    [
      { Name: "p", Kind: "connect-proxy" },
      "Validation failed: 2 errors occurred:\n\t* Port or SocketPath must be set for a connect-proxy\n\t* Proxy.DestinationServiceName must be non-empty for Connect proxy services\n\n",
    ],
    [{ Name: "c", Check: {} }, undefined],
    [{ Name: "c", Checks: [{}] }, "Invalid check: TTL must be > 0 for TTL checks"],
    [{ Name: "c", Check: { Name: "nothing" } }, "Invalid check: TTL must be > 0 for TTL checks"],
    [
      { Name: "c", Check: { HTTP: "http://127.0.0.1:1/" } },
      "Invalid check: Interval must be > 0 for Script, HTTP, H2PING, TCP, UDP or OSService checks",
    ],
    [{ Name: "c", Check: { TTL: "10s", Status: "fine" } }, "Status for checks must 'passing', 'warning', 'critical'"],
    [
      { Name: "c", Check: { TTL: "10s", HTTP: "http://127.0.0.1:1/", Interval: "10s" } },
      "Invalid check: Interval and TTL cannot both be specified",
    ],
    [
      { Name: "c", Check: { HTTP: "h", Interval: "10s", FailuresBeforeWarning: 5, FailuresBeforeCritical: 2 } },
      "Invalid check: FailuresBeforeWarning can't be higher than FailuresBeforeCritical",
    ],
    [
      { Name: "l", Locality: { Zone: "z" } },
      "Validation failed: 1 error occurred:\n\t* zone cannot be set without region\n\n",
    ],
  ])("%j", (raw, text) => expect(serviceFault(decodeService(raw, { spelling: "api" }))).toBe(text));

  it("limits metadata", () => {
    expect(metaFault({ k: "v".repeat(513) })).toContain("Value is too long (limit: 512 characters)");
    expect(metaFault(Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`k${i}`, ""])))).toBe(
      "Node metadata cannot contain more than 64 key/value pairs",
    );
  });
});

describe("files", () => {
  it("reads snake_case, one-element lists of blocks, numbers as meta", () => {
    const service = decodeService(
      {
        name: "web",
        meta: [{ version: 3 }],
        tagged_addresses: [{ lan: [{ address: "10.0.0.1", port: 80 }] }],
        check: [
          { id: "a", args: ["/bin/true"], interval: "10s" },
          { id: "b", alias_service: "db" },
        ],
      },
      { spelling: "file" },
    );
    expect(service.unknown).toEqual([]);
    expect(service.labels).toEqual({ version: "3" });
    expect(service.taggedAddresses).toEqual({ lan: { address: "10.0.0.1", port: 80 } });
    expect(service.checks.map((check) => [check.id, check.kind])).toEqual([
      ["a", "script"],
      ["b", "alias"],
    ]);
    expect(serviceFault(service)).toBeUndefined();
  });

  it("names the nearest known field and the place of a wrong one", () => {
    const at = (path: readonly (string | number)[]): string => `web.hcl:7: ${path.join(".")}`;
    const service = decodeService({ name: "web", prot: 80, check: { intervall: "10s" } }, { spelling: "file", at });
    expect(service.unknown.map((u) => [u.key, u.nearest])).toEqual([
      ["prot", "port"],
      ["intervall", "interval"],
    ]);
    expect(() => decodeService({ name: "web", port: "80" }, { spelling: "file", at, path: ["service"] })).toThrow(
      'web.hcl:7: service.port: must be a whole number, not "80"',
    );
    expect(() => decodeService({ check: { interval: "ten" } }, { spelling: "file", at })).toThrow(
      'web.hcl:7: check.interval: time: invalid duration "ten"',
    );
  });

  it("survives names of Object's own", () => {
    const service = decodeService(JSON.parse('{"name":"a","meta":{"__proto__":"x"},"__proto__":{}}'), {
      spelling: "file",
    });
    expect(Object.entries(service.labels)).toEqual([["__proto__", "x"]]);
    expect(service.unknown.map((u) => u.key)).toEqual(["__proto__"]);
  });
});

it("names nothing where nothing is near", () => {
  expect(nearestName("zzz", ["port"])).toBeUndefined();
  expect(nearestName("adress", ["address", "port"])).toBe("address");
});

it("hands thresholds, first status and times to the model", () => {
  const check = decodeCheck(
    {
      name: "c",
      tcp: "127.0.0.1:1",
      interval: "10s",
      timeout: "1500ms",
      status: "warning",
      success_before_passing: 2,
      failures_before_warning: 1,
      failures_before_critical: 3,
      deregister_critical_service_after: "2h30m",
      output_max_size: 100,
    },
    { spelling: "file" },
  );
  expect(checkFault(check)).toBeUndefined();
  const spec: CheckSpec = checkSpecOf(check, keep);
  expect(spec).toMatchObject({
    kind: "tcp",
    detail: { address: "127.0.0.1:1" },
    timeoutMs: 1500,
    initial: "warning",
    thresholds: { successBeforePassing: 2, failuresBeforeWarning: 1, failuresBeforeCritical: 3 },
    deregisterAfterMs: 9_000_000,
    outputMaxBytes: 100,
    foreign: { DeregisterCriticalServiceAfter: "2h30m0s" },
  });
});

it("raises nothing but InputError, whatever it is given", () => {
  const keys = fc.constantFrom(
    "name",
    "Check",
    "checks",
    "tags",
    "meta",
    "port",
    "weights",
    "ttl",
    "TaggedAddresses",
    "x",
  );
  const { value } = fc.letrec((tie) => ({
    value: fc.oneof(
      { maxDepth: 4 },
      fc.jsonValue(),
      fc.dictionary(keys, tie("value"), { maxKeys: 5 }),
      fc.array(tie("value"), { maxLength: 3 }),
    ),
  }));
  fc.assert(
    fc.property(value, fc.constantFrom("api" as const, "file" as const), (raw, spelling) => {
      try {
        const service = decodeService(raw, { spelling });
        serviceFault(service);
        registrationOf(service, keep);
        decodeCheck(raw, { spelling });
      } catch (error) {
        expect(error).toBeInstanceOf(InputError);
      }
    }),
    { numRuns: 500 },
  );
});
