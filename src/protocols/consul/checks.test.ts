// Http checks that nobody can ask: Consul takes them and lets them be critical, in Go's words.
import { describe, expect, it } from "vitest";
import { startAgent } from "../../../test/support/ground.ts";
import { requestFault } from "./checks.ts";

describe("what Go says of a request", () => {
  it.each<[string, string, string | undefined]>([
    ["http://x/", "", undefined],
    ["HTTPS://x/", "POST", undefined],
    ["/health", "", undefined],
    ["ftp://x", "", 'Get "ftp://x": unsupported protocol scheme "ftp"'],
    ["localhost:8080/x", "HEAD", 'Head "localhost:8080/x": unsupported protocol scheme "localhost"'],
    ["example.com/health", "", 'Get "example.com/health": unsupported protocol scheme ""'],
    ["127.0.0.1:80/x", "", 'parse "127.0.0.1:80/x": first path segment in URL cannot contain colon'],
    ["::", "", 'parse "::": missing protocol scheme'],
    ["http://", "", 'Get "http://": http: no Host in request URL'],
    ["http://x/", "B AD", 'net/http: invalid method "B AD"'],
  ])("%s %s", (url, method, fault) => expect(requestFault({ url, method })).toBe(fault));
});

it("is registered and critical as with Consul, refused otherwise", async () => {
  const check = { Name: "odd", HTTP: "localhost:1/x", Interval: "1s" };
  const put = async (url: string): Promise<number> =>
    (await fetch(`${url}/v1/agent/check/register`, { method: "PUT", body: JSON.stringify(check) })).status;
  const strict = await startAgent();
  const alike = await startAgent({ compat: "consul" });
  try {
    expect(await put(strict.url)).toBe(400);
    expect(await put(alike.url)).toBe(200);
    const output = async (): Promise<string | undefined> =>
      ((await (await fetch(`${alike.url}/v1/agent/checks`)).json()) as Record<string, { Output: string }>)["odd"]
        ?.Output;
    while ((await output()) === "") await new Promise((resolve) => setTimeout(resolve, 50));
    expect(await output()).toBe('Get "localhost:1/x": unsupported protocol scheme "localhost"');
  } finally {
    await strict.stop();
    await alike.stop();
  }
});
