// Looking into the hook's table finds what reading all of it finds.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type SomeBackend, tableBytes } from "../../test/support/hook-table-bytes.ts";
import { ipBytes } from "./dns/address.ts";
import { decodeHookTable } from "./hook-table.ts";
import { openTableIndex } from "./hook-table-index.ts";

const backend: fc.Arbitrary<SomeBackend> = fc.record({
  address: fc.constantFrom("10.0.0.1", "192.168.7.9", "fd00::7", "2001:db8::1"),
  port: fc.nat(65535),
});
const services = fc
  .uniqueArray(fc.stringMatching(/^[a-z][a-z0-9]{0,9}$/), { maxLength: 30 })
  .chain((names) =>
    fc.tuple(
      ...names.map((name) => fc.array(backend, { maxLength: 4 }).map((backends) => [name, { backends }] as const)),
    ),
  )
  .map((entries) => Object.fromEntries(entries));
const bytesOf = (text: string): Uint8Array => ipBytes(text) as Uint8Array;

describe("a table that is looked into", () => {
  it("finds each service by each of its names and addresses, and nothing else", () => {
    fc.assert(
      fc.property(services, (given) => {
        const bytes = tableBytes(given);
        const index = openTableIndex(bytes);
        for (const { names, ...service } of decodeHookTable(bytes).services) {
          for (const name of names) expect(index.named(name)).toEqual(service);
          expect(index.named(`${names[0]?.toUpperCase()}.`)).toEqual(service);
          // The same service is the same object.
          expect(index.at(service.slot)).toBe(index.named(names[0] as string));
          const { v4, v6 } = index.addressesOf(service.slot);
          for (const text of [v4, v6, `::ffff:${v4}`]) {
            expect(index.mayHold(text)).toBe(true);
            expect(index.slotOf(bytesOf(text))).toBe(service.slot);
          }
        }
        const { v4, v6 } = index.addressesOf(Object.keys(given).length + 1);
        for (const text of [v4, v6, "127.128.0.0", "fd12:3456:789a::"])
          expect(index.at(index.slotOf(bytesOf(text)) as number)).toBeUndefined();
        for (const text of ["127.0.0.1", "10.128.0.1", "::1", "fd12:3456:789b::1", "::fffe:7f80:1"])
          expect(index.slotOf(bytesOf(text))).toBeUndefined();
        expect(index.named("nothing.service.consul")).toBeUndefined();
      }),
      { numRuns: 50 },
    );
  });

  it("has the addresses by which the asking program reaches the backends", () => {
    const host = { network: { device: 4n, inode: 1n }, v4: "192.0.2.7" };
    const bytes = tableBytes(
      { web: { backends: ["127.0.0.1", "::1", "10.0.0.1"].map((address) => ({ address, port: 1 })) } },
      1,
      host,
    );
    const seen = (here?: typeof host.network): unknown =>
      openTableIndex(bytes, here)
        .named("web.service.consul")
        ?.backends.map(({ address }) => address);
    expect(seen({ device: 4n, inode: 2n })).toEqual(["192.0.2.7", "::1", "10.0.0.1"]);
    for (const here of [undefined, host.network]) expect(seen(here)).toEqual(["127.0.0.1", "::1", "10.0.0.1"]);
  });

  it("sees from the text alone what is none of its names and addresses", () => {
    const index = openTableIndex(tableBytes({ web: { backends: [] } }));
    expect(["web.service.consul", "WEB.SERVICE.CONSUL.", "x.consul"].map(index.isInDomain)).toEqual([true, true, true]);
    expect(["consul", "example.org", "web.service.consul.example.org", ""].map(index.isInDomain)).toEqual(
      Array(4).fill(false),
    );
    expect(["10.0.0.1", "192.168.127.1", "2001:db8::1", "1127.0.0.1"].map(index.mayHold)).toEqual(Array(4).fill(false));
    expect(index.mayHold("FD12:3456:789A::1")).toBe(true);
  });
});
