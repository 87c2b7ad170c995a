// gRPC targets: what they name, and what is refused; taken apart by the real URI parser's rule first.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { InputError } from "../../base/error.ts";
import type { Sought } from "./names.ts";
import { readTarget } from "./target.ts";

/** As @grpc/grpc-js 1.14 does it. */
function read(text: string): Sought {
  const [, scheme, authority, path = ""] = /^(?:([A-Za-z0-9+.-]+):)?(?:\/\/([^/]*)\/)?(.+)$/.exec(text) ?? [];
  return readTarget({
    path,
    ...(scheme === undefined ? {} : { scheme }),
    ...(authority === undefined ? {} : { authority }),
  });
}

describe("a gRPC target", () => {
  it("names a service and labels, with or without an authority's slashes", () => {
    for (const text of [
      "trilith://web?env=prod",
      "trilith:///web?env=prod",
      "trilith:web?env=prod",
      "trilith://web/?env=prod",
    ])
      expect(read(text), text).toEqual({ service: "web", labels: { env: "prod" } });
    expect(read("minidisc://web")).toEqual({ service: "web", labels: {} });
    expect(read("minidisc://web?path=/a/b&x=")).toEqual({ service: "web", labels: { path: "/a/b", x: "" } });
    expect(read("minidisc://my%20service?a%26b=c+d")).toEqual({ service: "my service", labels: { "a&b": "c d" } });
    expect(Object.getPrototypeOf(read("minidisc://web?__proto__=x").labels)).toBeNull();
  });

  it("is refused with what would be right", () => {
    for (const [text, message] of [
      ["trilith:///?a=b", /name is missing; expected trilith:\/\/NAME\?label=value/],
      ["trilith://web/v1", /"web\/v1" has a path/],
      ["trilith://%ff", /not percent-encoded UTF-8/],
      ["trilith://web?=x", /a label without a name/],
      ["trilith://web?a=1&a=2", /cannot have two values/],
    ] as const)
      expect(() => read(text), text).toThrow(message);
  });

  it("says back whatever was put into it, and refuses everything else as input", () => {
    const word = fc.string({ unit: "binary", minLength: 1 });
    fc.assert(
      fc.property(word, fc.uniqueArray(fc.tuple(word, word), { selector: ([key]) => key }), (service, pairs) => {
        const query = new URLSearchParams(pairs);
        const sought = read(`trilith://${encodeURIComponent(service)}${query.size === 0 ? "" : `?${query}`}`);
        expect(sought.service).toBe(service);
        expect(Object.entries(sought.labels).sort()).toEqual([...pairs].sort());
      }),
    );
    fc.assert(
      fc.property(fc.string({ minLength: 1 }), (path) => {
        try {
          expect(readTarget({ scheme: "x", path }).service).not.toBe("");
        } catch (error) {
          expect(error).toBeInstanceOf(InputError);
        }
      }),
    );
  });
});
