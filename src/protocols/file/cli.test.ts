// Definition files for `trilith register`: bodies for the API, and what is said of files that cannot be taken.
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { ownFolder } from "../../../test/support/peers.ts";
import { servicesInFiles } from "./cli.ts";

let folder: Awaited<ReturnType<typeof ownFolder>>;
const at = (name: string): string => join(folder.path, name);
beforeAll(async () => {
  folder = await ownFolder("file-cli");
  await writeFile(at("two.hcl"), 'service { name = "a" port = 1 }\nservice { name = "b" tags = ["x"] }');
  await writeFile(at("typo.json"), '{"service":{"name":"good","prot":81}}');
  await writeFile(at("empty.json"), "");
  await mkdir(at("folder"));
});
afterAll(() => folder.remove());

it("reads services in order", async () => {
  expect(await servicesInFiles([at("two.hcl")])).toMatchObject([
    { Name: "a", Port: 1 },
    { Name: "b", Tags: ["x"] },
  ]);
});

it.each([
  ["nope.json", ": there is no such file; expected a definition file (JSON, HCL) with service or services"],
  ["two.hcl/x", ": there is no such file; expected a definition file (JSON, HCL) with service or services"],
  ["folder", ": is a folder; name the files in it, or have the agent read it with --services"],
  ["typo.json", ':1: service.prot: unknown key: did you mean "port"?'],
  ["empty.json", ": defines no service: expected service or services"],
])("%s is refused", async (name, says) => {
  await expect(servicesInFiles([at(name)])).rejects.toMatchObject({ code: "invalid", message: `${at(name)}${says}` });
});
