// Remote execution over plain HTTP, as any client of Consul's protocol asks for it: keys that are written, what is refused, and what an agent that stops does.
import { readdir } from "node:fs/promises";
import { afterEach, describe, expect, it, vi } from "vitest";
import { type RunningAgent, startAgent } from "../../../test/support/ground.ts";
import { eventually, ownFolder } from "../../../test/support/peers.ts";
import { callbackLog } from "../../base/log.ts";

const agents: RunningAgent[] = [];
const said: string[] = [];
afterEach(async () => {
  vi.unstubAllEnvs();
  said.length = 0;
  for (const agent of agents.splice(0)) await agent.stop();
});

async function start(remoteExec = true, fromApi = true): Promise<RunningAgent> {
  const agent = await startAgent(
    { scripts: { fromApi, fromFiles: true }, protocols: { consul: { remoteExec } } },
    {
      log: callbackLog(
        (level, part, text, fields) => void said.push(`${level} ${part}: ${text} ${JSON.stringify(fields)}`),
      ),
    },
  );
  agents.push(agent);
  return agent;
}
const ask = async ({ url }: RunningAgent, method: string, path: string, body?: unknown): Promise<unknown> => {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  const answer = await fetch(url + path, { method, ...(body === undefined ? {} : { body: text }) });
  expect([200, 404]).toContain(answer.status);
  return answer.status === 404 ? undefined : await answer.json();
};
const fire = (agent: RunningAgent, payload: unknown): Promise<unknown> =>
  ask(agent, "PUT", "/v1/event/fire/_rexec", payload);

/** A job as `consul exec` leaves it; returns the session. */
async function job(agent: RunningAgent, spec: unknown, prefix = "_rexec"): Promise<string> {
  const session = { Name: "Remote Exec", Behavior: "delete", TTL: "15s" };
  const { ID } = (await ask(agent, "PUT", "/v1/session/create", session)) as { ID: string };
  expect(await ask(agent, "PUT", `/v1/kv/${prefix}/${ID}/job?acquire=${ID}`, spec)).toBe(true);
  await fire(agent, { Prefix: prefix, Session: ID });
  return ID;
}
async function written(agent: RunningAgent, at: string): Promise<Record<string, string>> {
  const pairs = ((await ask(agent, "GET", `/v1/kv/${at}?recurse`)) ?? []) as {
    Key: string;
    Value: string | null;
    Session?: string;
  }[];
  for (const { Key, Session } of pairs) expect([Key, Session]).toEqual([Key, at.split("/")[1]]);
  return Object.fromEntries(
    pairs.map(({ Key, Value }) => [Key.slice(at.length), Buffer.from(Value ?? "", "base64").toString()]),
  );
}
describe("a job", () => {
  it("is acknowledged, its output and exit code lie below it, held by its session; a script's file is removed", async () => {
    const agent = await start();
    const folder = await ownFolder("rexec");
    vi.stubEnv("TMPDIR", folder.path);
    const Script = Buffer.from('ls "$(dirname "$0")" >&2; echo out; exit 7\n').toString("base64");
    // However slowly it runs, its output is one piece.
    const id = await job(agent, { Script, Wait: 60_000_000_000 }, "other/place");
    const found = await eventually("the exit code", async () => {
      const pairs = ((await ask(agent, "GET", `/v1/kv/other/place/${id}/?recurse`)) ?? []) as {
        Key: string;
        Session?: string;
      }[];
      return pairs.some(({ Key }) => Key.endsWith("/exit")) && pairs;
    });
    expect(found.map(({ Key }) => Key.slice(`other/place/${id}/`.length))).toEqual([
      "alpha/ack",
      "alpha/exit",
      "alpha/out/00000",
      "job",
    ]);
    expect(new Set(found.map(({ Session }) => Session))).toEqual(new Set([id]));
    const output = await (await fetch(`${agent.url}/v1/kv/other/place/${id}/alpha/out/00000?raw`)).text();
    // Two pipes: which of them is read first is up to the system.
    expect(output.split("\n").toSorted()).toEqual(["", "out", expect.stringMatching(/^trilith-rexec-\S+$/)]);
    expect(await (await fetch(`${agent.url}/v1/kv/other/place/${id}/alpha/exit?raw`)).text()).toBe("7");
    await eventually("the script's file is gone", async () => (await readdir(folder.path)).length === 0);
    await folder.remove();
  });

  it("without output writes signs of life; without its session it is ended", async () => {
    const agent = await start();
    const id = await job(agent, { Command: "sleep 300 & echo $!; wait", Wait: 150_000_000 });
    const at = `_rexec/${id}/`;
    const pieces = await eventually("two signs of life beside what it said", async () => {
      const all = await written(agent, at);
      const given = Object.keys(all).filter((name) => name.startsWith("alpha/out/"));
      return given.length > 2 && given.some((name) => all[name] !== "") && all;
    });
    const { job: _, "alpha/ack": acknowledged, ...given } = pieces;
    expect(acknowledged).toBe("");
    // On a busy machine there may be a sign of life before its first word.
    const words = Object.values(given).filter((text) => text !== "");
    expect(words).toHaveLength(1);
    const pid = Number(words[0]);
    expect(pid).toBeGreaterThan(1);
    await ask(agent, "PUT", `/v1/session/destroy/${id}`);
    await eventually("what it started is ended", () => {
      try {
        process.kill(pid, 0);
        return false;
      } catch {
        return true;
      }
    });
    expect(await written(agent, at)).toEqual({});
  });

  it("that more is said by than one piece holds comes in pieces of 4096 bytes, in order", async () => {
    const agent = await start();
    const id = await job(agent, { Args: ["seq", "1", "3000"], Wait: 60_000_000_000 });
    const all = await eventually("the exit code", async () => {
      const pairs = await written(agent, `_rexec/${id}/`);
      return pairs["alpha/exit"] === "0" && pairs;
    });
    const pieces = Object.keys(all).filter((name) => name.startsWith("alpha/out/"));
    expect(pieces).toEqual(["00000", "00001", "00002", "00003"].map((name) => `alpha/out/${name}`));
    expect(all["alpha/out/00001"]).toHaveLength(4096);
    expect(pieces.map((name) => all[name]).join("")).toBe(
      Array.from({ length: 3000 }, (_, i) => `${i + 1}\n`).join(""),
    );
  });

  it("is told of when the agent stops: 255", async () => {
    const agent = await start();
    const id = await job(agent, { Command: "echo begun; sleep 300", Wait: 60_000_000_000 });
    await eventually("it runs", async () => (await written(agent, `_rexec/${id}/`))["alpha/out/00000"] === "begun\n");
    const { kv } = agent.trilith;
    await agents.pop()?.stop();
    expect(Buffer.from(kv.get(`_rexec/${id}/alpha/exit`)?.value ?? []).toString()).toBe("255");
  });
});

describe("refused is", () => {
  it.each<readonly [what: string, payload: unknown, says: RegExp]>([
    ["a payload that is not JSON", "nope", /error remote-exec: .*payload of a remote exec event is not JSON/],
    ["a payload without a session", { Prefix: "_rexec" }, /error remote-exec: .*expected Prefix and Session/],
    ["a job that is not there", { Prefix: "_rexec", Session: "x" }, /warn remote-exec: remote exec missing job spec/],
  ])("%s", async (_, payload, says) => {
    const agent = await start();
    await fire(agent, payload);
    await eventually("it is said", () => said.some((line) => says.test(line)));
    expect(await ask(agent, "GET", "/v1/kv/_rexec?keys")).toBeUndefined();
  });

  it.each<readonly [what: string, spec: unknown, says: RegExp]>([
    ["nothing to run", { Wait: 1 }, /there is nothing to run/],
    ["a command of another type", { Command: 7 }, /Command: expected a text/],
    ["arguments of another type", { Args: [1] }, /Args: expected texts/],
    ["no object", [], /expected an object/],
  ])("a job with %s", async (_, spec, says) => {
    const agent = await start();
    const id = await job(agent, spec);
    await eventually("it is said", () => said.some((line) => says.test(line)));
    expect(Object.keys(await written(agent, `_rexec/${id}/`))).toEqual(["job"]);
  });

  it("a job that its session does not hold: anybody's key is no command", async () => {
    const agent = await start();
    const { ID } = (await ask(agent, "PUT", "/v1/session/create", { Name: "x" })) as { ID: string };
    await ask(agent, "PUT", `/v1/kv/_rexec/${ID}/job`, { Command: "true" });
    await fire(agent, { Prefix: "_rexec", Session: ID });
    await eventually("it is said", () => said.some((line) => /is not held by the session/.test(line)));
    expect(await ask(agent, "GET", `/v1/kv/_rexec/${ID}?keys`)).toEqual([`_rexec/${ID}/job`]);
  });

  it.each([
    [false, true, /info remote-exec: ignoring remote exec event, disabled/],
    [true, false, /warn remote-exec: remote execution stays off/],
  ])("everything where it is off (wanted: %s, scripts from the API: %s)", async (wanted, fromApi, says) => {
    const agent = await start(wanted, fromApi);
    const id = await job(agent, { Command: "true", Wait: 1_000_000_000 });
    await eventually("it is said", () => said.some((line) => says.test(line)));
    await eventually("the event is passed over", () => said.some((line) => /ignoring remote exec event/.test(line)));
    expect(Object.keys(await written(agent, `_rexec/${id}/`))).toEqual(["job"]);
  });
});
