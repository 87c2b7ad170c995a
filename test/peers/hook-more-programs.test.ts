// More real programs under the hook: those that open their libraries apart, that start others, that resolve or wait in ways of their own.
import { execFile } from "node:child_process";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, it } from "vitest";
import { hooked, type Instance, instance, NAME, spread } from "../support/hooked.ts";
import { eventually, freePort, havePrograms, startProgram } from "../support/peers.ts";

const run = promisify(execFile);
const here = await havePrograms(
  "cc",
  "curl",
  "git",
  "php",
  "ruby",
  "/usr/share/perl5/LWP",
  "/usr/lib/python3/dist-packages/aiohttp",
  "/usr/lib/python3/dist-packages/uvloop",
  "/usr/lib/python3/dist-packages/grpc",
);
/** Debian's, whose modules Debian's packages are. */
const PYTHON = "/usr/bin/python3";

describe.runIf(here)("more programs under the hook", { timeout: 120_000 }, () => {
  const lab = hooked();

  it("php: streams, and its curl, whose library it opens apart from all others (RTLD_DEEPBIND)", async () => {
    const script = `
for ($i = 0; $i < (int)$argv[1]; $i++) {
  if ($i % 2 == 0) { echo file_get_contents("http://${NAME}/"); continue; }
  $c = curl_init("http://${NAME}/");
  curl_setopt($c, CURLOPT_RETURNTRANSFER, 1);
  $said = curl_exec($c);
  if ($said === false) { fwrite(STDERR, curl_error($c)); exit(1); }
  echo $said;
}`;
    await lab.reachesSpreadsSurvives((requests) => lab.run("php", "-r", script, String(requests)));
  });

  it("ruby: Net::HTTP", async () => {
    const script = `require "net/http"; ARGV[0].to_i.times { print Net::HTTP.get(URI("http://${NAME}/")) }`;
    await lab.reachesSpreadsSurvives((requests) => lab.run("ruby", "-e", script, String(requests)));
  });

  it("perl: LWP", async () => {
    const script = `for (1 .. $ARGV[0]) { print get("http://${NAME}/") // die "no answer" }`;
    await lab.reachesSpreadsSurvives((requests) => lab.run("perl", "-MLWP::Simple", "-e", script, String(requests)));
  });

  it("bash: /dev/tcp", async () => {
    const script = `for ((i = 0; i < $0; i++)); do
  exec 3<>/dev/tcp/${NAME}/80 || exit 1
  printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3
  cat <&3
  exec 3>&-
done`;
    await lab.reachesSpreadsSurvives((requests) => lab.run("bash", "-c", script, String(requests)));
  });

  it("python3: aiohttp on uvloop", async () => {
    const script = `
import aiohttp, asyncio, sys, uvloop
async def main():
    for i in range(int(sys.argv[1])):
        async with aiohttp.ClientSession() as session:
            async with session.get("http://${NAME}/") as response: print(await response.text())
uvloop.install()
asyncio.run(main())`;
    await lab.reachesSpreadsSurvives((requests) => lab.run(PYTHON, "-c", script, String(requests)));
  });

  it("git: a clone over HTTP, by processes that it starts", async () => {
    const work = join(lab.own, "work");
    const bare = join(lab.own, "bare.git");
    await run("git", ["init", "-q", work]);
    const who = ["-c", "user.name=test", "-c", "user.email=test@example.net"];
    await run("git", ["-C", work, ...who, "commit", "-q", "--allow-empty", "-m", "first"]);
    await run("git", ["clone", "-q", "--bare", work, bare]);
    await run("git", ["-C", bare, "update-server-info"]);
    // "Dumb" HTTP: files.
    const servers = await Promise.all(
      [1, 2, 3].map((number) =>
        instance(number, "127.0.0.1", (request, response) => {
          const path = new URL(request.url ?? "/", "http://x").pathname;
          readFile(join(bare, path)).then(
            (bytes) => response.writeHead(200, { connection: "close" }).end(bytes),
            () => response.writeHead(404, { connection: "close" }).end(),
          );
        }),
      ),
    );
    lab.stops.push(...servers.map((server) => server.stop));
    await lab.table.put([{ name: "web", ports: servers.map(({ port }) => port) }]);
    const clone = async (number: number): Promise<void> => {
      const copy = join(lab.own, `copy-${number}`);
      await lab.run("git", "clone", "-q", `http://${NAME}/`, copy);
      expect((await run("git", ["-C", copy, "log", "--format=%s"])).stdout).toBe("first\n");
    };
    for (let i = 0; i < 6; i++) await clone(i);
    expect(servers.filter(({ requests }) => requests > 0)).toHaveLength(3);
    await servers[0]?.stop();
    await servers[1]?.stop();
    for (let i = 6; i < 10; i++) await clone(i);
  });

  it("gRPC's C core: by libc's names (GRPC_DNS_RESOLVER=native), a channel for each call", async () => {
    const server = `
import grpc, sys
from concurrent import futures
class Handler(grpc.GenericRpcHandler):
    def service(self, details): return grpc.unary_unary_rpc_method_handler(lambda request, context: b"instance " + sys.argv[2].encode())
server = grpc.server(futures.ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((Handler(),))
server.add_insecure_port("127.0.0.1:" + sys.argv[1])
server.start()
print("ready", flush=True)
server.wait_for_termination()`;
    lab.instances.push(
      ...(await Promise.all(
        [1, 2, 3].map(async (number): Promise<Instance> => {
          const port = await freePort();
          const log = join(lab.own, `grpc-${number}.log`);
          const program = await startProgram([PYTHON, "-c", server, String(port), String(number)], log);
          lab.stops.push(() => program.stop("SIGKILL"));
          await eventually("a gRPC server", async () => (await readFile(log, "utf8")).includes("ready"));
          return { port, requests: 0, stop: () => program.stop("SIGKILL") };
        }),
      )),
    );
    for (const plain of lab.instances.splice(0, 3)) await plain.stop();
    await lab.table.put([{ name: "web", ports: lab.instances.map(({ port }) => port) }]);
    lab.env = { ...lab.env, GRPC_DNS_RESOLVER: "native" };
    const client = `
import grpc, sys
for i in range(int(sys.argv[1])):
    # Channels of the same options share their connections.
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel("${NAME}:80", options) as channel:
        print(channel.unary_unary("/test/Say")(b"", timeout=20, wait_for_ready=True).decode())`;
    await lab.reachesSpreadsSurvives((requests) => lab.run(PYTHON, "-c", client, String(requests)));
  });

  it("beside another preloaded library, before it and behind it", async () => {
    const other = join(lab.own, "other");
    await mkdir(other);
    const source = `
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/socket.h>
#include <unistd.h>
int connect(int fd, const struct sockaddr *address, socklen_t bytes) {
  int (*next)(int, const struct sockaddr *, socklen_t) = __extension__(int (*)(int, const struct sockaddr *, socklen_t)) dlsym(RTLD_NEXT, "connect");
  if (address->sa_family == AF_INET && write(2, "seen\\n", 5) != 5) return -1;
  return next(fd, address, bytes);
}`;
    const library = join(other, "libother.so");
    await run("sh", ["-c", 'printf %s "$1" | cc -xc -shared -fPIC -o "$2" - -ldl', "sh", source, library]);
    const ours = lab.env["LD_PRELOAD"] ?? "";
    for (const preload of [`${library}:${ours}`, `${ours}:${library}`]) {
      const { stdout, stderr } = await run("curl", ["-sS", ...Array.from({ length: 30 }, () => `http://${NAME}/`)], {
        env: { ...process.env, ...lab.env, LD_PRELOAD: preload },
      });
      expect(spread(stdout, 30)).toBeGreaterThan(1);
      expect(stderr).toContain("seen");
    }
  });

  it("what is no service fails as it does without the hook, to the letter", async () => {
    const refused = await freePort();
    const said = (env: NodeJS.ProcessEnv, program: string, ...words: string[]): Promise<string> =>
      new Promise((done) => {
        execFile(program, words, { env: { ...process.env, ...env }, timeout: 60_000 }, (error, out, wrong) =>
          done(`${error?.code} ${out}${wrong}`.replaceAll(/\d+ ms/g, "some ms")),
        );
      });
    const urls = [`http://127.0.0.1:${refused}/`, `http://[::1]:${refused}/`, "http://127.128.200.1:80/"];
    for (const url of urls) {
      const programs: readonly (readonly [string, ...string[]])[] = [
        ["curl", "-sS", url],
        ["php", "-r", `$c = curl_init("${url}"); curl_exec($c); echo curl_errno($c), curl_error($c); exit(3);`],
        [
          "ruby",
          "-rsocket",
          "-ruri",
          "-e",
          `u = URI("${url}"); TCPSocket.new(u.hostname, u.port) rescue (p $!; exit 3)`,
        ],
        [PYTHON, "-c", `import urllib.request; urllib.request.urlopen("${url}")`],
      ];
      for (const [program, ...words] of programs) {
        const plain = await said({}, program, ...words);
        expect(plain).not.toMatch(/^(null|undefined) /);
        expect(await said(lab.env, program, ...words)).toBe(plain);
      }
    }
  });
});
