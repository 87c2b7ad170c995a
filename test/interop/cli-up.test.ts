// `trilith up`: its texts as those who read them read them: systemd, a shell, YAML; and every flag is one that the agent has.
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ownName } from "../support/own-name.ts";
import { havePrograms, ownFolder } from "../support/peers.ts";
import { type Done, program, runToEnd } from "../support/program.ts";

const systemd = await havePrograms("systemd-analyze");
const compose = await havePrograms("docker-compose");
/** A Python that reads YAML: docker-compose's, if not the first on the path. */
const python = await (async (): Promise<string | undefined> => {
  for (const candidate of ["python3", "/usr/bin/python3"])
    if ((await runToEnd([candidate, "-c", "import yaml"]).catch(() => undefined))?.exitCode === 0) return candidate;
  return undefined;
})();

const up = (...args: string[]): Promise<Done> => runToEnd([process.execPath, program, "up", ...args]);
/** A folder name that every one of them reads in its own way. */
const ODD = `/srv/a b'c"d$e%f`;
const SERVER = ["server", "-advertise", "10.0.0.5", "-node", "n 1", "-etcd", "http://e1:2379,http://e2:2379"];
const CLIENT = ["client", "-advertise", "10.0.0.6", "-join", "http://10.0.0.5:8500", "-retry-join", "10.0.0.7"];

describe("trilith up", () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  beforeAll(async () => {
    folder = await ownFolder("up");
  });
  afterAll(() => folder?.remove());

  it("says who may write the unit, where this user may not", async () => {
    await havePrograms("setpriv");
    const somebody = ["setpriv", "--reuid", "23456", "--regid", "23456", "--clear-groups"];
    const root = await ownFolder("up-root");
    try {
      const words = [process.execPath, program, "up", "server", "--start", "--root", root.path];
      const { err, exitCode } = await runToEnd([...somebody, ...words]);
      expect({ err, exitCode }).toEqual({
        err: `trilith up: no permission for ${root.path}/etc: run this as root (sudo) or as the user it belongs to\n`,
        exitCode: 1,
      });
    } finally {
      await root.remove();
    }
  });

  it.skipIf(!systemd)("prints a unit that systemd takes", async () => {
    for (const [i, words] of [[...SERVER, "-dns-bridge", "-data-dir", ODD], CLIENT].entries()) {
      const { out, err, exitCode } = await up(...words);
      expect({ err, exitCode }).toEqual({ err: "", exitCode: 0 });
      const file = join(folder.path, `trilith-${i}.service`);
      await writeFile(file, out);
      const verified = await runToEnd(["systemd-analyze", "verify", "--man=no", file]);
      expect(verified.err.split("\n").filter((line) => line.includes(`trilith-${i}.service`))).toEqual([]);
    }
    const { out } = await up(...SERVER, "-bootstrap-expect=3", "-data-dir", ODD);
    expect(out).toContain(
      ` agent -server -bootstrap-expect 3 -node "n 1" -advertise 10.0.0.5 -etcd http://e1:2379,http://e2:2379 -data-dir "/srv/a b'c\\"d$$e%%f" -hook-table /run/trilith/table -docker-host unix:///var/run/docker.sock\n`,
    );
  });

  it("prints a docker line whose words a shell gives back as they were meant", async () => {
    const { out } = await up(...SERVER, "-format", "docker", "-image", "me/trilith:1", "-data-dir", ODD, "-dns-bridge");
    const script = join(folder.path, "line.sh");
    await writeFile(script, `docker() { for word in "$@"; do printf '%s\\n' "$word"; done; }\n${out}`);
    const words = (await runToEnd(["sh", script])).out.split("\n").slice(0, -1);
    expect(words).toEqual([
      ...["run", "--detach", "--name", "trilith", "--restart", "unless-stopped", "--network", "host"],
      ...["--cap-add", "NET_BIND_SERVICE", "--volume", `${ODD}:${ODD}`],
      ...["--volume", "/run/trilith:/run/trilith"],
      ...["--volume", "/var/run/docker.sock:/var/run/docker.sock:ro", "me/trilith:1"],
      ...["agent", "-server", "-node", "n 1", "-advertise", "10.0.0.5", "-etcd", "http://e1:2379,http://e2:2379"],
      ...["-dns-bridge", "-data-dir", ODD, "-hook-table", "/run/trilith/table"],
      ...["-docker-host", "unix:///var/run/docker.sock"],
    ]);
  });

  const composeFile = async (...more: string[]): Promise<string> => {
    const { out } = await up(
      ...CLIENT,
      "-format=compose",
      "-image=me/t",
      "-data-dir",
      ODD,
      "-no-host-network",
      ...more,
    );
    const file = join(folder.path, `compose${more.join("")}.yml`);
    await writeFile(file, out);
    return file;
  };
  const yaml = async (file: string): Promise<{ readonly services: Readonly<Record<string, unknown>> }> => {
    const code = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    const { out, err } = await runToEnd([python ?? "python3", "-c", code, file]);
    expect(err).toBe("");
    return JSON.parse(out);
  };
  it.skipIf(!compose && python === undefined)(
    "prints a compose file that is YAML and says what was asked",
    async () => {
      const odd = ODD.replace("$", "$$$$");
      expect(await yaml(await composeFile())).toEqual({
        services: {
          trilith: {
            image: "me/t",
            container_name: "trilith",
            restart: "unless-stopped",
            ports: ["127.0.0.1:8500:8500", "127.0.0.1:8600:8600", "127.0.0.1:8600:8600/udp"],
            volumes: [`${odd}:${odd}`, "/var/run/docker.sock:/var/run/docker.sock:ro"],
            command: [
              ...["agent", "-advertise", "10.0.0.6", "-client", "0.0.0.0", "-join", "http://10.0.0.5:8500"],
              ...["-retry-join", "10.0.0.7", "-data-dir", odd, "-docker-host", "unix:///var/run/docker.sock"],
            ],
          },
        },
      });
    },
  );
  it.skipIf(!compose)("prints a compose file that compose takes", async () => {
    for (const file of [await composeFile(), await composeFile("-connect")]) {
      const { exitCode, err } = await runToEnd(["docker-compose", "--file", file, "config", "--quiet"]);
      expect({ exitCode, err }).toEqual({ exitCode: 0, err: "" });
    }
  });

  it.skipIf(!compose && python === undefined)(
    "gives the rights to enter other containers where that is asked for, and says so where not",
    async () => {
      const line = ["-format", "docker", "-image", "me/t", "-dns-bridge"];
      const { out } = await up(...SERVER, ...line, "-connect");
      expect(out).toContain(
        " --network host --pid host --cap-add NET_BIND_SERVICE --cap-add SYS_ADMIN --cap-add SYS_PTRACE --security-opt apparmor=unconfined --volume ",
      );
      expect(out).not.toContain("with --connect");
      const without = (await up(...SERVER, ...line)).out;
      expect(without).toMatch(/^# labels connect\.PORT of containers count with --connect: /m);
      expect(without).not.toMatch(/--pid|SYS_|apparmor/);
      for (const none of [["-format=docker", "-image=x", "-no-docker"], ["-connect"]])
        expect((await up(...SERVER, ...none)).out).not.toMatch(/connect|SYS_/);
      expect((await yaml(await composeFile("-connect"))).services["trilith"]).toMatchObject({
        ...{ pid: "host", cap_add: ["SYS_ADMIN", "SYS_PTRACE"], security_opt: ["apparmor=unconfined"] },
      });
    },
  );

  it("guesses the address, says so, and uses it", async () => {
    const { out, exitCode, err } = await up("server", "-no-docker");
    expect({ exitCode, err }).toEqual({ exitCode: 0, err: "" });
    const [, guessed] = /^# advertised: (\S+) \(/.exec(out) ?? [];
    expect(guessed).toMatch(/^[0-9a-f.:]+$/);
    expect(out).toContain(` -advertise ${guessed} `);
    expect(out).toContain(" -docker-host off\n");
    expect(out).not.toContain("docker.service");
  });

  it("names only flags that the agent has", async () => {
    const help = (await runToEnd([process.execPath, program, "agent", "--help"])).out;
    for (const words of [[...SERVER, "-dns-bridge", "docker0", "-recursor", "system", "-datacenter", "dc2"], CLIENT]) {
      const { out } = await up(...words, "-client", "10.0.0.5");
      const line = /^ExecStart=.* agent (.*)$/m.exec(out)?.[1] ?? "";
      const flags = [...line.matchAll(/(?:^| )-([a-z][a-z-]*)/g)].map(([, flag]) => flag);
      expect(flags.length).toBeGreaterThan(4);
      for (const flag of flags) expect(help).toMatch(new RegExp(`--${flag}\\b`));
    }
  });

  it("writes the unit, and replaces no other one unasked", async () => {
    const name = ownName("t");
    const write = ["-start", "-root", folder.path, "-name", name];
    const path = join(folder.path, `etc/systemd/system/${name}.service`);
    expect((await up(...CLIENT, ...write)).out).toBe(`wrote ${path}\n`);
    expect(await readFile(path, "utf8")).toBe((await up(...CLIENT, "-name", name)).out);
    expect((await up(...CLIENT, ...write)).exitCode).toBe(0);
    const other = await up(...SERVER, ...write);
    expect(other).toMatchObject({ exitCode: 1, out: "" });
    expect(other.err).toContain("--force replaces it");
    expect((await up(...SERVER, ...write, "-force")).exitCode).toBe(0);
    expect(await readFile(path, "utf8")).toContain(" -server ");
  });

  it.each([
    [["boss"], "expected server or client"],
    [["client"], "--join"],
    [["client", "-join", "http://a:8500", "-etcd", "http://e:2379"], "--etcd"],
    [["server", "-join", "http://a:8500"], "--join"],
    [["server", "-bootstrap-expect", "3"], "--etcd"],
    [["server", "-format", "docker"], "--image"],
    [["server", "-format", "k8s"], "expected systemd, docker or compose"],
    [["server", "-format=docker", "-image=x", "-no-host-network", "-dns-bridge"], "--no-host-network"],
    [["server", "-connect", "-no-docker"], "--no-docker"],
    [["server", "-data-dir", "relative"], "--data-dir"],
    [["server", "-node", "a\nb"], "line break"],
  ])("refuses %j", async (words, text) => {
    const { exitCode, out, err } = await up(...words);
    expect({ exitCode, out }).toEqual({ exitCode: 2, out: "" });
    expect(err).toContain(text);
  });
});
