// An agent under the service manager's eyes: a datagram socket that notes who speaks, as systemd does, and systemd's own systemd-notify.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, expect, it } from "vitest";
import { ownName } from "../support/own-name.ts";
import { eventually, freePort, havePrograms, ownFolder } from "../support/peers.ts";
import { program, runToEnd } from "../support/program.ts";

const here = await havePrograms("systemd-notify", "python3", "setpriv");

/** Prints one JSON line for each datagram: the sender's process and user as the kernel says them [unix(7), SCM_CREDENTIALS], and the text. */
const LISTENER = `
import json, os, socket, struct, sys
name = sys.argv[1]
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
s.bind("\\0" + name[1:] if name[0] == "@" else name)
if name[0] != "@": os.chmod(name, 0o777)
print(json.dumps({"text": "bound"}), flush=True)
while True:
    data, more, _, _ = s.recvmsg(65536, socket.CMSG_SPACE(12))
    for level, kind, raw in more:
        if kind == socket.SCM_CREDENTIALS:
            pid, uid, _ = struct.unpack("iii", raw[:12])
            print(json.dumps({"pid": pid, "uid": uid, "text": data.decode()}), flush=True)
`;

interface Heard {
  readonly pid?: number;
  readonly uid?: number;
  readonly text: string;
}

let folder: Awaited<ReturnType<typeof ownFolder>>;
const children: ChildProcess[] = [];
beforeEach(async () => {
  folder = await ownFolder("systemd");
  await chmod(folder.path, 0o755);
});
afterEach(async () => {
  for (const child of children.splice(0)) {
    if (child.exitCode !== null || child.signalCode !== null) continue;
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
  }
  await folder.remove();
});

/** What a socket of that name hears; the barrier, with which systemd-notify waits until it was read, is no word of the agent's. */
async function listen(name: string): Promise<readonly Heard[]> {
  const child = spawn("python3", ["-c", LISTENER, name], { stdio: ["ignore", "pipe", "inherit"] });
  children.push(child);
  const heard: Heard[] = [];
  await new Promise<void>((resolve, reject) => {
    createInterface({ input: child.stdout }).on("line", (line) => {
      const one = JSON.parse(line) as Heard;
      if (one.text === "bound") resolve();
      else if (one.text !== "BARRIER=1") heard.push(one);
    });
    child.once("error", reject);
    child.once("exit", () => reject(new Error(`nobody listens at ${name}`)));
  });
  return heard;
}

async function agent(
  env: Readonly<Record<string, string>>,
  flags: readonly string[] = [],
  before: readonly string[] = [],
) {
  const http = await freePort();
  const words = [
    `-http-port=${http}`,
    "-dns-port=-1",
    "-docker-host=off",
    "-environ=off",
    "-dev",
    "-node=home",
    ...flags,
  ];
  const [file = "", ...args] = [...before, process.execPath, program, "agent", ...words];
  const child = spawn(file, args, { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...env } });
  children.push(child);
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => (said += chunk.toString()));
  return { child, http, said: () => said, ended: once(child, "exit").then(([code]) => code as number | null) };
}

const texts = (heard: readonly Heard[]): string[] => heard.map(({ text }) => text.replace(/\d{6,}/g, "N"));

for (const kind of ["a path", "an abstract name"])
  it.skipIf(!here)(`start, reload and end are told by ${kind}, in the main process's name`, async () => {
    const name = kind === "a path" ? join(folder.path, "notify") : `@trilith-test-${process.pid}-${ownName("notify")}`;
    const heard = await listen(name);
    const wrong = join(folder.path, "wrong.json");
    await writeFile(wrong, "{}");
    const { child, http, ended } = await agent({ NOTIFY_SOCKET: name }, [`-config-file=${wrong}`]);
    const status = `STATUS=node home, datacenter dc1: HTTP 127.0.0.1:${http}`;
    const up = `READY=1\n${status}\nMAINPID=${child.pid}`;
    await eventually("it is up", () => heard.length >= 1);
    expect(texts(heard)).toEqual([up]);
    // Up is who answers.
    expect((await fetch(`http://127.0.0.1:${http}/v1/status/leader`)).status).toBe(200);
    child.kill("SIGHUP");
    await eventually("it was reloaded", () => heard.length >= 3);
    await writeFile(wrong, "{ nothing");
    child.kill("SIGHUP");
    await eventually("it was reloaded as far as that went", () => heard.length >= 5);
    child.kill("SIGTERM");
    expect(await ended).toBe(0);
    await eventually("it has ended", () => heard.length >= 6);
    const reloading = "STATUS=reading files again\nRELOADING=1\nMONOTONIC_USEC=N";
    expect(texts(heard)).toEqual([
      up,
      reloading,
      up,
      reloading,
      expect.stringMatching(
        /^READY=1\nSTATUS=not everything of the last reload was taken: .*wrong\.json.*\nMAINPID=\d+$/,
      ),
      "STATUS=stopping\nSTOPPING=1",
    ]);
    // systemd hears a unit's main process alone, unless told otherwise.
    expect(new Set(heard.map(({ pid }) => pid))).toEqual(
      new Set([process.getuid?.() === 0 ? child.pid : expect.anything()]),
    );
  });

it.skipIf(!here || process.getuid?.() !== 0)(
  "another user than root speaks by a child, and is told where that is not heard",
  async () => {
    const name = join(folder.path, "notify");
    const heard = await listen(name);
    const bin = join(folder.path, "bin");
    await mkdir(bin);
    // In the place of a systemd that runs: which unit this process is in, only the kernel says.
    await writeFile(join(bin, "systemctl"), `#!/bin/sh\necho "$@" >> ${folder.path}/asked\necho main\n`, {
      mode: 0o755,
    });
    await writeFile(join(folder.path, "asked"), "", { mode: 0o666 });
    await chmod(join(folder.path, "asked"), 0o666);
    const somebody = ["setpriv", "--reuid", "23456", "--regid", "23456", "--clear-groups"];
    const env = { NOTIFY_SOCKET: name, PATH: `${bin}:${process.env["PATH"]}`, HOME: folder.path };
    const { child, said, ended } = await agent(env, [], somebody);
    await eventually("it is up", () => heard.length >= 1);
    expect(heard[0]).toMatchObject({ uid: 23456, text: expect.stringMatching(/^READY=1\n/) });
    expect(heard[0]?.pid).not.toBe(child.pid);
    child.kill("SIGTERM");
    expect(await ended).toBe(0);
    const unit = /[^/]+\.service$/m.exec(await readFile("/proc/self/cgroup", "utf8"))?.[0];
    expect(await readFile(join(folder.path, "asked"), "utf8")).toBe(
      unit === undefined ? "" : expect.stringContaining(`--property=NotifyAccess --value -- ${unit}`),
    );
    expect(said().includes("NotifyAccess=all")).toBe(unit !== undefined);
  },
);

it.skipIf(!here)("an agent starts and ends as ever where nobody listens, and says so once", async () => {
  const name = join(folder.path, "nobody");
  const { child, http, said, ended } = await agent({ NOTIFY_SOCKET: name });
  await eventually("it says why", () => said().includes("systemd could not be told"));
  expect((await fetch(`http://127.0.0.1:${http}/v1/status/leader`)).status).toBe(200);
  child.kill("SIGTERM");
  expect(await ended).toBe(0);
  expect(said().split("systemd could not be told")).toHaveLength(2);
});

it.skipIf(!here)(
  "scripts of checks cannot speak for the agent; a program under trilith run speaks for itself",
  async () => {
    const name = join(folder.path, "notify");
    const heard = await listen(name);
    const checks = join(folder.path, "checks.json");
    const script = ["sh", "-c", 'echo "socket=$NOTIFY_SOCKET."'];
    await writeFile(checks, JSON.stringify({ check: { id: "env", name: "env", args: script, interval: "1s" } }));
    const { child, http, ended } = await agent({ NOTIFY_SOCKET: name }, [
      `-config-file=${checks}`,
      "-enable-local-script-checks",
    ]);
    const output = await eventually("the script was run", async () => {
      const response = await fetch(`http://127.0.0.1:${http}/v1/agent/checks`).catch(() => undefined);
      const said = ((await response?.json()) as Record<string, { Output: string }> | undefined)?.["env"]?.Output ?? "";
      return said.includes("socket=") ? said : undefined;
    });
    expect(output).toContain("socket=.");
    await eventually("the agent is up", () => heard.length >= 1);
    const wrapped = ["run", "--http-addr", `127.0.0.1:${http}`, "--name", "web", "--port", "1", "--"];
    const speaks = ["sh", "-c", 'systemd-notify --ready --status="the program"'];
    const done = await runToEnd([process.execPath, program, ...wrapped, ...speaks], { NOTIFY_SOCKET: name });
    expect(done.exitCode).toBe(0);
    await eventually("the program was heard", () => heard.some(({ text }) => text.includes("STATUS=the program")));
    child.kill("SIGTERM");
    await ended;
  },
);
