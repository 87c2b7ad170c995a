// Commands run inside containers of a real dockerd as checks: exit codes, outputs, containers that are away, commands that hang.
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { TrilithError } from "../../../src/base/error.ts";
import { createHttp } from "../../../src/base/http.ts";
import type { Probe } from "../../../src/contracts/probe.ts";
import { defaultSettings } from "../../../src/contracts/settings.ts";
import type { Outcome } from "../../../src/model/check.ts";
import { parseHost } from "../../../src/protocols/docker/endpoint.ts";
import { type ExecDetail, execProbe } from "../../../src/protocols/docker/exec.ts";
import { createTrilith } from "../../../src/trilith.ts";
import { type Docker, startDocker } from "../../support/docker.ts";
import { triedBefore } from "../../support/own-name.ts";
import { eventually, freePort, havePrograms } from "../../support/peers.ts";

const present = await havePrograms("dockerd", "docker", "iptables", "ip", "busybox");
let docker: Docker;
let box = "";
const http = createHttp();

const probe = (): Probe<ExecDetail> => execProbe(http, [parseHost(docker.host, "test")]);

async function ask(
  of: Probe<ExecDetail>,
  detail: ExecDetail,
  timeoutMs = 20_000,
  outputMaxBytes = 4096,
): Promise<Outcome> {
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(new TrilithError("timeout", "time is over")), timeoutMs);
  try {
    return await of.run(detail, { address: "", port: 0 }, abort.signal, { outputMaxBytes, timeoutMs });
  } finally {
    clearTimeout(timer);
  }
}

const shell = (script: string, container = "box"): ExecDetail =>
  probe().parse({ container, args: ["/bin/sh", "-c", script], shell: "/bin/sh" });

describe.runIf(present)("docker checks", () => {
  beforeAll(async () => {
    docker = await startDocker("checks");
    box = await docker.docker("run", "-d", "--name", "box", "bbexp1");
  }, 240_000);
  beforeEach(async (context) => {
    if (!triedBefore(context)) return;
    await docker.clear();
    box = await docker.docker("run", "-d", "--name", "box", "bbexp1");
  });
  afterAll(async () => {
    await http.close();
    await docker?.remove();
  }, 60_000);

  test("exit codes and both streams", async () => {
    expect(await ask(probe(), shell("echo good"))).toEqual({ status: "passing", output: "good\n" });
    expect(await ask(probe(), shell("echo so-so >&2; exit 1"))).toEqual({ status: "warning", output: "so-so\n" });
    expect(await ask(probe(), shell("echo bad; exit 2"))).toEqual({ status: "critical", output: "bad\n" });
    expect(await ask(probe(), shell("exit 3"))).toEqual({ status: "critical", output: "" });
    expect(await ask(probe(), shell("echo by id", box))).toEqual({ status: "passing", output: "by id\n" });
    // It runs inside: this file is nowhere else.
    expect(await ask(probe(), shell("cat /www/index.html"))).toEqual({ status: "passing", output: "ok\n" });
  });

  test("long outputs keep their tail", async () => {
    const long = await ask(probe(), shell("i=0; while [ $i -lt 600 ]; do echo 0123456789; i=$((i+1)); done"));
    expect(long.output).toBe(`Captured 4096 of 6600 bytes\n...\n${"0123456789\n".repeat(600).slice(-4096)}`);
  });

  test("containers that are not there, stopped or without the command", async () => {
    expect(await ask(probe(), shell("true", "nosuch"))).toEqual({
      status: "critical",
      output: "create exec failed for unknown container nosuch",
    });
    await docker.docker("create", "--name", "idle", "bbexp1");
    expect(await ask(probe(), shell("true", "idle"))).toEqual({
      status: "critical",
      output: "create exec failed since container idle is paused or stopped",
    });
    await docker.docker("run", "-d", "--name", "paused", "bbexp1");
    await docker.docker("pause", "paused");
    expect(await ask(probe(), shell("true", "paused"))).toEqual({
      status: "critical",
      output: "create exec failed since container paused is paused or stopped",
    });
    await docker.docker("unpause", "paused");
    const missing = await ask(probe(), probe().parse({ container: "box", args: ["/bin/nosuch"] }));
    expect(missing.status).toBe("critical");
    expect(missing.output).toMatch(/no such file or directory/);
  });

  test("a command that hangs keeps what it said, and no second one is started until it ended", async () => {
    const same = probe();
    const detail = shell("echo working; touch /tmp/hangs; while test -e /tmp/hangs; do sleep 0.1; done; echo over");
    expect(await ask(same, detail, 4000)).toEqual({
      status: "critical",
      output: "Timed out (4s) running check\n\nworking\n",
      final: true,
    });
    expect(await ask(same, detail, 4000)).toEqual({
      status: "critical",
      output: "the command of an earlier run, which timed out, still runs in container box",
      final: true,
    });
    await docker.docker("exec", "box", "rm", "/tmp/hangs");
    await eventually("it is asked again", async () => (await ask(same, detail, 300)).output.startsWith("Timed out"));
    await eventually("it hangs again", async () => (await docker.docker("exec", "box", "rm", "/tmp/hangs")) === "");
  });

  test("an engine that is away, and one that stands behind another that is", async () => {
    const away = parseHost("unix:///nonexistent/docker.sock", "test");
    expect(await ask(execProbe(http, [away]), shell("true"))).toEqual({
      status: "critical",
      output: expect.stringMatching(/^exec failed for container box: .*\/nonexistent\/docker\.sock/),
    });
    const both = execProbe(http, [away, parseHost(docker.host, "test")]);
    expect(await ask(both, shell("true"))).toMatchObject({ status: "passing" });
  });

  test("details that make no sense are refused", () => {
    const { parse } = probe();
    expect(() => parse({ container: "", args: ["x"] })).toThrow(/docker check: container: ""/);
    expect(() => parse({ container: "../x", args: ["x"] })).toThrow(/docker check: container/);
    expect(() => parse({ container: "box", args: [] })).toThrow(/docker check: args: \[\]: expected the command/);
    expect(() => parse({ container: "box", args: ["x"], user: "root" })).toThrow(/unknown key "user"/);
  });

  test("through the whole agent: registered over the API and by a container's own words", async () => {
    const port = await freePort();
    const trilith = createTrilith({
      ...defaultSettings,
      dev: true,
      node: "host",
      httpPort: port,
      scripts: { fromApi: true, fromFiles: true },
      protocols: { docker: { host: docker.host, hostname: "host" }, dns: false },
    });
    onTestFinished(() => trilith.stop());
    await trilith.start();
    const put = await fetch(`http://127.0.0.1:${port}/v1/agent/service/register`, {
      method: "PUT",
      body: JSON.stringify({
        Name: "inside",
        Check: { DockerContainerID: box, Shell: "/bin/sh", Args: ["cat", "/tmp/state"], Interval: "1s" },
      }),
    });
    expect(await put.text()).toBe("");
    expect(put.status).toBe(200);
    const check = (id: string) => trilith.agent.checks().get(id)?.check;
    await eventually("it is critical", () => check("service:inside")?.output.includes("No such file") === true);
    expect(check("service:inside")?.type).toBe("docker");
    await docker.docker("exec", "box", "/bin/sh", "-c", "echo up > /tmp/state");
    await eventually("it is passing", () => check("service:inside")?.status === "passing");
    expect(check("service:inside")?.output).toBe("up\n");

    await docker.docker(
      ...[
        "run",
        "-d",
        "-P",
        "--name",
        "web",
        "-e",
        "SERVICE_NAME=web",
        "-e",
        "SERVICE_CHECK_DOCKER=wget -q -O - http://127.0.0.1/",
      ],
      ...["-e", "SERVICE_CHECK_INTERVAL=1s", "bbweb"],
    );
    await eventually("the container's own check passes", () => check("service:host:web:80")?.status === "passing");
    expect(check("service:host:web:80")?.output).toBe("ok\n");
  }, 60_000);
});
