// Random and nearly right configuration texts: only ever an InputError with its place, and never a wrong guess at names of Object's own.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { InputError } from "../../src/base/error.ts";
import { definitionsIn, mergeDefinitions } from "../../src/protocols/file/definitions.ts";
import { parseConfigText } from "../../src/wire/hcl/config.ts";

const ability = { scripts: true, parse: () => (detail: unknown) => detail };

function take(text: string, name: string): void {
  try {
    const definitions = definitionsIn(parseConfigText(text, name), ability, "only-definitions");
    mergeDefinitions([{ name, definitions }]);
  } catch (error) {
    expect(error).toBeInstanceOf(InputError);
    expect((error as InputError).where).toMatch(/^a\.(hcl|json):\d+/);
  }
}

const name = fc.constantFrom("a.hcl", "a.json");
const piece = fc.constantFrom(
  ..."service services check checks name port tags meta ttl interval args http weights tagged_addresses lan address __proto__ constructor".split(
    " ",
  ),
  ..."= { } [ ] , : # // /* */ <<EOF <<-EOF EOF \n \n".split(" "),
  ...['"', '"a"', '"10s"', '"\\', "${", "1", "-1", "0x", "1e999", "true", "null", "\u0000", "ä", "\ud800", "😀"],
);

describe("configuration text", () => {
  it("of any characters", () => {
    fc.assert(fc.property(fc.string({ unit: "binary", maxLength: 200 }), name, take), { numRuns: 2000 });
  });

  it("of any words", () => {
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 40 }), fc.constantFrom(" ", "", "\n"), name, (pieces, glue, file) =>
        take(pieces.join(glue), file),
      ),
      { numRuns: 5000 },
    );
  });

  it("with one character changed, removed or doubled", () => {
    const text = `service {
  name = "web" # the shop
  tags = ["a", "b"]
  meta { version = 3 "team" = "core" }
  tagged_addresses { lan { address = "10.0.0.1" port = 80 } }
  weights = { passing = 10, warning = 1 }
  check { id = "a" ttl = "10s" }
  check { args = ["/bin/true"] interval = "1m30s" notes = <<-EOF
    long
    EOF
  }
}
checks = [{ name = "disk", ttl = "1h" }]
`;
    const json = JSON.stringify({
      service: { name: "web", tags: ["a"], check: { http: "http://x/", interval: "10s" } },
    });
    fc.assert(
      fc.property(
        fc.constantFrom([text, "a.hcl"] as const, [json, "a.json"] as const),
        fc.nat(),
        fc.constantFrom("", "{", "}", '"', "=", "\\", "\n", "0", "[", "_"),
        fc.boolean(),
        ([whole, file], place, character, replace) => {
          const at = place % whole.length;
          take(whole.slice(0, at) + character + whole.slice(replace ? at + 1 : at), file);
        },
      ),
      { numRuns: 3000 },
    );
  });

  it("that is deep or long ends soon", () => {
    take("a {".repeat(100_000), "a.hcl");
    take(`${'{"a":'.repeat(100_000)}`, "a.json");
    take(`a = ${"[".repeat(100_000)}`, "a.hcl");
    take("a ".repeat(100_000), "a.hcl");
    take(`service { name = "${"x".repeat(1_000_000)}" }`, "a.hcl");
    take(`service { name = "x" ttl = "0.${"9".repeat(100_000)}s" check { ttl = "${"9".repeat(100_000)}s" } }`, "a.hcl");
    take(Array.from({ length: 20_000 }, (_, i) => `service { name = "s${i}" }`).join("\n"), "a.hcl");
  });
});
