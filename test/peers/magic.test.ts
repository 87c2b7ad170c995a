// Programs without the hook reach services by NAME.connect.consul through an agent as it comes, on a host of their own (a network namespace with its own resolv.conf).
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { eventually, havePrograms, ownFolder, startProgram } from "../support/peers.ts";
import { type Done, program, runToEnd } from "../support/program.ts";

const here =
  (await havePrograms("ip", "dig", "curl", "redis-server", "redis-cli", "socat", "nginx", "musl-gcc", "setpriv")) &&
  process.getuid?.() === 0;
const name = `trilith-magic-${process.pid}`;
const settings = join("/etc/netns", name);
type Program = Awaited<ReturnType<typeof startProgram>>;

/** A program without a C library of its own to load: nothing can be hooked in it. */
const STATIC = `#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
int main(int argc, char **argv) {
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
  if (argc < 3 || getaddrinfo(argv[1], argv[2], &hints, &found) != 0) return 2;
  int fd = socket(found->ai_family, SOCK_STREAM, 0);
  if (connect(fd, found->ai_addr, found->ai_addrlen) != 0) return 3;
  if (write(fd, "PING\\r\\n", 6) != 6) return 4;
  char text[64];
  ssize_t n = read(fd, text, sizeof text);
  return n < 0 || fwrite(text, 1, n, stdout) != (size_t)n;
}
`;

describe.skipIf(!here)("magic addresses of an agent without configuration", { timeout: 120_000 }, () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let agent: Program | undefined;
  /** Of the running test's agents. */
  let data = "";
  let count = 0;
  const running: Program[] = [];
  const inside = (...command: readonly string[]): readonly string[] => ["ip", "netns", "exec", name, ...command];
  const run = (...command: readonly string[]): Promise<Done> => runToEnd(inside(...command));
  const start = async (...command: readonly string[]): Promise<Program> => {
    const started = await startProgram(inside(...command), join(folder.path, `log-${++count}`));
    running.push(started);
    return started;
  };
  const trilith = (...words: readonly string[]): Promise<Done> => run(process.execPath, program, ...words);
  const curl = (...words: readonly string[]): Promise<Done> => run("curl", "-sS", "--max-time", "10", ...words);
  const agentStarts = async (user: readonly string[] = [], dns = 53): Promise<void> => {
    const flags = ["--data-dir", data, "--dns-port", `${dns}`, "--docker-host", "off"];
    agent = await startProgram(
      inside(...user, process.execPath, program, "agent", ...flags),
      join(folder.path, `agent-${++count}`),
    );
    await eventually(
      "the agent answers",
      async () => /\d/.test((await curl("127.0.0.1:8500/v1/status/leader")).out),
      60_000,
    );
  };
  /** An instance on another host, as far as the agent knows. */
  const elsewhere = async (service: string, port: number, tags: readonly string[] = []): Promise<void> => {
    const body = { ID: service, Service: service, Port: port, Address: "127.0.0.1", Tags: tags };
    const done = await curl(
      ...["-X", "PUT", "127.0.0.1:8500/v1/catalog/register", "-d"],
      JSON.stringify({ Node: "far", Address: "127.0.0.3", Service: body }),
    );
    expect(done.out).toBe("true");
  };
  const listening = async (): Promise<readonly string[]> =>
    (await run("ss", "-Hltnu")).out.split("\n").flatMap((line) => /\s(127\.[12]\d\d\.\S+)\s/.exec(line)?.[1] ?? []);
  const addressOf = async (service: string): Promise<string> => {
    const { out } = await run("dig", "+short", "+tries=1", `${service}.connect.consul`);
    expect(out).toMatch(/^127\.\d+\.\d+\.\d+\n$/);
    return out.trim();
  };
  const nginx = async (listen: string, body: string): Promise<Program> => {
    const own = join(folder.path, `nginx-${++count}`);
    await mkdir(own);
    const kept = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((each) => `${each}_temp_path ${own};`);
    await writeFile(
      join(own, "conf"),
      `daemon off; master_process off; pid ${own}/pid; error_log ${own}/error.log; events {}
http { access_log off; ${kept.join(" ")} server { listen ${listen}; location / { return 200 "${body}"; } } }`,
    );
    return await start("nginx", "-c", join(own, "conf"), "-p", own, "-e", join(own, "error.log"));
  };

  beforeAll(async () => {
    folder = await ownFolder("magic");
    await mkdir(settings, { recursive: true });
    await writeFile(join(settings, "resolv.conf"), "nameserver 127.0.0.1\n");
    expect(await runToEnd(["ip", "netns", "add", name])).toMatchObject({ exitCode: 0 });
    await runToEnd(["ip", "-n", name, "link", "set", "lo", "up"]);
  });
  // Each has a host of its own, as it were: an agent that knows nothing, and no other program.
  beforeEach(async () => {
    data = join(folder.path, `data-${++count}`);
    await mkdir(data);
  });
  afterEach(async () => {
    for (const each of running.splice(0).reverse()) await each.stop();
    await agent?.stop();
    agent = undefined;
  });
  afterAll(async () => {
    await runToEnd(["ip", "netns", "del", name]);
    await rm(settings, { recursive: true, force: true });
    await folder?.remove();
  });

  /** What answers "hello" is "web"; there is a "redis" as well. */
  const webAndRedis = async (): Promise<void> => {
    await nginx("127.0.0.1:18080", "hello");
    await start("redis-server", "--port", "16379", "--save", "", "--bind", "127.0.0.1");
    await elsewhere("web", 18_080);
    await elsewhere("redis", 16_379);
  };

  it("curl, redis-cli and a static program say a name and reach an instance, at whichever port it is", async () => {
    await agentStarts();
    await webAndRedis();
    expect(await listening()).toEqual([]);
    const web = await eventually("curl", async () => {
      const done = await curl("http://web.connect.consul/");
      return done.exitCode === 0 && done;
    });
    expect(web.out).toBe("hello");
    await eventually(
      "redis-cli",
      async () => (await run("redis-cli", "-h", "redis.connect.consul", "ping")).out === "PONG\n",
    );
    await writeFile(join(folder.path, "ping.c"), STATIC);
    const binary = join(folder.path, "ping");
    expect(await runToEnd(["musl-gcc", "-static", "-o", binary, join(folder.path, "ping.c")])).toMatchObject({
      exitCode: 0,
    });
    expect(await run(binary, "redis.connect.consul", "6379")).toMatchObject({ exitCode: 0, out: "+PONG\r\n" });
    expect(await listening()).toHaveLength(4);
    await eventually("why tells it", async () =>
      /127\.\d+\.\d+\.\d+:6379 stands for redis: 0 connections open; so far to 127\.0\.0\.1:16379/.test(
        (await trilith("why", "redis")).out,
      ),
    );
  });

  it("who asks for nothing is in nobody's way, and those that nobody asked for are no addresses", async () => {
    await agentStarts();
    await elsewhere("quiet", 18_090);
    expect((await run("dig", "+short", "quiet.service.consul")).out).toBe("127.0.0.1\n");
    await start("socat", "TCP-LISTEN:18090,fork,reuseaddr", "EXEC:cat");
    await eventually("it listens on all addresses", async () => /:18090/.test((await run("ss", "-Hltn")).out));
    expect(await run("dig", "+short", "-t", "AAAA", "quiet.connect.consul")).toMatchObject({ out: "" });
    expect((await listening()).filter((each) => each.endsWith(":18090"))).toEqual([]);
    expect((await run("dig", "none.connect.consul")).out).toMatch(/NXDOMAIN/);
  });

  it("UDP services have theirs, too", async () => {
    await agentStarts();
    await start("socat", "UDP-RECVFROM:15353,fork,bind=127.0.0.1", "EXEC:cat");
    await elsewhere("echo", 15_353, ["udp"]);
    const host = await addressOf("echo");
    const said = await eventually("an answer", async () => {
      const done = await runToEnd(inside("socat", "-t", "2", "-", `UDP:${host}:15353`), {}, "echo?");
      return done.out !== "" && done.out;
    });
    expect(said).toBe("echo?");
    expect((await listening()).filter((each) => each.startsWith(host))).toEqual([`${host}:15353`]);
  });

  it("ports of this host's own instances and of others are left to them; doctor and why say so", async () => {
    await agentStarts();
    await start("socat", "TCP-LISTEN:18100,fork,reuseaddr", "EXEC:cat");
    await eventually("it listens", async () => /:18100/.test((await run("ss", "-Hltn")).out));
    const words = ["--id", "mine", "--address", "127.0.0.1", "--port", "18101"];
    expect(await trilith("register", "--name", "shop", ...words)).toMatchObject({ exitCode: 0 });
    await elsewhere("shop", 18_100);
    const host = await addressOf("shop");
    const own = (await listening()).filter((each) => each.startsWith(host));
    expect(own).toEqual([`${host}:80`]);
    const doctor = await trilith("doctor");
    expect(doctor.out).toMatch(
      /shop:18101 left to this host's own instances; 1 not to be had \(shop:18100 address-in-use\)/,
    );
    expect((await trilith("why", "shop")).out).toMatch(/:18100 cannot be had: .*EADDRINUSE/);
    const asked = JSON.parse((await curl("127.0.0.1:8500/v1/trilith/magic/shop")).out);
    expect(asked).toMatchObject({
      address: host,
      listening: [{ port: 80 }],
      missing: [{ port: 18_100 }, { port: 18_101 }],
    });
  });

  it("addresses that programs kept answer again after the agent was killed, without being asked for", async () => {
    await agentStarts();
    await webAndRedis();
    const web = await addressOf("web");
    await addressOf("redis");
    const before = await listening();
    expect(before).toHaveLength(4);
    await agent?.stop("SIGKILL");
    await agentStarts();
    const { out } = await eventually("the same address", async () => {
      const done = await curl(`http://${web}/`);
      return done.exitCode === 0 && done;
    });
    expect(out).toBe("hello");
    await eventually("all of them", async () => [...(await listening())].sort().join() === [...before].sort().join());
  });

  it("a port that another program took meanwhile is its own", async () => {
    await agentStarts();
    await webAndRedis();
    const web = await addressOf("web");
    await agent?.stop();
    await nginx("80", "the host's own");
    await eventually("it answers", async () => (await curl("http://127.0.0.1/")).out === "the host's own");
    await agentStarts();
    await eventually("other ports are open", async () => (await listening()).includes(`${web}:18080`));
    expect(await listening()).not.toContain(`${web}:80`);
    expect((await curl("http://127.0.0.1/")).out).toBe("the host's own");
    expect((await trilith("doctor")).out).toMatch(/web:80 address-in-use/);
  });

  it("without the right to low ports others serve, and doctor says what is missing", async () => {
    await runToEnd(["chown", "65534", data]);
    await agentStarts(["setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=-all"], 8053);
    const log = join(folder.path, `agent-${count}`);
    await nginx("127.0.0.1:18080", "hello");
    await elsewhere("shop", 18_080);
    const { out } = await run("dig", "+short", "@127.0.0.1", "-p", "8053", "shop.connect.consul");
    await eventually("it answers", async () => (await curl(`http://${out.trim()}:18080/`)).out === "hello");
    expect(await listening()).toEqual([`${out.trim()}:18080`]);
    expect((await trilith("doctor")).out).toMatch(
      /1 port of 1 service answers; 1 not to be had \(shop:80 not-allowed\)/,
    );
    expect((await trilith("why", "shop")).out).toMatch(/:80 cannot be had: .*EACCES.*ports below 1024 need/);
    expect(await readFile(log, "utf8")).not.toMatch(/error|EACCES/);
  });
});
