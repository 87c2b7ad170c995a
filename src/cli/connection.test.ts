// How flags and Consul's variables reach an agent: address, token, basic authentication, TLS; and what is said where they are wrong.
import { execFile } from "node:child_process";
import { copyFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ownFolder } from "../../test/support/peers.ts";
import { type ClientOptions, clientFor } from "./client.ts";

interface Heard {
  readonly url: string;
  readonly token: string | undefined;
  readonly login: string | undefined;
}

let folder: Awaited<ReturnType<typeof ownFolder>>;
let plain: string;
let secure: string;
let socket: string;
const heard: Heard[] = [];
const ends: (() => void)[] = [];

async function ask(options: ClientOptions, env: Record<string, string>, path = "/v1/x"): Promise<Heard> {
  const client = clientFor(options, { env: (name) => env[name], signal: new AbortController().signal });
  try {
    await client.get(path);
    return heard.at(-1) as Heard;
  } finally {
    await client.close();
  }
}

beforeAll(async () => {
  folder = await ownFolder("connection");
  const at = (name: string): string => join(folder.path, name);
  await promisify(execFile)("openssl", [
    ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"],
    ...[
      "-subj",
      "/CN=agent.test",
      "-addext",
      "subjectAltName=DNS:agent.test",
      "-keyout",
      at("key.pem"),
      "-out",
      at("cert.pem"),
    ],
  ]);
  await writeFile(at("token"), " from-a-file\n");
  await mkdir(at("authorities"));
  await copyFile(at("cert.pem"), join(at("authorities"), "ca.pem"));
  const handle = (request: IncomingMessage, response: ServerResponse): void => {
    heard.push({
      url: request.url ?? "",
      token: request.headers["x-consul-token"] as string | undefined,
      login: request.headers.authorization,
    });
    response.end("{}");
  };
  socket = at("agent.sock");
  const servers = [
    createHttpServer(handle).listen(0, "127.0.0.1"),
    createHttpServer(handle).listen(socket),
    createServer({ key: await readFile(at("key.pem")), cert: await readFile(at("cert.pem")) }, handle).listen(
      0,
      "127.0.0.1",
    ),
  ];
  for (const server of servers) {
    if (!server.listening) await new Promise((resolve) => server.once("listening", resolve));
    ends.push(() => server.close());
  }
  const port = (i: number): string =>
    `127.0.0.1:${((servers[i] as (typeof servers)[number]).address() as AddressInfo).port}`;
  [plain, secure] = [port(0), port(2)];
});
afterAll(async () => {
  for (const end of ends) end();
  await folder.remove();
});

describe("an agent is reached", () => {
  it.each<
    readonly [what: string, options: () => ClientOptions, env: () => Record<string, string>, expected: Partial<Heard>]
  >([
    ["by CONSUL_HTTP_ADDR", () => ({}), () => ({ CONSUL_HTTP_ADDR: plain }), { url: "/v1/x", token: undefined }],
    [
      "by a flag before the variables",
      () => ({ httpAddr: `http://${plain}` }),
      () => ({ CONSUL_HTTP_ADDR: "nowhere:1" }),
      {},
    ],
    [
      "by TRILITH_HTTP_ADDR before CONSUL_HTTP_ADDR",
      () => ({}),
      () => ({ TRILITH_HTTP_ADDR: plain, CONSUL_HTTP_ADDR: "nowhere:1" }),
      {},
    ],
    ["over a unix socket", () => ({}), () => ({ CONSUL_HTTP_ADDR: `unix://${socket}` }), {}],
    [
      "with a token",
      () => ({ token: "t" }),
      () => ({ CONSUL_HTTP_ADDR: plain, CONSUL_HTTP_TOKEN: "u" }),
      { token: "t" },
    ],
    [
      "with a token of the environment",
      () => ({}),
      () => ({ CONSUL_HTTP_ADDR: plain, CONSUL_HTTP_TOKEN: "u" }),
      { token: "u" },
    ],
    [
      "with a token from a file",
      () => ({ tokenFile: join(folder.path, "token") }),
      () => ({ CONSUL_HTTP_ADDR: plain }),
      { token: "from-a-file" },
    ],
    [
      "with CONSUL_HTTP_TOKEN_FILE",
      () => ({}),
      () => ({ CONSUL_HTTP_ADDR: plain, CONSUL_HTTP_TOKEN_FILE: join(folder.path, "token") }),
      { token: "from-a-file" },
    ],
    [
      "with CONSUL_HTTP_AUTH",
      () => ({}),
      () => ({ CONSUL_HTTP_ADDR: plain, CONSUL_HTTP_AUTH: "me:secret" }),
      { login: "Basic bWU6c2VjcmV0" },
    ],
    [
      "with -datacenter, -stale and -namespace",
      () => ({ datacenter: "dc 2", stale: true, namespace: "n" }),
      () => ({ CONSUL_HTTP_ADDR: plain }),
      { url: "/v1/x?dc=dc%202&ns=n&stale" },
    ],
    [
      "with CONSUL_NAMESPACE and CONSUL_PARTITION",
      () => ({}),
      () => ({ CONSUL_HTTP_ADDR: plain, CONSUL_NAMESPACE: "n", CONSUL_PARTITION: "p" }),
      { url: "/v1/x?ns=n&partition=p" },
    ],
    [
      "by https, unverified",
      () => ({}),
      () => ({ CONSUL_HTTP_ADDR: secure, CONSUL_HTTP_SSL: "true", CONSUL_HTTP_SSL_VERIFY: "false" }),
      {},
    ],
    [
      "by https, believed for its certificate",
      () => ({ httpAddr: `https://${secure}`, caFile: join(folder.path, "cert.pem"), tlsServerName: "agent.test" }),
      () => ({}),
      {},
    ],
    [
      "by https with Consul's variables",
      () => ({}),
      () => ({
        CONSUL_HTTP_ADDR: `https://${secure}`,
        CONSUL_CACERT: join(folder.path, "cert.pem"),
        CONSUL_TLS_SERVER_NAME: "agent.test",
        CONSUL_CLIENT_CERT: join(folder.path, "cert.pem"),
        CONSUL_CLIENT_KEY: join(folder.path, "key.pem"),
      }),
      {},
    ],
    [
      "by https with the authorities of a folder, CONSUL_CAPATH",
      () => ({}),
      () => ({
        CONSUL_HTTP_ADDR: `https://${secure}`,
        CONSUL_CAPATH: join(folder.path, "authorities"),
        CONSUL_TLS_SERVER_NAME: "agent.test",
      }),
      {},
    ],
  ])("%s", async (_, options, env, expected) => {
    const before = heard.length;
    expect(await ask(options(), env())).toMatchObject(expected);
    expect(heard.length).toBe(before + 1);
  });

  it.each<readonly [what: string, options: () => ClientOptions, env: () => Record<string, string>, says: RegExp]>([
    ["an unknown authority", () => ({ httpAddr: `https://${secure}` }), () => ({}), /cannot be asked \(.*self.signed/i],
    [
      "another name",
      () => ({ httpAddr: `https://${secure}`, caFile: join(folder.path, "cert.pem") }),
      () => ({}),
      /cannot be asked \(.*(altnames|IP)/i,
    ],
    [
      "a file that is not there",
      () => ({ httpAddr: `https://${secure}`, caFile: "/nope" }),
      () => ({}),
      /--ca-file: \/nope is not there/,
    ],
    [
      "a folder that is not there",
      () => ({ httpAddr: `https://${secure}`, caPath: "/nope" }),
      () => ({}),
      /--ca-path: \/nope is not there/,
    ],
    [
      "a token file that is not there",
      () => ({}),
      () => ({ CONSUL_HTTP_ADDR: plain, CONSUL_HTTP_TOKEN_FILE: "/nope" }),
      /CONSUL_HTTP_TOKEN_FILE: \/nope is not there/,
    ],
    [
      "a certificate without its key",
      () => ({ httpAddr: `https://${secure}`, clientCert: "x" }),
      () => ({}),
      /both client cert and client key must be provided/,
    ],
    [
      "a variable that is no bool",
      () => ({}),
      () => ({ CONSUL_HTTP_SSL: "perhaps" }),
      /CONSUL_HTTP_SSL: "perhaps": expected true or false/,
    ],
    [
      "nobody there",
      () => ({ httpAddr: "127.0.0.1:1" }),
      () => ({}),
      /no agent answers at 127\.0\.0\.1:1\. Start one with "trilith agent"/,
    ],
    [
      "no socket there",
      () => ({ httpAddr: "unix:///nope.sock" }),
      () => ({}),
      /no agent answers at unix:\/\/\/nope\.sock/,
    ],
  ])("but not with %s", async (_, options, env, says) => {
    await expect((async () => await ask(options(), env()))()).rejects.toThrow(says);
  });
});
