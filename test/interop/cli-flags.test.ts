// Consul's verbs with their flags, word by word as they are typed after `consul`: what is printed and the exit code, against an agent with two nodes registered through the catalog.
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ownFolder } from "../support/peers.ts";
import { type RunningAgent, startAgent } from "../support/program.ts";

let agent: RunningAgent;
let folder: Awaited<ReturnType<typeof ownFolder>>;
const put = async (path: string, body: unknown): Promise<void> => {
  const answer = await fetch(agent.url + path, { method: "PUT", body: JSON.stringify(body) });
  expect([answer.status, await answer.text()]).toEqual([200, "true"]);
};
const ID = "11111111-aaaa-bbbb-cccc-00000000000";

beforeAll(async () => {
  folder = await ownFolder("cli-flags");
  agent = await startAgent(["-dev", "-node=alpha", "-quiet"]);
  for (const [i, node] of ["n1", "n2"].entries()) {
    await put("/v1/catalog/register", {
      Node: node,
      ID: `${ID}${i}`,
      Address: `10.0.0.${i + 1}`,
      TaggedAddresses: { wan: "192.0.2.1", lan: `10.0.0.${i + 1}` },
      NodeMeta: { rack: String(i), "long-name": "x".repeat(150) },
      Service: { Service: "web", ID: `web-${node}`, Port: 80, Tags: ["v1", "blue"] },
    });
    const Coord = { Vec: [i, 0, 0, 0, 0, 0, 0, 0], Error: 1.5, Adjustment: 0, Height: 0 };
    expect(
      (await fetch(`${agent.url}/v1/coordinate/update`, { method: "PUT", body: JSON.stringify({ Node: node, Coord }) }))
        .status,
    ).toBe(200);
  }
});
afterAll(async () => {
  await agent?.stop();
  await folder?.remove();
});

type Case = readonly [words: readonly string[], exitCode: number, out: RegExp | string, err?: RegExp | string];
async function holds([words, exitCode, out, err = ""]: Case): Promise<void> {
  const done = await agent.trilith(words);
  expect(done, words.join(" ")).toEqual({
    exitCode,
    out: typeof out === "string" ? out : (expect.stringMatching(out) as string),
    err: typeof err === "string" ? err : (expect.stringMatching(err) as string),
  });
}
const cases = (table: readonly Case[]): void => {
  it.each(table.map((one) => ({ one, line: one[0].join(" ") })))("$line", ({ one }) => holds(one));
};

const HEAD = "Node {2,}ID {2,}Address {2,}DC\n";
describe("catalog", () => {
  cases([
    [["catalog", "nodes"], 0, new RegExp(`^${HEAD}alpha {2}[0-9a-f]{8}  127\\.0\\.0\\.1  dc1\nn1 .*\nn2 .*\n$`)],
    [
      ["catalog", "nodes", "-service=web", "-node-meta", "rack=1"],
      0,
      /^Node .*\nn2 {4}11111111 {2}10\.0\.0\.2 {2}dc1\n$/,
    ],
    [["catalog", "nodes", "-service", "web", "-near=n2"], 0, /^Node .*\nn2 .*\nn1 .*\n$/],
    [["catalog", "nodes", "--filter", 'Meta.rack == "0"'], 0, /^Node .*\nn1 .*\n$/],
    [["catalog", "nodes", "-filter", "Meta.rack === 0"], 1, "", /Failed to create boolean expression evaluator: /],
    [["catalog", "nodes", "-service=nope"], 0, "", "No nodes match the given query - try expanding your search.\n"],
    // Nothing is cut, and pairs have an order.
    [
      ["catalog", "nodes", "-detailed", "-near=n1"],
      0,
      new RegExp(
        `^Node +ID +Address +DC +TaggedAddresses +Meta\nn1 +${ID}0 +10\\.0\\.0\\.1 +dc1 +lan=10\\.0\\.0\\.1, wan=192\\.0\\.2\\.1 +long-name=x{150}, rack=0\n`,
      ),
    ],
    [["catalog", "services"], 0, "consul\nweb\n"],
    [["catalog", "services", "-tags"], 0, "consul\nweb         blue,v1\n"],
    [["catalog", "services", "-node=n1", "-tags"], 0, "web      blue,v1\n"],
    [["catalog", "services", "-node-meta=rack=0"], 0, "web\n"],
    [["catalog", "services", "-filter", 'ServiceName == "web"'], 0, "web\n"],
    [["catalog", "services", "-node=nope"], 0, "", "No services match the given query - try expanding your search.\n"],
    [["catalog", "datacenters"], 0, "dc1\n"],
    [["catalog", "nodes", "-datacenter=nope"], 1, "", "trilith catalog: No path to datacenter\n"],
  ]);
});

describe("members", () => {
  cases([
    [
      ["members", "-detailed"],
      0,
      /^Node +Address +Status +Tags\nalpha .*alive +build=[^ ]*,dc=dc1,id=[0-9a-f-]{36},port=8300,raft_vsn=3,role=consul,segment=,vsn=2,vsn_max=3,vsn_min=2\n$/,
    ],
    [["members", "-filter", 'Tags["dc"] == "dc1"', "-stale", "-token=x"], 0, /\nalpha /],
    [["members", "-filter", 'Name == "beta"'], 2, "", "No members match\n"],
    [["members", "-status=[a-z]+ve"], 0, /\nalpha /],
    [["members", "-status=["], 2, "", /Failed to compile status regexp: /],
    [["members", "-segment=x", "-wan"], 0, /\nalpha\.dc1 /],
  ]);
});

// One after the other: what one writes the next finds.
it("kv", { timeout: 180_000 }, async () => {
  const story: readonly Case[] = [
    [["kv", "delete", "-recurse", ""], 0, "Success! Deleted keys with prefix: \n"],
    [["kv", "put", "app/a", "-5"], 0, "Success! Data written to: app/a\n"],
    [["kv", "get", "app/a"], 0, "-5\n"],
    [["kv", "put", "app/a", "-dashed=value"], 0, "Success! Data written to: app/a\n"],
    [["kv", "get", "app/a"], 0, "-dashed=value\n"],
    [["kv", "put", "-cas", "-modify-index=0", "app/b/c", "1"], 0, "Success! Data written to: app/b/c\n"],
    [["kv", "put", "-cas", "app/b/c", "1"], 1, "", "Error! Did not write to app/b/c: CAS failed\n"],
    [["kv", "put", "-base64", "app/d", "aGk="], 0, "Success! Data written to: app/d\n"],
    [["kv", "put", "-base64", "app/d", "%%"], 2, "", "trilith kv: --base64: the value is not base64\n"],
    [["kv", "put", "-nope", "x"], 2, "", /unknown option '-nope'/],
    [["kv", "put", "a", "b", "c"], 2, "", /too many arguments/],
    [["kv", "put", "-flags=42", "/app/e", "v"], 0, "Success! Data written to: /app/e\n"],
    [
      ["kv", "get", "-detailed", "app/e"],
      0,
      /^CreateIndex {6}\d+\nFlags {12}42\nKey {14}app\/e\nLockIndex {8}0\nModifyIndex {6}\d+\nSession {10}-\nValue {12}v\n$/,
    ],
    [["kv", "get", "-keys"], 0, "app/\n"],
    [["kv", "get", "-keys", "app/"], 0, "app/a\napp/b/\napp/d\napp/e\n"],
    [["kv", "get", "-keys", "-recurse"], 0, "app/a\napp/b/c\napp/d\napp/e\n"],
    [["kv", "get", "-keys", "-separator=c", "app/b"], 0, "app/b/c\n"],
    [["kv", "get", "-recurse", "app/b"], 0, "app/b/c:1\n"],
    [["kv", "get", "-base64", "app/d"], 0, "aGk=\n"],
    [["kv", "get", "-recurse", "nope"], 0, ""],
    [["kv", "get", "nope"], 1, "", "Error! No key exists at: nope\n"],
    [["kv", "get"], 2, "", "trilith kv: Missing KEY argument\n"],
    [["kv", "delete"], 2, "", "trilith kv: Missing KEY argument\n"],
    [["kv", "delete", "-recurse", "app/"], 0, "Success! Deleted keys with prefix: app/\n"],
    [["kv", "get", "-namespace=x", "a"], 2, "", /Namespaces are a Consul Enterprise feature/],
  ];
  for (const one of story) await holds(one);
});

describe("services", () => {
  it("registers with all flags, and deregisters by file or ID", async () => {
    const flags = ["-name=db", "-id", "db1", "-port=5432", "-address=10.9.9.9", "-tag=a", "-tag", "b", "-meta", "k=v"];
    expect(await agent.trilith(["services", "register", ...flags, "-tagged-address", "wan=192.0.2.7:80"])).toEqual({
      exitCode: 0,
      out: "Registered service: db\n",
      err: "",
    });
    const held = (await (await fetch(`${agent.url}/v1/agent/service/db1`)).json()) as unknown;
    expect(held).toMatchObject({
      ...{ Service: "db", Address: "10.9.9.9", Port: 5432, Tags: ["a", "b"], Meta: { k: "v" } },
      TaggedAddresses: { wan: { Address: "192.0.2.7", Port: 80 } },
    });
    expect((await agent.trilith(["services", "deregister", "-id=db1"])).out).toBe("Deregistered service: db1\n");
    const file = join(folder.path, "two.hcl");
    await writeFile(file, 'services { name = "one" port = 1 }\nservices { name = "two" id = "two-2" port = 2 }\n');
    expect((await agent.trilith(["services", "register", file])).out).toBe(
      "Registered service: one\nRegistered service: two\n",
    );
    expect(await agent.trilith(["services", "deregister", file])).toEqual({
      exitCode: 0,
      out: "Deregistered service: one\nDeregistered service: two-2\n",
      err: "",
    });
  });
  cases([
    [["services", "register", "-name=x", "-tagged-address=wan"], 2, "", /expected key=value/],
    [["services", "register", "-name=x", "-tagged-address=wan=1.1.1.1"], 2, "", /expected name=address:port/],
    [["services", "deregister", "/nope.json"], 1, "", /Unknown service ID/],
  ]);
});

describe("the rest", () => {
  cases([
    [
      ["lock", "-verbose", "pre", "true"],
      0,
      "Setting up lock at path: pre/.lock\nAttempting lock acquisition\nStarting handler 'true'\nChild terminated, releasing lock\nCleanup succeeded\n",
    ],
    [["lock", "-verbose", "-n=3", "sem", "true"], 0, /^Setting up semaphore \(limit 3\) at prefix: sem\n/],
    [
      ["operator", "usage", "instances"],
      0,
      /^Billable Service Instances Total: 2\ndc1 Billable Service Instances: 2\n\nBillable Services\nServices {6}Service instances\n\d+ +2\n\nConnect Services\nType +Service instances\n[\s\S]*\nmesh-gateway +0\n/,
    ],
    [
      ["operator", "usage", "instances", "-all-datacenters", "-only-billable"],
      0,
      /\nBillable Services\nDatacenter +Services +Service instances\ndc1 +\d+ +2\n$/,
    ],
    [
      ["operator", "raft", "list-peers", "-stale"],
      0,
      /^Node +ID +Address +State +Voter +RaftProtocol +Commit Index +Trails Leader By\nalpha /,
    ],
    [["snapshot", "inspect", "/nope"], 2, "", "trilith snapshot: /nope: there is no such file\n"],
    [["validate", "/nope.hcl"], 1, "", "Config validation failed: /nope.hcl: there is no such file or folder\n"],
    [["rtt", "-wan", "a", "b"], 2, "", /Node names must be specified as <node name>\.<datacenter> with -wan/],
    [["event", "-name=x", "-node=["], 1, "", /Invalid node filter: error parsing regexp: missing closing \]/],
    [["operator", "autopilot", "nope"], 2, "", /unknown command 'nope'[\s\S]*trilith operator autopilot --help/],
  ]);
  it("helps with a command's own flags first", async () => {
    const { out } = await agent.trilith(["catalog", "nodes", "-h"]);
    expect(out).toMatch(/^Usage: trilith catalog nodes \[options\]\n/);
    expect(out.indexOf("--near <node>")).toBeGreaterThan(0);
    expect(out.indexOf("To reach the agent:")).toBeGreaterThan(out.indexOf("--help"));
    expect(out).not.toContain("--namespace");
  });
});
