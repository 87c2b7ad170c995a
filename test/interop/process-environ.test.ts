// Plain processes with SERVICE_NAME in their environment: real servers, seen when they listen, gone when they end, counted once.
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createTrilith } from "../../src/trilith.ts";
import { startDocker } from "../support/docker.ts";
import { type RunningAgent, startAgent } from "../support/ground.ts";
import { triedBefore } from "../support/own-name.ts";
import { eventually, freePort, havePrograms, ownFolder } from "../support/peers.ts";

const run = promisify(execFile);
/** Set where the tests run: every agent on this machine would see these processes, so they have a network namespace of their own. */
const INSIDE = "TRILITH_TEST_NAMESPACE";
const inside = process.env[INSIDE];
const ready = await havePrograms("python3", "ip", "unshare", "nginx", "dockerd", "docker", "iptables");

interface Held {
  readonly id: string;
  readonly name: string;
  readonly port: number;
  readonly address: string;
  readonly text: string;
  readonly tags: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
}

function outside(): void {
  describe("in a network namespace of its own", () => {
    it.each(["processes", "containers"])(
      "%s are found",
      async (part) => {
        const root = join(import.meta.dirname, "../..");
        const vitest = [process.execPath, join(root, "node_modules/vitest/vitest.mjs"), "run", import.meta.filename];
        // Where it takes too long, what it started ends with it: `timeout` ends the whole process group.
        const words = [
          "-s",
          "KILL",
          "230s",
          "unshare",
          "-n",
          "--",
          "/bin/sh",
          "-c",
          'ip link set lo up && exec "$@"',
          "sh",
          ...vitest,
        ];
        const ended = await run("timeout", [...words, "--reporter=verbose"], {
          cwd: root,
          env: { ...process.env, [INSIDE]: part, NO_COLOR: "1" },
          maxBuffer: 1 << 26,
        }).catch((error: { stdout: string; stderr: string }) => error);
        expect(`${ended.stdout}\n${ended.stderr}`).toMatch(/Tests\s+[1-9][0-9]* passed(?! \|).*\(/);
        expect("code" in ended ? ended.code : 0, `${ended.stdout}\n${ended.stderr}`).toBe(0);
      },
      240_000,
    );
  });
}

function processes(): void {
  describe("processes that say SERVICE_NAME", () => {
    let agent: RunningAgent;
    const children: ChildProcess[] = [];
    beforeAll(async () => {
      agent = await startAgent({ protocols: { process: {} } });
    });
    beforeEach(async (context) => {
      if (!triedBefore(context)) return;
      // Workers that nobody ended end by themselves after a minute.
      const left = (): number =>
        [...agent.trilith.agent.services().values()].filter(({ instance }) => instance.origin.source === "process")
          .length;
      await eventually("what the try before this one began is gone", () => left() === 0, 90_000);
    });
    afterAll(() => agent.stop());
    afterEach(async () => {
      for (const child of children.splice(0)) await end(child);
    });

    async function end(child: ChildProcess, signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const over = new Promise((resolve) => child.once("exit", resolve));
      child.kill(signal);
      await over;
    }
    function start(words: readonly string[], env: Readonly<Record<string, string>>, clean = false): ChildProcess {
      const [file = "", ...args] = words;
      const child = spawn(file, args, {
        env: clean ? { PATH: process.env["PATH"] ?? "", ...env } : { ...process.env, ...env },
        stdio: ["pipe", "pipe", "ignore"],
      });
      children.push(child);
      return child;
    }
    /** What a program of Python prints once it did what it should. */
    async function python(
      script: string,
      env: Readonly<Record<string, string>>,
    ): Promise<{ child: ChildProcess; said: string }> {
      const child = start(["python3", "-c", `import socket, sys, os, time\n${script}`], env);
      // A line may come in pieces: Python writes word by word where nothing is buffered.
      const said = await new Promise<string>((resolve) => {
        let text = "";
        child.stdout?.on("data", (bytes) => {
          text += String(bytes);
          if (text.includes("\n")) resolve(text.slice(0, text.indexOf("\n")).trim());
        });
      });
      return { child, said };
    }
    const held = (name: string, of: RunningAgent = agent): Held[] =>
      [...of.trilith.agent.services().values()]
        .filter(({ instance }) => instance.name === name)
        .map(({ instance: { id, port, address, tags, labels, origin } }) => ({
          id,
          name,
          port,
          address,
          tags,
          labels: { ...labels },
          text: origin.text ?? "",
        }));
    const found = (name: string): number[] =>
      agent.trilith.lookup.resolveNow({ service: name }).endpoints.map(({ port }) => port);
    const there = (name: string, count = 1): Promise<Held[]> =>
      eventually(`${count} of ${name}`, () => (held(name).length === count ? held(name) : undefined));
    const gone = (name: string): Promise<unknown> => eventually(`${name} is gone`, () => held(name).length === 0);
    /** Looks so often as it takes to be sure that nothing came: a process that began after it was seen. */
    async function seenAll(): Promise<void> {
      const mark = `mark-${Math.random().toString(36).slice(2)}`;
      const { child } = await python(
        "s=socket.socket(); s.bind(('',0)); s.listen(); print(1,flush=True); time.sleep(60)",
        {
          SERVICE_NAME: mark,
        },
      );
      await there(mark);
      await end(child);
      await gone(mark);
    }

    it("registers a server as it says, and takes it out when it ends", async () => {
      const port = await freePort();
      const child = start(["python3", "-m", "http.server", `${port}`], {
        SERVICE_NAME: "web",
        SERVICE_TAGS: "blue,a\\,b",
        SERVICE_REGION: "eu",
        [`SERVICE_${port}_CHECK_TCP`]: "true",
        SERVICE_CHECK_INTERVAL: "1s",
      });
      const [one] = await there("web");
      expect(one).toEqual({
        id: `web:${child.pid}:${port}`,
        name: "web",
        port,
        address: "",
        tags: ["blue", "a,b"],
        labels: { region: "eu" },
        text: `process ${child.pid} (python3), port ${port}/tcp`,
      });
      await eventually("the check passes", () => found("web").length === 1);
      const [check] = [...agent.trilith.agent.checks().values()].filter(({ check }) => check.serviceId === one?.id);
      expect(check?.check).toMatchObject({ type: "tcp", status: "passing" });
      await end(child);
      await gone("web");
      expect(agent.trilith.agent.history("web")[0]?.text).toContain(`process ${child.pid} ended`);
    });

    it("does what the README shows", async () => {
      const readme = await readFile(join(import.meta.dirname, "../../src/protocols/process/README.md"), "utf8");
      const line = /example: environ -->\n+```sh\n([^`]*)```/.exec(readme)?.[1] ?? "";
      start(["/bin/sh", "-c", `exec env ${line}`], {});
      expect((await there("plain"))[0]).toMatchObject({ port: 8765, address: "127.0.0.1", tags: ["blue"] });
    });

    it("finds nc and Node the same way, and UDP with its tag", async () => {
      const ports = [await freePort(), await freePort(), await freePort()];
      start(["busybox", "nc", "-ll", "-p", `${ports[0]}`, "-e", "cat"], { SERVICE_NAME: "lines" });
      start([process.execPath, "-e", `require("http").createServer().listen(${ports[1]})`], { SERVICE_NAME: "node" });
      await python(
        `s=socket.socket(type=socket.SOCK_DGRAM); s.bind(('',${((ports[2] as number) % 20_000) + 10_000})); print(1,flush=True); time.sleep(60)`,
        { SERVICE_NAME: "datagrams" },
      );
      expect((await there("lines"))[0]?.port).toBe(ports[0]);
      expect((await there("node"))[0]?.port).toBe(ports[1]);
      expect((await there("datagrams"))[0]).toMatchObject({ tags: ["udp"], id: expect.stringMatching(/:udp$/) });
    });

    it("counts workers that share a socket once, and hands it to the next one when the oldest ends", async () => {
      const { child, said } = await python(
        `
s=socket.socket(); s.bind(('',0)); s.listen()
for i in range(3):
    if os.fork() == 0: time.sleep(60); os._exit(0)
print(s.getsockname()[1], flush=True); time.sleep(60)`,
        { SERVICE_NAME: "workers" },
      );
      const workers = (await run("pgrep", ["-P", `${child.pid}`])).stdout.trim().split("\n").map(Number);
      expect(workers).toHaveLength(3);
      const [one] = await there("workers");
      expect(one).toMatchObject({ id: `workers:${child.pid}:${said}`, port: Number(said) });
      await seenAll();
      expect(held("workers")).toHaveLength(1);
      await end(child);
      await eventually("a worker has it", () =>
        workers.some((pid) => held("workers")[0]?.id === `workers:${pid}:${said}`),
      );
      expect(held("workers")).toHaveLength(1);
      for (const pid of workers) process.kill(pid, "SIGKILL");
      await gone("workers");
    });

    it("counts several sockets on one port (SO_REUSEPORT, IPv4 and IPv6) once, and one port on two addresses twice", async () => {
      const { said } = await python(
        `
def tcp(host, port, family=socket.AF_INET):
    s=socket.socket(family); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind((host, port)); s.listen(); return s
a=tcp('',0); p=a.getsockname()[1]
if os.fork() == 0: b=tcp('',p); c=tcp('::',p,socket.AF_INET6); time.sleep(60); os._exit(0)
time.sleep(0.1); print(p, flush=True); time.sleep(60)`,
        { SERVICE_NAME: "shared" },
      );
      expect((await there("shared"))[0]?.port).toBe(Number(said));
      const port = await freePort();
      for (const host of ["127.0.0.1", "127.0.0.2"])
        start(["python3", "-m", "http.server", "--bind", host, `${port}`], { SERVICE_NAME: "apart" });
      expect((await there("apart", 2)).map(({ address }) => address).sort()).toEqual(["127.0.0.1", "127.0.0.2"]);
      await seenAll();
      expect(held("shared")).toHaveLength(1);
    });

    it("keeps loopback at home, takes dual-stack and v4-mapped sockets for what they are", async () => {
      const { said } = await python(
        `
def tcp(host, family):
    s=socket.socket(family)
    if family == socket.AF_INET6: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.bind((host, 0)); s.listen(); return s
all=[tcp('127.0.0.1', socket.AF_INET), tcp('::ffff:127.0.0.1', socket.AF_INET6), tcp('::', socket.AF_INET6)]
print(*[s.getsockname()[1] for s in all], flush=True); time.sleep(60)`,
        { SERVICE_NAME: "stacks" },
      );
      const [home, mapped, dual] = said.split(" ").map(Number);
      const all = () =>
        [...agent.trilith.agent.services().values()].filter(({ instance }) => instance.id.startsWith("stacks:"));
      const at = (port: number | undefined) => all().find(({ instance }) => instance.port === port)?.instance;
      // The sockets come one by one: the first look may fall between them.
      await eventually("all three are there", () => all().length === 3 && at(dual)?.name === "stacks");
      // What others reach bears the plain name.
      expect(at(dual)).toMatchObject({ name: "stacks", address: "" });
      expect(at(home)).toMatchObject({
        name: `stacks-${home}`,
        address: "127.0.0.1",
        addresses: [{ reach: "loopback" }],
      });
      expect(at(mapped)).toMatchObject({ address: "127.0.0.1", addresses: [{ reach: "loopback" }] });
    });

    it("takes per-port words, ignores what it is told to, and follows sockets that come late and go early", async () => {
      const [a, b, c] = [await freePort(), await freePort(), await freePort()];
      const { child } = await python(
        `
def tcp(port):
    s=socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(('',port)); s.listen(); return s
x=tcp(${a}); y=tcp(${b}); print(1, flush=True); sys.stdin.readline()
z=tcp(${c}); sys.stdin.readline()
x.close(); time.sleep(60)`,
        {
          [`SERVICE_${a}_NAME`]: "api",
          [`SERVICE_${b}_NAME`]: "admin",
          [`SERVICE_${b}_IGNORE`]: "1",
          [`SERVICE_${c}_NAME`]: "late",
        },
      );
      await there("api");
      expect(held("admin")).toEqual([]);
      child.stdin?.write("\n");
      expect((await there("late"))[0]?.port).toBe(c);
      child.stdin?.write("\n");
      await gone("api");
      expect(held("late")).toHaveLength(1);
      expect(agent.trilith.agent.history("api")[0]?.text).toContain(`does not listen on port ${a} any more`);
    });

    it("sees what is executed later with another environment, and no more what lost it", async () => {
      const port = await freePort();
      const server = `exec python3 -m http.server`;
      const shell = start(["/bin/sh", "-c", `read x; SERVICE_NAME=executed ${server} ${port}`], {});
      await seenAll();
      shell.stdin?.write("\n");
      await there("executed");
      const other = await freePort();
      const { child } = await python(
        `
s=socket.socket(); s.bind(('',${other})); s.listen(); s.set_inheritable(True); print(1, flush=True); sys.stdin.readline()
os.execve('/bin/sleep', ['sleep', '60'], {})`,
        { SERVICE_NAME: "forgetful" },
      );
      await there("forgetful");
      child.stdin?.write("\n");
      await gone("forgetful");
    });

    it("follows a socket that is handed to a process which begins later", async () => {
      // As systemd does with socket units: somebody without words listens, the service begins with the first connection.
      const { child, said } = await python(
        `
s=socket.socket(); s.bind(('',0)); s.listen(); print(s.getsockname()[1], flush=True); sys.stdin.readline()
if os.fork() == 0: s.set_inheritable(True); os.execve('/bin/sleep', ['sleep', '60'], {'SERVICE_NAME': 'activated'})
time.sleep(60)`,
        {},
      );
      await seenAll();
      expect(held("activated")).toEqual([]);
      child.stdin?.write("\n");
      expect((await there("activated"))[0]?.port).toBe(Number(said));
      process.kill(Number(held("activated")[0]?.id.split(":")[1]), "SIGKILL");
      await gone("activated");
    });

    it("leaves other network namespaces, programs under `trilith run` and broken environments alone", async () => {
      start(["unshare", "-n", "sh", "-c", "ip link set lo up; exec python3 -m http.server 80"], {
        SERVICE_NAME: "elsewhere",
      });
      start(["python3", "-m", "http.server", `${await freePort()}`], { SERVICE_NAME: "wrapped", TRILITH_RUN: "1" });
      const port = await freePort();
      start(["python3", "-m", "http.server", `${port}`], { SERVICE_NAME: "huge", SERVICE_BLOB: "x".repeat(100_000) });
      start(["python3", "-m", "http.server", `${await freePort()}`], { SERVICE_NAME: "n".repeat(1000) });
      // An environment without an end, with bytes that are no text: what prctl leaves of it.
      const blob = await ownFolder("blob");
      try {
        await writeFile(
          join(blob.path, "run.py"),
          `
import ctypes, os, socket, sys, time
libc=ctypes.CDLL(None, use_errno=True)
buf=ctypes.create_string_buffer(bytes(range(1,256))+b'SERVICE_NAME=nothing', 275)
a=ctypes.addressof(buf)
assert libc.prctl(35, 11, ctypes.c_ulong(a+275), 0, 0) == 0 or libc.prctl(35, 10, ctypes.c_ulong(a), 0, 0) == 0
libc.prctl(35, 10, ctypes.c_ulong(a), 0, 0); libc.prctl(35, 11, ctypes.c_ulong(a+275), 0, 0)
s=socket.socket(); s.bind(('',0)); s.listen(); print(1, flush=True); time.sleep(60)`,
        );
        start(["python3", join(blob.path, "run.py")], {}, true);
        const [huge] = await there("huge");
        expect(huge).toMatchObject({ port, labels: {} });
        await seenAll();
      } finally {
        await blob.remove();
      }
      for (const name of ["elsewhere", "wrapped", "nothing"]) expect(held(name)).toEqual([]);
      const complaints = agent.trilith.agent.complaints().map(({ text }) => text);
      expect(complaints).toContainEqual(
        expect.stringMatching(/SERVICE_BLOB is not a label: its value has 100000 bytes/),
      );
      expect(complaints).toContainEqual("not registered: its name has 1000 characters, 255 are allowed");
    });

    it("counts a process once that is announced or advertises itself, and says what cannot be read", async () => {
      const port = await freePort();
      const child = start(["python3", "-m", "http.server", `${port}`], { SERVICE_NAME: "said" });
      await there("said");
      const body = JSON.stringify({ name: "announced", port, pid: child.pid });
      expect((await fetch(`${agent.url}/v1/trilith/announce`, { method: "POST", body })).status).toBe(200);
      await gone("said");
      expect(held("announced")).toHaveLength(1);
      await fetch(`${agent.url}/v1/trilith/announce`, {
        method: "DELETE",
        body: JSON.stringify({ id: `announced:${port}` }),
      });
      await there("said");
      const other = await freePort();
      const script = `import { advertise } from "${join(import.meta.dirname, "../../src/index.ts")}";
      (await import("node:http")).createServer().listen(${other});
      process.stdin.once("data", () => advertise({ name: "itself", port: ${other}, agent: "${agent.url}" }));`;
      const own = start([process.execPath, "--import", "tsx", "--input-type=module", "-e", script], {
        SERVICE_NAME: "both",
      });
      await there("both");
      own.stdin?.write("\n");
      await gone("both");
      expect(held("itself")).toHaveLength(1);
      // nginx writes its title over its environment, its workers do the same.
      const folder = await ownFolder("nginx");
      try {
        const server = `events {} http { access_log off; server { listen ${await freePort()}; } }`;
        await writeFile(
          join(folder.path, "conf"),
          `worker_processes 3; pid ${folder.path}/pid; error_log ${folder.path}/log; ${server}`,
        );
        const nginx = start(["nginx", "-c", join(folder.path, "conf"), "-g", "daemon off;"], { SERVICE_NAME: "front" });
        await eventually("it is told", () =>
          agent.trilith.sources().some(({ text }) => /nginx.* wrote over .* environment/.test(text)),
        );
        expect(held("front")).toEqual([]);
        await end(nginx, "SIGTERM");
      } finally {
        await folder.remove();
      }
    });

    it("keeps everything over a restart of the agent, and knows what ended meanwhile", async () => {
      const folder = await ownFolder("environ");
      const settings = { dev: false, dataDir: folder.path, storage: "lmdb", protocols: { process: {} } } as const;
      try {
        const [one, two] = [await freePort(), await freePort()].sort((a, b) => b - a);
        const { child } = await python(
          `
def tcp(port):
    s=socket.socket(); s.bind(('',port)); s.listen(); return s
x=tcp(${one}); print(1, flush=True); sys.stdin.readline(); y=tcp(${two}); print(2, flush=True); time.sleep(60)`,
          { SERVICE_NAME: "lasting" },
        );
        const fleeting = start(["python3", "-m", "http.server", `${await freePort()}`], { SERVICE_NAME: "fleeting" });
        let first = await startAgent(settings);
        await eventually(
          "all there",
          () => held("lasting", first).length === 1 && held("fleeting", first).length === 1,
        );
        child.stdin?.write("\n");
        await eventually("the second port", () => held(`lasting-${two}`, first).length === 1);
        const before = held("lasting", first);
        await first.stop();
        await end(fleeting);
        first = await startAgent(settings);
        // The first port keeps the plain name, though the other has the lower number.
        expect(held("lasting", first)).toEqual(before);
        await eventually("the one that ended is gone", () => held("fleeting", first).length === 0);
        expect(held("lasting", first)).toEqual(before);
        expect(held(`lasting-${two}`, first)).toHaveLength(1);
        expect(first.trilith.agent.history("lasting")).toEqual([]);
        await first.stop();
      } finally {
        await folder.remove();
      }
    });

    it("is switched off by process.environ", async () => {
      const off = createTrilith({
        dev: true,
        httpPort: -1,
        protocols: { docker: false, file: false, dns: { port: -1 }, process: { environ: false } },
      });
      await off.start();
      expect(off.sources().find(({ name }) => name === "process")?.text).toBe("nothing runs under `trilith run`");
      await off.stop();
      expect(agent.trilith.sources().find(({ name }) => name === "process")?.text).toMatch(
        /SERVICE_NAME.*; nothing runs/,
      );
    });
  });
}

function containers(): void {
  describe("a container on the host's network", () => {
    it("is Docker's and not counted twice", async () => {
      const docker = await startDocker("environ");
      const port = await freePort();
      const agent = await startAgent({ protocols: { process: {}, docker: { host: docker.host, enabled: true } } });
      try {
        await docker.docker(
          ...["run", "-d", "--network", "host", "-e", "SERVICE_NAME=hosted", "--expose", `${port}`],
          ...["bbexp1", "/bin/httpd", "-f", "-p", `${port}`],
        );
        const all = (): readonly string[] =>
          [...agent.trilith.agent.services().values()].flatMap(({ instance: { name, origin } }) =>
            name.startsWith("hosted") ? [origin.source] : [],
          );
        await eventually("Docker's are there", () => all().includes("docker"));
        const child = spawn("python3", ["-m", "http.server", `${await freePort()}`], {
          env: { ...process.env, SERVICE_NAME: "beside" },
          stdio: "ignore",
        });
        try {
          await eventually("the plain one is there", () =>
            [...agent.trilith.agent.services().values()].some(({ instance }) => instance.name === "beside"),
          );
          await eventually("the container listens", async () => (await fetch(`http://127.0.0.1:${port}/`)).status > 0);
          expect(all()).not.toContain("process");
        } finally {
          child.kill("SIGKILL");
        }
      } finally {
        await agent.stop();
        await docker.remove();
      }
    }, 220_000);
  });
}

if (inside === undefined && ready) outside();
if (inside === "processes") processes();
if (inside === "containers") containers();
