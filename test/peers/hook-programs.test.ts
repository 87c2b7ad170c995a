// Real programs under the hook: each reaches instances on random ports by name, spreads its connections and survives a dead one.
import { execFile } from "node:child_process";
import { createSocket } from "node:dgram";
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { hookTable } from "../support/hook-table.ts";
import { namespace } from "../support/lan.ts";
import { eventually, freePort, havePrograms, startProgram } from "../support/peers.ts";
import { startPostgres } from "../support/postgres.ts";

const run = promisify(execFile);
const NAME = "web.service.consul";
const here = await havePrograms(
  "cc",
  "curl",
  "wget",
  "python3",
  "nginx",
  "haproxy",
  "redis-server",
  "redis-cli",
  "javac",
  "pg_ctlcluster",
  "/usr/lib/python3/dist-packages/requests",
);
/** Debian's, whose modules Debian's packages are. */
const PYTHON = "/usr/bin/python3";

/** An HTTP server on a port of its own that says its number and ends the connection. */
interface Instance {
  readonly port: number;
  requests: number;
  stop(): Promise<void>;
}

async function instance(number: number, address = "127.0.0.1"): Promise<Instance> {
  const server: Server = createServer((_request, response) => {
    it.requests++;
    response.writeHead(200, { connection: "close" }).end(`instance ${number}\n`);
  });
  // Some of them end while they are asked for: nobody else is to answer there.
  const port = await freePort();
  await new Promise<void>((done) => server.listen(port, address, done));
  const it: Instance = {
    port,
    requests: 0,
    stop: () =>
      new Promise((done) => {
        server.close(() => done());
        server.closeAllConnections();
      }),
  };
  return it;
}

describe.runIf(here)("programs under the hook", { timeout: 120_000 }, () => {
  let folder = "";
  /** Of the running test. */
  let own = "";
  let env: Record<string, string> = {};
  let table: ReturnType<typeof hookTable>;
  let instances: Instance[] = [];
  const stops: (() => Promise<unknown>)[] = [];

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "trilith-hook-programs-"));
    // nginx and HAProxy go on as users of their own.
    await chmod(folder, 0o755);
    const preload = join(folder, "libtrilith.so");
    await run("cc", [
      "-shared",
      "-fPIC",
      "-O2",
      "-o",
      preload,
      resolve(import.meta.dirname, "../../native/libtrilith.c"),
    ]);
    env = { LD_PRELOAD: preload };
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  beforeEach(async () => {
    instances = await Promise.all([1, 2, 3].map((number) => instance(number)));
    own = await mkdtemp(join(folder, "test-"));
    await chmod(own, 0o755);
    table = hookTable(join(own, "table"));
    env = { ...env, TRILITH_HOOK_TABLE: table.path };
    // What programs see of back ends, as the agent's folder lets them.
    await mkdir(join(own, "observed"));
    await chmod(join(own, "observed"), 0o1777);
    await table.put([{ name: "web", ports: instances.map(({ port }) => port) }]);
  });
  afterEach(async () => {
    for (const stop of stops.splice(0).reverse()) await stop();
    await Promise.all(instances.map((each) => each.stop()));
  });

  /** Runs a program to its end; its output. */
  async function hooked(program: string, ...words: string[]): Promise<string> {
    const { stdout } = await run(program, words, { env: { ...process.env, ...env }, timeout: 60_000 });
    return stdout;
  }

  /** Every answer is an instance's; how many instances gave one. */
  function spread(output: string, count: number): number {
    const answers = [...output.matchAll(/instance (\d)/g)].map(([, number]) => number);
    expect(answers, output).toHaveLength(count);
    return new Set(answers).size;
  }

  /** `ask` makes so many requests, one connection each: all are answered, by all instances; by the others when one is dead. */
  async function reachesSpreadsSurvives(ask: (requests: number) => Promise<string>): Promise<void> {
    expect(spread(await ask(40), 40)).toBe(3);
    // Gone without a word: the table still has it.
    await instances[0]?.stop();
    expect(spread(await ask(30), 30)).toBe(2);
    await instances[1]?.stop();
    expect(spread(await ask(20), 20)).toBe(1);
  }

  it("curl, a process for each request", async () => {
    await reachesSpreadsSurvives(async (requests) => {
      let output = "";
      for (let i = 0; i < requests; i++) output += await hooked("curl", "-sS", "--max-time", "20", `http://${NAME}/`);
      return output;
    });
    expect(await hooked("curl", "-sSv", `http://${NAME}:81/`)).toContain("instance 3");
  });

  it("curl, many requests of one process", async () => {
    await reachesSpreadsSurvives((requests) =>
      hooked("curl", "-sS", ...Array.from({ length: requests }, () => `http://${NAME}/`)),
    );
  });

  it("wget", async () => {
    await reachesSpreadsSurvives((requests) =>
      hooked("wget", "-q", "-O", "-", ...Array.from({ length: requests }, () => `http://${NAME}/`)),
    );
    // With a limit wget leaves connect by a jump out of a signal handler.
    expect(await hooked("wget", "-q", "-O", "-", "--connect-timeout=5", `http://${NAME}/`)).toContain("instance 3");
  });

  it("wget and curl, where the back ends have IPv6 addresses", async () => {
    const sixes = await Promise.all([1, 2, 3].map((number) => instance(number, "::1")));
    stops.push(...sixes.map((each) => each.stop));
    const backends = sixes.map(({ port }) => ({ address: "::1", port, weight: 1, tier: 0 as const, suspect: false }));
    await table.put([{ name: "web", ports: [], backends }]);
    const ask =
      (program: string, ...words: string[]) =>
      (requests: number): Promise<string> =>
        hooked(program, ...words, ...Array.from({ length: requests }, () => `http://${NAME}/`));
    expect(spread(await ask("wget", "-6", "-q", "-O", "-")(20), 20)).toBe(3);
    await sixes[0]?.stop();
    expect(spread(await ask("wget", "-q", "-O", "-")(20), 20)).toBe(2);
    expect(spread(await ask("curl", "-6", "-sS")(20), 20)).toBe(2);
  });

  it("curl --tcp-fastopen: who refuses is passed over, although connect would succeed before anything was sent", async () => {
    const host = await namespace();
    stops.push(() => host.stop());
    await host.run("sh", "-c", "echo 3 > /proc/sys/net/ipv4/tcp_fastopen");
    const log = join(own, "fast-open.log");
    const script = `
import socket
l = socket.socket(); l.setsockopt(socket.IPPROTO_TCP, 23, 16); l.bind(("127.0.0.1", 0)); l.listen(16)
refusing = socket.socket(); refusing.bind(("127.0.0.1", 0))
print(l.getsockname()[1], refusing.getsockname()[1], flush=True)
while True:
    c, _ = l.accept(); c.recv(1000); c.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\ninstance 1\\n"); c.close()`;
    const server = await startProgram(host.within(PYTHON, "-c", script), log);
    stops.push(() => server.stop("SIGKILL"));
    const [alive, dead] = await eventually("it listens", async () => {
      const ports = (await readFile(log, "utf8")).match(/\d+/g)?.map(Number) ?? [];
      return ports.length === 2 && (ports as [number, number]);
    });
    const curl = (...words: string[]): Promise<string> => {
      const [program = "", ...more] = host.within("curl", "-sS", "--tcp-fastopen", "-m", "10", ...words);
      return hooked(program, ...more);
    };
    // The kernel gets its cookie by the first, and uses it for the second.
    for (let i = 0; i < 2; i++) expect(await curl(`http://127.0.0.1:${alive}/`)).toBe("instance 1\n");
    await table.put([{ name: "web", ports: [dead, alive], policy: "first" }]);
    for (let i = 0; i < 5; i++) expect(await curl(`http://${NAME}/`)).toBe("instance 1\n");
  });

  it("python3: urllib3, pools of connections", async () => {
    const script = `
import urllib3, sys
pool = urllib3.PoolManager(timeout=20, retries=1)
for i in range(int(sys.argv[1])):
    print(pool.request("GET", "http://${NAME}/").data.decode())`;
    await reachesSpreadsSurvives((requests) => hooked(PYTHON, "-c", script, String(requests)));
  });

  it("python3: requests", async () => {
    const script = `
import requests, sys
for i in range(int(sys.argv[1])):
    print(requests.get("http://${NAME}/", timeout=20).text)`;
    await reachesSpreadsSurvives((requests) => hooked(PYTHON, "-c", script, String(requests)));
  });

  it("python3: asyncio", async () => {
    const script = `
import asyncio, sys
async def get():
    for last in (False, True):
        try:
            reader, writer = await asyncio.open_connection("${NAME}", 80)
            break
        except OSError:
            if last: raise
    writer.write(b"GET / HTTP/1.0\\r\\n\\r\\n")
    print((await reader.read()).decode())
    writer.close()
async def main():
    for i in range(int(sys.argv[1])): await get()
asyncio.run(main())`;
    await reachesSpreadsSurvives((requests) => hooked(PYTHON, "-c", script, String(requests)));
  });

  it("node: http and fetch", async () => {
    const script = `
const http = require("node:http");
const get = () => new Promise((done, failed) => http.get("http://${NAME}/", { agent: false }, (response) => {
  let text = ""; response.on("data", (data) => (text += data)).on("end", () => done(text));
}).on("error", failed));
const once = (i) => i % 2 === 0 ? get() : fetch("http://${NAME}/").then((response) => response.text());
(async () => {
  for (let i = 0; i < Number(process.argv[1]); i++) console.log(await once(i).catch(() => once(i)));
})();`;
    await reachesSpreadsSurvives((requests) => hooked(process.execPath, "-e", script, String(requests)));
  });

  it("java: HttpURLConnection and HttpClient", async () => {
    await writeFile(
      join(own, "Client.java"),
      `import java.net.*; import java.net.http.*; import java.util.*;
public class Client {
  static String get(HttpClient client, int i) throws Exception {
    if (i % 2 == 0)
      try (var in = new URL("http://${NAME}/").openConnection().getInputStream()) { return new String(in.readAllBytes()); }
    return client.send(HttpRequest.newBuilder(URI.create("http://${NAME}/")).build(), HttpResponse.BodyHandlers.ofString()).body();
  }
  public static void main(String[] words) throws Exception {
    var client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    for (int i = 0; i < Integer.parseInt(words[0]); i++) {
      String text;
      try { text = get(client, i); } catch (Exception first) { text = get(client, i); }
      System.out.println(text);
    }
  }
}`,
    );
    await run("javac", ["-d", own, join(own, "Client.java")]);
    await reachesSpreadsSurvives((requests) => hooked("java", "-Xshare:auto", "-cp", own, "Client", String(requests)));
  }, 120_000);

  /** Asks a proxy on this port, without the hook. */
  const through =
    (port: number) =>
    async (requests: number): Promise<string> => {
      let output = "";
      for (let i = 0; i < requests; i++) {
        const get = async (): Promise<string> => {
          const response = await fetch(`http://127.0.0.1:${port}/`, { headers: { connection: "close" } });
          if (response.status !== 200) throw new Error(`${response.status} ${await response.text()}`);
          return response.text();
        };
        output += await get().catch(get);
      }
      return output;
    };

  const listens = (port: number): Promise<unknown> =>
    eventually(`something listens on ${port}`, () =>
      fetch(`http://127.0.0.1:${port}/`).then(
        () => true,
        () => false,
      ),
    );

  it("nginx: proxy_pass", async () => {
    const port = await freePort();
    await writeFile(
      join(own, "nginx.conf"),
      `daemon off; worker_processes 2; pid ${own}/pid; error_log ${own}/error.log;
events {}
http {
  access_log off;
  client_body_temp_path ${own}/body; proxy_temp_path ${own}/proxy; fastcgi_temp_path ${own}/f; uwsgi_temp_path ${own}/u; scgi_temp_path ${own}/s;
  server { listen 127.0.0.1:${port}; location / { proxy_pass http://${NAME}; } }
}`,
    );
    const nginx = await startProgram(["nginx", "-c", join(own, "nginx.conf")], join(own, "log"), env);
    stops.push(() => nginx.stop());
    await listens(port);
    await reachesSpreadsSurvives(through(port));
  });

  it("HAProxy: a server line with the name, in a jail, also when the table is replaced", async () => {
    const jail = join(own, "jail");
    await mkdir(jail);
    const port = await freePort();
    await writeFile(
      join(own, "haproxy.cfg"),
      `global
  ${process.getuid?.() === 0 ? `chroot ${jail}` : ""}
defaults
  mode http
  timeout connect 5s
  timeout client 10s
  timeout server 10s
  option redispatch 1
listen web
  bind 127.0.0.1:${port}
  http-reuse never
  server web ${NAME}:80
`,
    );
    const haproxy = await startProgram(["haproxy", "-db", "-f", join(own, "haproxy.cfg")], join(own, "log"), env);
    stops.push(() => haproxy.stop("SIGTERM"));
    await listens(port);
    const ask = through(port);
    await reachesSpreadsSurvives(ask);
    const [another] = await Promise.all([4].map((number) => instance(number)));
    instances.push(another as Instance);
    await table.put([{ name: "web", ports: [(another as Instance).port] }]);
    expect(new Set((await ask(10)).trim().split("\n"))).toEqual(new Set(["instance 4"]));
  });

  it("redis-cli", async () => {
    const servers = await Promise.all(
      [1, 2, 3].map(async (number) => {
        const port = await freePort();
        const server = await startProgram(
          ["redis-server", "--port", String(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
          join(own, `redis-${number}.log`),
        );
        stops.push(() => server.stop("SIGKILL"));
        await eventually(`redis on ${port}`, async () =>
          (await run("redis-cli", ["-p", String(port), "SET", "who", `instance ${number}`])).stdout.startsWith("OK"),
        );
        return { port, server };
      }),
    );
    await table.put([{ name: "redis", ports: servers.map(({ port }) => port) }]);
    const ask = async (requests: number): Promise<string> => {
      let output = "";
      for (let i = 0; i < requests; i++)
        output += await hooked("redis-cli", "-h", "redis.service.consul", "GET", "who");
      return output;
    };
    expect(spread(await ask(40), 40)).toBe(3);
    await servers[0]?.server.stop("SIGKILL");
    expect(spread(await ask(30), 30)).toBe(2);
  });

  it("psql", async () => {
    const servers = await Promise.all(
      [1, 2].map(async (number) => {
        const home = await mkdtemp(join(folder, `postgres-${number}-`));
        await chmod(home, 0o755);
        const server = await startPostgres(home);
        stops.push(() => server.stop());
        return server;
      }),
    );
    await table.put([{ name: "db", ports: servers.map(({ port }) => port) }]);
    const ask = async (): Promise<string> =>
      (
        await hooked("psql", "-h", "db.service.consul", "-U", "test", "-Atc", "select inet_server_port()", "postgres")
      ).trim();
    const seen = new Set<string>();
    for (let i = 0; i < 20; i++) seen.add(await ask());
    expect(seen).toEqual(new Set(servers.map(({ port }) => String(port))));
    await servers[0]?.stop();
    for (let i = 0; i < 10; i++) expect(await ask()).toBe(String(servers[1]?.port));
  }, 120_000);

  it("datagrams: python3 and node, connected and not", async () => {
    const sockets = await Promise.all(
      [1, 2].map(async (number) => {
        const socket = createSocket("udp4");
        socket.on("message", (_data, from) => socket.send(`instance ${number}\n`, from.port, from.address));
        await new Promise<void>((done) => socket.bind(0, "127.0.0.1", done));
        stops.push(() => new Promise<void>((done) => socket.close(done)));
        return socket;
      }),
    );
    await table.put([{ name: "web", ports: sockets.map((socket) => socket.address().port), policy: "round-robin" }]);
    const python = `
import socket
said = socket.getaddrinfo("${NAME}", 53, socket.AF_INET, socket.SOCK_DGRAM)[0][4]
for i in range(20):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(20)
    if i % 2 == 0:
        s.connect(said); s.send(b"x"); print(s.recv(100).decode())
    else:
        s.sendto(b"x", said); data, source = s.recvfrom(100)
        assert source == said, (source, said)
        print(data.decode())
    s.close()`;
    expect(spread(await hooked(PYTHON, "-c", python), 20)).toBe(2);
    const node = `
const { createSocket } = require("node:dgram");
let left = 20;
for (let i = 0; i < left; i++) {
  const socket = createSocket("udp4");
  socket.on("message", (data, from) => {
    if (i % 2 === 1 && !from.address.startsWith("127.128.")) throw new Error(from.address);
    console.log(String(data)); socket.close();
  });
  if (i % 2 === 0) socket.connect(53, "${NAME}", () => socket.send("x"));
  else socket.send("x", 53, "${NAME}");
}`;
    expect(spread(await hooked(process.execPath, "-e", node), 20)).toBe(2);
  });

  it("a backend where no answer comes costs a program that waits one try, and the next goes elsewhere", async () => {
    const script = `
import socket, sys, time
for i in range(6):
    began = time.monotonic()
    s = socket.create_connection(("${NAME}", 80))
    print(f"took {time.monotonic() - began:.6f} {s.getpeername()[1]}")
    s.close()`;
    // An address that drops what it gets, on this host alone.
    const silent = { address: "127.0.0.1", port: 0, weight: 1, tier: 0 as const, suspect: false };
    const filler = await startProgram(
      [
        "python3",
        "-c",
        `
import socket, time, os, signal
l = socket.socket(); l.bind(("127.0.0.1", 0)); l.listen(0)
c = []
for i in range(4):
    s = socket.socket(); s.setblocking(False); s.connect_ex(l.getsockname()); c.append(s)
print(l.getsockname()[1], flush=True)
time.sleep(600)`,
      ],
      join(own, "filler.log"),
    );
    stops.push(() => filler.stop("SIGKILL"));
    const silentPort = await eventually(
      "a full listener",
      async () => Number(await readFile(join(own, "filler.log"), "utf8")) || undefined,
    );
    await table.put([
      {
        name: "web",
        ports: [],
        policy: "first",
        tryMs: 1_500,
        backends: [
          { ...silent, port: silentPort },
          { ...silent, port: instances[0]?.port ?? 0 },
        ],
      },
    ]);
    const took = [...(await hooked(PYTHON, "-c", script)).matchAll(/took ([\d.]+) (\d+)/g)].map(([, s, p]) => ({
      ms: Number(s) * 1000,
      port: Number(p),
    }));
    expect(took.map((each) => each.port)).toEqual(Array.from({ length: 6 }, () => instances[0]?.port));
    expect(took[0]?.ms).toBeGreaterThan(1_400);
    // Ejected: the others do not ask it again.
    expect(took.slice(1, 3).every((each) => each.ms < 1_400)).toBe(true);
  });
});
