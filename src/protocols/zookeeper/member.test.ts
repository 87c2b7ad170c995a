// Members as JSON: what was recorded of kazoo's, what others write, and that nothing else comes out of random bytes than a fault.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { InputError } from "../../base/error.ts";
import { decodeMember, encodeMember, type Member } from "./member.ts";

const decode = (text: string): Member => decodeMember(Buffer.from(text));
const endpoint = fc.record({
  host: fc.oneof(fc.ipV4(), fc.ipV6(), fc.domain()),
  port: fc.integer({ min: 1, max: 65_535 }),
});
const member = fc.record(
  {
    serviceEndpoint: endpoint,
    additionalEndpoints: fc.array(fc.tuple(fc.string(), endpoint)).map((pairs) => new Map(pairs)),
    status: fc.constantFrom("ALIVE", "STARTING", "DEAD"),
    shard: fc.nat(),
    metadata: fc.dictionary(fc.string(), fc.string()),
  },
  { requiredKeys: ["serviceEndpoint", "additionalEndpoints", "status", "metadata"] },
);

describe("a member", () => {
  it("comes back as it was written", () => {
    fc.assert(
      fc.property(member, (given) => {
        const back = decode(encodeMember(given));
        expect({ ...back, metadata: { ...back.metadata } }).toEqual({ ...given, metadata: { ...given.metadata } });
      }),
    );
  });

  it("is a member or a fault, whatever the bytes", () => {
    const fine = (bytes: Uint8Array): void => {
      try {
        decodeMember(bytes);
      } catch (error) {
        expect(error).toBeInstanceOf(InputError);
      }
    };
    fc.assert(fc.property(fc.uint8Array(), fine));
    fc.assert(fc.property(fc.json(), (text) => fine(Buffer.from(text))));
    const keys = ["serviceEndpoint", "additionalEndpoints", "status", "shard", "metadata"] as const;
    fc.assert(
      fc.property(
        fc.record(Object.fromEntries(keys.map((key) => [key, fc.jsonValue()])), { requiredKeys: [] }),
        (raw) => fine(Buffer.from(JSON.stringify(raw))),
      ),
    );
  });

  it("is written as kazoo's members are", () => {
    const text =
      '{"serviceEndpoint":{"host":"10.0.0.1","port":8081},"additionalEndpoints":{"aurora":{"host":"10.0.0.1","port":9081}},"status":"ALIVE","shard":0}';
    expect(encodeMember(decode(text))).toBe(text);
  });

  it.each([
    ["", /empty/],
    ["not json", /not JSON/],
    ["[]", /expected an object/],
    ["{}", /no serviceEndpoint/],
    ['{"serviceEndpoint":{"host":"a","port":1}}', /status: undefined: expected "ALIVE"/],
    ['{"serviceEndpoint":{"host":"","port":1},"status":"ALIVE"}', /serviceEndpoint: host ""/],
    ['{"serviceEndpoint":{"host":"a b","port":1},"status":"ALIVE"}', /host "a b"/],
    ['{"serviceEndpoint":{"host":"a","port":0},"status":"ALIVE"}', /port 0: expected/],
    ['{"serviceEndpoint":{"host":"a","port":"80"},"status":"ALIVE"}', /port "80"/],
    ['{"additionalEndpoints":{"x":1},"status":"ALIVE"}', /additionalEndpoints\.x/],
    ['{"additionalEndpoints":[],"status":"ALIVE"}', /additionalEndpoints: expected an object/],
  ])("is none: %j", (text, fault) => {
    expect(() => decode(text)).toThrow(fault);
  });

  it("stays one where an additional endpoint is none", () => {
    const member = (additional: string): Member =>
      decode(`{"serviceEndpoint":{"host":"a","port":1},"additionalEndpoints":${additional},"status":"ALIVE"}`);
    const some = member('{"x":1,"http":{"host":"a","port":8080},"y":{"host":"a","port":0}}');
    expect([...some.additionalEndpoints.keys()]).toEqual(["http"]);
    expect(some.faults).toEqual([
      { endpoint: "x", text: expect.stringContaining("additionalEndpoints.x: expected") },
      { endpoint: "y", text: expect.stringContaining("port 0") },
    ]);
    expect(member("[]")).toMatchObject({ serviceEndpoint: { port: 1 }, faults: [{ endpoint: "*" }] });
  });

  it.each([
    [
      '{"additionalEndpoints":null,"serviceEndpoint":{"host":"[::1]","port":1},"status":2,"shard":null,"strange":1}',
      "ALIVE",
      "::1",
    ],
    ['{"serviceEndpoint":{"host":"h","port":1},"status":"alive"}', "ALIVE", "h"],
    ['{"serviceEndpoint":{"host":"h","port":1},"status":1}', "STARTING", "h"],
  ])("is one in another writer's way: %j", (text, status, host) => {
    expect(decode(text)).toMatchObject({ status, serviceEndpoint: { host } });
  });
});
