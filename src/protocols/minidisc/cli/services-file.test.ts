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

  it("knows one address told in two ways", () => {
    const offers = [
      { name: "a", port: 80 },
      { name: "b", port: 80, address: "100.64.0.1" },
    ];
    expect(sameAddress(offers, "100.64.0.1")).toBe("100.64.0.1:80");
    expect(sameAddress(offers, "100.64.0.2")).toBeUndefined();
  });
});
