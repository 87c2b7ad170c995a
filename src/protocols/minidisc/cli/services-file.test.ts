// Files of `md advertise`: whatever stands in them, they are read or told wrong line by line.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { stringify } from "yaml";
import { readServicesFile, sameAddress } from "./services-file.ts";

describe("a file of services", () => {
  it("says back what was written", async () => {
    const text = fc.string({ minLength: 1 }).filter((one) => one.trim() !== "");
    await fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(fc.integer({ min: 1, max: 65_535 }), { minLength: 1, maxLength: 5 }),
        text,
        fc.dictionary(text, text),
        async (ports, name, labels) => {
          const services = ports.map((port, i) => ({
            name,
            address: i % 2 === 0 ? `:${port}` : `100.1.2.3:${port}`,
            labels,
          }));
          const read = await readServicesFile(stringify({ services }), "f");
          expect(read).toEqual({
            offers: ports.map((port, i) => ({
              name,
              port,
              address: i % 2 === 0 ? "" : "100.1.2.3",
              labels: Object.assign(Object.create(null), labels),
            })),
          });
        },
      ),
      { numRuns: 50 },
    );
  });

  it("never throws, and names the file in every mistake", async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.string(),
          fc.json().map((json) => `services: ${json}`),
        ),
        async (text) => {
          const read = await readServicesFile(text, "f");
          if ("mistakes" in read) for (const mistake of read.mistakes) expect(mistake).toMatch(/^f(:\d+)?: /);
        },
      ),
      { numRuns: 300 },
    );
  });

  it.each([
    ["services: [", true],
    ["services: 3", true],
    ["services: [3]", true],
    ["- a", true],
    ["services: [{name: [1], address: ':1'}]", true],
    ["services: [{name: a, address: ':1', labels: x}]", true],
    ["services: [{name: a, address: ':1', labels: {a: [1]}}]", true],
    ["services: [{name: a, name: b, address: ':1'}]", true],
    ["", false],
    ["services: ~", false],
    ["services: [{name: a, address: 'host:1'}]", false],
    ["services: [{name: a}]", false],
    ["services: [{address: ':1'}]", false],
  ])("%s: Minidisc's YAML reader refuses it: %s", async (text, unread) => {
    expect(await readServicesFile(text, "f")).toMatchObject({ unread });
  });

  it("nothing in a label's place is the empty text, as with Minidisc's YAML reader", async () => {
    const text = `services: [{name: a, address: ":1", labels: {a: ~, b: null, c: , d: yes, e: 1.0, f: "~", ~: k}}]`;
    expect(await readServicesFile(text, "f")).toEqual({
      offers: [{ name: "a", port: 1, address: "", labels: { a: "", b: "", c: "", d: "yes", e: "1.0", f: "~" } }],
    });
    expect(await readServicesFile(`services: [{name: a, address: ":1", labels: ~}]`, "f")).toMatchObject({
      offers: [{ name: "a", labels: {} }],
    });
  });

  it("knows one address told in two ways", () => {
    const offers = [
      { name: "a", port: 80 },
      { name: "b", port: 80, address: "100.64.0.1" },
    ];
    expect(sameAddress(offers, "100.64.0.1")).toBe("100.64.0.1:80");
    expect(sameAddress(offers, "100.64.0.2")).toBeUndefined();
  });
});
