// `trilith kv` as people type Consul's: export and import byte for byte, details, locks, flags of 64 bits.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ownName } from "../support/own-name.ts";
import { type RunningAgent, startAgent } from "../support/program.ts";

describe("trilith kv", () => {
  let agent: RunningAgent;
  beforeAll(async () => {
    agent = await startAgent(["-dev"]);
  });
  afterAll(() => agent?.stop());

  const put = async (key: string, value: Uint8Array | string, query = ""): Promise<void> => {
    const path = key.split("/").map(encodeURIComponent).join("/");
    const answer = await fetch(`${agent.url}/v1/kv/${path}${query}`, { method: "PUT", body: Buffer.from(value) });
    expect(await answer.text()).toBe("true");
  };

  it("exports as Consul does, and imports it elsewhere without loss", async () => {
    await put("app/name", "web");
    await put("app/empty", "");
    await put('app/"flags": 12345678901234567890,', Uint8Array.of(0, 255, 10), "?flags=18446744073709551615");
    await put("other", "not this");
    const { out, exitCode } = await agent.trilith(["kv", "export", "app/"]);
    expect(exitCode).toBe(0);
    expect(out).toBe(
      [
        "[",
        '\t{\n\t\t"key": "app/\\"flags\\": 12345678901234567890,",\n\t\t"flags": 18446744073709551615,\n\t\t"value": "AP8K"\n\t},',
        '\t{\n\t\t"key": "app/empty",\n\t\t"flags": 0,\n\t\t"value": ""\n\t},',
        '\t{\n\t\t"key": "app/name",\n\t\t"flags": 0,\n\t\t"value": "d2Vi"\n\t}',
        "]\n",
      ].join("\n"),
    );
    expect(await agent.trilith(["kv", "import", "-prefix=copy/", "-"], out)).toEqual({
      exitCode: 0,
      err: "",
      out: 'Imported: copy/app/"flags": 12345678901234567890,\nImported: copy/app/empty\nImported: copy/app/name\n',
    });
    const copied = (await agent.trilith(["kv", "export", "copy/app/"])).out;
    expect(copied).toBe(out.replaceAll('"app/', '"copy/app/'));
    await agent.trilith(["kv", "delete", "-recurse", "app/"]);
    expect((await agent.trilith(["kv", "export", "app/"])).out).toBe("[]\n");
    expect((await agent.trilith(["kv", "import", out])).exitCode).toBe(0);
    expect((await agent.trilith(["kv", "export", "app/"])).out).toBe(out);
  });

  it.each([
    ["{", "is not JSON"],
    ['{"key": "a"}', "expected a list"],
    ['[{"key": "fine", "value": "YQ=="}, {"key": ""}]', "data[1].key"],
    ['[{"key": "fine", "value": "YQ=="}, {"key": "b", "value": "***"}]', 'data[1].value: of key "b": expected base64'],
    ['[{"key": "fine", "value": "YQ=="}, {"key": "b", "flags": -1}]', "data[1].flags"],
    ['[{"key": "fine", "value": "YQ=="}, {"key": "b", "flags": 18446744073709551616}]', "data[1].flags"],
  ])("imports nothing of %s", async (data, text) => {
    const { exitCode, err } = await agent.trilith(["kv", "import", "-"], data);
    expect(err).toContain(text);
    expect(exitCode).toBe(2);
    expect((await agent.trilith(["kv", "get", "fine"])).exitCode).toBe(1);
  });

  it("tells details as wide as Consul does, and cuts no value", async () => {
    const long = "x".repeat(500);
    await put("details", long, "?flags=9223372036854775809");
    const { out } = await agent.trilith(["kv", "get", "-detailed", "details"]);
    expect(out.split("\n").map((line) => line.replace(/^((?:Create|Modify)Index {6})\d+$/, "$1N"))).toEqual([
      "CreateIndex      N",
      "Flags            9223372036854775809",
      "Key              details",
      "LockIndex        0",
      "ModifyIndex      N",
      "Session          -",
      `Value            ${long}`,
      "",
    ]);
    const json = (await agent.trilith(["kv", "get", "-json", "details"])).out;
    expect(json).toContain('"Flags": 9223372036854775809,');
    expect(JSON.parse(json)).toMatchObject([{ Key: "details" }]);
  });

  it("takes and gives back locks in Consul's words", async () => {
    const key = ownName("lock");
    const session = (
      (await (await fetch(`${agent.url}/v1/session/create`, { method: "PUT" })).json()) as { ID: string }
    ).ID;
    const lock = ["kv", "put", "-acquire", `-session=${session}`, key, "mine"];
    expect(await agent.trilith(lock)).toEqual({ exitCode: 0, err: "", out: `Success! Lock acquired on: ${key}\n` });
    const other = ((await (await fetch(`${agent.url}/v1/session/create`, { method: "PUT" })).json()) as { ID: string })
      .ID;
    const second = await agent.trilith(["kv", "put", "-acquire", `-session=${other}`, key, "mine"]);
    expect(second).toEqual({ exitCode: 1, err: "Error! Did not acquire lock\n", out: "" });
    expect((await agent.trilith(["kv", "get", "-detailed", key])).out).toContain(`Session          ${session}\n`);
    const release = ["kv", "put", "-release", `-session=${session}`, key];
    expect((await agent.trilith(release)).out).toBe(`Success! Lock released on: ${key}\n`);
    expect((await agent.trilith(release)).err).toBe("Error! Did not release lock\n");
  });
});
