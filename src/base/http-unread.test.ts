// Requests that cannot be read, from sockets that send what no HTTP library would: all are answered, and told why.
import { connect } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { createHttp } from "./http.ts";
import type { Listening } from "./net.ts";

describe("requests that cannot be read", () => {
  let http: ReturnType<typeof createHttp>;
  let server: Listening;
  let handled: string[];
  beforeEach(async () => {
    http = createHttp();
    handled = [];
    server = await http.serve({ host: "127.0.0.1", port: 0 }, (request, response) => {
      handled.push(request.url ?? "");
      response.end("read");
    });
  });
  afterEach(async () => {
    await http.close();
    await server.close();
  });

  async function send(bytes: string): Promise<string> {
    const socket = connect(server.port, "127.0.0.1");
    socket.write(bytes);
    let answer = "";
    for await (const chunk of socket) answer += chunk;
    return answer;
  }

  test.each([
    ["/v1/kv/größe?x=ü", "/v1/kv/gr%C3%B6%C3%9Fe?x=%C3%BC"],
    ["/v1/kv/a b", "/v1/kv/a%20b"],
    ["/v1/health/service/web?filter=Service.Port == 80", "/v1/health/service/web?filter=Service.Port%20==%2080"],
  ])("%s, as curl sends it, is refused with what would be right", async (target, right) => {
    expect(await send(`GET ${target} HTTP/1.1\r\nHost: x\r\n\r\n`)).toMatch(
      new RegExp(
        `^HTTP/1\\.1 400 Bad Request\\r\\n[\\s\\S]*Connection: close\\r\\n\\r\\n400 Bad Request: blanks and bytes beyond ASCII must be percent-encoded in a URL: ${right.replace(/[?.]/g, "\\$&")}\\n$`,
      ),
    );
    expect(handled).toEqual([]);
    expect(await (await http.request({ url: `http://127.0.0.1:${server.port}${right}` })).text()).toBe("read");
    expect(handled).toEqual([right]);
  });

  test.each([
    ["no HTTP at all", "\x16\x03\x01\x02\x00", /^HTTP\/1\.1 400 Bad Request\r\n[\s\S]*\r\n\r\n400 Bad Request: .+\n$/],
    [
      "two lengths",
      "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      /400 Bad Request: .*Transfer-Encoding/,
    ],
    [
      "a length that is none",
      "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
      /400 Bad Request: .*Content-Length/,
    ],
    [
      "headers without end",
      `GET / HTTP/1.1\r\nX: ${"a".repeat(1_100_000)}`,
      /^HTTP\/1\.1 431 Request Header Fields Too Large\r\n/,
    ],
  ])("%s is refused, too, and the connection closed", async (_, bytes, answer) => {
    expect(await send(bytes)).toMatch(answer);
    expect(handled).toEqual([]);
  });

  test("what follows an answered request on its connection is told, too", async () => {
    expect(await send("GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /ä HTTP/1.1\r\nHost: x\r\n\r\n")).toContain(
      "400 Bad Request: ",
    );
    expect(handled).toEqual(["/a"]);
  });
});
