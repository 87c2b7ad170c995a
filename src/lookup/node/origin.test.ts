// Which origins are services, and as what they are spoken to.
import { describe, expect, it } from "vitest";
import { InputError } from "../../base/error.ts";
import { readOrigin } from "./origin.ts";

const read = (origin: string): unknown => {
  const found = readOrigin(origin, "consul");
  return found && [found.sought.service, found.sought.tags, { ...found.sought.labels }, found.origin];
};

describe("an origin", () => {
  it("names a service by its host, or by the scheme trilith", () => {
    expect(read("http://web.service.consul")).toEqual(["web", [], {}, "http://web.service.consul"]);
    expect(read("https://Primary.DB.service.consul:8443")).toEqual([
      "db",
      ["primary"],
      {},
      "https://Primary.DB.service.consul:8443",
    ]);
    expect(read("http://web.connect.consul.")).toEqual(["web", [], {}, "http://web.connect.consul."]);
    expect(read("trilith://web?env=prod&zone=a")).toEqual(["web", [], { env: "prod", zone: "a" }, "http://web"]);
    expect(read("trilith+https://primary.db")).toEqual(["db", ["primary"], {}, "https://db"]);
    expect(read("trilith://web/?env=prod")).toEqual(["web", [], {}, "http://web"]);
    expect(read("trilith://my%5Fapi")).toEqual(["my_api", [], {}, "http://my_api"]);
    expect(read("trilith://a%3Cb")).toEqual(["a<b", [], {}, "http://localhost"]);
    expect(readOrigin(new URL("http://web.service.consul/"), "consul")?.sought.service).toBe("web");
    expect(readOrigin("http://web.service.corp.example", "corp.example")?.sought.service).toBe("web");
  });

  it("is undici's own otherwise", () => {
    for (const other of [
      "http://example.org",
      "http://127.0.0.1:80",
      "http://consul",
      "http://web.node.consul",
      "http://web.query.consul",
      "http://web.service.dc2.consul",
      "http://web.service.consul.example.org",
      "ftp://web.service.consul",
      "nonsense",
    ])
      expect(read(other)).toBeUndefined();
  });

  it("has to name something where it is ours", () => {
    for (const wrong of ["trilith://", "trilith://a:80", "trilith://web?=x"])
      expect(() => read(wrong)).toThrow(InputError);
  });
});
