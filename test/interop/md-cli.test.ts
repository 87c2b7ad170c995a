// `trilith md` against what Minidisc's md printed: three hosts' addresses in a namespace, a LocalAPI for each, the recorded files and lines.
import type { ChildProcess } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdir, symlink, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { dirname, join, resolve } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { type Ended, runClient } from "../support/clients.ts";
import { ownName } from "../support/own-name.ts";
import { eventually, havePrograms, ownFolder, startProgram } from "../support/peers.ts";
import { program } from "../support/program.ts";
import { endHolder, inside, namespaces, type TailnetStatus } from "../support/tailnet.ts";

const here = (await havePrograms("ip", "nsenter", "unshare")) && process.getuid?.() === 0;
const root = resolve(import.meta.dirname, "../..");
const golden = join(root, "test/golden/minidisc");
const recorded = readFileSync(join(golden, "cli/md-list-find.txt"), "utf8");

/** What the recording holds under a command, without the `$` that cat -A puts at line ends. */
function printed(command: string): string {
  const [, after = ""] = recorded.split(`$ ${command}`);
  return (
    after
      .slice(after.indexOf("\n") + 1)
      .split(/^\$ /m)[0]
      ?.replace(/\$$/gm, "") ?? ""
  );
}

/** The three files of the recording, which stand one after another in one. */
const files = readFileSync(join(golden, "cli/configs.yaml"), "utf8")
  .split(/^(?=services:)/m)
  .filter((text) => text !== "");

describe.skipIf(!here)("trilith md", () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let holder: ChildProcess & { pid: number };
  const servers: Server[] = [];
  const running = new Set<Awaited<ReturnType<typeof startProgram>>>();
  let state = "Running";

  const socketOf = (host: number): string => join(folder.path, `host${host}.sock`);
  /** The recorded status, seen from each of the three. */
  const statusOf = (host: number): string => {
    const whole = JSON.parse(readFileSync(join(golden, "status/running-3nodes.json"), "utf8")) as TailnetStatus;
    const all = [1, 2, 3].map((n) => ({ HostName: `mdnode${n}`, Online: true, TailscaleIPs: [`100.64.0.${n}`] }));
    return JSON.stringify({
      ...whole,
      BackendState: state,
      TailscaleIPs: [`100.64.0.${host}`],
      Self: { ...whole.Self, ...all[host - 1] },
      Peer: Object.fromEntries(all.filter((_, i) => i !== host - 1).map((one) => [one.HostName, one])),
    });
  };
  const md = (host: number, ...words: readonly string[]): Promise<Ended> =>
    runClient(inside(holder.pid, [process.execPath, program, "md", ...words]), { env: { TS_SOCKET: socketOf(host) } });
  const shell = (line: string): Promise<Ended> => runClient(inside(holder.pid, ["sh", "-c", line]));
  async function advertise(
    host: number,
    text: string,
  ): Promise<{ readonly pid: number; stop(signal: NodeJS.Signals): Promise<number | null> }> {
    const file = join(folder.path, `${host}-${Math.random()}.yaml`);
    await writeFile(file, text);
    const log = `${file}.log`;
    const started = await startProgram(inside(holder.pid, [process.execPath, program, "md", "advertise", file]), log, {
      TS_SOCKET: socketOf(host),
    });
    running.add(started);
    await eventually("it says that it advertises", () => /^Advertising: /m.test(readFileSync(log, "utf8")));
    return {
      pid: started.pid,
      async stop(signal) {
        running.delete(started);
        await started.stop(signal);
        return started.ended;
      },
    };
  }

  beforeAll(async () => {
    folder = await ownFolder("md-cli");
    holder = await namespaces("md", folder.path);
    for (const host of [1, 2, 3]) {
      await runClient(inside(holder.pid, ["ip", "addr", "add", `100.64.0.${host}/32`, "dev", "lo"]));
      const server = createServer((_, response) => {
        response.setHeader("content-type", "application/json");
        response.end(statusOf(host));
      });
      servers.push(server);
      await new Promise<void>((done) => server.listen(socketOf(host), done));
    }
  });
  afterAll(async () => {
    for (const one of running) await one.stop();
    for (const server of servers) await new Promise((done) => server.close(done));
    if (holder !== undefined) await endHolder(holder);
    await folder?.remove();
  });

  afterEach(async () => {
    for (const one of running) await one.stop();
    running.clear();
  });

  test("nothing advertised: a message, exit code 1, under md's name 0", async () => {
    expect(await md(1, "list")).toEqual({ exitCode: 1, output: "No advertised services found\n" });
    expect(await md(1, "list", "--compat")).toEqual({ exitCode: 0, output: "No advertised services found\n" });
    expect(await md(1, "find", "web")).toEqual({ exitCode: 1, output: "No matching service found\n" });
    const link = join(folder.path, ownName("called"), "md");
    await mkdir(dirname(link));
    await symlink(program, link);
    const called = (...words: readonly string[]): Promise<Ended> =>
      runClient(inside(holder.pid, [process.execPath, link, ...words]), { env: { TS_SOCKET: socketOf(1) } });
    expect(await called("list")).toEqual({ exitCode: 0, output: "No advertised services found\n" });
    expect(await called("find", "web")).toEqual({ exitCode: 0, output: "No matching service found\n" });
    const { output } = await shell(
      `TS_SOCKET=${socketOf(1)} ${process.execPath} ${program} md list --compat 2>/dev/null`,
    );
    expect(output).toBe("");
  });

  test("list and find print what was recorded, byte for byte", async () => {
    expect(files).toHaveLength(3);
    // The second file's process led host 1 when it was recorded, the first one's was its delegate.
    const [first, second, third] = files as [string, string, string];
    const advertised = [
      await advertise(1, second),
      await advertise(1, first),
      await advertise(2, third),
      await advertise(
        3,
        "services: [{name: cache, address: ':6379', labels: {lang: py}}, {name: web, address: ':8080', labels: {env: prod}}]",
      ),
    ];
    const lists = [1, 2, 3].map((host) => printed(`md list     # on n${host}`));
    expect(lists[0]?.split("\n")).toHaveLength(8);
    expect((await md(1, "list")).output).toBe(lists[0]);
    expect((await md(3, "list")).output).toBe(lists[2]);
    // Go's order among other hosts is by chance; ours is by address.
    const second2 = (await md(2, "list")).output.split("\n");
    expect(second2.slice(0, 2)).toEqual(lists[1]?.split("\n").slice(0, 2));
    expect([...second2].sort()).toEqual(lists[1]?.split("\n").sort());

    const finds = [...recorded.matchAll(/^\$ (md find (.+?)) {3}# on n3$/gm)];
    expect(finds.length).toBeGreaterThanOrEqual(5);
    for (const [, command = "", words = ""] of finds) {
      const [, text = "", code = ""] = /^([\s\S]*)rc=(\d)\n$/.exec(printed(command)) ?? [];
      expect(await md(3, "find", ...words.split(" "), "--compat"), command).toEqual({
        exitCode: Number(code),
        output: text,
      });
    }
    expect((await md(3, "find", "nosuch")).exitCode).toBe(1);

    // SIGINT and SIGTERM both end it well, and what it said is withdrawn before it is gone.
    const [leader, delegate, ...others] = advertised as [(typeof advertised)[0], (typeof advertised)[0]];
    expect(await delegate.stop("SIGINT")).toBe(0);
    expect((await md(3, "list")).output).not.toMatch(/:8080 .*zone=eu|5432/);
    expect((await md(3, "list")).output).toContain("100.64.0.1:8081");
    expect(await leader.stop("SIGTERM")).toBe(0);
    expect((await md(3, "list")).output).not.toContain("100.64.0.1:");
    for (const other of others as (typeof advertised)[0][]) expect(await other.stop("SIGTERM")).toBe(0);
    expect(await md(1, "list")).toEqual({ exitCode: 1, output: "No advertised services found\n" });
  });

  test("a killed leader's services are gone, its delegate's are there again at once", async () => {
    const [leader, delegate] = [
      await advertise(1, "services: [{name: one, address: ':1111'}]"),
      await advertise(1, "services: [{name: two, address: ':2222'}]"),
    ];
    expect((await md(2, "list")).output).toBe("* one   100.64.0.1:1111   {}   \n* two   100.64.0.1:2222   {}   \n");
    await leader.stop("SIGKILL");
    await eventually("two leads", async () => {
      const { output } = await md(2, "list");
      return output === "* two   100.64.0.1:2222   {}   \n";
    });
    expect(await delegate.stop("SIGTERM")).toBe(0);
  });

  test("the README's file and commands do what stands beside them", async () => {
    const readme = readFileSync(join(root, "src/protocols/minidisc/README.md"), "utf8");
    const yaml = /```yaml\n([\s\S]*?)```/.exec(readme)?.[1] ?? "";
    const beside = (command: string): string =>
      new RegExp(`^trilith md ${command} +# ([^:]+:\\d+(?: +\\{.*\\})?)`, "m").exec(readme)?.[1] ?? "nothing";
    const advertised = await advertise(1, yaml);
    const squeezed = (await md(1, "list")).output.replaceAll(/ +/g, " ");
    expect(squeezed).toContain(`${beside("list").replaceAll(/ +/g, " ")} \n`);
    expect(squeezed).toContain("* printer 100.64.0.9:631 {} \n");
    expect(await md(1, "find", "web", "env=prod")).toEqual({ exitCode: 0, output: `${beside("find web env=prod")}\n` });
    await advertised.stop("SIGINT");
  });

  test("standard input is read; labels are texts as they are written", async () => {
    const yaml = 'x: &l {v: 1.0, b: yes, "n": ~}\nservices:\n- {name: in, address: ":7", labels: *l, more: [1]}';
    const file = join(folder.path, "in.yaml");
    await writeFile(file, yaml);
    const log = join(folder.path, "in.log");
    const started = await startProgram(
      inside(holder.pid, ["sh", "-c", `exec ${process.execPath} ${program} md advertise - < ${file}`]),
      log,
      { TS_SOCKET: socketOf(2) },
    );
    running.add(started);
    await eventually(
      "listed",
      async () => (await md(1, "list")).output === "* in   100.64.0.2:7   { b=yes, n=, v=1.0 }   \n",
    );
    running.delete(started);
    await started.stop("SIGTERM");
    expect(await started.ended).toBe(0);
  });

  test("what cannot be taken is told with file and line, and ends with 1", async () => {
    const bad = async (text: string): Promise<Ended & { readonly lines: readonly string[] }> => {
      const file = join(folder.path, "bad.yaml");
      await writeFile(file, text);
      const ended = await md(1, "advertise", file);
      return { ...ended, lines: ended.output.replaceAll(`${file}:`, "").split("\n").slice(0, -1) };
    };
    const service = (address: string, name = "web"): string => `- {name: ${name}, address: "${address}"}\n`;
    for (const [text, message] of [
      [service("localhost:80"), /^2: services\[0\]\.address: "localhost:80": a host name says nothing to others/],
      [service("[fd7a:115c:a1e0::1]:80"), /IPv6 is not known to Minidisc/],
      [service("192.168.1.1:80"), /192\.168\.1\.1 is not within 100\.0\.0\.0\/8/],
      [service("101.0.0.1:80"), /not within 100\.0\.0\.0\/8/],
      [service(":0"), /expected a port from 1 to 65535/],
      [service("100.64.0.9"), /expected ":port" for this host/],
      [service(":80") + service(":80", "b"), /^3: services\[1\]\.address: ":80" stands at services\[0\] already/],
      [service(":80", '""'), /^2: services\[0\]\.name: expected a name/],
    ] as const) {
      const { exitCode, lines } = await bad(`services:\n${text}`);
      expect(lines, text).toHaveLength(1);
      expect(lines[0]).toMatch(message);
      expect(exitCode, text).toBe(1);
    }
    expect((await bad("services: 3")).lines).toEqual([expect.stringMatching(/^1: services: expected a list/)]);
    expect((await bad("")).exitCode).toBe(1);
    expect((await bad("services: [")).lines[0]).toMatch(/^1: /);
    // The same place told in two ways: only this host knows.
    const twice = await bad(`services:\n${service(":80")}${service("100.64.0.1:80", "b")}`);
    expect([twice.exitCode, twice.output]).toEqual([1, expect.stringContaining("two services are at 100.64.0.1:80")]);
    expect((await md(1, "advertise", "/nonexistent.yaml")).exitCode).toBe(1);
    // As md has it, what cannot be read is a wrong command line; what can be read, but not taken, is not.
    expect((await md(1, "advertise", "--compat", "/nonexistent.yaml")).exitCode).toBe(2);
    const file = join(folder.path, "shape.yaml");
    await writeFile(file, "services: 3");
    expect((await md(1, "advertise", "--compat", file)).exitCode).toBe(2);
    await writeFile(file, `services:\n${service("localhost:80")}`);
    expect((await md(1, "advertise", "--compat", file)).exitCode).toBe(1);
  });

  test("usage errors end with 2, a tailnet that is not there with 1 and why", async () => {
    for (const words of [
      [],
      ["nonsense"],
      ["find"],
      ["find", "web", "env"],
      ["advertise"],
      ["list", "--wrong"],
      ["list", "--proxy", "x"],
    ])
      expect((await md(1, ...words)).exitCode, words.join(" ")).toBe(2);
    expect(await md(4, "list")).toEqual({ exitCode: 1, output: `trilith md: no tailscaled at ${socketOf(4)}\n` });
    state = "Stopped";
    try {
      const { exitCode, output } = await md(1, "find", "web", "--compat");
      expect([exitCode, output]).toEqual([1, expect.stringMatching(/is stopped: "tailscale up" starts it/)]);
    } finally {
      state = "Running";
    }
  });
});
