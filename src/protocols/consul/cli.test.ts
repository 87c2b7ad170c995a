// Configuration files on disk: folders in order, HCL and JSON, findings of `validate`.
import { mkdir, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { ownFolder } from "../../../test/support/peers.ts";
import { loadSettings, validateFiles } from "./cli.ts";

let folder: Awaited<ReturnType<typeof ownFolder>>;
const at = (name: string): string => join(folder.path, name);
beforeEach(async () => {
  folder = await ownFolder("consul-cli");
  await mkdir(at("conf.d"));
  await writeFile(at("conf.d/20.hcl"), 'node_name = "from-hcl"\nports {\n  http = 7000\n}\n');
  await writeFile(at("conf.d/10.json"), '{"node_name": "from-json", "datacenter": "one"}');
  await writeFile(at("conf.d/notes.txt"), "not read");
  await writeFile(at("typo.hcl"), 'node_name = "x"\n\nports {\n  htttp = 1\n}\n');
  await writeFile(
    at("mixed.hcl"),
    'server = true\nservice {\n  name = "typo"\n  prot = 80\n  check { http = "http://127.0.0.1/" }\n}\nservice {\n  name = "web"\n  port = 80\n  check { http = "http://127.0.0.1/" }\n}\ncheck { ttl = "1s" }\n',
  );
});
afterEach(() => folder.remove());

const env = (): undefined => undefined;

describe("loadSettings", () => {
  it("reads folders in lexical order, flags last", async () => {
    const settings = await loadSettings({ paths: [at("conf.d")], flags: { dev: true }, env });
    expect(settings).toMatchObject({ node: "from-hcl", datacenter: "one", httpPort: 7000, dev: true });
    expect(settings.protocols?.["file"]).toEqual({
      paths: [],
      // The folder itself, so that a reload sees what is new in it.
      consulPaths: [at("conf.d")],
    });
  });
  it("says where a mistake is", async () => {
    await expect(loadSettings({ paths: [at("typo.hcl")], flags: {}, env })).rejects.toThrow(
      `${at("typo.hcl")}:4: ports.htttp: unknown key "ports.htttp": did you mean "ports.http"?`,
    );
    await expect(loadSettings({ paths: [at("nothing.json")], flags: {}, env })).rejects.toThrow(
      "there is no such file",
    );
  });
  it("takes the data folder from the environment where nothing else names one", async () => {
    const told = (name: string): string | undefined => (name === "TRILITH_DATA_DIR" ? "/data" : undefined);
    expect((await loadSettings({ paths: [], flags: {}, env: told })).dataDir).toBe("/data");
    expect((await loadSettings({ paths: [], flags: { dataDir: "/other" }, env: told })).dataDir).toBe("/other");
    expect((await loadSettings({ paths: [], flags: { dev: true }, env: told })).dataDir).toBeUndefined();
  });
});

describe("validateFiles", () => {
  it("finds what is wrong with overrides", async () => {
    await mkdir(at("said"), { recursive: true });
    await writeFile(at("said/good.json"), '{"overrides": [{"for": "web", "set": ["name=shop"]}]}');
    expect(await validateFiles([at("said")])).toEqual({ errors: [], warnings: [] });
    await writeFile(at("said/bad.hcl"), 'override { for = "web" set = "weight=x" }');
    expect((await validateFiles([at("said")])).errors).toEqual([
      `${at("said/bad.hcl")}:1: override: override "weight=x": expected a whole number from 0 to 65535`,
    ]);
  });

  it("finds everything in all files", async () => {
    const { errors, warnings } = await validateFiles([at("mixed.hcl"), at("typo.hcl"), at("gone.hcl")]);
    expect(errors).toEqual([
      `${at("mixed.hcl")}:4: service[0].prot: unknown key "prot": did you mean "port"?`,
      `${at("mixed.hcl")}:7: service[1]: Invalid check: Interval must be > 0 for Script, HTTP, H2PING, TCP, UDP or OSService checks`,
      `${at("mixed.hcl")}:12: check: Missing check name`,
      `${at("typo.hcl")}:4: ports.htttp: unknown key "ports.htttp": did you mean "ports.http"?`,
      `${at("gone.hcl")}: there is no such file or folder`,
    ]);
    expect(warnings).toEqual([`${at("mixed.hcl")}: server is accepted and has no effect here`]);
  });
  it("has nothing against good files", async () => {
    expect(await validateFiles([at("conf.d")])).toEqual({ errors: [], warnings: [] });
  });
  it("reads what the agent reads: hidden and empty files, no folders, no links to nowhere", async () => {
    await mkdir(at("odd/folder.json"), { recursive: true });
    await writeFile(at("odd/empty.json"), "");
    await writeFile(at("odd/.hidden.json"), '{"service": {"nmae": "x"}}');
    await symlink(at("nowhere"), at("odd/.#a.json"));
    expect(await validateFiles([at("odd")])).toEqual({
      errors: [`${at("odd/.hidden.json")}:1: service.nmae: unknown key "nmae": did you mean "name"?`],
      warnings: [],
    });
    const settings = await loadSettings({ paths: [at("odd")], flags: { dev: true }, env });
    expect(settings.dev).toBe(true);
  });
});
