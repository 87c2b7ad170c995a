// Every command of the built program against a running agent, as people and scripts use them: what is printed, where, and the exit code.
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, stat, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { createServer as createTcpServer } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { eventually, freePort, ownFolder } from "../support/peers.ts";
import { program } from "../support/program.ts";

const main = program;

interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Longer than what a cell of a table holds. */
const SERVICES = `services-${"x".repeat(110)}`;

describe("the program", () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let http: number;
  let dns: number;
  let agent: ChildProcess;
  let said: () => string;

  const env = (): NodeJS.ProcessEnv => {
    const { CONSUL_HTTP_ADDR: _a, CONSUL_HTTP_TOKEN: _b, TRILITH_HTTP_TOKEN: _c, ...rest } = process.env;
    return { ...rest, HOME: folder.path, TRILITH_HTTP_ADDR: `127.0.0.1:${http}` };
  };
  const trilith = (words: readonly string[], input = ""): Promise<Outcome> =>
    new Promise((done) => {
      const child = execFile(process.execPath, [main, ...words], { env: env() }, (error, out, err) =>
        done({ code: error === null ? 0 : typeof error.code === "number" ? error.code : -1, out, err }),
      );
      child.stdin?.end(input);
    });
  const start = (words: readonly string[]): { child: ChildProcess; text: () => string } => {
    let text = "";
    const child = spawn(process.execPath, [main, ...words], { env: env(), stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (chunk: Buffer) => {
        text += chunk.toString();
      });
    return { child, text: () => text };
  };
  const agentWords = (data: string): string[] => [
    "agent",
    `-http-port=${http}`,
    `-dns-port=${dns}`,
    // Neither containers nor processes of other tests are this one's.
    ...["-docker-host=off", "-environ=off"],
    `-data-dir=${join(folder.path, data)}`,
    `-services=${join(folder.path, SERVICES)}`,
  ];

  beforeAll(async () => {
    await stat(main);
    folder = await ownFolder("cli");
    await mkdir(join(folder.path, SERVICES));
    [http, dns] = [await freePort(), await freePort()];
    const { child, text } = start(agentWords("data"));
    agent = child;
    said = text;
    await eventually("the start screen", () => text().includes("Ctrl-C stops the agent"));
  });

  afterAll(async () => {
    if (agent.exitCode === null) {
      agent.kill("SIGINT");
      await once(agent, "exit");
    }
    await folder.remove();
    expect(agent.exitCode).toBe(0);
  });

  it("says at start where everything is, and lines that can be pasted", () => {
    const screen = said();
    expect(screen).toContain(`http://127.0.0.1:${http}`);
    expect(screen).toContain(join(folder.path, "data"));
    expect(screen).toContain(`npx trilith find --http-addr 127.0.0.1:${http} web`);
    expect(screen).toContain(`npx trilith hook --http-addr 127.0.0.1:${http} -- curl http://web.service.consul/`);
    expect(screen).toContain(`dig @127.0.0.1 -p ${dns} web.service.consul SRV`);
  });

  it.each([
    "agent",
    "run",
    "find",
    "list",
    "why",
    "doctor",
    "register",
    "deregister",
    "services",
    "services register",
    "services deregister",
    "catalog",
    "catalog datacenters",
    "catalog nodes",
    "catalog services",
    "kv",
    "kv get",
    "kv put",
    "kv delete",
    "kv export",
    "kv import",
    "exec",
    "config write",
    "debug",
    "keyring",
    "acl token list",
    "login",
    "operator autopilot set-config",
    "up",
    "completion",
    "wait",
    "link",
    "release",
    "reload",
    "validate",
    "version",
  ])("helps with %s, without an agent", async (words) => {
    const { code, out, err } = await trilith([...words.split(" "), "--help"]);
    expect({ code, err }).toEqual({ code: 0, err: "" });
    expect(out).toMatch(new RegExp(`^Usage: trilith ${words}`));
    expect(out).toContain("show this help");
    expect((await trilith(["help", ...words.split(" ")])).out).toBe(out);
  });

  it.each<readonly [words: readonly string[], code: number, says: string]>([
    [["fnd", "web"], 2, 'there is no command "fnd". Did you mean "find"?'],
    [["__proto__"], 2, 'there is no command "__proto__". "trilith help" lists them.'],
    [["help", "nope"], 2, 'there is no command "nope"'],
    [["find"], 2, "missing required argument 'service'"],
    [["find", "a", "b"], 2, "too many arguments"],
    [["find", "web", "--jsn"], 2, "Did you mean --json?"],
    [["find", "web", "--label", "x"], 2, '--label: "x": expected key=value'],
    [["find", "web", "--http-addr", "no where"], 2, "expected host:port"],
    [["find", "nope"], 1, 'There is no service "nope". "trilith list" shows what there is.'],
    [["find", "consul", "-tag=nope"], 1, '"trilith why consul" tells more'],
    [["register"], 2, "--name web"],
    [["register", "--name", "x", "--port", "99999"], 2, '--port: "99999"'],
    [["register", "--name", "x", "--check", "foo"], 2, '--check: "foo": expected http:/path'],
    [["register", "--name", "x", "--check", "ttl:soon"], 2, 'invalid duration "soon"'],
    [["register", "--name", "x", "--json"], 2, "unknown option '--json'"],
    [["deregister"], 2, "trilith deregister ID"],
    [["deregister", "nope"], 1, 'Unknown service ID "nope"'],
    [["catalog", "nodes", "--service", "nope"], 0, "No nodes match the given query - try expanding your search."],
    [["catalog", "services", "--node", "nope"], 0, "No services match the given query - try expanding your search."],
    [["catalog", "nope"], 2, "unknown command 'nope'"],
    [["kv", "get", "nope"], 1, "No key exists at: nope"],
    [["kv", "put"], 2, '(try "trilith kv put --help")'],
    [["kv", "put", ""], 2, "Missing KEY argument"],
    [["kv", "put", "k", "@/nope"], 2, "/nope: there is no such file"],
    [["kv", "put", "k", "v", "--flags", "x"], 2, '--flags: "x": expected a whole number'],
    [["kv", "put", "k", "v", "--cas", "--modify-index", "77"], 1, "CAS failed"],
    [["kv", "put", "k", "v", "--acquire"], 2, "--session"],
    [["kv", "delete", "k", "--cas"], 2, "--modify-index"],
    [["validate", "/nope"], 1, "/nope: there is no such file or folder"],
    [["version", "--format", "xml"], 2, "Allowed choices are pretty, json"],
    [["run", "ls"], 2, "put -- before the command"],
    [["run", "--", "/nope"], 127, "/nope: command not found"],
    [["run", "--port", "0", "--", "true"], 2, '--port: "0"'],
    [["run", "--interval", "x", "--", "true"], 2, '--interval: time: invalid duration "x"'],
    [["agent", "--http-port", "99999"], 2, "from -1 to 65535"],
    [["agent", "--nope"], 2, "unknown option '--nope'"],
    [["find"], 2, "trilith find: missing required argument 'service'"],
    [["announce"], 2, "--name: missing: trilith announce --name web --port 80"],
    [["announce", "--name", "web"], 2, "--port: missing"],
    [["wait", "nope", "--timeout", "1"], 124, "nope did not come within 1s"],
    [["wait", "nope", "--timeout", "soon"], 2, '--timeout: "soon": expected a duration such as "90s"'],
    [["wait", "nope", "--timeout=-1s"], 2, '--timeout: "-1s": expected a duration such as "90s"'],
    [["agent", "--config-file", "/nope"], 2, "/nope: there is no such file or folder"],
  ])("%j: exit code %i, and a sentence on standard error only", async (words, code, says) => {
    const outcome = await trilith(words);
    expect(outcome).toMatchObject({ code, out: "" });
    expect(outcome.err).toContain(says);
    expect(outcome.err).not.toMatch(/\n {4}at /);
  });

  it("registers, lists, finds, explains and deregisters", async () => {
    expect(
      await trilith(["register", "-name=db", "--id", "db1", "--port", "5432", "--tag", "primary", "--meta", "env=qa"]),
    ).toEqual({ code: 0, out: "Registered service: db\n", err: "" });
    const list = await trilith(["list"]);
    expect(list.out).toMatch(/^SERVICE\s+INSTANCES .*\n/);
    expect(list.out).toMatch(/^db +1 +1 +- +- +- +primary$/m);
    const services = JSON.parse((await trilith(["list", "--json"])).out) as { name: string }[];
    expect(services.map(({ name }) => name)).toEqual(["consul", "db"]);
    const found = await trilith(["find", "db", "-t", "primary", "-l", "env=qa"]);
    expect(found.out).toMatch(/^127\.0\.0\.1 +5432 .* db1 +primary +env=qa$/m);
    expect((await trilith(["find", "-1", "db"])).out).toBe("127.0.0.1:5432\n");
    expect(JSON.parse((await trilith(["find", "-json", "db"])).out)).toMatchObject({ endpoints: [{ port: 5432 }] });
    expect(await trilith(["why", "db"])).toMatchObject({
      code: 0,
      out: expect.stringMatching(
        /^db: 1 instance, 1 in the answer\n\n\+ db1 on .* at 127\.0\.0\.1:5432: in the answer\n/,
      ),
    });
    expect(await trilith(["why", "d"])).toMatchObject({
      code: 1,
      out: expect.stringMatching(/^There is no service "d"\. Similar: db\.\n/) as string,
    });
    expect((await trilith(["catalog", "services", "--tags"])).out).toBe("consul\ndb          primary\n");
    expect((await trilith(["catalog", "datacenters"])).out).toBe("dc1\n");
    expect((await trilith(["catalog", "nodes", "--service", "db"])).out).toMatch(/^Node +ID +Address +DC\n/);
    expect(await trilith(["services", "deregister", "db1"])).toMatchObject({
      code: 0,
      out: "Deregistered service: db1\n",
    });
    expect(await trilith(["find", "db"])).toMatchObject({ code: 1, out: "" });
    expect((await trilith(["why", "db"])).out).toContain("Gone:");
  });

  it("takes a service's wish how to be connected to in a key that Consul's metadata may have", async () => {
    await trilith([
      "register",
      "--name",
      "wishing",
      "--port",
      "1",
      "--address",
      "192.0.2.1",
      "--meta",
      "trilith-balance=sticky",
    ]);
    expect((await trilith(["why", "wishing"])).out).toMatch(
      /programs with the hook: wishing\.service\.consul \(.*\), sticky: /,
    );
    expect((await trilith(["deregister", "wishing"])).code).toBe(0);
  });

  it("registers from a file, and names the place of a mistake", async () => {
    const good = join(folder.path, "good.hcl");
    await writeFile(good, 'service {\n  name = "fromfile"\n  port = 81\n}\n');
    expect(await trilith(["register", good])).toMatchObject({ code: 0, out: "Registered service: fromfile\n" });
    expect((await trilith(["validate", good])).out).toBe("Configuration is valid!\n");
    await trilith(["deregister", "fromfile"]);
    const bad = join(folder.path, "bad.hcl");
    await writeFile(bad, 'service {\n  name = "x"\n  port = \n}\n');
    for (const words of [
      ["register", bad],
      ["validate", bad],
    ]) {
      const outcome = await trilith(words);
      expect(outcome.code).toBeGreaterThan(0);
      expect(outcome.err).toContain(`${bad}:4:1`);
    }
    expect(JSON.parse((await trilith(["validate", "--json", bad])).out)).toMatchObject({ valid: false, warnings: [] });
    const typos = join(folder.path, "typos.json");
    await writeFile(
      typos,
      JSON.stringify({ protocols: { flat: { filez: "/a" }, proxy: { magic: "yes" }, flot: true } }),
    );
    expect((await trilith(["validate", typos])).err.split("\n").map((line) => line.slice(0, 200))).toEqual([
      expect.stringContaining(`${typos}: flat.filez: unknown key; known are files`),
      expect.stringContaining(`${typos}: proxy.magic: expected true or false, but got "yes"`),
      expect.stringContaining(`${typos}: protocol "flot": there are file, docker`),
      "",
    ]);
  });

  it("takes in dropped files and reads them again on SIGHUP and on reload", async () => {
    const file = join(folder.path, SERVICES, "a.json");
    await writeFile(file, '{"service":{"name":"dropped","port":1}}');
    await eventually("dropped", async () => (await trilith(["find", "-1", "dropped"])).out === "127.0.0.1:1\n");
    await writeFile(file, '{"service":{"name":"dropped","port":2}}');
    agent.kill("SIGHUP");
    await eventually("reloaded", async () => (await trilith(["find", "-1", "dropped"])).out === "127.0.0.1:2\n");
    const before = said().length;
    await writeFile(file, '{"service":{"name":"dropped","port":"x"}}');
    // Whoever reloads by a script hears of it, too.
    expect(await trilith(["reload"])).toMatchObject({
      code: 1,
      err: expect.stringContaining(`${file}:1: service.port`),
    });
    const doctor = await eventually("complaint", async () => {
      const outcome = await trilith(["doctor"]);
      return outcome.code === 1 ? outcome : undefined;
    });
    expect(doctor.out).toContain(`! file: ${file}:1: service.port: must be a whole number, not "x"`);
    expect(said().slice(before).split(`file: ${file}:1: service.port`)).toHaveLength(2);
    expect((await trilith(["find", "-1", "dropped"])).out).toBe("127.0.0.1:2\n");
    await writeFile(file, '{"service":{"name":"dropped","port":3}}');
    await eventually("well again", async () => (await trilith(["doctor"])).code === 0);
    expect((await trilith(["doctor"])).out).toMatch(/^All is well\.$/m);
    const { sources, warnings, notes } = JSON.parse((await trilith(["doctor", "--json"])).out);
    expect([warnings, notes]).toEqual([[], []]);
    expect(sources[0].text).toContain(SERVICES);
    // Nothing is cut off, however long.
    expect((await trilith(["doctor"])).out).toMatch(new RegExp(`^  · file +\\d+ services? in .*${SERVICES}$`, "m"));
    // What somebody wanted so is told, and is no failure.
    expect((await trilith(["override", "nobody", "weight=2"])).code).toBe(0);
    const noted = await trilith(["doctor"]);
    await trilith(["override", "nobody", "--undo"]);
    expect(noted.code).toBe(0);
    expect(noted.out).toMatch(
      /^Worth knowing\n {2}· the override for "nobody" .* changes nothing: .*\n\nAll is well\.\n$/m,
    );
  });

  it("puts, gets and deletes keys", async () => {
    expect((await trilith(["kv", "put", "a/__proto__", "x y"])).out).toBe("Success! Data written to: a/__proto__\n");
    expect((await trilith(["kv", "put", "a/stdin", "-"], "from stdin")).code).toBe(0);
    expect((await trilith(["kv", "get", "a/__proto__"])).out).toBe("x y\n");
    expect((await trilith(["kv", "get", "--recurse", "a/"])).out).toBe("a/__proto__:x y\na/stdin:from stdin\n");
    expect((await trilith(["kv", "get", "--keys", ""])).out).toBe("a/\n");
    expect((await trilith(["kv", "get", "--detailed", "a/stdin"])).out).toMatch(/^Key {14}a\/stdin$/m);
    expect(JSON.parse((await trilith(["kv", "get", "--json", "a/stdin"])).out)).toMatchObject([{ Key: "a/stdin" }]);
    expect((await trilith(["kv", "delete", "--recurse", "a/"])).code).toBe(0);
    expect(await trilith(["kv", "get", "--recurse", "a/"])).toMatchObject({ code: 0, out: "" });
  });

  it("prints one row per service, whatever names hold", async () => {
    for (const name of ["__proto__", "constructor", "ü 😀", "n".repeat(300)])
      expect((await trilith(["register", "--name", name])).code).toBe(0);
    // What no path may hold is refused here; other writers of the directory may bring it all the same.
    const broken = "line\nbreak\u001b[31m";
    expect(await trilith(["register", "--name", broken])).toMatchObject({
      code: 2,
      err: expect.stringContaining("may not hold control characters"),
    });
    const brought = await fetch(`http://127.0.0.1:${http}/v1/catalog/register`, {
      method: "PUT",
      body: JSON.stringify({ Node: "elsewhere", Address: "192.0.2.1", Service: { Service: broken } }),
    });
    expect(brought.status).toBe(200);
    const { out } = await trilith(["list"]);
    expect(out.trimEnd().split("\n")).toHaveLength(1 + 2 + 5);
    expect(out).toContain("line\\u{a}break\\u{1b}[31m");
    for (const name of ["__proto__", "constructor", "ü 😀", "n".repeat(300)]) {
      expect((await trilith(["find", name])).code).toBe(0);
      expect((await trilith(["deregister", name])).code).toBe(0);
    }
  });

  it("runs a program, finds its port, and hands its exit code on", async () => {
    // It serves until the file is there, however long this machine takes to ask.
    const over = join(folder.path, `wrapped-over-${Date.now()}`);
    const server = `require('net').createServer().listen(0,'127.0.0.1');setInterval(()=>{if(require('fs').existsSync(${JSON.stringify(over)}))process.exit(3)},20)`;
    const { child, text } = start(["run", "--name", "wrapped", "--", process.execPath, "-e", server]);
    const ended = once(child, "exit");
    await eventually("wrapped", async () => (await trilith(["find", "wrapped"])).code === 0);
    await writeFile(over, "");
    expect(await ended).toEqual([3, null]);
    expect(text()).toBe("");
    await eventually("gone", async () => (await trilith(["find", "wrapped"])).code === 1);
  });

  it("tells who else is there", async () => {
    const again = await trilith(agentWords("data"));
    expect(again).toMatchObject({ code: 1, out: "" });
    expect(again.err).toContain(`is in use by another process (pid ${agent.pid})`);
    const ports = await trilith(agentWords("other"));
    expect(ports).toMatchObject({ code: 1, out: "" });
    expect(ports.err).toMatch(/EADDRINUSE.*--dns-port/);
  });

  it("tells nobody there, somebody else, and somebody silent apart", async () => {
    const nobody = await freePort();
    expect((await trilith(["list", "--http-addr", `127.0.0.1:${nobody}`])).err).toContain(
      'Start one with "trilith agent"',
    );
    const pages: Server = createServer((_, response) => response.writeHead(404).end("<html>no</html>")).listen(0);
    const talker = createTcpServer((socket) => socket.end("220 mail\r\n")).listen(0);
    await Promise.all([pages, talker].map((one) => once(one, "listening")));
    try {
      for (const one of [pages, talker]) {
        const { port } = one.address() as { port: number };
        const outcome = await trilith(["list", "--http-addr", `127.0.0.1:${port}`]);
        expect(outcome).toMatchObject({ code: 1, out: "" });
        expect(outcome.err).toContain("name the agent with --http-addr");
        expect(outcome.err).not.toContain("Start one");
      }
    } finally {
      pages.close();
      talker.close();
    }
  });
});
