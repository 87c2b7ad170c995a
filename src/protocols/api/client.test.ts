// The library's find and list against answers of an agent, of something else, and of nobody.
import { afterEach, expect, it } from "vitest";
import { createHttp, type Handler } from "../../base/http.ts";
import type { Listening } from "../../base/net.ts";
import { find, list } from "./client.ts";

const http = createHttp();
let server: Listening | undefined;
async function answering(handle: Handler): Promise<{ agent: string }> {
  server = await http.serve({ host: "127.0.0.1", port: 0 }, handle);
  return { agent: `127.0.0.1:${server.port}` };
}
afterEach(async () => {
  await server?.close();
  server = undefined;
});

it("asks for what was asked, with the token", async () => {
  const asked: unknown[] = [];
  const options = await answering((request, response) => {
    asked.push([request.url, request.headers["x-trilith-token"]]);
    response.end('{"services":[{"name":"web"}],"endpoints":[]}');
  });
  expect(await find("a/b", { zone: "x y" }, { ...options, tags: ["v1", "v2"], token: "t" })).toMatchObject({
    endpoints: [],
  });
  expect(await list(options)).toEqual([{ name: "web" }]);
  expect(asked).toEqual([
    ["/v1/trilith/find/a%2Fb?label=zone%3Dx+y&tag=v1&tag=v2", "t"],
    ["/v1/trilith/list", undefined],
  ]);
});

it("turns the agent's errors into errors with its code and words", async () => {
  const options = await answering((_, response) => {
    response.writeHead(400).end('{"error":{"code":"invalid","message":"bad limit"}}');
  });
  await expect(find("web", {}, options)).rejects.toMatchObject({ code: "invalid", message: "bad limit" });
});

it("says who answers when it is no agent, and that nobody does", async () => {
  const options = await answering((_, response) => {
    response.writeHead(404).end("Invalid URL path: not a recognized HTTP API endpoint");
  });
  await expect(find("web", {}, options)).rejects.toMatchObject({
    code: "unsupported",
    message: expect.stringContaining("is not a Trilith agent: status 404"),
  });
  await server?.close();
  await expect(list(options)).rejects.toMatchObject({
    code: "unavailable",
    message: expect.stringContaining("no agent answers at"),
  });
});
