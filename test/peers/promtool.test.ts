// What the agent tells Prometheus, looked over by Prometheus' own tool (Debian's prometheus package, 2.42 or later).
import { spawn } from "node:child_process";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type RunningAgent, startAgent } from "../support/ground.ts";
import { havePrograms } from "../support/peers.ts";

const there = await havePrograms("promtool");
let agent: RunningAgent;
beforeAll(async () => {
  agent = await startAgent({ protocols: { consul: { prometheus: true } } });
});
afterAll(() => agent.stop());

function lint(text: string): Promise<{ readonly exitCode: number | null; readonly output: string }> {
  return new Promise((resolve, reject) => {
    const child = spawn("promtool", ["check", "metrics"], { stdio: ["pipe", "pipe", "pipe"] });
    let output = "";
    const take = (chunk: Buffer): void => {
      output += chunk.toString();
    };
    child.stdout.on("data", take);
    child.stderr.on("data", take);
    child.once("error", reject);
    child.once("close", (exitCode) => resolve({ exitCode, output }));
    child.stdin.end(text);
  });
}

it.runIf(there)("promtool has nothing to say about the metrics", async () => {
  await fetch(`${agent.url}/v1/agent/service/register`, {
    method: "PUT",
    body: JSON.stringify({ Name: "web", Check: { TTL: "1h" } }),
  });
  const answer = await fetch(`${agent.url}/v1/agent/metrics?format=prometheus`);
  expect(answer.headers.get("content-type")).toBe("text/plain; version=0.0.4; charset=utf-8");
  const text = await answer.text();
  expect(text).toMatch(/^consul_state_services\{datacenter="dc1"\} 2$/m);
  expect(text).toMatch(/^trilith_directory_index \d+$/m);
  expect(await lint(text)).toEqual({ exitCode: 0, output: "" });
  // The tool does look: it finds fault with what has none of the form.
  expect((await lint("BadName_total_ms 1\n")).exitCode).not.toBe(0);
});
