// udp, grpc, h2ping, os-service and TLS checks against real servers: statuses, texts, certificates of a CA of the test's own.
import { execFile } from "node:child_process";
import { createSocket } from "node:dgram";
import { chmod, readFile, writeFile } from "node:fs/promises";
import { createServer as createHttp2Server, createSecureServer } from "node:http2";
import { createServer as createHttpsServer } from "node:https";
import { type AddressInfo, createServer as createTcpServer, type Server } from "node:net";
import { join } from "node:path";
import { createServer as createTlsServer } from "node:tls";
import { promisify } from "node:util";
import * as grpc from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { CheckTls } from "../../src/agent/checks/detail.ts";
import { grpcProbe } from "../../src/agent/checks/grpc.ts";
import { h2pingProbe } from "../../src/agent/checks/h2ping.ts";
import { httpProbe } from "../../src/agent/checks/http.ts";
import { osServiceProbe } from "../../src/agent/checks/os-service.ts";
import { scriptProbe } from "../../src/agent/checks/script.ts";
import { tcpProbe } from "../../src/agent/checks/tcp.ts";
import { udpProbe } from "../../src/agent/checks/udp.ts";
import { TrilithError } from "../../src/base/error.ts";
import { createHttp } from "../../src/base/http.ts";
import { systemNet } from "../../src/base/net.ts";
import { type Processes, systemProcesses } from "../../src/base/process.ts";
import type { Probe } from "../../src/contracts/probe.ts";
import type { Outcome } from "../../src/model/check.ts";
import { createTrilith } from "../../src/trilith.ts";
import { ownName } from "../support/own-name.ts";
import { eventually, freePort, havePrograms, ownFolder } from "../support/peers.ts";

const run = promisify(execFile);
const ends: (() => unknown)[] = [];
let folder: Awaited<ReturnType<typeof ownFolder>>;
let ca = "";
let server: { cert: string; key: string };
let client: { cert: string; key: string };

beforeAll(async () => {
  await havePrograms("openssl");
  folder = await ownFolder("check-kinds");
  const at = (name: string): string => join(folder.path, name);
  const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  await run("openssl", [
    ...["req", "-x509", ...key, "-days", "2", "-subj", "/CN=Test CA", "-keyout", at("ca.key"), "-out", at("ca.pem")],
  ]);
  const issue = async (name: string, names: string): Promise<{ cert: string; key: string }> => {
    await run("openssl", ["req", ...key, "-subj", `/CN=${name}`, "-keyout", at(`${name}.key`), "-out", at("csr")]);
    await writeFile(at("ext"), names === "" ? "" : `subjectAltName=${names}\n`);
    await run("openssl", [
      ...["x509", "-req", "-in", at("csr"), "-CA", at("ca.pem"), "-CAkey", at("ca.key"), "-CAcreateserial"],
      ...["-days", "2", "-extfile", at("ext"), "-out", at(`${name}.pem`)],
    ]);
    return { cert: await readFile(at(`${name}.pem`), "utf8"), key: await readFile(at(`${name}.key`), "utf8") };
  };
  server = await issue("server", "DNS:web.example,DNS:www.example");
  client = await issue("client", "");
  ca = await readFile(at("ca.pem"), "utf8");
});
afterAll(async () => {
  for (const end of ends.reverse()) await end();
  await folder.remove();
});

async function listen(of: Server): Promise<number> {
  await new Promise<void>((resolve) => of.listen(0, "127.0.0.1", resolve));
  const sockets = new Set<{ destroy(): void }>();
  of.on("connection", (socket) => sockets.add(socket));
  ends.push(
    () =>
      new Promise<void>((resolve) => {
        of.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  );
  return (of.address() as AddressInfo).port;
}

/** Runs a probe as the scheduler does. */
async function ask<D>(
  probe: Probe<D>,
  raw: unknown,
  timeoutMs = 5000,
  target = { address: "127.0.0.1", port: 1 },
): Promise<Outcome> {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(new TrilithError("timeout", "time is over")), timeoutMs);
  try {
    return await probe.run(probe.parse(raw), target, abort.signal, { outputMaxBytes: 4096, timeoutMs });
  } finally {
    clearTimeout(timer);
  }
}

const critical = (output: string | RegExp): object => ({
  status: "critical",
  output: typeof output === "string" ? output : expect.stringMatching(output),
});

describe("udp", () => {
  const probe = udpProbe(systemNet);
  const bind = async (answer: boolean): Promise<{ port: number; seen: Buffer[] }> => {
    const socket = createSocket("udp4");
    const seen: Buffer[] = [];
    socket.on("message", (message, from) => {
      seen.push(message);
      if (answer) socket.send("echo", from.port, from.address);
    });
    await new Promise<void>((resolve) => socket.bind(0, "127.0.0.1", resolve));
    ends.push(() => void socket.close());
    return { port: socket.address().port, seen };
  };

  test("a reply and silence are passing", async () => {
    const echo = await bind(true);
    expect(await ask(probe, { address: `127.0.0.1:${echo.port}` })).toEqual({
      status: "passing",
      output: `UDP connect 127.0.0.1:${echo.port}: Success`,
    });
    expect(echo.seen.map((message) => message.length)).toEqual([0]);
    expect(await ask(probe, { address: `localhost:${echo.port}` })).toMatchObject({ status: "passing" });
    expect(await ask(probe, {}, 5000, { address: "127.0.0.1", port: echo.port })).toMatchObject({ status: "passing" });
    const silent = await bind(false);
    expect(await ask(probe, { address: `127.0.0.1:${silent.port}` }, 300)).toEqual({
      status: "passing",
      output: `UDP connect 127.0.0.1:${silent.port}: Success`,
    });
    expect(silent.seen).toHaveLength(1);
  });

  test("a refused port, an unknown name and no address at all are critical", async () => {
    const port = await freePort();
    expect(await ask(probe, { address: `127.0.0.1:${port}` })).toEqual(
      critical(new RegExp(`^read udp 127\\.0\\.0\\.1:\\d+->127\\.0\\.0\\.1:${port}: read: connection refused$`)),
    );
    expect(await ask(probe, { address: "nosuch.invalid:53" })).toEqual(critical(/^dial udp: lookup nosuch.invalid: /));
    expect(await ask(probe, { address: "127.0.0.1" })).toEqual(
      critical("dial udp: address 127.0.0.1: missing port in address"),
    );
  });
});

describe("grpc", () => {
  const states: Record<string, number> = { "": 1, web: 1, old: 2 };
  const asked: string[] = [];
  const nameIn = (bytes: Buffer): string => (bytes.length === 0 ? "" : bytes.subarray(2).toString());
  const start = async (credentials: grpc.ServerCredentials): Promise<number> => {
    const health = new grpc.Server();
    health.addService(
      {
        Check: {
          path: "/grpc.health.v1.Health/Check",
          requestStream: false,
          responseStream: false,
          requestSerialize: (value: Buffer) => value,
          requestDeserialize: (bytes: Buffer) => bytes,
          responseSerialize: (value: Buffer) => value,
          responseDeserialize: (bytes: Buffer) => bytes,
        },
      },
      {
        Check(call: grpc.ServerUnaryCall<Buffer, Buffer>, callback: grpc.sendUnaryData<Buffer>) {
          const service = nameIn(call.request);
          asked.push(service);
          if (service === "never") return;
          const status = states[service];
          if (status === undefined) callback({ code: grpc.status.NOT_FOUND, details: "unknown service" });
          else callback(null, Buffer.from([0x08, status]));
        },
      },
    );
    const port = await new Promise<number>((resolve, reject) => {
      health.bindAsync("127.0.0.1:0", credentials, (error, bound) => (error === null ? resolve(bound) : reject(error)));
    });
    ends.push(() => health.forceShutdown());
    return port;
  };

  test("serving, not serving, unknown, unreachable, too slow", async () => {
    const port = await start(grpc.ServerCredentials.createInsecure());
    asked.splice(0);
    const probe = grpcProbe();
    const at = `127.0.0.1:${port}`;
    expect(await ask(probe, { address: at })).toEqual({ status: "passing", output: `gRPC check ${at}: success` });
    expect(await ask(probe, { address: `${at}/web` })).toEqual({
      status: "passing",
      output: `gRPC check ${at}/web: success`,
    });
    expect(await ask(probe, { address: `${at}/old` })).toEqual(
      critical("gRPC application didn't report service healthy"),
    );
    expect(await ask(probe, { address: `${at}/none` })).toEqual(
      critical("rpc error: code = NotFound desc = unknown service"),
    );
    expect(asked).toEqual(["", "web", "old", "none"]);
    expect(await ask(probe, { address: "/web" }, 5000, { address: "127.0.0.1", port })).toEqual({
      status: "passing",
      output: `gRPC check ${at}/web: success`,
    });
    expect(await ask(probe, { address: `${at}/never` }, 300)).toEqual(
      critical("rpc error: code = DeadlineExceeded desc = context deadline exceeded"),
    );
    expect(await ask(probe, { address: "127.0.0.1:1" })).toEqual(
      critical(
        'rpc error: code = Unavailable desc = connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"',
      ),
    );
    expect(await ask(probe, { address: "127.0.0.1" })).toEqual(critical(/missing port in address"$/));
    expect(await ask(probe, { address: "nosuch.invalid:1" })).toEqual(critical(/lookup nosuch.invalid: no such host/));
  });

  test("with TLS: the CA, the name, and no questions asked", async () => {
    const port = await start(
      grpc.ServerCredentials.createSsl(null, [
        { cert_chain: Buffer.from(server.cert), private_key: Buffer.from(server.key) },
      ]),
    );
    const address = `127.0.0.1:${port}`;
    const passing = { status: "passing", output: `gRPC check ${address}: success` };
    expect(await ask(grpcProbe(), { address, useTls: true, tlsSkipVerify: true })).toEqual(passing);
    expect(await ask(grpcProbe({ ca }), { address, useTls: true, tlsServerName: "web.example" })).toEqual(passing);
    expect((await ask(grpcProbe({ ca }), { address, useTls: true, tlsServerName: "else.example" })).status).toBe(
      "critical",
    );
    expect((await ask(grpcProbe(), { address, useTls: true, tlsServerName: "web.example" })).status).toBe("critical");
    expect((await ask(grpcProbe({ ca }), { address })).status).toBe("critical");
  });

  test("what is no gRPC server is critical within its time", async () => {
    const deaf = await listen(createTcpServer((socket) => socket.on("error", () => {}).resume()));
    expect(await ask(grpcProbe(), { address: `127.0.0.1:${deaf}` }, 500)).toEqual(
      critical("rpc error: code = DeadlineExceeded desc = context deadline exceeded"),
    );
    const rude = await listen(
      createTcpServer((socket) => void socket.on("error", () => {}).end("HTTP/1.1 400\r\n\r\n")),
    );
    expect((await ask(grpcProbe(), { address: `127.0.0.1:${rude}` })).status).toBe("critical");
  });
});

describe("h2ping", () => {
  test("answered or not, plain and with TLS", async () => {
    const plain = await listen(createHttp2Server());
    const probe = h2pingProbe(systemNet);
    const passing = { status: "passing", output: "HTTP2 ping was successful" };
    expect(await ask(probe, { address: `127.0.0.1:${plain}` })).toEqual(passing);
    expect(await ask(probe, {}, 5000, { address: "127.0.0.1", port: plain })).toEqual(passing);
    const secure = await listen(createSecureServer(server));
    const address = `127.0.0.1:${secure}`;
    expect(await ask(probe, { address, useTls: true, tlsSkipVerify: true })).toEqual(passing);
    expect(await ask(h2pingProbe(systemNet, { ca }), { address, useTls: true, tlsServerName: "www.example" })).toEqual(
      passing,
    );
    expect(await ask(probe, { address, useTls: true })).toEqual(
      critical(
        `Failed to dial to ${address}: tls: failed to verify certificate: x509: certificate signed by unknown authority`,
      ),
    );
    expect(await ask(probe, { address: "127.0.0.1:1" })).toEqual(
      critical("Failed to dial to 127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused"),
    );
    expect(await ask(probe, { address: `127.0.0.1:${plain}`, useTls: true })).toEqual(critical(/^Failed to dial to /));
  });

  test("what is no HTTP/2 server is critical within its time", async () => {
    const probe = h2pingProbe(systemNet);
    const deaf = await listen(createTcpServer((socket) => socket.on("error", () => {}).resume()));
    expect(await ask(probe, { address: `127.0.0.1:${deaf}` }, 300)).toEqual(
      critical("HTTP2 ping failed: context deadline exceeded"),
    );
    const rude = await listen(
      createTcpServer((socket) => void socket.on("error", () => {}).end("HTTP/1.1 400\r\n\r\n")),
    );
    expect(await ask(probe, { address: `127.0.0.1:${rude}` })).toEqual(critical(/^HTTP2 ping failed: ./));
    const shut = await listen(createTcpServer((socket) => void socket.destroy()));
    expect(await ask(probe, { address: `127.0.0.1:${shut}` })).toEqual(critical(/^HTTP2 ping failed: ./));
  });
});

describe("TLS", () => {
  test("tcp: whose certificate is believed, under which name, and what Go says where it is not", async () => {
    const port = await listen(createTlsServer(server, (socket) => void socket.on("error", () => {})));
    const address = `127.0.0.1:${port}`;
    const with_ = (tls: CheckTls, more: object): Promise<Outcome> =>
      ask(tcpProbe(systemNet, tls), { address, useTls: true, ...more });
    const passing = { status: "passing", output: `TCP+TLS connect ${address}: Success` };
    expect(await with_({}, { tlsSkipVerify: true })).toEqual(passing);
    expect(await with_({ ca }, { tlsServerName: "web.example" })).toEqual(passing);
    expect(await with_({ ca, serverName: "www.example" }, {})).toEqual(passing);
    expect(await with_({}, { tlsServerName: "web.example" })).toEqual(
      critical("tls: failed to verify certificate: x509: certificate signed by unknown authority"),
    );
    expect(await with_({ ca }, { tlsServerName: "else.example" })).toEqual(
      critical(
        "tls: failed to verify certificate: x509: certificate is valid for web.example, www.example, not else.example",
      ),
    );
    expect(await with_({ ca }, {})).toEqual(
      critical(
        "tls: failed to verify certificate: x509: cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs",
      ),
    );
    const plain = await listen(createTcpServer((socket) => void socket.on("error", () => {}).end("hello\r\n")));
    expect(await ask(tcpProbe(systemNet), { address: `127.0.0.1:${plain}`, useTls: true })).toEqual(
      critical("tls: first record does not look like a TLS handshake"),
    );
  });

  test("http: the agent's own certificate is shown to servers that ask for one", async () => {
    const http = createHttp();
    ends.push(() => http.close());
    const port = await listen(
      createHttpsServer({ ...server, ca, requestCert: true, rejectUnauthorized: true }, (request, response) => {
        const peer = (request.socket as import("node:tls").TLSSocket).getPeerCertificate();
        response.end(`hello ${peer.subject.CN}, method ${request.method}`);
      }),
    );
    const url = `https://127.0.0.1:${port}/x`;
    expect(await ask(httpProbe(http, { ca, ...client }), { url, tlsServerName: "web.example", method: "PUT" })).toEqual(
      {
        status: "passing",
        output: `HTTP PUT ${url}: 200 OK Output: hello client, method PUT`,
      },
    );
    expect((await ask(httpProbe(http, { ca }), { url, tlsServerName: "web.example" })).status).toBe("critical");
    expect(await ask(httpProbe(http, { ca, ...client }), { url, tlsServerName: "else.example" })).toEqual(
      critical(/x509: certificate is valid for web.example, www.example, not else.example$/),
    );
    expect((await ask(httpProbe(http, client), { url, tlsSkipVerify: true })).status).toBe("passing");
  });
});

describe("os-service", () => {
  /** Real processes, with a systemctl of the test's own in front. */
  const withSystemctl = async (body: string): Promise<Pick<Processes, "run">> => {
    const file = join(folder.path, `systemctl-${body.length}`);
    await writeFile(file, `#!/bin/sh\n${body}\n`);
    await chmod(file, 0o755);
    return { run: ([, ...args], options) => systemProcesses.run([file, ...args], options) };
  };

  test.each([
    ["active", 0, { status: "passing", output: 'Service "nginx" is healthy' }],
    ["reloading", 3, { status: "warning", output: 'OS Service unhealthy: service "nginx" is reloading' }],
    ["activating", 3, { status: "warning", output: 'OS Service unhealthy: service "nginx" is activating' }],
    ["inactive", 3, { status: "critical", output: 'OS Service unhealthy: service "nginx" is inactive' }],
    ["failed", 3, { status: "critical", output: 'OS Service unhealthy: service "nginx" is failed' }],
    ["unknown", 4, { status: "critical", output: 'OS Service unhealthy: service "nginx" is unknown' }],
  ])("a unit that is %s", async (state, exit, outcome) => {
    const processes = await withSystemctl(`[ "$*" = "is-active -- nginx" ] && echo ${state} && exit ${exit}`);
    expect(await ask(osServiceProbe(processes), { name: "nginx" })).toEqual(outcome);
  });

  test("no systemd, a systemd that does not run, one that hangs", async () => {
    const none: Pick<Processes, "run"> = {
      run: (_command, options) => systemProcesses.run([join(folder.path, "no-such-systemctl")], options),
    };
    expect(await ask(osServiceProbe(none), { name: "nginx" })).toEqual({
      status: "critical",
      output:
        'this host has no systemd to ask about service "nginx": exec: "systemctl": executable file not found in $PATH',
      final: true,
    });
    const asleep = await withSystemctl(
      'echo "System has not been booted with systemd as init system (PID 1). Can\'t operate." >&2; exit 1',
    );
    expect(await ask(osServiceProbe(asleep), { name: "nginx" })).toMatchObject({
      status: "critical",
      output: expect.stringMatching(/^systemd does not tell about service "nginx": System has not been booted/),
    });
    const hangs = await withSystemctl("exec sleep 60");
    expect(await ask(osServiceProbe(hangs), { name: "nginx" }, 200)).toMatchObject({
      status: "critical",
      output: "Timed out (200ms) running check",
    });
  });

  test("names that would mean something else are refused", () => {
    const probe = osServiceProbe(systemProcesses);
    for (const name of ["", "a b", "*", "-H host", "a;b"])
      expect(() => probe.parse({ name })).toThrow(/os-service check: name: .*expected the name of one unit/);
  });
});

describe("script", () => {
  const probe = scriptProbe(systemProcesses);

  test("Nagios plugins: 0 to 3, their words and performance data as they are", async () => {
    const words =
      "DISK OK - free space: / 3326 MB (56%);|/=2643MB;5948;5958;0;5968\nsecond line|/boot=68MB;88;93;0;98\n";
    for (const [exit, status] of [
      [0, "passing"],
      [1, "warning"],
      [2, "critical"],
      [3, "critical"],
    ] as const)
      expect(
        await ask(probe, { args: ["/bin/sh", "-c", `printf '${words.replaceAll("%", "%%")}'; exit ${exit}`] }),
      ).toEqual({
        status,
        output: words,
      });
  });

  test("one that takes too long keeps what it said", async () => {
    expect(await ask(probe, { args: ["/bin/sh", "-c", "echo so far; echo so good >&2; exec sleep 60"] }, 1000)).toEqual(
      {
        status: "critical",
        output: "Timed out (1s) running check\n\nso far\nso good\n",
        final: true,
      },
    );
  });
});

describe("through the whole agent", () => {
  test("every kind, registered over Consul's API: passing, and critical when its target is gone", async () => {
    const udp = createSocket("udp4");
    udp.on("message", (_, from) => udp.send("echo", from.port, from.address));
    await new Promise<void>((resolve) => udp.bind(0, "127.0.0.1", resolve));
    const h2 = createHttp2Server();
    const h2Port = await listen(h2);
    const tls = createTlsServer(server, (socket) => void socket.on("error", () => {}));
    const tlsPort = await listen(tls);
    const httpPort = await freePort();
    const trilith = createTrilith({
      dev: true,
      node: "alpha",
      compat: "consul",
      httpPort,
      scripts: { fromApi: true, fromFiles: true },
      checkTls: { caFile: join(folder.path, "ca.pem"), serverName: "web.example" },
      protocols: { dns: false, docker: false },
    });
    ends.push(() => trilith.stop());
    await trilith.start();
    const put = async (path: string, body: unknown): Promise<void> => {
      const answer = await fetch(`http://127.0.0.1:${httpPort}${path}`, { method: "PUT", body: JSON.stringify(body) });
      expect([path, answer.status, await answer.text()]).toEqual([path, 200, ""]);
    };
    const every = { Interval: "1s", Timeout: "500ms" };
    await put("/v1/agent/service/register", {
      Name: "all",
      Port: 1,
      Checks: [
        { CheckID: "udp", UDP: `127.0.0.1:${udp.address().port}`, ...every },
        { CheckID: "h2", H2PING: `127.0.0.1:${h2Port}`, H2PingUseTLS: false, ...every },
        { CheckID: "tls", TCP: `127.0.0.1:${tlsPort}`, TCPUseTLS: true, ...every },
        { CheckID: "script", Args: ["/bin/sh", "-c", `test -e ${folder.path}/ca.pem`], ...every },
      ],
    });
    await put("/v1/agent/service/register", { Name: "follower", Check: { CheckID: "alias", AliasService: "all" } });
    const statuses = (): Record<string, string> =>
      Object.fromEntries([...trilith.agent.checks()].map(([id, { check }]) => [id, check.status]));
    await eventually("all pass", () => Object.values(statuses()).every((status) => status === "passing"), 20_000);
    expect(Object.keys(statuses()).sort()).toEqual(["alias", "h2", "script", "tls", "udp"]);
    expect(trilith.agent.checks().get("tls")?.check.output).toBe(`TCP+TLS connect 127.0.0.1:${tlsPort}: Success`);
    await new Promise<void>((resolve) => udp.close(() => resolve()));
    await eventually("udp is critical", () => statuses()["udp"] === "critical", 20_000);
    expect(statuses()).toEqual({
      alias: "critical",
      h2: "passing",
      script: "passing",
      tls: "passing",
      udp: "critical",
    });
    const seen = (await (await fetch(`http://127.0.0.1:${httpPort}/v1/health/checks/follower`)).json()) as {
      readonly Status: string;
      readonly Type: string;
      readonly Output: string;
    }[];
    expect(seen).toMatchObject([
      {
        Status: "critical",
        Type: "alias",
        Output: expect.stringMatching(/^Aliased check "Service 'all' check" failing: read udp .*connection refused$/),
      },
    ]);
  }, 60_000);

  test("a check that is pushed goes on with the time left to it after a restart on a real disk", async () => {
    const data = join(folder.path, ownName("data"));
    const start = async (): Promise<ReturnType<typeof createTrilith>> => {
      const trilith = createTrilith({
        dataDir: data,
        node: "alpha",
        httpPort: -1,
        protocols: { dns: false, docker: false, process: false },
      });
      ends.push(() => trilith.stop());
      await trilith.start();
      return trilith;
    };
    const first = await start();
    const spec = { name: "t", notes: "", kind: "ttl", detail: {}, intervalMs: 0, timeoutMs: 0 };
    await first.agent.registerCheck("api", { ...spec, id: "long", ttlMs: 3_600_000, serviceId: "" });
    await first.agent.registerCheck("api", { ...spec, id: "short", ttlMs: 600, serviceId: "" });
    for (const id of ["long", "short"]) await first.agent.report(id, { status: "passing", output: "alive" });
    await first.stop();
    await new Promise((resolve) => setTimeout(resolve, 700));
    const second = await start();
    const check = (id: string) => second.agent.checks().get(id)?.check;
    await eventually("its time is over", () => check("short")?.status === "critical");
    expect(check("short")?.output).toBe("TTL expired (last output before timeout follows): alive");
    expect(check("long")).toMatchObject({ status: "passing", output: "alive" });
  }, 30_000);
});
