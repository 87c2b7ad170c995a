// Real programs under the hook: each reaches instances on random ports by name, spreads its connections and survives a dead one.
import { execFile } from "node:child_process";
import { createSocket } from "node:dgram";
import { chmod, mkdir, mkdtemp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { hooked, type Instance, instance, NAME, spread } from "../support/hooked.ts";
import { namespace } from "../support/lan.ts";
import { eventually, freePort, havePrograms, startProgram } from "../support/peers.ts";
import { startPostgres } from "../support/postgres.ts";

const run = promisify(execFile);
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

describe.runIf(here)("programs under the hook", { timeout: 120_000 }, () => {
  const lab = hooked();

  it("curl, a process for each request", async () => {
    await lab.reachesSpreadsSurvives(async (requests) => {
      let output = "";
      for (let i = 0; i < requests; i++) output += await lab.run("curl", "-sS", "--max-time", "20", `http://${NAME}/`);
      return output;
    });
    expect(await lab.run("curl", "-sSv", `http://${NAME}:81/`)).toContain("instance 3");
  });

  it("curl, many requests of one process", async () => {
    await lab.reachesSpreadsSurvives((requests) =>
      lab.run("curl", "-sS", ...Array.from({ length: requests }, () => `http://${NAME}/`)),
    );
  });

  it("wget", async () => {
    await lab.reachesSpreadsSurvives((requests) =>
      lab.run("wget", "-q", "-O", "-", ...Array.from({ length: requests }, () => `http://${NAME}/`)),
    );
    // With a limit wget leaves connect by a jump out of a signal handler.
    expect(await lab.run("wget", "-q", "-O", "-", "--connect-timeout=5", `http://${NAME}/`)).toContain("instance 3");
  });

  it("wget and curl, where the back ends have IPv6 addresses", async () => {
    const sixes = await Promise.all([1, 2, 3].map((number) => instance(number, "::1")));
    lab.stops.push(...sixes.map((each) => each.stop));
    const backends = sixes.map(({ port }) => ({ address: "::1", port, weight: 1, tier: 0 as const, suspect: false }));
    await lab.table.put([{ name: "web", ports: [], backends }]);
    const ask =
      (program: string, ...words: string[]) =>
      (requests: number): Promise<string> =>
        lab.run(program, ...words, ...Array.from({ length: requests }, () => `http://${NAME}/`));
    expect(spread(await ask("wget", "-6", "-q", "-O", "-")(20), 20)).toBe(3);
    await sixes[0]?.stop();
    expect(spread(await ask("wget", "-q", "-O", "-")(20), 20)).toBe(2);
    expect(spread(await ask("curl", "-6", "-sS")(20), 20)).toBe(2);
  });

  it("curl --tcp-fastopen: who refuses is passed over, although connect would succeed before anything was sent", async () => {
    const host = await namespace();
    lab.stops.push(() => host.stop());
    await host.run("sh", "-c", "echo 3 > /proc/sys/net/ipv4/tcp_fastopen");
    const log = join(lab.own, "fast-open.log");
    const script = `
import socket
l = socket.socket(); l.setsockopt(socket.IPPROTO_TCP, 23, 16); l.bind(("127.0.0.1", 0)); l.listen(16)
refusing = socket.socket(); refusing.bind(("127.0.0.1", 0))
print(l.getsockname()[1], refusing.getsockname()[1], flush=True)
while True:
    c, _ = l.accept(); c.recv(1000); c.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\ninstance 1\\n"); c.close()`;
    const server = await startProgram(host.within(PYTHON, "-c", script), log);
    lab.stops.push(() => server.stop("SIGKILL"));
    const [alive, dead] = await eventually("it listens", async () => {
      const ports = (await readFile(log, "utf8")).match(/\d+/g)?.map(Number) ?? [];
      return ports.length === 2 && (ports as [number, number]);
    });
    const curl = (...words: string[]): Promise<string> => {
      const [program = "", ...more] = host.within("curl", "-sS", "--tcp-fastopen", "-m", "10", ...words);
      return lab.run(program, ...more);
    };
    // The kernel gets its cookie by the first, and uses it for the second.
    for (let i = 0; i < 2; i++) expect(await curl(`http://127.0.0.1:${alive}/`)).toBe("instance 1\n");
    await lab.table.put([{ name: "web", ports: [dead, alive], policy: "first" }]);
    for (let i = 0; i < 5; i++) expect(await curl(`http://${NAME}/`)).toBe("instance 1\n");
  });

  it("python3: urllib3, pools of connections", async () => {
    const script = `
import urllib3, sys
pool = urllib3.PoolManager(timeout=20, retries=1)
for i in range(int(sys.argv[1])):
    print(pool.request("GET", "http://${NAME}/").data.decode())`;
    await lab.reachesSpreadsSurvives((requests) => lab.run(PYTHON, "-c", script, String(requests)));
  });

  it("python3: requests", async () => {
    const script = `
import requests, sys
for i in range(int(sys.argv[1])):
    print(requests.get("http://${NAME}/", timeout=20).text)`;
    await lab.reachesSpreadsSurvives((requests) => lab.run(PYTHON, "-c", script, String(requests)));
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
    await lab.reachesSpreadsSurvives((requests) => lab.run(PYTHON, "-c", script, String(requests)));
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
    await lab.reachesSpreadsSurvives((requests) => lab.run(process.execPath, "-e", script, String(requests)));
  });

  it("java: HttpURLConnection and HttpClient", async () => {
    await writeFile(
      join(lab.own, "Client.java"),
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
    await run("javac", ["-d", lab.own, join(lab.own, "Client.java")]);
    await lab.reachesSpreadsSurvives((requests) =>
      lab.run("java", "-Xshare:auto", "-cp", lab.own, "Client", String(requests)),
    );
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
      join(lab.own, "nginx.conf"),
      `daemon off; worker_processes 2; pid ${lab.own}/pid; error_log ${lab.own}/error.log;
events {}
http {
  access_log off;
  client_body_temp_path ${lab.own}/body; proxy_temp_path ${lab.own}/proxy; fastcgi_temp_path ${lab.own}/f; uwsgi_temp_path ${lab.own}/u; scgi_temp_path ${lab.own}/s;
  server { listen 127.0.0.1:${port}; location / { proxy_pass http://${NAME}; } }
}`,
    );
    const nginx = await startProgram(["nginx", "-c", join(lab.own, "nginx.conf")], join(lab.own, "log"), lab.env);
    lab.stops.push(() => nginx.stop());
    await listens(port);
    await lab.reachesSpreadsSurvives(through(port));
  });

  it("HAProxy: a server line with the name, in a jail, also when the table is replaced", async () => {
    const jail = join(lab.own, "jail");
    await mkdir(jail);
    const port = await freePort();
    await writeFile(
      join(lab.own, "haproxy.cfg"),
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
    const haproxy = await startProgram(
      ["haproxy", "-db", "-f", join(lab.own, "haproxy.cfg")],
      join(lab.own, "log"),
      lab.env,
    );
    lab.stops.push(() => haproxy.stop("SIGTERM"));
    await listens(port);
    const ask = through(port);
    await lab.reachesSpreadsSurvives(ask);
    const [another] = await Promise.all([4].map((number) => instance(number)));
    lab.instances.push(another as Instance);
    await lab.table.put([{ name: "web", ports: [(another as Instance).port] }]);
    expect(new Set((await ask(10)).trim().split("\n"))).toEqual(new Set(["instance 4"]));
  });

  it("redis-cli", async () => {
    const servers = await Promise.all(
      [1, 2, 3].map(async (number) => {
        const port = await freePort();
        const server = await startProgram(
          ["redis-server", "--port", String(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
          join(lab.own, `redis-${number}.log`),
        );
        lab.stops.push(() => server.stop("SIGKILL"));
        await eventually(`redis on ${port}`, async () =>
          (await run("redis-cli", ["-p", String(port), "SET", "who", `instance ${number}`])).stdout.startsWith("OK"),
        );
        return { port, server };
      }),
    );
    await lab.table.put([{ name: "redis", ports: servers.map(({ port }) => port) }]);
    const ask = async (requests: number): Promise<string> => {
      let output = "";
      for (let i = 0; i < requests; i++)
        output += await lab.run("redis-cli", "-h", "redis.service.consul", "GET", "who");
      return output;
    };
    expect(spread(await ask(40), 40)).toBe(3);
    await servers[0]?.server.stop("SIGKILL");
    expect(spread(await ask(30), 30)).toBe(2);
  });

  it("psql", async () => {
    const servers = await Promise.all(
      [1, 2].map(async (number) => {
        const home = await mkdtemp(join(lab.folder, `postgres-${number}-`));
        await chmod(home, 0o755);
        const server = await startPostgres(home);
        lab.stops.push(() => server.stop());
        return server;
      }),
    );
    await lab.table.put([{ name: "db", ports: servers.map(({ port }) => port) }]);
    const ask = async (): Promise<string> =>
      (
        await lab.run("psql", "-h", "db.service.consul", "-U", "test", "-Atc", "select inet_server_port()", "postgres")
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
        lab.stops.push(() => new Promise<void>((done) => socket.close(done)));
        return socket;
      }),
    );
    await lab.table.put([
      { name: "web", ports: sockets.map((socket) => socket.address().port), policy: "round-robin" },
    ]);
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
    expect(spread(await lab.run(PYTHON, "-c", python), 20)).toBe(2);
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
    expect(spread(await lab.run(process.execPath, "-e", node), 20)).toBe(2);
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
      join(lab.own, "filler.log"),
    );
    lab.stops.push(() => filler.stop("SIGKILL"));
    const silentPort = await eventually(
      "a full listener",
      async () => Number(await readFile(join(lab.own, "filler.log"), "utf8")) || undefined,
    );
    await lab.table.put([
      {
        name: "web",
        ports: [],
        policy: "first",
        tryMs: 1_500,
        backends: [
          { ...silent, port: silentPort },
          { ...silent, port: lab.instances[0]?.port ?? 0 },
        ],
      },
    ]);
    const took = [...(await lab.run(PYTHON, "-c", script)).matchAll(/took ([\d.]+) (\d+)/g)].map(([, s, p]) => ({
      ms: Number(s) * 1000,
      port: Number(p),
    }));
    expect(took.map((each) => each.port)).toEqual(Array.from({ length: 6 }, () => lab.instances[0]?.port));
    expect(took[0]?.ms).toBeGreaterThan(1_400);
    // Ejected: the others do not ask it again.
    expect(took.slice(1, 3).every((each) => each.ms < 1_400)).toBe(true);
  });
});
