// The HTTP surface under strain: large, slow, broken and odd requests get clear answers; the recorded rest is in test/conformance.
import { request as httpRequest } from "node:http";
import { connect } from "node:net";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import { type RunningAgent, startAgent } from "../../../test/support/ground.ts";
import { createHttp } from "../../base/http.ts";
import { silentLog } from "../../base/log.ts";
import type { ConsulGround, Row } from "./call.ts";
import { configure } from "./config.ts";
import { createHandler, RouteTable } from "./server.ts";

let agent: RunningAgent;
beforeAll(async () => {
  agent = await startAgent({ protocols: { consul: { responseHeaders: { "X-Site": "lab" }, indent: false } } });
});
afterAll(async () => {
  expect(agent.errors).toEqual([]);
  await agent.stop();
});

const put = (
  path: string,
  body: string | Uint8Array<ArrayBuffer>,
  headers: Record<string, string> = {},
): Promise<Response> => fetch(agent.url + path, { method: "PUT", body, headers });

/** Sends bytes and hands back all that comes until the server closes. */
function raw(bytes: string | Uint8Array): Promise<string> {
  const { hostname, port } = new URL(agent.url);
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname, () => socket.write(bytes));
    let got = "";
    socket.on("data", (chunk) => {
      got += chunk.toString("latin1");
    });
    socket.on("error", reject);
    socket.on("close", () => resolve(got));
  });
}

describe("the Host of a request", () => {
  it.each([
    ["1.1", "", "HTTP/1.1 400 Bad Request: missing required Host header"],
    ["1.0", "", "HTTP/1.1 200 OK"],
    ["1.1", "Host: a\r\n", "HTTP/1.1 200 OK"],
    ["1.1", "Host: [::1]:8500\r\n", "HTTP/1.1 200 OK"],
    ["1.1", "Host: \r\n", "HTTP/1.1 200 OK"],
    ["1.1", "Host: a\r\nHost: a\r\n", "HTTP/1.1 400 Bad Request: too many Host headers"],
    ["1.1", "Host: a b\r\n", "HTTP/1.1 400 Bad Request: malformed Host header"],
    ["1.0", "Host: a/b\r\n", "HTTP/1.1 400 Bad Request: malformed Host header"],
  ])("HTTP/%s with %j", async (version, host, status) => {
    const answer = await raw(`GET /v1/status/leader HTTP/${version}\r\n${host}Connection: close\r\n\r\n`);
    expect(answer.split("\r\n")[0]).toBe(status);
  });
});

it.each([
  [900_000, "HTTP/1.1 200 OK"],
  [1_200_000, "HTTP/1.1 431 Request Header Fields Too Large"],
])("takes headers of a MiB: %i bytes are answered %s", async (size, status) => {
  const head = `GET /v1/status/leader HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Large: ${"a".repeat(size)}\r\n\r\n`;
  const answer = await new Promise<string>((resolve, reject) => {
    const { hostname, port } = new URL(agent.url);
    // The server may break off while the rest is still being sent.
    const socket = connect(Number(port), hostname, () => socket.write(head));
    socket.once("data", (chunk) => {
      resolve(chunk.toString("latin1"));
      socket.destroy();
    });
    socket.once("error", reject);
  });
  expect(answer.split("\r\n")[0]).toBe(status);
});

describe("bodies", () => {
  it("refuses one of 10 MB with 413 and reads on", async () => {
    const answer = await put("/v1/agent/service/register", JSON.stringify({ Name: "x".repeat(10 << 20) }));
    expect(answer.status).toBe(413);
    expect(await answer.text()).toMatch(/^Request body\(\d+ bytes\) too large, max size: 8388608 bytes\.$/);
    expect((await fetch(`${agent.url}/v1/status/leader`)).status).toBe(200);
  });

  it("refuses a chunked key value as soon as it is too large", async () => {
    const answer = await new Promise<{ status: number | undefined; text: string }>((resolve, reject) => {
      const request = httpRequest(`${agent.url}/v1/kv/chunked`, { method: "PUT" }, (response) => {
        let text = "";
        response.on("data", (chunk) => {
          text += chunk;
        });
        response.on("end", () => resolve({ status: response.statusCode, text }));
      });
      request.on("error", reject);
      for (let i = 0; i < 20; i++) request.write(Buffer.alloc(50_000, "a"));
      request.end();
    });
    expect(answer.status).toBe(413);
    expect(answer.text).toMatch(/too large, max size: 524288 bytes\. See https/);
    expect((await fetch(`${agent.url}/v1/kv/chunked`)).status).toBe(404);
  });

  it("refuses bodies that are not UTF-8", async () => {
    const answer = await put("/v1/catalog/register", new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x7d]));
    expect([answer.status, await answer.text()]).toEqual([400, "Request decode failed: the body is not UTF-8 text"]);
  });

  it("keeps names like __proto__ as ordinary names", async () => {
    const meta = JSON.parse('{"__proto__":"p","constructor":"c"}') as Record<string, string>;
    const name = "__proto__";
    expect((await put("/v1/agent/service/register", JSON.stringify({ Name: name, Meta: meta }))).status).toBe(200);
    const services = (await (await fetch(`${agent.url}/v1/agent/services`)).json()) as object;
    const [key, value] = Object.entries(services).find(([id]) => id === name) as [string, { Meta: object }];
    expect(key).toBe(name);
    expect(Object.entries(value.Meta)).toEqual([
      ["__proto__", "p"],
      ["constructor", "c"],
    ]);
    const listed = (await (await fetch(`${agent.url}/v1/catalog/services`)).json()) as object;
    expect(Object.keys(listed)).toContain(name);
    expect((await put(`/v1/agent/service/deregister/${name}`, "")).status).toBe(200);
  });

  it.each([
    ["/v1/agent/service/register", { Name: "a\u0000b" }],
    ["/v1/agent/service/register", { Name: "a", Check: { TTL: "1s", CheckID: "a\u0000b" } }],
    ["/v1/agent/check/register", { Name: "a\u0000b", TTL: "1s" }],
    ["/v1/catalog/register", { Node: "a\u0000b", Address: "192.0.2.1" }],
    ["/v1/agent/service/register", { Name: "a", Port: 70_000 }],
  ])("refuses what no key may hold: %s %j", async (path, body) => {
    const answer = await put(path, JSON.stringify(body));
    expect(answer.status).toBe(400);
  });

  it("times out a body that pauses", async () => {
    const clock = fakeClock();
    const row: Row = {
      pattern: "/v1/echo",
      methods: ["PUT"],
      endpoint: async (call) => ({ bytes: await call.body() }),
    };
    const ground = { clock, log: silentLog, self: { dev: false } } as unknown as ConsulGround;
    const http = createHttp();
    const server = await http.serve({ host: "127.0.0.1", port: 0 }, createHandler([row], configure({}), ground));
    const answer = new Promise<string>((resolve, reject) => {
      const socket = connect(server.port, "127.0.0.1", () =>
        socket.write("PUT /v1/echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf"),
      );
      let got = "";
      socket.on("data", (chunk) => {
        got += chunk.toString();
      });
      socket.on("error", reject);
      socket.on("close", () => resolve(got));
    });
    // The timer stands as soon as the request has come in.
    while (clock.timers === 0) await new Promise((turn) => setImmediate(turn));
    await clock.advance(31_000);
    expect(await answer).toMatch(/^HTTP\/1\.1 408 [\s\S]*paused for more than 30 s$/);
    await server.close();
    await http.close();
    expect(clock.timers).toBe(0);
  });
});

describe("paths", () => {
  it("tells who comes with a browser that there is no page", async () => {
    const answer = await fetch(`${agent.url}/`);
    expect([answer.url, answer.status]).toEqual([`${agent.url}/ui/`, 404]);
    expect(await answer.text()).toContain('there is no page for browsers here; "trilith list"');
  });
  it("refuses keys that are not UTF-8", async () => {
    const answer = await raw("GET /v1/kv/%ff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    expect(answer).toMatch(/^HTTP\/1\.1 400 [\s\S]*400 Bad Request$/);
  });
  it("refuses raw bytes beyond ASCII in a path", async () => {
    const answer = await raw(Buffer.from("GET /v1/kv/ż?raw HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    expect(answer).toMatch(/^HTTP\/1\.1 400 /);
  });
  it("wants a Host of HTTP/1.1 only", async () => {
    expect(await raw("GET /v1/status/leader HTTP/1.1\r\n\r\n")).toMatch(
      /^HTTP\/1\.1 400 Bad Request: missing required Host/,
    );
    expect(await raw("GET /v1/status/leader HTTP/1.0\r\n\r\n")).toMatch(/^HTTP\/1\.[01] 200 OK/);
  });
  it("speaks HTTP/1 only", async () => {
    expect(await raw("GET /v1/status/leader HTTP/2.0\r\nHost: x\r\n\r\n")).toMatch(
      /^HTTP\/1\.1 505 HTTP Version Not Supported: unsupported protocol version\r\n/,
    );
    expect(await raw("GET /v1/status/leader\r\n\r\n")).toMatch(/^HTTP\/1\.[01] 400 Bad Request\r\n/);
  });
});

describe("answers", () => {
  it("carry the configured headers and Consul's", async () => {
    const answer = await fetch(`${agent.url}/v1/catalog/nodes`);
    expect(Object.fromEntries(answer.headers)).toMatchObject({
      "x-site": "lab",
      "x-consul-default-acl-policy": "allow",
      "x-consul-knownleader": "true",
      "x-consul-lastcontact": "0",
      vary: "Accept-Encoding",
    });
    expect((await answer.text()).includes("\n")).toBe(false);
    expect((await (await fetch(`${agent.url}/v1/catalog/nodes?pretty`)).text()).endsWith("]\n")).toBe(true);
  });

  it("are compressed for those who ask, once they are large", async () => {
    await put("/v1/kv/big", "abc".repeat(1000));
    const got = await new Promise<{ encoding: string | undefined; body: Buffer }>((resolve, reject) => {
      httpRequest(`${agent.url}/v1/kv/big?raw`, { headers: { "accept-encoding": "br, gzip;q=0.5" } }, (response) => {
        const chunks: Buffer[] = [];
        response.on("data", (chunk: Buffer) => chunks.push(chunk));
        response.on("end", () =>
          resolve({ encoding: response.headers["content-encoding"], body: Buffer.concat(chunks) }),
        );
      })
        .on("error", reject)
        .end();
    });
    expect(got.encoding).toBe("gzip");
    expect(gunzipSync(got.body).toString()).toBe("abc".repeat(1000));
  });

  it("tell flags of 64 bits exactly", async () => {
    await put("/v1/kv/flagged?flags=3304740253564472344", "");
    expect(await (await fetch(`${agent.url}/v1/kv/flagged`)).text()).toContain('"Flags":3304740253564472344,');
    expect(await (await fetch(`${agent.url}/v1/kv/flagged?recurse`)).text()).toContain('"Flags":3304740253564472344,');
  });
});

describe("RouteTable", () => {
  const row = (pattern: string): Row => ({ pattern, methods: ["GET"], endpoint: () => undefined });
  const table = new RouteTable(["/v1/kv/", "/v1/agent/service/", "/v1/agent/service/register"].map(row));
  it.each([
    ["/v1/kv/", "/v1/kv/"],
    ["/v1/kv/a/b/c", "/v1/kv/"],
    ["/v1/agent/service/register", "/v1/agent/service/register"],
    ["/v1/agent/service/registered", "/v1/agent/service/"],
    ["/v1/agent/service/register/", "/v1/agent/service/"],
    ["/v1/kv", undefined],
    ["/v1/", undefined],
    ["/", undefined],
  ])("%s", (path, pattern) => expect(table.find(path)?.pattern).toBe(pattern));
  it("refuses two routes for one pattern", () => {
    expect(() => new RouteTable([row("/a"), row("/a")])).toThrow("two routes for /a");
  });
});
