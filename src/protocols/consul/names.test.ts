// Names over HTTP: what could not be asked for or taken out again is not taken in; everything else can be taken out.
import { afterAll, beforeAll, expect, it } from "vitest";
import { type RunningAgent, startAgent } from "../../../test/support/ground.ts";
import { createHttp } from "../../base/http.ts";

let agent: RunningAgent;
const http = createHttp();
beforeAll(async () => {
  agent = await startAgent();
});
afterAll(async () => {
  await http.close();
  await agent.stop();
});
async function put(path: string, body?: unknown): Promise<readonly [number, string]> {
  const response = await http.request({
    url: `${agent.url}/v1/agent/${path}`,
    method: "PUT",
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
  return [response.status, await response.text()];
}
const WHY = "it may not hold control characters or others that cannot be shown";

it.each([
  ["service/register", { Name: "a\nb" }, `Invalid service name "a\\nb": ${WHY}`],
  ["service/register", { Name: "a", ID: "a\u0000" }, `Invalid service ID "a\\u0000": ${WHY}`],
  ["service/register", { Name: "a", ID: "a\u007f" }, `Invalid service ID ${JSON.stringify("a\u007f")}: ${WHY}`],
  ["service/register", { Name: "a", ID: "\u00a0" }, `Invalid service ID ${JSON.stringify("\u00a0")}: ${WHY}`],
  ["service/register", { Name: "a", Check: { CheckID: "c\t", TTL: "1s" } }, `Invalid check ID "c\\t": ${WHY}`],
  ["check/register", { Name: "c\u001b[1m", TTL: "1s" }, `Invalid check ID "c\\u001b[1m": ${WHY}`],
])("%s %j is refused", async (path, body, text) => {
  expect(await put(path, body)).toEqual([400, text]);
  expect([...agent.trilith.agent.services().keys()]).toEqual([]);
});

it.each([".", "..", "a/b", "a b", "%2e", "żółć", "🂡", "a?b#c"])("%j comes and goes", async (id) => {
  expect(await put("service/register", { Name: "odd", ID: id })).toEqual([200, ""]);
  expect(agent.trilith.agent.services().has(id)).toBe(true);
  const segment = /^\.+$/.test(id) ? id.replaceAll(".", "%2E") : encodeURIComponent(id);
  expect(await put(`service/deregister/${segment}`)).toEqual([200, ""]);
  expect(agent.trilith.agent.services().has(id)).toBe(false);
});
