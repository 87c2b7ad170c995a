// `trilith exec` with two real agents on one etcd: who answers, what is printed as it comes, exit codes, what is ended, and that it is off unless both keys of the configuration switch it on.
import { type ChildProcess, spawn } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type EtcdNode, startEtcd } from "../support/etcd.ts";
import { ownName } from "../support/own-name.ts";
import { eventually, freePort, havePrograms, ownFolder, startProgram } from "../support/peers.ts";
import { program } from "../support/program.ts";

const line = [process.execPath, program];
const here = await havePrograms("etcd");

interface Agent {
  readonly url: string;
  readonly log: string;
  readonly pid: number;
  stop(signal?: NodeJS.Signals): Promise<void>;
}
interface Run {
  readonly child: ChildProcess;
  readonly ended: Promise<{ readonly code: number | null; readonly out: string; readonly err: string }>;
  text(): string;
}

describe.skipIf(!here)("trilith exec", () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let etcd: EtcdNode;
  let alpha: Agent;
  let beta: Agent;
  const agents: Agent[] = [];
  const runs: Run[] = [];

  async function agent(node: string, config: string, storage: readonly string[]): Promise<Agent> {
    const file = join(folder.path, `${node}.hcl`);
    await writeFile(file, config);
    const log = join(folder.path, `${node}.log`);
    const http = await freePort();
    const words = ["agent", `-node=${node}`, `-http-port=${http}`, "-dns-port=-1", "-docker-host=off", "-quiet"];
    const program = await startProgram([...line, ...words, `-config-file=${file}`, ...storage], log, {
      OUT: folder.path,
      SHELL: "/bin/sh",
    });
    const running: Agent = { url: `http://127.0.0.1:${http}`, log, pid: program.pid, stop: program.stop };
    agents.push(running);
    await eventually(`${node} answers`, async () => {
      const answer = await fetch(`${running.url}/v1/health/service/consul?passing`);
      return answer.ok && ((await answer.json()) as { Node: { Node: string } }[]).some((one) => one.Node.Node === node);
    });
    return running;
  }
  const shared = (node: string): readonly string[] => [
    `-etcd=${etcd.endpoint}`,
    `-data-dir=${join(folder.path, node)}`,
    "-advertise=127.0.0.1",
  ];
  const ON = "disable_remote_exec = false\nenable_script_checks = true\n";

  beforeAll(async () => {
    folder = await ownFolder("exec");
    etcd = await startEtcd();
    [alpha, beta] = (await Promise.all(["alpha", "beta"].map((node) => agent(node, ON, shared(node))))) as [
      Agent,
      Agent,
    ];
    await eventually("each knows the other", async () => {
      for (const { url } of [alpha, beta])
        if (((await (await fetch(`${url}/v1/health/service/consul?passing`)).json()) as unknown[]).length < 2)
          return false;
      return true;
    });
  });
  afterEach(async () => {
    // Interrupted, they take back what they left for the agents.
    for (const { child, ended } of runs.splice(0)) {
      child.kill("SIGINT");
      await ended;
    }
  });
  afterAll(async () => {
    for (const each of agents) await each.stop();
    await etcd?.remove();
    await folder?.remove();
  });

  function start(words: readonly string[], input = "", at: Agent = alpha): Run {
    const [file = "", ...before] = line;
    const child = spawn(file, [...before, "exec", ...words], {
      env: { ...process.env, CONSUL_HTTP_ADDR: at.url, TRILITH_HTTP_ADDR: "" },
      stdio: ["pipe", "pipe", "pipe"],
    });
    let [out, err] = ["", ""];
    child.stdout?.on("data", (chunk: Buffer) => {
      out += chunk.toString();
    });
    child.stderr?.on("data", (chunk: Buffer) => {
      err += chunk.toString();
    });
    child.stdin?.on("error", () => {});
    child.stdin?.end(input);
    const ended = new Promise<{ code: number | null; out: string; err: string }>((done) => {
      child.once("close", (code) => done({ code, out, err }));
    });
    const run = { child, ended, text: () => out };
    runs.push(run);
    return run;
  }
  const leftIn = async (at: Agent): Promise<unknown> => (await fetch(`${at.url}/v1/kv/_rexec?keys`)).status;
  const gone = (pid: number): boolean => {
    try {
      process.kill(pid, 0);
      return false;
    } catch {
      return true;
    }
  };

  test("both agents answer, streaming: what they say, how they ended; nothing is left behind", async () => {
    const go = ownName("go");
    const run = start(["-verbose", `echo one; while [ ! -e $OUT/${go} ]; do sleep 0.05; done; echo two >&2; exit 3`]);
    await eventually("the first words of both", () => /alpha: one/.test(run.text()) && /beta: one/.test(run.text()));
    expect(run.text()).not.toContain("two");
    await writeFile(join(folder.path, go), "");
    const { code, out, err } = await run.ended;
    expect([code, err]).toEqual([2, ""]);
    for (const node of ["alpha", "beta"]) {
      const own = out.split("\n").filter((text) => text.includes(` ${node}: `) && !text.includes("heartbeat"));
      expect(own).toEqual([
        `==> ${node}: acknowledged`,
        `    ${node}: one`,
        `    ${node}: `,
        `    ${node}: two`,
        `    ${node}: `,
        `==> ${node}: finished with exit code 3`,
      ]);
    }
    expect(out).toMatch(
      /^Created remote execution session: \S{36}\nUploaded remote execution spec\nFired remote execution event: \S{36}\n/,
    );
    expect(out).toMatch(/\n2 \/ 2 node\(s\) completed \/ acknowledged\nCompleted in \d+\.\d\d seconds\n$/);
    expect(await leftIn(beta)).toBe(404);
    expect(await (await fetch(`${alpha.url}/v1/session/list`)).json()).toEqual([]);
  });

  test("only those that the filters name; without a shell; a script from standard input with an interpreter of its own", async () => {
    const node = start(["-node=^bet", "-shell=false", "-wait=1s", "printf", "%s.", "a b", "$HOME"], "", beta);
    const script = start(
      ["-node", "alpha", "--wait", "1s", "-"],
      `#!${process.execPath}\nconsole.log("1" + 1, "x".repeat(9000).length)\n`,
    );
    const nobody = start(["-service=nope", "-wait=1s", "true"]);
    const [one, two, three] = await Promise.all([node.ended, script.ended, nobody.ended]);
    expect(one.out).toBe(
      "    beta: a b.$HOME.\n==> beta: finished with exit code 0\n1 / 1 node(s) completed / acknowledged\n",
    );
    expect(two.out).toBe(
      "    alpha: 11 9000\n    alpha: \n==> alpha: finished with exit code 0\n1 / 1 node(s) completed / acknowledged\n",
    );
    expect(three).toEqual({ code: 0, out: "0 / 0 node(s) completed / acknowledged\n", err: "" });
    expect([one.code, two.code]).toEqual([0, 0]);
  });

  test("a long output arrives whole and in order, characters that pieces cut in half, too", async () => {
    const { code, out } = await start(["-node=beta", "-wait=1s", "seq 1 4000 | sed 's/$/ä€😀/'"]).ended;
    expect(code).toBe(0);
    const said = out
      .split("\n")
      .filter((text) => text.startsWith("    beta: "))
      .map((text) => text.slice("    beta: ".length));
    expect(out).toContain("==> beta: finished with exit code 0\n");
    // Where a piece ends, a line does.
    expect(said.join("")).toBe(Array.from({ length: 4000 }, (_, i) => `${i + 1}ä€😀`).join(""));
  });

  test("a quiet command keeps both sides waiting; when nobody waits any more it is ended", async () => {
    const pidFile = ownName("quiet");
    const run = start(["-node=beta", "-wait=500ms", "-verbose", `echo $$ > $OUT/${pidFile}; sleep 300`]);
    await eventually("signs of life", () => (run.text().match(/==> beta: heartbeat received/g)?.length ?? 0) >= 3);
    const pid = Number(await readFile(join(folder.path, pidFile), "utf8"));
    expect(gone(pid)).toBe(false);
    run.child.kill("SIGINT");
    expect((await run.ended).code).toBe(1);
    await eventually("the command is ended", () => gone(pid));
    expect(await leftIn(alpha)).toBe(404);
  });

  test("what cannot be run says why", async () => {
    const { code, out } = await start(["-node=alpha", "-wait=1s", "-shell=false", "/nope/nothing"]).ended;
    expect(code).toBe(2);
    expect(out).toMatch(/ {4}alpha: .*ENOENT[\s\S]*==> alpha: finished with exit code 255\n1 \/ 1 node/);
  });

  test("an agent that is killed midway: the others are heard, and it counts as not completed", async () => {
    const name = ownName("gamma");
    const gamma = await agent(name, ON, shared(name));
    const go = ownName("go");
    const words = ["-wait=1s", "-verbose", `echo $PPID; while [ ! -e $OUT/${go} ]; do sleep 0.05; done`];
    const run = start([`-node=^(alpha|${name})$`, ...words]);
    await eventually(
      "both at work",
      () => run.text().includes(`${name}: ${gamma.pid}`) && /alpha: \d+/.test(run.text()),
    );
    await gamma.stop("SIGKILL");
    await writeFile(join(folder.path, go), "");
    const { code, out } = await run.ended;
    expect(code).toBe(2);
    expect(out).toContain("==> alpha: finished with exit code 0\n");
    expect(out).not.toContain(`${name}: finished`);
    expect(out).toMatch(/\n1 \/ 2 node\(s\) completed \/ acknowledged\n/);
  });

  test.each([
    ["unless told", "enable_script_checks = true\n", /ignoring remote exec event, disabled/],
    [
      "without scripts from the API",
      "disable_remote_exec = false\nenable_local_script_checks = true\n",
      /remote execution stays off: .*enable_script_checks/,
    ],
  ])("is off %s", async (_, config, says) => {
    const lone = await agent("lone", config, ["-dev"]);
    const run = await start(["-wait=500ms", `touch ${join(folder.path, "touched")}`], "", lone).ended;
    expect(run).toEqual({ code: 0, out: "0 / 0 node(s) completed / acknowledged\n", err: "" });
    expect(await readFile(lone.log, "utf8")).toMatch(says);
    await expect(readFile(join(folder.path, "touched"))).rejects.toThrow("ENOENT");
    await lone.stop();
  });

  test.each<readonly [words: readonly string[], says: string]>([
    [[], "Must specify a command to execute"],
    [["-tag=x", "ls"], "Cannot provide tag filter without service filter."],
    [["-shell=false", "-"], "Cannot configure -shell=false when reading from stdin"],
    [["-wait=soon", "ls"], 'invalid duration "soon"'],
    [["-node=[", "ls"], "Invalid node filter"],
  ])("refuses %j", async (words, says) => {
    const { code, out, err } = await start(words).ended;
    expect(code).toBeGreaterThan(0);
    expect(out).toBe("");
    expect(err).toContain(says);
    expect(await leftIn(alpha)).toBe(404);
  });
});
