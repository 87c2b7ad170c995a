// Names by template, what is no name, and lines that every resolver reads.
import { describe, expect, it } from "vitest";
import type { Instance } from "../../model/instance.ts";
import { linesOf, namesIn, namesOf, type Placed } from "./names.ts";

const at = (name: string, address: string, more: Partial<Instance> = {}, container?: string): Placed => ({
  instance: {
    ...{ id: `${name}-1`, name, node: "box", tags: [], labels: {}, address, port: 80 },
    origin: { source: "docker", authority: "first-hand" },
    ...more,
  },
  address,
  ...(container === undefined ? {} : { container }),
});
const rule = { names: ["{name}", "{name}.{domain}"], nodes: [] as string[] };

describe("names", () => {
  it("are made of templates, and only where every word stands for something", () => {
    const names = ["{name}", "{tag}.{name}.{domain}", "{container}.docker", "{node}-{id}"];
    const placed = [at("Web", "10.0.0.1", { tags: ["v1", "eu"] }, "shop_web.1"), at("db", "2001:db8::1")];
    const made = namesOf(placed, [{ name: "box", address: "10.0.0.7" }], { names, nodes: ["{node}.{domain}"] }, "lan");
    expect(linesOf(made.names)).toEqual([
      "10.0.0.7\tbox.lan",
      "2001:db8::1\tdb box-db-1",
      "10.0.0.1\tweb box-web-1 eu.web.lan v1.web.lan shop_web.1.docker",
    ]);
    expect(made.not).toEqual([]);
  });

  it("with several addresses have a line each; addresses with several names have one line", () => {
    const { names } = namesOf([at("web", "10.0.0.2"), at("web", "10.0.0.1"), at("db", "10.0.0.1")], [], rule, "lan");
    expect(linesOf(names)).toEqual(["10.0.0.1\tdb web db.lan web.lan", "10.0.0.2\tweb web.lan"]);
    const text = linesOf(names).join("\n");
    expect(linesOf(namesIn(text))).toEqual(linesOf(names));
  });

  it("of an address are cut into lines that resolvers can read", () => {
    const many = Array.from({ length: 100 }, (_, i) => at(`service-with-a-rather-long-name-${i}`, "10.0.0.1"));
    const lines = linesOf(namesOf(many, [], rule, "lan").names);
    expect(lines.every((line) => line.length < 1024)).toBe(true);
    expect(namesIn(lines.join("\n")).size).toBe(200);
  });

  it("that are somebody's own, others' or none are left out, and said", () => {
    const placed = [
      at("localhost", "10.0.0.1"),
      at("a b", "10.0.0.1"),
      at("10.0.0.9", "10.0.0.1"),
      at("printer", "10.0.0.1"),
      at("ext", "db.example.com"),
    ];
    const { names, not } = namesOf(placed, [], { names: ["{name}"], nodes: [] }, "lan", new Set(["printer"]));
    expect(names.size).toBe(0);
    expect(not).toEqual([
      "localhost is each host's own name",
      '"a b" is not a host\'s name',
      '"10.0.0.9" is not a host\'s name',
      "printer stands in others' lines already",
      'ext: "db.example.com" is not an IP address',
    ]);
  });
});
