// `trilith registrator` as a program: its recorded command lines, Consul and its key-value store, and what it remembers.
import { execFile } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { hostname } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { commandExpectations } from "../golden/registrator-expectations.ts";
import { eventually, freePort, havePrograms } from "../support/peers.ts";
import { type RunningAgent, startAgent } from "../support/program.ts";
import { casesOf, hostIp, openScene, type Running, type Scene } from "../support/registrator.ts";

const run = promisify(execFile);
const host = hostname();
const openssl = await havePrograms("openssl");
let agent: RunningAgent;
let scene: Scene;
let ip: string;
const start: Scene["start"] = (...given) => scene.start(...given);
const add: Scene["add"] = (...given) => scene.add(...given);
const die: Scene["die"] = (id) => scene.die(id);

beforeAll(async () => {
  ip = await hostIp();
  agent = await startAgent(["-dev"]);
});
afterAll(() => agent?.stop());
beforeEach(async () => {
  scene = await openScene();
});
afterEach(() => scene.over());

const logged = (one: Running, line: string): Promise<true> =>
  eventually(`"${line}" in ${JSON.stringify(one.log())}`, () => one.log().includes(line), 20_000).then(() => true);

describe("recorded command lines", () => {
  const cases = casesOf("commandline");

  it("all have an expectation", () => {
    expect(Object.keys(commandExpectations).sort()).toEqual(cases.map(({ name }) => name).sort());
  });

  for (const recorded of cases)
    it(recorded.name, async () => {
      const later = recorded.exit_code === null;
      const port = later ? await freePort() : 1;
      const live = agent.url.replace("http://", "");
      const address = recorded.exit_code === "running" ? live : `127.0.0.1:${port}`;
      const here = (text: string): string => text.replace(/127\.0\.0\.1:\d+/g, address);
      // A leader that is just being chosen has no address yet, and ours is another one.
      const lines = (recorded.log ?? []).map(here).map((line) => line.replace(/(current leader {2}).*/, "$1"));
      const words = recorded.args ?? [...(recorded.flags ?? []), "consul://127.0.0.1:28500"];
      const one = await start(words.map(here));
      let late: Server | undefined;
      if (later) {
        await logged(one, "Connecting to backend (2/-1)");
        late = createServer((_, response) => response.end('""')).listen(port, "127.0.0.1");
      }
      const shown = (): string[] => one.log().map((line) => line.replace(/(current leader {2}).*/, "$1"));
      if (typeof recorded.exit_code === "number") {
        expect(await one.ended).toBe(recorded.exit_code);
        expect(shown().slice(0, lines.length)).toEqual(lines);
      } else {
        await logged(one, "Syncing services on 0 containers");
        // How often it tried depends on when the backend came.
        const sort = (all: readonly string[]): string[] => [
          ...new Set(all.map((line) => line.replace(/\(\d+\/-1\)/, "(n/-1)"))),
        ];
        expect(sort(shown())).toEqual(sort(lines));
      }
      late?.closeAllConnections();
      late?.close();
    });

  it("--version alone prints the version, -help the usage", async () => {
    const version = await start(["--version"]);
    expect(await version.ended).toBe(0);
    expect(version.log()).toEqual(["v7.4.0"]);
    const help = await start(["-help"]);
    expect(await help.ended).toBe(0);
    expect(help.log()).toContain("  -useIpFromLabel string");
  });

  it("a template or a DOCKER_HOST that cannot be read ends it at once, and says why", async () => {
    const template = await start(["-tags", "{{.Nope", agent.url.replace("http", "consul")]);
    expect(await template.ended).toBe(1);
    expect(template.log().at(-1)).toContain("unclosed action");
    const docker = await start([agent.url.replace("http", "consul")], { DOCKER_HOST: "ssh://far" });
    expect(await docker.ended).toBe(1);
    expect(docker.log().at(-1)).toContain("DOCKER_HOST");
    const port = await start(["consul://127.0.0.1:99999"]);
    expect(await port.ended).toBe(1);
    expect(port.log().at(-1)).toContain("bad adapter uri: consul://127.0.0.1:99999: port 99999 is more than 65535");
  });
});

/** A Consul that remembers what it was asked. */
interface Recorder {
  readonly address: string;
  readonly requests: { readonly method: string; readonly url: string; readonly body: string; readonly token: string }[];
  readonly services: Map<string, Record<string, unknown>>;
  puts(): string[];
  close(): Promise<void>;
}

async function recorder(
  listen: number | string,
  tls?: { readonly key: string; readonly cert: string; readonly ca: string },
): Promise<Recorder> {
  const requests: Recorder["requests"] = [];
  const services: Recorder["services"] = new Map();
  const answer = (request: IncomingMessage, response: ServerResponse): void => {
    let body = "";
    request.on("data", (chunk) => {
      body += chunk;
    });
    request.on("end", () => {
      const { method = "", url = "", headers } = request;
      requests.push({ method, url, body, token: String(headers["x-consul-token"] ?? "") });
      if (url === "/v1/status/leader") return void response.end('"127.0.0.1:8300"');
      if (url === "/v1/agent/services") return void response.end(JSON.stringify(Object.fromEntries(services)));
      if (url === "/v1/agent/service/register") {
        const given = JSON.parse(body) as Record<string, unknown>;
        services.set(String(given["ID"]), {
          ...given,
          Service: given["Name"],
          Tags: given["Tags"] ?? [],
          Meta: given["Meta"] ?? {},
        });
      } else services.delete(decodeURIComponent(url.split("/").at(-1) ?? ""));
      response.end();
    });
  };
  const server =
    tls === undefined
      ? createServer(answer)
      : createTlsServer({ ...tls, requestCert: true, rejectUnauthorized: true }, answer);
  await new Promise<void>((resolve) => {
    if (typeof listen === "string") server.listen(listen, resolve);
    else server.listen(listen, "127.0.0.1", resolve);
  });
  const at = server.address() as AddressInfo | string;
  return {
    address: typeof at === "string" ? at : `127.0.0.1:${at.port}`,
    requests,
    services,
    puts: () => requests.filter(({ method }) => method === "PUT").map(({ url }) => url),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

describe("consul://", () => {
  let consul: Recorder;
  beforeEach(async () => {
    consul = await recorder(0);
  });
  afterEach(() => consul.close());

  it("sends the recorded bodies; a resync that finds all as it was writes nothing; what was lost comes back", async () => {
    add("pre", 21090, ["SERVICE_NAME=pre"]);
    const one = await start(["-resync", "1", `consul://${consul.address}`]);
    await logged(one, `added: 7072652d2d2d ${host}:pre:80`);
    // The request of the recorded trace, byte for byte.
    expect(consul.requests.find(({ method }) => method === "PUT")?.body).toBe(
      `{"ID":"${host}:pre:80","Name":"pre","Port":21090,"Address":"${ip}","Check":null,"Checks":null}\n`,
    );
    const syncs = (): number => one.log().filter((line) => line === "Syncing services on 1 containers").length;
    await eventually("three resyncs", () => syncs() > 3);
    expect(consul.puts()).toEqual(["/v1/agent/service/register"]);
    consul.services.clear();
    await eventually("registered anew", () => consul.services.size === 1);
    const id = add("next", 21091, ["SERVICE_NAME=next", "SERVICE_CHECK_TTL=60s"]);
    await eventually("the next one", () => consul.services.size === 2);
    expect(consul.services.get(`${host}:next:80`)).toMatchObject({
      Check: { TTL: "1m0s" },
      Meta: { check_ttl: "60s" },
    });
    die(id);
    await logged(one, `removed: 6e6578742d2d ${host}:next:80`);
    expect(consul.puts().at(-1)).toBe(`/v1/agent/service/deregister/${host}:next:80`);
  });

  it("ended by a signal it deregisters nothing; started again it writes nothing, and takes out what ended meanwhile, SERVICE_ID or not", async () => {
    const ids = [add("stays", 1), add("ends", 2), add("named", 3, ["SERVICE_ID=own-id"])];
    const first = await start([`consul://${consul.address}`]);
    await eventually("all three", () => consul.services.size === 3);
    await logged(first, `added: 73746179732d ${host}:stays:80`);
    await eventually("all three are remembered", async () => {
      const { places } = JSON.parse(await readFile(join(scene.folder, "state.json"), "utf8")) as { places: object };
      return Object.values(places).length === 3 && !Object.values(places).includes("");
    });
    await first.stop("SIGTERM");
    expect(await first.ended).toBeNull();
    expect(consul.services.size).toBe(3);
    for (const id of ids.slice(1)) scene.engine.containers.delete(id);
    const before = consul.puts().length;
    const second = await start([`consul://${consul.address}`]);
    await eventually("the ended ones are gone", () => consul.services.size === 1);
    await logged(second, `added: 73746179732d ${host}:stays:80`);
    expect(consul.puts().slice(before).sort()).toEqual(
      [`/v1/agent/service/deregister/${host}:ends:80`, "/v1/agent/service/deregister/own-id"].sort(),
    );
  });

  it("without its memory nothing that stands is touched but by -cleanup, which knows its own ID form", async () => {
    for (const id of [`${host}:gone:80`, "manual", "other:gone:80"]) consul.services.set(id, { Service: "web" });
    const first = await start([`consul://${consul.address}`], { TRILITH_REGISTRATOR_STATE: "off" });
    add("web", 1);
    await eventually("registered", () => consul.services.size === 4);
    await first.stop();
    await start(["-cleanup", `consul://${consul.address}`], { TRILITH_REGISTRATOR_STATE: "off" });
    await eventually("cleaned", () => consul.services.size === 3);
    expect([...consul.services.keys()].sort()).toEqual([`${host}:web:80`, "manual", "other:gone:80"].sort());
  });

  it("CONSUL_HTTP_TOKEN, consul-unix:// and CONSUL_HTTP_ADDR", async () => {
    const socket = join(scene.folder, "consul.sock");
    const local = await recorder(socket);
    try {
      add("web", 1);
      await start([`consul-unix://${socket}`], { CONSUL_HTTP_TOKEN: "secret" });
      await eventually("by the socket", () => local.services.size === 1);
      expect(new Set(local.requests.map(({ token }) => token))).toEqual(new Set(["secret"]));
      await start(["consul://"], { CONSUL_HTTP_ADDR: consul.address, TRILITH_REGISTRATOR_STATE: "off" });
      await eventually("by the variable", () => consul.services.size === 1);
    } finally {
      await local.close();
    }
  });

  it.runIf(openssl)("consul-tls:// with CONSUL_CACERT, CONSUL_CLIENT_CERT and CONSUL_CLIENT_KEY", async () => {
    const at = (name: string): string => join(scene.folder, name);
    const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    await run("openssl", [
      ...["req", "-x509", ...key, "-days", "2", "-subj", "/CN=test", "-addext", "subjectAltName=IP:127.0.0.1"],
      ...["-keyout", at("key.pem"), "-out", at("cert.pem")],
    ]);
    const pem = await readFile(at("cert.pem"), "utf8");
    const far = await recorder(0, { key: await readFile(at("key.pem"), "utf8"), cert: pem, ca: pem });
    try {
      add("web", 1);
      const known = { CONSUL_CACERT: at("cert.pem") };
      const stranger = await start([`consul-tls://${far.address}`], known);
      expect(await stranger.ended).toBe(1);
      await start([`consul-tls://${far.address}`], {
        ...known,
        CONSUL_CLIENT_CERT: at("cert.pem"),
        CONSUL_CLIENT_KEY: at("key.pem"),
      });
      await eventually("registered over TLS", () => far.services.size === 1);
    } finally {
      await far.close();
    }
  });

  it("a Trilith agent takes it as Consul does: found by name, checks and all", async () => {
    add("api", 21100, [
      "SERVICE_NAME=api",
      "SERVICE_TAGS=a,b",
      "SERVICE_REGION=eu",
      "SERVICE_CHECK_TTL=30s",
      "SERVICE_CHECK_INITIAL_STATUS=passing",
    ]);
    await start([agent.url.replace("http", "consul")]);
    const found = await eventually("found", async () => {
      const list = (await (await fetch(`${agent.url}/v1/health/service/api?passing`)).json()) as { Service: unknown }[];
      return list[0]?.Service as Record<string, unknown> | undefined;
    });
    expect(found).toMatchObject({
      ID: `${host}:api:80`,
      Port: 21100,
      Address: ip,
      Tags: ["b", "a"],
      Meta: { region: "eu" },
    });
  });
});

describe("the memory", () => {
  it("a place that cannot be written is told once, and it goes on", async () => {
    await writeFile(join(scene.folder, "file"), "");
    add("web", 1);
    const one = await start([`${agent.url.replace("http", "consulkv")}/mem`], {
      TRILITH_REGISTRATOR_STATE: join(scene.folder, "file/state.json"),
    });
    await eventually("registered all the same", async () => (await fetch(`${agent.url}/v1/kv/mem/?recurse`)).ok);
    add("two", 2);
    await eventually("both", () => one.log().filter((line) => line.startsWith("added: ")).length === 2);
    expect(one.log().filter((line) => line.includes("cannot be remembered"))).toHaveLength(1);
  });
});
