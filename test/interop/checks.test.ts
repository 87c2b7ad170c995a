// http, tcp and script checks against real servers and commands: statuses, what is sent, the recorded texts, targets that hang.
import { execFileSync } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type RequestListener } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { type AddressInfo, createServer as createTcpServer, type Server } from "node:net";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { httpProbe } from "../../src/agent/checks/http.ts";
import { builtInProbes } from "../../src/agent/checks/index.ts";
import { scriptProbe } from "../../src/agent/checks/script.ts";
import { tcpProbe } from "../../src/agent/checks/tcp.ts";
import { Scheduler } from "../../src/agent/schedule.ts";
import { systemClock } from "../../src/base/clock.ts";
import { TrilithError } from "../../src/base/error.ts";
import { createHttp } from "../../src/base/http.ts";
import { systemNet } from "../../src/base/net.ts";
import { systemProcesses } from "../../src/base/process.ts";
import { systemRandom } from "../../src/base/random.ts";
import { defaultLimits, type Probe } from "../../src/contracts/probe.ts";
import type { Outcome } from "../../src/model/check.ts";
import { eventually, ownFolder } from "../support/peers.ts";

const ends: (() => Promise<void>)[] = [];
afterAll(async () => {
  for (const end of ends.reverse()) await end();
});

async function listen(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  ends.push(
    () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        (server as Server & { closeAllConnections?(): void }).closeAllConnections?.();
      }),
  );
  return (server.address() as AddressInfo).port;
}

const nobody = { address: "127.0.0.1", port: 1 };
/** Runs a probe as the scheduler does. */
async function ask<D>(
  probe: Probe<D>,
  raw: unknown,
  timeoutMs = 5000,
  outputMaxBytes = 4096,
  target = nobody,
): Promise<Outcome> {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(new TrilithError("timeout", "time is over")), timeoutMs);
  try {
    return await probe.run(probe.parse(raw), target, abort.signal, { outputMaxBytes, timeoutMs });
  } finally {
    clearTimeout(timer);
  }
}

describe("http", () => {
  const http = createHttp();
  const probe = httpProbe(http);
  const seen: { method: string; url: string; headers: IncomingMessage["headers"]; body: string }[] = [];
  let port = 0;
  let base = "";

  beforeAll(async () => {
    const answers: Record<string, RequestListener> = {
      "/ok": (_, response) => response.end("fine"),
      "/made": (_, response) => response.writeHead(201).end("made"),
      "/busy": (_, response) => response.writeHead(429).end("busy"),
      "/broken": (_, response) => response.writeHead(500).end("broken"),
      "/nowhere": (_, response) => response.writeHead(404).end("nowhere"),
      "/moved": (_, response) => response.writeHead(302, { location: "/ok" }).end("see"),
      "/moved-same": (_, response) => response.writeHead(307, { location: "/ok" }).end(),
      "/round": (_, response) => response.writeHead(302, { location: "/round" }).end(),
      "/lost": (_, response) => response.writeHead(302).end("where to?"),
      "/long": (_, response) => response.end("0123456789".repeat(1000)),
      "/zipped": (_, response) => response.writeHead(200, { "content-encoding": "gzip" }).end(gzipSync("unzipped")),
      "/half": (_, response) => {
        response.writeHead(200).write("half of it");
      },
      "/never": () => {},
      "/cut": (request) => request.socket.destroy(),
    };
    const server = createServer((request, response) => {
      let body = "";
      request.on("data", (chunk) => {
        body += chunk;
      });
      request.on("end", () => {
        seen.push({ method: request.method ?? "", url: request.url ?? "", headers: request.headers, body });
        answers[(request.url ?? "").split("?")[0] ?? ""]?.(request, response);
      });
    });
    port = await listen(server);
    base = `http://127.0.0.1:${port}`;
    ends.push(() => http.close());
  });

  test("2xx passing, 429 warning, everything else critical, in Consul's words [recorded: check-http]", async () => {
    expect(await ask(probe, { url: `${base}/ok` })).toEqual({
      status: "passing",
      output: `HTTP GET ${base}/ok: 200 OK Output: fine`,
    });
    expect(await ask(probe, { url: `${base}/made` })).toEqual({
      status: "passing",
      output: `HTTP GET ${base}/made: 201 Created Output: made`,
    });
    expect(await ask(probe, { url: `${base}/busy` })).toEqual({
      status: "warning",
      output: `HTTP GET ${base}/busy: 429 Too Many Requests Output: busy`,
    });
    expect(await ask(probe, { url: `${base}/broken` })).toEqual({
      status: "critical",
      output: `HTTP GET ${base}/broken: 500 Internal Server Error Output: broken`,
    });
    expect(await ask(probe, { url: `${base}/nowhere` })).toMatchObject({ status: "critical" });
  });

  test("what is sent: Consul's headers unless the check has its own, and no connection is kept", async () => {
    seen.length = 0;
    await ask(probe, { url: `${base}/ok` });
    expect(seen[0]).toMatchObject({
      method: "GET",
      url: "/ok",
      body: "",
      headers: {
        "user-agent": "Consul Health Check",
        accept: "text/plain, text/*, */*",
        "accept-encoding": "gzip",
        connection: "close",
        host: `127.0.0.1:${port}`,
      },
    });
    expect(seen[0]?.headers["content-type"]).toBeUndefined();
    await ask(probe, {
      url: `${base}/ok?x=1`,
      method: "PUT",
      headers: {
        "X-Probe": ["one", "two"],
        "user-agent": ["probe/1"],
        Host: ["svc.example"],
        "Content-Type": "application/json",
      },
      body: '{"probe":true}',
    });
    expect(seen[1]).toMatchObject({
      method: "PUT",
      url: "/ok?x=1",
      body: '{"probe":true}',
      headers: {
        "user-agent": "probe/1",
        accept: "text/plain, text/*, */*",
        "content-type": "application/json",
        "x-probe": "one, two",
        host: "svc.example",
      },
    });
  });

  test("redirects are followed unless they are not wanted", async () => {
    seen.length = 0;
    expect(await ask(probe, { url: `${base}/moved`, method: "POST", body: "b" })).toEqual({
      status: "passing",
      output: `HTTP POST ${base}/moved: 200 OK Output: fine`,
    });
    expect(seen.map(({ method, body }) => method + body)).toEqual(["POSTb", "GET"]);
    seen.length = 0;
    await ask(probe, { url: `${base}/moved-same`, method: "POST", body: "b" });
    expect(seen.map(({ method, body }) => method + body)).toEqual(["POSTb", "POSTb"]);
    expect(await ask(probe, { url: `${base}/moved`, disableRedirects: true })).toEqual({
      status: "critical",
      output: `HTTP GET ${base}/moved: 302 Found Output: see`,
    });
    expect(await ask(probe, { url: `${base}/round` })).toEqual({
      status: "critical",
      output: `Get "${base}/round": stopped after 10 redirects`,
    });
    expect(await ask(probe, { url: `${base}/lost` })).toEqual({
      status: "critical",
      output: `HTTP GET ${base}/lost: 302 Found Output: where to?`,
    });
  });

  test("the tail of the body is kept [recorded: check-http-options]; a zipped one is read", async () => {
    const long = await ask(probe, { url: `${base}/long` });
    expect(long.output).toBe(`HTTP GET ${base}/long: 200 OK Output: ${"0123456789".repeat(1000).slice(-4096)}`);
    const short = await ask(probe, { url: `${base}/long` }, 5000, 50);
    expect(short.output).toBe(`HTTP GET ${base}/long: 200 OK Output: ${"0123456789".repeat(5)}`);
    expect((await ask(probe, { url: `${base}/zipped` })).output).toBe(
      `HTTP GET ${base}/zipped: 200 OK Output: unzipped`,
    );
  });

  test("nobody there, no answer, half an answer", async () => {
    expect(await ask(probe, { url: "http://127.0.0.1:1/" })).toEqual({
      status: "critical",
      output: 'Get "http://127.0.0.1:1/": dial tcp 127.0.0.1:1: connect: connection refused',
    });
    expect(await ask(probe, { url: "http://nosuch.invalid/", method: "HEAD" })).toEqual({
      status: "critical",
      output: expect.stringMatching(/^Head "http:\/\/nosuch.invalid\/": dial tcp: lookup nosuch.invalid: /),
    });
    expect(await ask(probe, { url: `${base}/never` }, 200)).toEqual({
      status: "critical",
      output: `Get "${base}/never": context deadline exceeded (Client.Timeout exceeded while awaiting headers)`,
    });
    expect(await ask(probe, { url: `${base}/half` }, 200)).toEqual({
      status: "passing",
      output: `HTTP GET ${base}/half: 200 OK Output: half of it`,
    });
    const cut = await ask(probe, { url: `${base}/cut` });
    expect(cut.output).toMatch(/^Get "http:.*\/cut": (EOF|read tcp .* connection reset by peer)$/);
  });

  test("a path alone is asked of the service itself", async () => {
    const target = { address: "127.0.0.1", port };
    expect(await ask(probe, { url: "/ok" }, 5000, 4096, target)).toEqual({
      status: "passing",
      output: `HTTP GET ${base}/ok: 200 OK Output: fine`,
    });
  });

  test("certificates are looked at unless told not to", async () => {
    const folder = await ownFolder("checks-tls");
    ends.push(() => folder.remove());
    const key = join(folder.path, "key.pem");
    const cert = join(folder.path, "cert.pem");
    execFileSync("openssl", [
      ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"],
      ...["-subj", "/CN=svc.example", "-addext", "subjectAltName=DNS:svc.example", "-keyout", key, "-out", cert],
    ]);
    const names: (string | false)[] = [];
    const server = createTlsServer({ key: await readFile(key), cert: await readFile(cert) }, (request, response) => {
      names.push((request.socket as unknown as { servername: string | false }).servername);
      response.end("secret");
    });
    const url = `https://localhost:${await listen(server)}/`;
    expect(await ask(probe, { url })).toEqual({
      status: "critical",
      output: `Get "${url}": tls: failed to verify certificate: x509: certificate signed by unknown authority`,
    });
    expect(await ask(probe, { url, tlsSkipVerify: true })).toEqual({
      status: "passing",
      output: `HTTP GET ${url}: 200 OK Output: secret`,
    });
    await ask(probe, { url, tlsSkipVerify: true, tlsServerName: "svc.example" });
    expect(names).toEqual(["localhost", "svc.example"]);
    const tcp = tcpProbe(systemNet);
    const address = new URL(url).host;
    expect(await ask(tcp, { address, useTls: true })).toEqual({
      status: "critical",
      output: "tls: failed to verify certificate: x509: certificate signed by unknown authority",
    });
    expect(await ask(tcp, { address, useTls: true, tlsSkipVerify: true })).toEqual({
      status: "passing",
      output: `TCP+TLS connect ${address}: Success`,
    });
  });

  test("details that make no sense are refused with what would be right", () => {
    const fault = (raw: unknown): string => {
      try {
        probe.parse(raw);
        return "accepted";
      } catch (error) {
        expect(error).toBeInstanceOf(TrilithError);
        return (error as Error).message;
      }
    };
    expect(fault({ url: "ftp://x/" })).toMatch(
      /^http check: url: "ftp:\/\/x\/": expected a URL that starts with "http/,
    );
    expect(fault({})).toMatch(/^http check: url: is missing/);
    expect(fault({ url: "http://x/", methd: "GET" })).toMatch(/unknown key "methd": known are "url", "method"/);
    expect(fault({ url: "http://x/", method: "GET\r\nX: y" })).toMatch(/^http check: method/);
    expect(fault({ url: "http://x/", headers: { "X-A": ["a\r\nB: c"] } })).toMatch(/^http check: headers/);
    expect(fault("http://x/")).toMatch(/expected an object with "url"/);
    const detail = probe.parse({ url: "http://x/", headers: { A: "b" } });
    expect(JSON.parse(JSON.stringify(detail))).toEqual(JSON.parse(JSON.stringify(probe.parse(detail))));
  });
});

describe("tcp", () => {
  const probe = tcpProbe(systemNet);

  test("connected or not, in the recorded words [recorded: check-tcp]", async () => {
    const port = await listen(createTcpServer((socket) => socket.on("error", () => {}).resume()));
    expect(await ask(probe, { address: `127.0.0.1:${port}` })).toEqual({
      status: "passing",
      output: `TCP connect 127.0.0.1:${port}: Success`,
    });
    expect(await ask(probe, { address: `localhost:${port}` })).toEqual({
      status: "passing",
      output: `TCP connect localhost:${port}: Success`,
    });
    expect(await ask(probe, {}, 5000, 4096, { address: "127.0.0.1", port })).toMatchObject({ status: "passing" });
    expect(await ask(probe, { address: "127.0.0.1:1" })).toEqual({
      status: "critical",
      output: "dial tcp 127.0.0.1:1: connect: connection refused",
    });
    expect((await ask(probe, { address: "nosuch.invalid:80" })).output).toMatch(/^dial tcp: lookup nosuch.invalid: /);
    expect(await ask(probe, { address: "127.0.0.1" })).toEqual({
      status: "critical",
      output: "dial tcp: address 127.0.0.1: missing port in address",
    });
  });

  test("a target that accepts and never answers a handshake is critical when the time is over", async () => {
    const port = await listen(createTcpServer((socket) => socket.on("error", () => {}).resume()));
    expect(await ask(probe, { address: `127.0.0.1:${port}`, useTls: true }, 200)).toEqual({
      status: "critical",
      output: `dial tcp 127.0.0.1:${port}: i/o timeout`,
    });
  });
});

describe("script", () => {
  const probe = scriptProbe(systemProcesses);
  const shell = (text: string): { args: string[] } => ({ args: ["/bin/sh", "-c", text] });

  test("exit codes and outputs [recorded: check-script]", async () => {
    expect(await ask(probe, shell("echo good; exit 0"))).toEqual({ status: "passing", output: "good\n" });
    const warning = await ask(probe, shell("echo so-so; echo to stderr >&2; exit 1"));
    expect(warning.status).toBe("warning");
    expect(warning.output.split("\n").sort()).toEqual(["", "so-so", "to stderr"]);
    expect(await ask(probe, shell("echo bad; exit 2"))).toEqual({ status: "critical", output: "bad\n" });
    expect(await ask(probe, shell("exit 77"))).toEqual({ status: "critical", output: "" });
    expect(await ask(probe, shell("kill -9 $$"))).toEqual({ status: "critical", output: "" });
    expect(await ask(probe, { args: ["/nonexistent/command"] })).toEqual({
      status: "critical",
      output: "fork/exec /nonexistent/command: no such file or directory",
      final: true,
    });
  });

  test("long outputs keep their tail [recorded: check-script]", async () => {
    const long = await ask(probe, shell("i=0; while [ $i -lt 600 ]; do echo 0123456789; i=$((i+1)); done"));
    expect(long.output).toBe(`Captured 4096 of 6600 bytes\n...\n${"0123456789\n".repeat(600).slice(-4096)}`);
    expect(await ask(probe, shell("echo first line; echo second line; printf third"), 5000, 16)).toEqual({
      status: "passing",
      output: "Captured 16 of 28 bytes\n...\necond line\nthird",
    });
  });

  test("a script that ignores SIGTERM is over in time for its check, and then killed with its children", async () => {
    const folder = await ownFolder("checks-script");
    ends.push(() => folder.remove());
    const file = join(folder.path, "deaf.sh");
    const pids = join(folder.path, "pids");
    await writeFile(
      file,
      `trap '' TERM\necho $$ >> ${pids}\n(trap '' TERM; echo $$ > /dev/null; sleep 600) &\necho $! >> ${pids}\nwait\nsleep 600\n`,
    );
    const outcome = await ask(probe, { args: ["/bin/sh", file] }, 1000);
    expect(outcome).toEqual({ status: "critical", output: "Timed out (1s) running check", final: true });
    const started = (await readFile(pids, "utf8")).trim().split("\n").map(Number);
    expect(started).toHaveLength(2);
    await eventually("the script and its child are gone", () => started.every((pid) => !isRunning(pid)));
  });

  test("details that make no sense are refused", () => {
    expect(() => probe.parse({ args: [] })).toThrow(/script check: args: \[\]: expected the command/);
    expect(() => probe.parse({ args: "ls -l" })).toThrow(/expected a list of texts/);
    expect(() => probe.parse({ args: ["a\0b"] })).toThrow(/without NUL/);
  });
});

/** False also for a process that is dead and only not yet waited for. */
function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(
      execFileSync("cat", [`/proc/${pid}/status`], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }),
    );
  } catch {
    return false;
  }
}

test("a hundred targets that accept and never answer hold up nobody, and stopping ends all at once", async () => {
  const http = createHttp();
  ends.push(() => http.close());
  const probes = new Map(
    builtInProbes({ http, net: systemNet, processes: systemProcesses }).map((probe) => [probe.kind, probe]),
  );
  const deaf = await listen(createTcpServer((socket) => socket.on("error", () => {}).resume()));
  const well = await listen(createServer((_, response) => response.end("well")));
  const scheduler = new Scheduler({ clock: systemClock, random: systemRandom, maxRunning: 20 });
  const answered = new Set<number>();
  const add = (id: string, url: string, done: (outcome: Outcome) => void): void => {
    const probe = probes.get("http") as Probe;
    const detail = probe.parse({ url });
    const run = (signal: AbortSignal): Promise<Outcome> => probe.run(detail, nobody, signal, defaultLimits);
    scheduler.set(id, { intervalMs: 1000, timeoutMs: 1000, run, done });
  };
  for (let i = 0; i < 100; i++)
    add(`deaf${i}`, `http://127.0.0.1:${deaf}/`, ({ status }) => expect(status).toBe("critical"));
  for (let i = 0; i < 20; i++)
    add(`well${i}`, `http://127.0.0.1:${well}/`, ({ status }) => {
      if (status === "passing") answered.add(i);
    });
  await eventually("everyone who is well has answered", () => answered.size === 20, 30_000);
  expect(scheduler.running).toBeGreaterThan(0);
  await scheduler.stop();
  expect(scheduler.running).toBe(0);
});
