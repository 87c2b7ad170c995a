// Labels and tags survive the way through TXT records, and what no TXT record can carry is left out.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { fromTxt, txtOf } from "./txt.ts";

describe("labels and tags as TXT", () => {
  it("are pairs, and one list of tags", () => {
    expect(txtOf({ env: "prod", tags: "mine", _TAGS: "x" }, ["v1", "a,b", "c\\d", ""])).toEqual([
      "env=prod",
      "_tags=mine",
      "__TAGS=x",
      "tags=v1,a\\,b,c\\\\d",
    ]);
    expect(txtOf({ "a=b": "1", "": "2", ü: "3", Env: "4", env: "5", long: "x".repeat(251) }, [])).toEqual(["Env=4"]);
    expect(txtOf({}, ["y".repeat(300), "z"])).toEqual(["tags=z"]);
    expect(fromTxt(["flag", "Env=1", "env=2", "=3", "tags=", "x="])).toEqual({
      labels: { flag: "true", Env: "1", x: "" },
      tags: [],
    });
  });

  it("come back as they were", () => {
    const key = fc.oneof(
      fc.constantFrom("tags", "_tags", "__Tags", "__proto__", "env"),
      fc.string({ minLength: 1, maxLength: 20 }).filter((text) => /^[\x20-\x3c\x3e-\x7e]+$/.test(text)),
    );
    const labels = fc
      .uniqueArray(fc.tuple(key, fc.string({ maxLength: 40 })), { selector: ([one]) => one.toLowerCase() })
      .map((pairs) => Object.fromEntries(pairs));
    const tags = fc.array(fc.string({ minLength: 1, maxLength: 10 }), { maxLength: 6 });
    fc.assert(
      fc.property(labels, tags, (givenLabels, givenTags) => {
        const back = fromTxt(txtOf(givenLabels, givenTags));
        expect(Object.entries(back.labels)).toEqual(Object.entries(givenLabels));
        expect(back.tags).toEqual(givenTags);
      }),
    );
  });
});
