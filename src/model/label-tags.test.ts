// Labels and tags as labels alone: the order of precedence, and the way back.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fromLabels, labelsOf } from "./label-tags.ts";

describe("labels and tags as labels alone", () => {
  it("takes labels first, then k=v tags where the key is free, then plain tags", () => {
    expect({ ...labelsOf({ env: "prod" }, ["env=dev", "zone=eu", "blue", "zone", "=odd", ""]) }).toEqual({
      env: "prod",
      zone: "eu",
      blue: "true",
      "=odd": "true",
    });
  });

  it("gives plain tags back as tags", () => {
    const back = fromLabels(labelsOf({ env: "prod" }, ["blue", "a=b"]));
    expect({ labels: { ...back.labels }, tags: back.tags }).toEqual({
      labels: { env: "prod", a: "b" },
      tags: ["blue"],
    });
  });

  it("comes back as it was where nothing is ambiguous, also under names that objects have of their own", () => {
    const word = fc.stringMatching(/^[a-z_]{1,8}$/).filter((text) => text !== "true");
    const key = fc.oneof(word, fc.constantFrom("__proto__", "constructor", "toString"));
    fc.assert(
      fc.property(fc.dictionary(key, word, { noNullPrototype: false }), fc.uniqueArray(key), (labels, all) => {
        const tags = all.filter((tag) => !Object.hasOwn(labels, tag));
        const back = fromLabels(labelsOf(labels, tags));
        expect(Object.entries(back.labels).sort()).toEqual(Object.entries(labels).sort());
        expect([...back.tags].sort()).toEqual([...tags].sort());
      }),
    );
  });
});
