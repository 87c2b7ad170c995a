// Watches: what is asked for which type, when a handler is told, what files may say, and handlers that misbehave.
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import { type RunningAgent, startAgent } from "../../../test/support/ground.ts";
import { InputError } from "../../base/error.ts";
import { systemProcesses } from "../../base/process.ts";
import { systemRandom } from "../../base/random.ts";
import type { Settings } from "../../contracts/settings.ts";
import { parseConfigText } from "../../wire/hcl/config.ts";
import { readWatches, type WatchConfig } from "./watch-config.ts";
import { eventIndex, type Fetched, follow, parseExact, planOf, printed, type WatchParams } from "./watch-plan.ts";

const eventually = <T>(claim: () => T | Promise<T>): Promise<T> => vi.waitFor(claim, { timeout: 15_000, interval: 10 });

describe("what is asked", () => {
  it.each<[WatchParams, string]>([
    [{ type: "key", key: "/a/b c?" }, "/v1/kv/a/b%20c%3F"],
    [{ type: "keyprefix", prefix: "a/", stale: true }, "/v1/kv/a/?stale&recurse"],
    [{ type: "services" }, "/v1/catalog/services"],
    [
      { type: "nodes", datacenter: "dc2", filter: 'Node == "x"' },
      "/v1/catalog/nodes?dc=dc2&filter=Node%20%3D%3D%20%22x%22",
    ],
    [
      { type: "service", service: "web", tags: ["a", "b&c"], passingOnly: true },
      "/v1/health/service/web?tag=a&tag=b%26c&passing=1",
    ],
    [{ type: "checks" }, "/v1/health/state/any"],
    [{ type: "checks", state: "critical" }, "/v1/health/state/critical"],
    [{ type: "checks", service: "web" }, "/v1/health/checks/web"],
    [{ type: "event", name: "x", stale: true }, "/v1/event/list?name=x"],
  ])("%j", (params, path) => expect(planOf(params).path).toBe(path));

  it.each<[WatchParams, string]>([
    [{ type: "" }, "Watch type must be specified"],
    [{ type: "nope" }, "Unsupported watch type: nope"],
    [{ type: "key" }, "Must specify a single key to watch"],
    [{ type: "keyprefix" }, "Must specify a single prefix to watch"],
    [{ type: "service" }, "Must specify a single service to watch"],
    [{ type: "checks", service: "a", state: "any" }, "Cannot specify service and state"],
  ])("not %j", (params, text) => expect(() => planOf(params)).toThrow(text));
});

describe("who is told when", () => {
  /** Follows a script of answers; what is told, and what was asked. */
  async function told(
    params: WatchParams,
    answers: readonly (Fetched | Error)[],
  ): Promise<{ told: string[]; asked: string[] }> {
    const clock = fakeClock();
    const stop = new AbortController();
    const asked: string[] = [];
    const heard: string[] = [];
    const following = follow(
      planOf(params),
      {
        clock,
        random: systemRandom,
        signal: stop.signal,
        onFailure: (error, pauseMs) =>
          void heard.push(`${(error as Error).message} ${pauseMs > 700 && pauseMs < 20_000}`),
        ask: async (path) => {
          asked.push(path);
          const answer = answers[asked.length - 1];
          if (answer === undefined) {
            stop.abort();
            throw new Error("over");
          }
          if (answer instanceof Error) throw answer;
          return answer;
        },
      },
      async (index, data) => {
        heard.push(`${index} ${printed(data).replace(/\s+/g, "")}`);
        return true;
      },
    );
    while (!stop.signal.aborted) await clock.advance(60_000);
    await following;
    expect(clock.timers).toBe(0);
    return { told: heard, asked };
  }
  const answer = (index: number | string, json: unknown, status = 200): Fetched => ({
    status,
    index: String(index),
    json,
  });

  it("at once, then on changes of what is shown, whatever else moved", async () => {
    const result = await told({ type: "services" }, [
      answer(5, { a: [] }),
      answer(5, { a: [] }),
      answer(7, { a: [] }),
      answer(8, { b: [] }),
      answer(3, { b: [] }),
      answer(4, { c: [] }),
    ]);
    expect(result.told).toEqual(['5 {"a":[]}', '8 {"b":[]}', '4 {"c":[]}']);
    const path = "/v1/catalog/services";
    // A smaller index means that counting began anew.
    expect(result.asked).toEqual([path, ...[5, 5, 7, 8].map((at) => `${path}?index=${at}`), path, `${path}?index=4`]);
  });

  it("of a key that is missing, comes and goes", async () => {
    const pair = { Key: "k", Flags: 18446744073709551615n, Value: "eA==" };
    const result = await told({ type: "key", key: "k" }, [
      answer(1, undefined, 404),
      answer(2, [pair]),
      answer(3, undefined, 404),
    ]);
    expect(result.told).toEqual(["1 null", '2 {"Key":"k","Flags":18446744073709551615,"Value":"eA=="}', "3 null"]);
  });

  it("of new events only, by indexes that do not grow", async () => {
    const ids = ["3", "1", "2"].map((digit) => `0000000${digit}-0000-0000-0000-000000000000`);
    const events = ids.map((ID) => ({ ID }));
    const at = ids.map(eventIndex);
    expect(at[0]).toBe(String(3n << 32n));
    const result = await told({ type: "event" }, [
      answer(at[0] as string, events.slice(0, 1)),
      answer(at[2] as string, events),
    ]);
    expect(result.told.map((line) => line.slice(line.indexOf(" ") + 1))).toEqual([
      JSON.stringify(events.slice(0, 1)),
      JSON.stringify(events.slice(1)),
    ]);
    expect(result.asked[1]).toBe(`/v1/event/list?index=${at[0]}`);
    const empty = await told({ type: "event" }, [
      answer(1, []),
      answer(at[0] as string, events.slice(0, 1)),
      answer(1, []),
    ]);
    expect(empty.told).toHaveLength(2);
  });

  it("again after failures, later and later", async () => {
    const away = new Error("away");
    const result = await told({ type: "nodes" }, [
      away,
      away,
      { status: 200, index: undefined, json: [] },
      answer(2, []),
    ]);
    expect(result.told).toEqual(["away true", "away true", expect.stringMatching(/no X-Consul-Index.* true$/), "2 []"]);
    // The agent may have started anew meanwhile.
    const again = await told({ type: "nodes" }, [answer(90, ["a"]), away, answer(2, ["a"]), answer(3, ["b"])]);
    expect(again.told).toEqual(['90 ["a"]', "away true", '3 ["b"]']);
    expect(again.asked.map((path) => path.split("=")[1])).toEqual([undefined, "90", undefined, "2", "3"]);
  });

  it("not any more when the handler says so", async () => {
    let calls = 0;
    await follow(
      planOf({ type: "nodes" }),
      {
        ...{ clock: fakeClock(), random: systemRandom, signal: new AbortController().signal },
        onFailure: (error) => {
          throw error;
        },
        ask: async () => answer(++calls, [calls]),
      },
      async () => calls < 3,
    );
    expect(calls).toBe(3);
  });
});

it("keeps flags of 64 bits", () => {
  const text = '[{"Key":"\\"Flags\\":12345678901234567890","Flags":12345678901234567890},{"Flags": 7}]';
  expect(parseExact(text)).toEqual([
    { Key: '"Flags":12345678901234567890', Flags: 12345678901234567890n },
    { Flags: 7 },
  ]);
  expect(printed(parseExact(text))).toContain('"Flags": 12345678901234567890');
  expect(() => parseExact("<html>")).toThrow("not JSON");
});

describe("files", () => {
  const read = (text: string): readonly WatchConfig[] => {
    const { value, at } = parseConfigText(text, "w.hcl");
    return readWatches(value["watches"], ["watches"], at);
  };
  it("say what is watched and who is told", () => {
    expect(
      read(`watches = [
        { type = "key", key = "a", args = ["/bin/x", "-y"] },
        { type = "service", service = "web", tag = "v1", passingonly = true, handler = "echo $CONSUL_INDEX" },
        { type = "event", handler_type = "http", http_handler_config { path = "http://h/p", timeout = "3s", header = { X = ["a", "b"] } } },
      ]`),
    ).toEqual([
      { params: { type: "key", key: "a" }, handler: { kind: "script", command: ["/bin/x", "-y"] } },
      {
        params: { type: "service", service: "web", tags: ["v1"], passingOnly: true },
        handler: { kind: "script", command: "echo $CONSUL_INDEX" },
      },
      {
        params: { type: "event" },
        handler: {
          ...{ kind: "http", url: "http://h/p", method: "POST", timeoutMs: 3000, skipVerify: false },
          headers: { X: ["a", "b"] },
        },
      },
    ]);
  });
  it.each([
    ['{ type = "key", handler = "x" }', "w.hcl:1: watches[0].type: Must specify a single key to watch"],
    ['{ type = "nodes" }', "Must define a watch handler"],
    ['{ type = "nodes", handler = "x", args = ["y"] }', "Only one watch handler allowed"],
    ['{ type = "nodes", handler_type = "http", args = ["y"] }', "Only one watch handler allowed"],
    ['{ type = "nodes", handler_type = "smoke" }', "Handler type 'smoke' not recognized"],
    ['{ type = "nodes", handler_type = "http" }', "http_handler_config is missing"],
    ['{ type = "nodes", handler_type = "http", http_handler_config = { path = "x" } }', "expected a URL"],
    ['{ type = "nodes", handlr = "x" }', 'watches[0].handlr: unknown key "handlr": did you mean "handler"?'],
    ['{ type = "nodes", args = [1] }', "watches[0].args: [1]: expected a list of texts"],
  ])("not %s", (text, message) => {
    expect(() => read(`watches = [${text}]`)).toThrow(InputError);
    expect(() => read(`watches = [${text}]`)).toThrow(message);
  });
});

describe("the agent's watches", () => {
  let folder: string;
  let agent: RunningAgent | undefined;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), "watches-"));
  });
  afterEach(async () => {
    await agent?.stop();
    agent = undefined;
    await rm(folder, { recursive: true });
  });
  const scripts = { fromApi: false, fromFiles: true };
  const start = async (watches: readonly WatchConfig[], settings: Partial<Settings> = {}): Promise<RunningAgent> => {
    agent = await startAgent({ scripts, ...settings, protocols: { consul: { watches } } });
    return agent;
  };
  const linesOf = async (name: string): Promise<string[]> =>
    (await readFile(join(folder, name), "utf8").catch(() => "")).split("\n").filter((line) => line !== "");
  const set = (key: string, value: string): Promise<boolean> =>
    (agent as RunningAgent).trilith.kv.set(key, Buffer.from(value));
  const script = (params: WatchParams, command: string): WatchConfig => ({
    params,
    handler: { kind: "script", command },
  });

  it("tell scripts, with JSON and the index", async () => {
    const out = join(folder, "out");
    await start([script({ type: "key", key: "a" }, `cat >>${out}; echo "$CONSUL_INDEX" >>${out}.index`)]);
    await eventually(async () => expect(await linesOf("out")).toEqual(["null"]));
    await set("b", "other");
    await set("a", "1");
    // Written after what it is the index of.
    await eventually(async () => expect(await linesOf("out.index")).toHaveLength(2));
    expect(JSON.parse((await linesOf("out"))[1] as string)).toMatchObject({ Key: "a", Value: "MQ==" });
    expect((await linesOf("out.index"))[1]).toBe(String(agent?.trilith.kv.get("a")?.modifyIndex));
    expect(agent?.errors).toEqual([]);
  });

  it("do not run scripts unless those of files are allowed", async () => {
    await start([script({ type: "nodes" }, `touch ${folder}/ran`)], { scripts: { fromApi: true, fromFiles: false } });
    expect(agent?.errors.join()).toContain("enable_local_script_checks");
    await agent?.stop();
    expect(await linesOf("ran")).toEqual([]);
  });

  it("tell URLs, and go on after those that hang or fail", async () => {
    const got: { readonly index: unknown; readonly type: unknown; readonly own: unknown; readonly body: string }[] = [];
    const server = createServer((request, response) => {
      let body = "";
      request.on("data", (chunk) => {
        body += chunk;
      });
      request.on("end", () => {
        const { headers } = request;
        got.push({ index: headers["x-consul-index"], type: headers["content-type"], own: headers["x-own"], body });
        // The first one never gets an answer.
        if (got.length > 1) response.writeHead(got.length === 2 ? 500 : 200).end("done");
      });
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    try {
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/hook`;
      const handler = {
        kind: "http",
        url,
        method: "PUT",
        headers: { "X-Own": ["a", "b"] },
        skipVerify: false,
      } as const;
      await start([{ params: { type: "key", key: "a" }, handler: { ...handler, timeoutMs: 1500 } }], {
        scripts: { fromApi: false, fromFiles: false },
      });
      await eventually(() => expect(got).toHaveLength(1));
      await set("a", "1");
      await eventually(() => expect(got).toHaveLength(2));
      await set("a", "2");
      await eventually(() => expect(got).toHaveLength(3));
      expect(got[2]).toMatchObject({ type: "application/json", own: "a, b" });
      expect(got[2]?.index).toBe(String(agent?.trilith.kv.get("a")?.modifyIndex));
      expect(JSON.parse(got[2]?.body ?? "")).toMatchObject({ Value: "Mg==" });
      expect(agent?.errors.join("\n")).toMatch(/did not answer within 1500 ms[\s\S]*status 500/);
    } finally {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  });

  it("that hang and take no SIGTERM hold up nobody, not even the agent's end", async () => {
    const stuck = `trap "" TERM; echo $$ >${folder}/stuck; while :; do sleep 0.05; done`;
    await start([
      script({ type: "key", key: "a" }, stuck),
      script({ type: "key", key: "a" }, `cat >>${folder}/out`),
      script({ type: "nodes" }, "exit 3"),
    ]);
    await eventually(async () => expect(await linesOf("stuck")).toHaveLength(1));
    const pid = Number((await linesOf("stuck"))[0]);
    await set("a", "1");
    await eventually(async () => expect(await linesOf("out")).toHaveLength(2));
    await eventually(() => expect(agent?.errors.join()).toContain("exit status 3"));
    await agent?.stop();
    expect(systemProcesses.exists(pid)).toBe(true);
    await eventually(() => expect(systemProcesses.exists(pid)).toBe(false));
  });

  it("change when their files do, and those that stay are not told again", async () => {
    const file = join(folder, "agent.json");
    const write = (watches: readonly object[]): Promise<void> => writeFile(file, JSON.stringify({ watches }));
    const watch = (key: string): object => ({ type: "key", key, handler: `cat >/dev/null; echo x >>${folder}/${key}` });
    const { loadSettings } = await import("./cli.ts");
    await write([watch("a"), watch("b")]);
    const settings = await loadSettings({ paths: [file], flags: {}, env: () => undefined });
    const consulPaths = [file];
    agent = await startAgent({ scripts, protocols: { ...settings.protocols, file: { consulPaths } } });
    for (const key of ["a", "b"]) await eventually(async () => expect(await linesOf(key)).toHaveLength(1));
    await write([watch("b"), watch("c")]);
    await agent.trilith.reload();
    await eventually(async () => expect(await linesOf("c")).toHaveLength(1));
    for (const key of ["a", "b", "c"]) await set(key, "1");
    for (const key of ["b", "c"]) await eventually(async () => expect(await linesOf(key)).toHaveLength(2));
    expect(await linesOf("a")).toHaveLength(1);
    await writeFile(file, '{"watches": [{"type": "nope"}]}');
    await expect(agent.trilith.reload()).rejects.toThrow("Unsupported watch type: nope");
    expect(agent.errors.join()).toContain("Unsupported watch type: nope");
    await set("b", "2");
    await eventually(async () => expect(await linesOf("b")).toHaveLength(3));
  });
});
