// What an operator of Consul types besides the daily verbs: acl, login, keyring, config, operator, debug, on the real program with a real agent.
import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ownName } from "../support/own-name.ts";
import { ownFolder } from "../support/peers.ts";
import { type RunningAgent, startAgent } from "../support/program.ts";

const run = promisify(execFile);
let agent: RunningAgent;
let folder: Awaited<ReturnType<typeof ownFolder>>;
beforeAll(async () => {
  folder = await ownFolder("cli-operator");
  agent = await startAgent(["-dev", "-node=alpha", "-quiet"]);
});
afterAll(async () => {
  await agent?.stop();
  await folder?.remove();
});

const OFF = "Unexpected response code: 401 (ACL support disabled)\n";
describe("without access control", () => {
  it.each<readonly [line: string, failed: string]>([
    ["acl bootstrap", "Failed ACL bootstrapping"],
    ["acl token list", "Failed to retrieve the token list"],
    ["acl token create -description=x -policy-name p", "Failed to create new token"],
    ["acl token clone -id x", "Error cloning token"],
    ["acl policy read -name x -format=json", "Error reading policy"],
    ["acl role delete -id x", "Error deleting role"],
    ["acl auth-method update -name x", "Error when retrieving current auth method"],
    ["acl binding-rule list", "Failed to retrieve the binding rule list"],
    ["acl set-agent-token default x", "Failed to set ACL token"],
    ["login -method=m -bearer-token-file=x -token-sink-file y", "Error logging in"],
    ["logout", "Error destroying token"],
  ])("%s", async (line, failed) => {
    expect(await agent.trilith(line.split(" "))).toEqual({ exitCode: 1, out: "", err: `${failed}: ${OFF}` });
  });
});

describe("keyring", () => {
  it.each<readonly [flags: readonly string[], doing: string]>([
    [["-list"], "Gathering installed encryption keys..."],
    [["-install=abc"], "Installing new gossip encryption key..."],
    [["-use", "abc"], "Changing primary gossip encryption key..."],
    [["-remove", "abc"], "Removing gossip encryption key..."],
  ])("%j says what is tried, and that there is none", async (flags, doing) => {
    const { exitCode, out, err } = await agent.trilith(["keyring", ...flags]);
    expect({ exitCode, out }).toEqual({ exitCode: 1, out: `==> ${doing}\n` });
    expect(err).toMatch(/^error: Unexpected response code: 500 \(keyring is empty: .*\)\n$/);
  });
  it.each([
    [["keyring"], "expected one of -install"],
    [["keyring", "-list", "-use=a"], "Only a single action is allowed"],
  ])("refuses %j", async (words, says) => {
    expect(await agent.trilith(words)).toMatchObject({ exitCode: 2, err: expect.stringContaining(says) as string });
  });
});

describe("operator autopilot set-config", () => {
  it("changes what is told, and nothing else", async () => {
    const set = ["operator", "autopilot", "set-config", "-cleanup-dead-servers=false", "-last-contact-threshold", "1s"];
    expect(await agent.trilith(set)).toEqual({ exitCode: 0, out: "Configuration updated!\n", err: "" });
    await agent.trilith(["operator", "autopilot", "set-config", "-max-trailing-logs=500"]);
    expect((await agent.trilith(["operator", "autopilot", "get-config"])).out).toBe(
      'CleanupDeadServers = false\nLastContactThreshold = 1s\nMaxTrailingLogs = 500\nMinQuorum = 0\nServerStabilizationTime = 10s\nRedundancyZoneTag = ""\nDisableUpgradeMigration = false\nUpgradeVersionTag = ""\n',
    );
  });
  it.each([
    ["-min-quorum=x", '-min-quorum: "x": expected a whole number'],
    ["-cleanup-dead-servers=maybe", '-cleanup-dead-servers: "maybe": expected true or false'],
    ["-server-stabilization-time=soon", 'invalid duration "soon"'],
  ])("refuses %s", async (flag, says) => {
    const { exitCode, err } = await agent.trilith(["operator", "autopilot", "set-config", flag]);
    expect({ exitCode, err }).toEqual({ exitCode: 2, err: expect.stringContaining(says) as string });
  });
});

describe("operator autopilot state", () => {
  it("is told in Consul's columns, or as JSON", async () => {
    const asked = async (...flags: string[]) => await agent.trilith(["operator", "autopilot", "state", ...flags]);
    const { out } = await asked("-format=json");
    const state = JSON.parse(out) as { Leader: string; Servers: Record<string, { Meta: object; LastIndex: number }> };
    expect(out).toMatch(/^\{\n {4}"Healthy": true,\n/);
    expect(state.Servers[state.Leader]).toMatchObject({ Name: "alpha" });
    const pretty = (await asked("-format", "pretty")).out;
    const { Leader } = state;
    expect(pretty.replace(/Index: .*/, "Index: N")).toMatch(
      new RegExp(
        `^Healthy: {22}true\nFailure Tolerance: {12}0\nOptimistic Failure Tolerance: 0\nLeader: {23}${Leader}\nVoters:\n {3}${Leader}\nServers:\n {3}${Leader}\n {6}Name: {12}alpha\n {6}Address: {9}\\S+\n {6}Version: {9}\\S+\n {6}Status: {10}leader\n {6}Node Type: {7}voter\n {6}Node Status: {5}alive\n {6}Healthy: {9}true\n {6}Last Contact: {4}0s\n {6}Last Term: {7}1\n {6}Last Index: N\n {6}Meta\n( {9}"[^"]+": "[^"]*"\n)+$`,
      ),
    );
    expect(await asked()).toMatchObject({ exitCode: 0, out: expect.stringContaining("      Meta\n") as string });
    expect(await asked("-format=yaml")).toMatchObject({
      exitCode: 2,
      err: expect.stringContaining('-format: "yaml": expected pretty or json') as string,
    });
  });
});

describe("config", () => {
  const defaults = ["-kind", "service-defaults", "-name", "web"];
  it("writes, reads, lists and deletes an entry from HCL, by index where told", async () => {
    const file = join(folder.path, "web.hcl");
    await writeFile(
      file,
      'Kind = "service-defaults"\nName = "web"\nProtocol = "http"\nUpstreamConfig {\n  Defaults {\n    MeshGateway { Mode = "local" }\n  }\n  Overrides = [{ Name = "db" }]\n}\n',
    );
    expect(await agent.trilith(["config", "write", file])).toEqual({
      exitCode: 0,
      out: "Config entry written: service-defaults/web\n",
      err: "",
    });
    const { out } = await agent.trilith(["config", "read", ...defaults]);
    expect(out).toMatch(/^\{\n {4}"Kind": "service-defaults",\n {4}"Name": "web",\n/);
    const entry = JSON.parse(out) as { ModifyIndex: number };
    expect(entry).toMatchObject({
      Protocol: "http",
      UpstreamConfig: { Defaults: { MeshGateway: { Mode: "local" } }, Overrides: [{ Name: "db" }] },
    });
    expect((await agent.trilith(["config", "list", "-kind=service-defaults"])).out).toBe("web\n");
    expect(await agent.trilith(["config", "write", "-cas", "-modify-index=1", file])).toEqual({
      exitCode: 1,
      out: "",
      err: "Error writing config entry service-defaults/web: entry is out of date\n",
    });
    expect(await agent.trilith(["config", "delete", ...defaults, "-cas", "-modify-index=1"])).toMatchObject({
      exitCode: 1,
      err: "Config entry not deleted: service-defaults/web\n",
    });
    const index = `-modify-index=${entry.ModifyIndex}`;
    expect(await agent.trilith(["config", "delete", ...defaults, "-cas", index])).toEqual({
      exitCode: 0,
      out: "Config entry deleted: service-defaults/web\n",
      err: "",
    });
  });
  it("reads from standard input, and deletes by file", async () => {
    const json = JSON.stringify({ Kind: "proxy-defaults", Name: "global", Config: { a: 1 } });
    expect((await agent.trilith(["config", "write", "-"], json)).out).toBe(
      "Config entry written: proxy-defaults/global\n",
    );
    const file = join(folder.path, "global.json");
    await writeFile(file, json);
    expect((await agent.trilith(["config", "delete", "-filename", file])).out).toBe(
      "Config entry deleted: proxy-defaults/global\n",
    );
  });
  it.each<readonly [words: readonly string[], code: number, says: string]>([
    [["read"], 2, "Must specify the -kind parameter"],
    [["read", "-kind=mesh"], 2, "Must specify the -name parameter"],
    [
      ["read", ...defaults],
      1,
      'Error reading config entry service-defaults/web: Unexpected response code: 404 (Config entry not found for "service-defaults" / "web")',
    ],
    [
      ["list", "-kind=nope"],
      1,
      'Error listing config entries for kind "nope": Unexpected response code: 500 (invalid config entry kind: nope)',
    ],
    [["write", "/nope"], 2, "/nope: there is no such file"],
    [["delete", ...defaults, "-modify-index=3"], 2, "Cannot specify -modify-index without -cas"],
    [["delete", ...defaults, "-cas"], 2, "Must specify a -modify-index greater than 0 with -cas"],
  ])("%j: exit code %i", async (words, exitCode, says) => {
    const done = await agent.trilith(["config", ...words]);
    expect(done).toMatchObject({ exitCode, out: "" });
    expect(done.err).toContain(says);
  });
});

describe("debug", () => {
  it("captures into an archive that tar reads", async () => {
    const output = join(folder.path, ownName("gathered"));
    const debugging = agent.trilith(["debug", "-duration=2s", "-interval=1s", `-output=${output}`]);
    for (let i = 0; i < 20; i++) {
      await agent.trilith(["reload"]);
      if (i > 3) break;
    }
    const { exitCode, out, err } = await debugging;
    expect(exitCode).toBe(0);
    expect(out).toMatch(
      /^==> Starting debugger and capturing static information\.\.\.\n {5}Agent Version: '\S+'\n {10}Interval: '1s'\n {10}Duration: '2s'\n {12}Output: '\S+\.tar\.gz'\n {11}Capture: 'agent, host, logs, members, metrics, pprof'\n/,
    );
    expect(out).toContain(`    Saved debug archive: ${output}.tar.gz\n`);
    expect(err).toBe("==> pprof is not captured: agents of Trilith have no /debug/pprof\n");
    await run("tar", ["xzf", `${output}.tar.gz`, "-C", folder.path]);
    const read = (name: string): Promise<string> => readFile(join(output, name), "utf8");
    expect(JSON.parse(await read("agent.json"))).toMatchObject({ Config: { NodeName: "alpha" } });
    expect(JSON.parse(await read("host.json"))).toHaveProperty("Memory");
    expect(JSON.parse(await read("members.json"))).toMatchObject([{ Name: "alpha.dc1" }]);
    expect(JSON.parse(await read("index.json"))).toMatchObject({ duration: "2s", interval: "1s" });
    const metrics = (await read("metrics.json")).trimEnd().split("\n");
    expect(metrics.length).toBeGreaterThan(1);
    for (const line of metrics) expect(JSON.parse(line)).toHaveProperty("Gauges");
    expect(await read("consul.log")).toContain("reading files again");
  });
  it("captures only what is told, into a folder", async () => {
    const output = join(folder.path, ownName("few"));
    const words = ["debug", "-capture=members", "-capture", "agent", "-archive=false", `-output=${output}`];
    expect(await agent.trilith(words)).toMatchObject({ exitCode: 0, err: "" });
    expect((await run("ls", [output])).stdout).toBe("agent.json\nindex.json\nmembers.json\n");
    expect(await agent.trilith(words)).toMatchObject({
      exitCode: 1,
      err: `trilith debug: ${output} exists already\n`,
    });
    expect(await agent.trilith(["debug", "-capture=nope"])).toMatchObject({ exitCode: 2 });
  });
});
