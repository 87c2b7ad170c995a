// `trilith proxy` and magic addresses between real programs: redis, nginx, HAProxy, dnsmasq, curl, socat; backends and agents that are killed under load.
import { mkdir, readFile, stat, truncate, writeFile } from "node:fs/promises";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { eventually, freePort, havePrograms, ownFolder, startProgram } from "../support/peers.ts";
import { program, type RunningAgent, runToEnd, startAgent } from "../support/program.ts";

const here = await havePrograms(
  "redis-server",
  "redis-cli",
  "nginx",
  "haproxy",
  "dnsmasq",
  "dig",
  "curl",
  "socat",
  "nc",
  "prlimit",
);

type Program = Awaited<ReturnType<typeof startProgram>>;
type Figures = {
  readonly proxies: readonly {
    readonly name: string;
    readonly open: number;
    readonly total: number;
    readonly failed: number;
    readonly retries: number;
    readonly refused: number;
    readonly toBackend: number;
    readonly toClient: number;
    readonly backends: readonly { readonly port: number; readonly open: number; readonly total: number }[];
  }[];
};
interface Proxy {
  readonly pid: number;
  readonly port: number;
  readonly ended: Promise<number | null>;
  figures(): Promise<Figures["proxies"][number]>;
  log(): Promise<string>;
  stop(signal?: NodeJS.Signals): Promise<void>;
}

describe.skipIf(!here)("trilith proxy beside real programs", { timeout: 120_000 }, () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let agent: RunningAgent;
  let count = 0;
  const running: { stop(signal?: NodeJS.Signals): Promise<void> }[] = [];

  beforeAll(async () => {
    folder = await ownFolder("proxy");
    agent = await startAgent(["-dev"]);
  });
  afterEach(async () => {
    for (const each of running.splice(0).reverse()) await each.stop("SIGKILL");
  });
  afterAll(async () => {
    await agent.stop();
    await folder.remove();
  });

  const start = async (...command: readonly string[]): Promise<Program> => {
    const started = await startProgram(command, join(folder.path, `log-${++count}`));
    running.push(started);
    return started;
  };
  const answers = (port: number): Promise<unknown> =>
    eventually(
      `somebody listens at ${port}`,
      () =>
        new Promise<boolean>((resolve) => {
          const socket = connect(port, "127.0.0.1");
          socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
          socket.once("close", () => {}).end();
        }),
    );
  const register = async (name: string, port: number, ...flags: readonly string[]): Promise<void> => {
    const done = await agent.trilith([
      ...["register", "--name", name, "--id", `${name}-${port}`, "--address", "127.0.0.1", "--port", `${port}`],
      ...flags,
    ]);
    expect(done).toMatchObject({ exitCode: 0 });
    // Where the agent was replaced meanwhile, the new one knows nothing of it.
    const id = `${agent.url}/v1/agent/service/deregister/${name}-${port}`;
    running.push({ stop: async () => void (await fetch(id, { method: "PUT" }).catch(() => undefined)) });
  };
  /** With "PORT" in the rule for a free port. */
  const proxy = async (rule: string, flags: readonly string[] = [], prefix: readonly string[] = []): Promise<Proxy> => {
    const [port, status] = [await freePort(), await freePort()];
    const logFile = join(folder.path, `proxy-${port}`);
    const command = [
      process.execPath,
      program,
      "proxy",
      rule.replace("PORT", `${port}`),
      "--status",
      `${status}`,
      ...flags,
    ];
    const started = await startProgram([...prefix, ...command], logFile, { TRILITH_HTTP_ADDR: agent.url });
    running.push(started);
    await eventually("the proxy is there", async () => /stands for/.test(await readFile(logFile, "utf8")));
    const figures = async (): Promise<Figures["proxies"][number]> => {
      const { proxies } = (await (await fetch(`http://127.0.0.1:${status}/`)).json()) as Figures;
      return proxies[0] as Figures["proxies"][number];
    };
    return {
      pid: started.pid,
      port,
      ended: started.ended,
      figures,
      log: () => readFile(logFile, "utf8"),
      stop: started.stop,
    };
  };
  const nginx = async (body: string): Promise<Program> => {
    const own = join(folder.path, `nginx-${++count}`);
    await mkdir(join(own, "tmp"), { recursive: true });
    const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
      .map((name) => `${name}_temp_path ${own}/tmp;`)
      .join(" ");
    await writeFile(
      join(own, "conf"),
      `daemon off; master_process off; pid ${own}/pid; error_log ${own}/error.log; events {} http { access_log off; ${temporary} ${body} }`,
    );
    return start("nginx", "-c", join(own, "conf"), "-p", own, "-e", join(own, "error.log"));
  };
  const curl = (...args: readonly string[]): ReturnType<typeof runToEnd> =>
    runToEnd(["curl", "-s", "--max-time", "30", ...args]);

  it("redis-cli speaks with a redis that it has no address of, also after the agent was killed and redis moved", async () => {
    const [first, second] = [await freePort(), await freePort()];
    const redis = await start("redis-server", "--port", `${first}`, "--save", "");
    await answers(first);
    await register("redis", first);
    const { port, log, figures } = await proxy("PORT=redis.service.consul");
    const cli = (...words: readonly string[]): ReturnType<typeof runToEnd> =>
      runToEnd(["redis-cli", "-p", `${port}`, ...words]);
    expect((await cli("set", "key", "value")).out).toBe("OK\n");
    expect((await cli("get", "key")).out).toBe("value\n");
    const big = "x".repeat(3_000_000);
    expect((await runToEnd(["redis-cli", "-p", `${port}`, "-x", "set", "big"], {}, big)).out).toBe("OK\n");
    expect((await cli("get", "big")).out.trim()).toHaveLength(big.length);
    await start("redis-server", "--port", `${second}`, "--save", "");
    await answers(second);
    await register("redis", second);
    await redis.stop("SIGKILL");
    for (let i = 0; i < 5; i++) expect((await cli("ping")).out).toBe("PONG\n");
    await agent.stop();
    try {
      await eventually("the proxy noticed", async () => /last known good/.test(await log()));
      expect((await cli("ping")).out).toBe("PONG\n");
      expect((await figures()).failed).toBe(0);
      await eventually("nobody is left", async () => (await figures()).open === 0);
    } finally {
      agent = await startAgent(["-dev"]);
    }
  });

  it("no connection fails while backends that speak first are killed and come back, as long as one is there", async () => {
    const ports = [await freePort(), await freePort(), await freePort()];
    const greeter = (i: number): Promise<Program> =>
      start(process.execPath, join(import.meta.dirname, "../support/greeter.mjs"), `${ports[i]}`, `g${i}`);
    const servers: Program[] = [];
    for (const [i, port] of ports.entries()) {
      servers.push(await greeter(i));
      await answers(port);
      await register("greeter", port);
    }
    const { port, figures } = await proxy("PORT=greeter");
    const greeting = (): Promise<string> =>
      new Promise((resolve) => {
        const socket = connect({ port, host: "127.0.0.1" });
        let heard = "";
        socket.on("data", (data) => {
          heard += data;
        });
        socket.on("error", (error) => resolve(`error: ${error.message} after "${heard}"`));
        socket.on("end", () => resolve(heard));
      });
    let over = false;
    const heard = new Map<string, number>();
    const client = async (): Promise<void> => {
      while (!over) {
        const word = await greeting();
        heard.set(word, (heard.get(word) ?? 0) + 1);
      }
    };
    const clients = Array.from({ length: 12 }, client);
    for (let round = 0; round < 6; round++) {
      const i = round % 3;
      await servers[i]?.stop("SIGKILL");
      await eventually("others were asked meanwhile", async () => {
        const before = (await figures()).total;
        return await eventually("go on", async () => (await figures()).total > before + 40);
      });
      servers[i] = await greeter(i);
      await answers(ports[i] as number);
      await eventually("it is used again", async () => {
        const { backends } = await figures();
        const before = backends.find((each) => each.port === ports[i])?.total ?? 0;
        return await eventually("once more", async () => {
          const now = (await figures()).backends.find((each) => each.port === ports[i])?.total ?? 0;
          return now > before;
        });
      });
    }
    over = true;
    await Promise.all(clients);
    expect([...heard.keys()].sort()).toEqual(["g0\n", "g1\n", "g2\n"]);
    const { failed, retries, total } = await figures();
    expect(failed).toBe(0);
    expect(retries).toBeGreaterThan(0);
    expect(total).toBeGreaterThan(200);
  });

  it("services of other datacenters are reached through an agent that knows them; where it does not, that is said", async () => {
    const far = await startAgent(["-dev", "--datacenter", "dc2"]);
    running.push({ stop: () => far.stop() });
    const config = join(folder.path, "datacenters.json");
    await writeFile(config, JSON.stringify({ datacenters: { dc2: [far.url] } }));
    const own = agent;
    agent = await startAgent(["-dev", "--config-file", config]);
    try {
      const [first, second] = [await freePort(), await freePort()];
      for (const port of [first, second]) {
        await start("redis-server", "--port", `${port}`, "--save", "");
        await answers(port);
      }
      const registered = (port: number): Promise<unknown> =>
        far.trilith(["register", "--name", "redis", "--id", "r", "--address", "127.0.0.1", "--port", `${port}`]);
      await registered(first);
      // One of the same name here: it is not meant.
      await register("redis", await freePort());
      const { port, figures } = await proxy("PORT=redis.service.dc2.consul");
      const cli = (...words: readonly string[]): ReturnType<typeof runToEnd> =>
        runToEnd(["redis-cli", "-p", `${port}`, ...words]);
      expect((await cli("ping")).out).toBe("PONG\n");
      await registered(second);
      await eventually("it moved", async () => {
        expect((await cli("ping")).out).toBe("PONG\n");
        return (await figures()).backends.some((each) => each.port === second);
      });
      await far.stop();
      expect((await cli("ping")).out).toBe("PONG\n");
      expect((await figures()).failed).toBe(0);
      const nowhere = await proxy("PORT=redis.service.dc9.consul");
      await eventually("it is said", async () =>
        /datacenter "dc9" is not known here; known are "dc1", "dc2"/.test(await nowhere.log()),
      );
    } finally {
      await agent.stop();
      agent = own;
    }
  });

  it("HAProxy and nginx read who connects from the PROXY protocol", async () => {
    const [ha, ng] = [await freePort(), await freePort()];
    const config = join(folder.path, "haproxy.cfg");
    await writeFile(
      config,
      `defaults
  mode http
  timeout client 5s
  timeout connect 5s
  timeout server 5s
frontend f
  bind 127.0.0.1:${ha} accept-proxy
  http-request return status 200 content-type text/plain lf-string "%ci:%cp at %fi:%fp"
`,
    );
    await start("haproxy", "-f", config);
    await nginx(
      `server { listen 127.0.0.1:${ng} proxy_protocol; location / { return 200 "$proxy_protocol_addr:$proxy_protocol_port at $proxy_protocol_server_addr:$proxy_protocol_server_port"; } }`,
    );
    await Promise.all([answers(ha), answers(ng)]);
    await register("seen-by-haproxy", ha);
    await register("seen-by-nginx", ng);
    for (const service of ["seen-by-haproxy", "seen-by-nginx"])
      for (const version of ["1", "2"]) {
        const { port, stop } = await proxy(`PORT=${service}`, ["--proxy-protocol", version]);
        const { out } = await curl("-w", " from %{local_port}", `http://127.0.0.1:${port}/`);
        const [, seen, at, own] = /^127\.0\.0\.1:(\d+) at 127\.0\.0\.1:(\d+) from (\d+)$/.exec(out) ?? [];
        expect([version, seen, at], `${service}: ${out}`).toEqual([version, own, `${port}`]);
        await stop();
      }
  });

  it("each direction ends by itself, as nc and socat's wc expect it", async () => {
    const backend = await freePort();
    await start("socat", `TCP-LISTEN:${backend},fork,reuseaddr,bind=127.0.0.1`, "SYSTEM:wc -c");
    await answers(backend);
    await register("count", backend);
    const { port } = await proxy("PORT=count");
    const text = "x".repeat(1_000_000);
    expect((await runToEnd(["nc", "-N", "127.0.0.1", `${port}`], {}, text)).out.trim()).toBe("1000000");
    expect((await runToEnd(["socat", "-t", "20", "-", `TCP:127.0.0.1:${port}`], {}, text)).out.trim()).toBe("1000000");
  });

  it("dig asks dnsmasq by UDP and TCP, and another one when that is killed", async () => {
    const ports = [await freePort(), await freePort()];
    const servers: Program[] = [];
    for (const [i, port] of ports.entries()) {
      servers.push(
        await start(
          ...[
            "dnsmasq",
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--bind-interfaces",
          ],
          ...["--listen-address=127.0.0.1", `--port=${port}`, `--address=/who.example/192.0.2.${i + 1}`, "--user=root"],
        ),
      );
      await answers(port);
      await register("resolver", port);
    }
    const udp = await proxy("PORT/udp=resolver", ["--policy", "first"]);
    const tcp = await proxy("PORT=resolver", ["--policy", "first"]);
    const dig = async (port: number, ...more: readonly string[]): Promise<string> =>
      (
        await runToEnd(["dig", "+short", "+tries=1", "+time=5", "@127.0.0.1", "-p", `${port}`, "who.example", ...more])
      ).out.trim();
    const first = await dig(udp.port);
    expect(first).toMatch(/^192\.0\.2\.[12]$/);
    expect(await dig(tcp.port, "+tcp")).toBe(first);
    // One client for all: its backend dies under it.
    const from = await freePort();
    expect(await dig(udp.port, "-b", `127.0.0.1#${from}`)).toBe(first);
    await servers[Number(first.at(-1)) - 1]?.stop("SIGKILL");
    const other = first === "192.0.2.1" ? "192.0.2.2" : "192.0.2.1";
    expect(await dig(udp.port, "-b", `127.0.0.1#${from}`)).toBe(other);
    expect(await dig(udp.port)).toBe(other);
    expect(await dig(tcp.port, "+tcp")).toBe(other);
    expect((await udp.figures()).failed).toBe(0);
  });

  describe("with large files", () => {
    let port = 0;
    beforeAll(async () => {
      port = await freePort();
      const root = join(folder.path, "root");
      await mkdir(root, { recursive: true });
      await writeFile(join(root, "file"), "");
      await truncate(join(root, "file"), 400_000_000);
      expect((await stat(join(root, "file"))).size).toBe(400_000_000);
    });
    const files = async (): Promise<void> => {
      await nginx(
        `server { listen 127.0.0.1:${port}; root ${join(folder.path, "root")}; location /slow/ { alias ${join(folder.path, "root")}/; limit_rate 2m; } }`,
      );
      await answers(port);
      await register("files", port);
    };

    it("slow readers slow their sender down: the proxy's memory does not grow with what they leave lying", async () => {
      await files();
      const { port: own, pid, figures } = await proxy("PORT=files");
      const residentBytes = async (): Promise<number> =>
        Number(/VmRSS:\s+(\d+)/.exec(await readFile(`/proc/${pid}/status`, "utf8"))?.[1]) * 1_024;
      await curl("-o", "/dev/null", `http://127.0.0.1:${own}/file`);
      const before = await residentBytes();
      const slow = [];
      for (let i = 0; i < 20; i++)
        slow.push(await start("curl", "-s", "--limit-rate", "50k", "-o", "/dev/null", `http://127.0.0.1:${own}/file`));
      await eventually("all twenty are under way, and it stands still but for a trickle", async () => {
        const one = await figures();
        await new Promise((resolve) => setTimeout(resolve, 1_000));
        const other = await figures();
        const trickle = other.toClient - one.toClient;
        return one.open === 20 && other.open === 20 && trickle > 0 && trickle < 10_000_000;
      });
      expect((await residentBytes()) - before).toBeLessThan(60_000_000);
      // Somebody fast is not held up by them.
      const { out } = await curl("-o", "/dev/null", "-w", "%{size_download}", `http://127.0.0.1:${own}/file`);
      expect(out).toBe("400000000");
    });

    it("SIGTERM: transfers under way end well, new ones are refused; then it exits with 0", async () => {
      await files();
      const proxied = await proxy("PORT=files", ["--drain", "30s"]);
      const transfer = curl(
        "-o",
        "/dev/null",
        "-w",
        "%{size_download} %{exitcode}",
        "-r",
        "0-9999999",
        `http://127.0.0.1:${proxied.port}/slow/file`,
      );
      await eventually("the transfer is under way", async () => (await proxied.figures()).toClient > 1_000_000);
      process.kill(proxied.pid, "SIGTERM");
      await eventually(
        "new ones are refused",
        async () => (await curl(`http://127.0.0.1:${proxied.port}/`)).exitCode === 7,
      );
      expect((await transfer).out).toBe("10000000 0");
      expect(await proxied.ended).toBe(0);
      expect(await proxied.log()).toMatch(/1 open connections may go on for 30 s/);
    });

    it("what is not over in time is cut", async () => {
      await files();
      const proxied = await proxy("PORT=files", ["--drain", "500ms"]);
      const transfer = curl("-o", "/dev/null", `http://127.0.0.1:${proxied.port}/slow/file`);
      await eventually("the transfer is under way", async () => (await proxied.figures()).toClient > 1_000_000);
      process.kill(proxied.pid, "SIGTERM");
      expect((await transfer).exitCode).not.toBe(0);
      expect(await proxied.ended).toBe(0);
    });
  });

  it("two thousand connections at once, each with its own words", async () => {
    const backend = await freePort();
    const sockets = new Set<Socket>();
    const echo = createServer((socket) => {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.pipe(socket);
    });
    await new Promise<void>((done) => void echo.listen({ port: backend, host: "127.0.0.1", backlog: 4_096 }, done));
    await register("echo", backend);
    const { port, figures } = await proxy("PORT=echo");
    const clients: Socket[] = [];
    const say = (i: number): Promise<boolean> =>
      new Promise((resolve, reject) => {
        const socket = connect(port, "127.0.0.1");
        clients.push(socket);
        socket.once("error", reject);
        socket.once("data", (data) => resolve(String(data) === `I am ${i}`));
        socket.write(`I am ${i}`);
      });
    try {
      for (let i = 0; i < 2_000; i += 100)
        expect(await Promise.all(Array.from({ length: 100 }, (_, j) => say(i + j)))).not.toContain(false);
      expect(await figures()).toMatchObject({ open: 2_000, failed: 0, refused: 0, retries: 0 });
      // All are still there, and none has another one's words.
      const again = clients.map(
        (socket, i) =>
          new Promise<boolean>((resolve) => {
            socket.once("data", (data) => resolve(String(data) === `still ${i}`));
            socket.write(`still ${i}`);
          }),
      );
      expect(await Promise.all(again)).not.toContain(false);
    } finally {
      for (const socket of [...clients, ...sockets]) socket.destroy();
      await new Promise((done) => echo.close(done));
    }
    await eventually("all are gone", async () => (await figures()).open === 0);
  });

  it("few open files: who is too many is reset at once and told of, and it goes on when there is room", async () => {
    const backend = await freePort();
    await start("socat", `TCP-LISTEN:${backend},fork,reuseaddr,bind=127.0.0.1,backlog=128`, "EXEC:cat");
    await answers(backend);
    await register("cat", backend);
    const proxied = await proxy("PORT=cat", [], ["prlimit", "--nofile=200:200"]);
    const results = Array.from({ length: 60 }, () => {
      const socket = connect({ port: proxied.port, host: "127.0.0.1" });
      const said = new Promise<string>((resolve) => {
        socket.once("data", (data) => resolve(String(data)));
        socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? ""));
      });
      socket.write("hello");
      return { socket, said };
    });
    const words = await Promise.all(results.map(({ said }) => said));
    const served = words.filter((word) => word === "hello").length;
    expect(served).toBe(36);
    expect(words.filter((word) => /ECONNRESET|EPIPE/.test(word))).toHaveLength(24);
    expect(await proxied.figures()).toMatchObject({ open: 36, refused: 24 });
    expect(await proxied.log()).toMatch(/too many connections: 36 are open, and this process may have 200 files/);
    for (const { socket } of results) socket.destroy();
    await eventually("they are gone", async () => (await proxied.figures()).open === 0);
    expect((await runToEnd(["nc", "-N", "127.0.0.1", `${proxied.port}`], {}, "again")).out).toBe("again");
  });

  it.each([
    [["proxy"], /missing required argument/],
    [["proxy", "redis"], /trilith proxy: "redis": expected \[HOST:\]PORT\[\/udp\]=NAME, such as "6379=redis"/],
    [["proxy", "6379=10.0.0.1:6379"], /leave out ":6379"/],
    [["proxy", "0=web", "--policy", "fair"], /--policy: "fair": expected one of p2c, round-robin/],
    [["proxy", "0=web", "--proxy-protocol", "3"], /--proxy-protocol: "3": expected 1 or 2/],
    [["proxy", "53/udp=dns", "--proxy-protocol"], /53\/udp: the PROXY protocol is for TCP only/],
    [["proxy", "0=web", "--drain", "soon"], /--drain: time: invalid duration "soon"/],
    [["proxy", "80=a", "127.0.0.1:80=b"], /127\.0\.0\.1:80\/tcp is given twice/],
    [["proxy", "0=web", "--bind", "here"], /"here": expected an IP address/],
  ])("%j says what is wrong and what would be right", async (words, message) => {
    const { exitCode, err } = await runToEnd([process.execPath, program, ...words]);
    expect(err).toMatch(message);
    expect(exitCode).toBe(2);
  });

  it("says which port is taken, and opens none", async () => {
    const [free, taken] = [await freePort(), await freePort()];
    await start("socat", `TCP-LISTEN:${taken},fork,reuseaddr,bind=127.0.0.1`, "EXEC:cat");
    await answers(taken);
    const { exitCode, err } = await runToEnd([process.execPath, program, "proxy", `${free}=a`, `${taken}=b`]);
    expect(err).toMatch(new RegExp(`listening on TCP 127\\.0\\.0\\.1:${taken}: .*EADDRINUSE`));
    expect(exitCode).toBe(1);
  });

  it("SIGUSR1 prints the figures; Prometheus gets them, too", async () => {
    const backend = await freePort();
    await start("socat", `TCP-LISTEN:${backend},fork,reuseaddr,bind=127.0.0.1`, "EXEC:cat");
    await answers(backend);
    await register("cat2", backend);
    const proxied = await proxy("PORT=cat2");
    expect((await runToEnd(["nc", "-N", "127.0.0.1", `${proxied.port}`], {}, "four")).out).toBe("four");
    await eventually("it is over", async () => (await proxied.figures()).open === 0);
    process.kill(proxied.pid, "SIGUSR1");
    const lines = new RegExp(
      `LISTENING[^]*127\\.0\\.0\\.1:${proxied.port} +cat2 +0 +1 +0 +0 +4 B +4 B\\n +127\\.0\\.0\\.1:${backend} +0 +1 +0 +4 B +4 B`,
    );
    await eventually("figures", async () => {
      const log = await proxied.log();
      if (!lines.test(log)) throw new Error(log);
      return true;
    });
    const status = /figures at (http:\S+)/.exec(await proxied.log())?.[1];
    expect(await (await fetch(`${status}metrics`)).text()).toMatch(
      new RegExp(`trilith_proxy_bytes_total\\{proxy="${proxied.port}=cat2",to="client"\\} 4`),
    );
    expect((await fetch(`${status}else`)).status).toBe(404);
  });
});

describe.skipIf(!here)("magic addresses without the hook", () => {
  it("curl reaches a service by the name that DNS gives an address of its own", async () => {
    const folder = await ownFolder("proxy-magic");
    const [dns, http, backend, port] = [await freePort(), await freePort(), await freePort(), await freePort()];
    const config = join(folder.path, "config.json");
    await writeFile(config, JSON.stringify({ protocols: { proxy: { magic: true, ports: { web: [port] } } } }));
    const flags = ["--http-port", `${http}`, "--dns-port", `${dns}`, "--docker-host", "off", "--config-file", config];
    const agent = await startProgram([process.execPath, program, "agent", "-dev", ...flags], join(folder.path, "log"));
    const conf = join(folder.path, "nginx.conf");
    const where = `pid ${folder.path}/pid; error_log ${folder.path}/error.log;`;
    const site = `server { listen 127.0.0.1:${backend}; location / { return 200 "hello"; } }`;
    const kept = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(
      (name) => `${name}_temp_path ${folder.path};`,
    );
    await writeFile(conf, `daemon off; ${where} events {} http { access_log off; ${kept.join(" ")} ${site} }`);
    const server = await startProgram(
      ["nginx", "-c", conf, "-p", folder.path, "-e", join(folder.path, "error.log")],
      join(folder.path, "nginx"),
    );
    try {
      const env = { CONSUL_HTTP_ADDR: `http://127.0.0.1:${http}` };
      const words = ["register", "--name", "web", "--address", "127.0.0.1", "--port", `${backend}`];
      await eventually(
        "it is registered",
        async () => (await runToEnd([process.execPath, program, ...words], env)).exitCode === 0,
      );
      const address = await eventually("it has an address", async () => {
        const { out } = await runToEnd(["dig", "+short", "@127.0.0.1", "-p", `${dns}`, "web.connect.consul"]);
        return /^127\.\d+\.\d+\.\d+$/.test(out.trim()) && out.trim();
      });
      const { out } = await eventually("it answers", async () => {
        const done = await runToEnd([
          ...["curl", "-s", "--max-time", "5", "--resolve", `web.connect.consul:${port}:${address}`],
          `http://web.connect.consul:${port}/`,
        ]);
        return done.exitCode === 0 && done;
      });
      expect(out).toBe("hello");
      const doctor = await runToEnd([process.execPath, program, "doctor"], env);
      expect(doctor.out).toMatch(/magic addresses in 127\.128\.0\.0\/9: 1 port of 1 service answers/);
    } finally {
      await server.stop();
      await agent.stop();
      await folder.remove();
    }
  });
});
