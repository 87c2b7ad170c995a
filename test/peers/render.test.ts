// `trilith render` with the programs that read its files: HAProxy, nginx and Apache's httpd, while instances come, drain and go, and agents are killed.
import { chmod, readFile, stat, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { ImitatedConsul } from "../support/consul-imitation.ts";
import { eventually, freePort, havePrograms, ownFolder, startProgram } from "../support/peers.ts";
import { program, type RunningAgent, runToEnd, startAgent } from "../support/program.ts";

const here = await havePrograms("haproxy", "nginx", "apache2");

describe.skipIf(!here)("trilith render beside the programs that read its files", { timeout: 120_000 }, () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let agent: RunningAgent;
  let count = 0;
  const undo: (() => unknown)[] = [];
  const at = (name: string): string => join(folder.path, name);
  const text = (name: string): Promise<string> => readFile(at(name), "utf8").catch(() => "");

  beforeAll(async () => {
    folder = await ownFolder("render");
    agent = await startAgent(["-dev"]);
  });
  afterEach(async () => {
    for (let step = undo.pop(); step !== undefined; step = undo.pop()) await step();
  });
  afterAll(async () => {
    await agent.stop();
    await folder.remove();
  });

  /** A web server that says its name, registered under it. */
  async function web(service: string, name: string): Promise<{ readonly port: number; readonly server: Server }> {
    const server = createServer((_, response) => response.end(name));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    undo.push(() => new Promise((resolve) => server.close(resolve).closeAllConnections()));
    const { port } = server.address() as { port: number };
    await put(`/v1/agent/service/register`, { Name: service, ID: name, Address: "127.0.0.1", Port: port });
    undo.push(() => put(`/v1/agent/service/deregister/${name}`));
    return { port, server };
  }
  const put = async (path: string, body?: object): Promise<void> => {
    const answer = await fetch(`${agent.url}${path}`, { method: "PUT", body: JSON.stringify(body) ?? null });
    expect(answer.status, await answer.text()).toBe(200);
  };
  const render = async (
    ...flags: readonly string[]
  ): Promise<{ stop(): Promise<void>; log(): Promise<string>; pid: number }> => {
    const log = `render-${++count}.log`;
    const started = await startProgram([process.execPath, program, "render", ...flags], at(log), {
      TRILITH_HTTP_ADDR: agent.url,
    });
    undo.push(() => started.stop());
    return { pid: started.pid, stop: () => started.stop(), log: () => text(log) };
  };
  const ask = async (port: number): Promise<string> => {
    const answer = await fetch(`http://127.0.0.1:${port}/`, { headers: { connection: "close" } }).catch(
      () => undefined,
    );
    return answer === undefined ? "nobody" : answer.ok ? await answer.text() : String(answer.status);
  };

  /** Each program with an empty file, what it is started with, and how it reads the file again. */
  const balancers: Record<
    string,
    (port: number, file: string) => Promise<{ run: string[]; check: string; reload(pid: number): string }>
  > = {
    async haproxy(port, file) {
      const main = at("haproxy.cfg");
      await writeFile(
        main,
        `defaults\n  mode http\n  timeout connect 2s\n  timeout client 5s\n  timeout server 5s\nfrontend in\n  bind 127.0.0.1:${port}\n  default_backend shop-haproxy\n`,
      );
      return {
        run: ["/usr/sbin/haproxy", "-W", "-db", "-f", main, "-f", file],
        check: `/usr/sbin/haproxy -c -f ${main} -f {}`,
        reload: (pid) => `kill -USR2 ${pid}`,
      };
    },
    async nginx(port, file) {
      const main = at("nginx.conf");
      const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map((kind) => `${kind}_temp_path ${at(`nginx-${kind}`)};`)
        .join(" ");
      const config = (from: string): string =>
        `daemon off; pid ${at("nginx.pid")}; error_log stderr; events {}\nhttp { access_log off; ${temporary}\ninclude ${from};\nserver { listen 127.0.0.1:${port}; location / { proxy_pass http://shop-nginx; } } }\n`;
      await writeFile(main, config(file));
      return {
        run: ["/usr/sbin/nginx", "-c", main],
        check: `sed "s|${file}|{}|" ${main} > ${main}.new && /usr/sbin/nginx -t -c ${main}.new`,
        reload: (pid) => `kill -HUP ${pid}`,
      };
    },
    async apache(port, file) {
      const main = at("apache.conf");
      const modules = "mpm_event authz_core proxy proxy_http proxy_balancer lbmethod_byrequests slotmem_shm";
      const loads = modules
        .split(" ")
        .map((name) => `LoadModule ${name}_module /usr/lib/apache2/modules/mod_${name}.so\n`)
        .join("");
      const config = `${loads}ServerRoot ${folder.path}\nDefaultRuntimeDir ${folder.path}\nPidFile ${at("apache.pid")}\nErrorLog /dev/stderr\nServerName here\nListen 127.0.0.1:${port}\nInclude ${file}\nProxyPass "/" "balancer://shop-apache/"\n`;
      await writeFile(main, config);
      return {
        run: ["/usr/sbin/apache2", "-D", "FOREGROUND", "-f", main],
        check: `sed "s|${file}|{}|" ${main} > ${main}.new && /usr/sbin/apache2 -t -f ${main}.new`,
        reload: (pid) => `kill -USR1 ${pid}`,
      };
    },
  };

  it.each(Object.keys(balancers))("%s reaches who comes, and nobody who drains or has gone", async (kind) => {
    const service = `shop-${kind}`;
    const [port, file] = [await freePort(), at(`${service}.conf`)];
    const a = await web(service, `${service}-a`);
    const { run, check, reload } = await (balancers[kind] as (typeof balancers)[string])(port, file);
    expect(
      await agent.trilith(["render", `--${kind}`, `${service}:${file}`, "--once", "--check", check]),
    ).toMatchObject({
      exitCode: 0,
      err: expect.stringContaining(`${file} written`),
    });
    expect(await text(`${service}.conf`)).toContain(`127.0.0.1:${a.port}`);
    const daemon = await startProgram(run, at(`${kind}.log`));
    undo.push(() => daemon.stop());
    await eventually("the first answers", async () => (await ask(port)) === `${service}-a`);
    const rendering = await render(`--${kind}`, `${service}:${file}:${reload(daemon.pid)}`, "--check", check);
    await eventually("it is kept", async () => (await rendering.log()).includes("is up to date"));

    await web(service, `${service}-b`);
    const seen = new Set<string>();
    await eventually(
      "both answer",
      async () => seen.add(await ask(port)).has(`${service}-b`) && seen.has(`${service}-a`),
    );
    await put(`/v1/agent/service/maintenance/${service}-a?enable=true&reason=test`);
    const asked = async (): Promise<readonly string[]> => [
      await ask(port),
      await ask(port),
      await ask(port),
      await ask(port),
    ];
    await eventually("only b gets new ones", async () => (await asked()).every((name) => name === `${service}-b`));
    expect(await text(`${service}.conf`)).toMatch(
      new RegExp(`127\\.0\\.0\\.1:${a.port}.*(weight 0|down;|status=\\+N)`),
    );
    await put(`/v1/agent/service/deregister/${service}-b`);
    await put(`/v1/agent/service/maintenance/${service}-a?enable=false`);
    await eventually("only a is left", async () => (await asked()).every((name) => name === `${service}-a`));
    expect(await rendering.log()).not.toContain("stays as it was");
    await put(`/v1/agent/service/register`, { Name: service, ID: `${service}-b`, Port: 9 });
  });

  it("a template, by consul-template's flags: written when all is known, put back where the reload fails", async () => {
    await web("tpl", "tpl-a");
    const [from, to] = [at("in.ctmpl"), at("out.conf")];
    await writeFile(
      from,
      '{{range service "tpl"}}{{.ID}} {{.Address}} {{.Node}}{{end}} {{key "tpl/color"}}\n{{- range ls "tpl"}} {{.Key}}={{.Value}}{{end}}\n',
    );
    await writeFile(to, "before\n");
    await chmod(to, 0o640);
    const reload = `grep -q blue ${to} || grep -q before ${to} || { echo no blue in it; exit 3; }`;
    const rendering = await render("-template", `${from}:${to}:${reload}`, "-wait", "50ms:1s");
    await eventually("it says what it waits for", async () => /waits for key "tpl\/color"/.test(await rendering.log()));
    expect(await readFile(to, "utf8")).toBe("before\n");
    await put("/v1/kv/tpl/color", {});
    await fetch(`${agent.url}/v1/kv/tpl/color`, { method: "PUT", body: "red" });
    await eventually("the former file is back", async () =>
      /exit status 3: no blue in it; the former file is back/.test(await rendering.log()),
    );
    expect(await readFile(to, "utf8")).toBe("before\n");
    await fetch(`${agent.url}/v1/kv/tpl/color`, { method: "PUT", body: "blue" });
    await eventually("it is written", async () =>
      /^tpl-a 127\.0\.0\.1 \S+ blue color=blue\n$/.test(await readFile(to, "utf8")),
    );
    expect((await stat(to)).mode & 0o777).toBe(0o640);

    await writeFile(from, 'again {{service "tpl" | len}} blue\n');
    process.kill(rendering.pid, "SIGHUP");
    await eventually("the template is read again", async () => (await readFile(to, "utf8")) === "again 1 blue\n");
    await writeFile(from, "{{nope}}");
    process.kill(rendering.pid, "SIGHUP");
    await eventually("a wrong one is refused", async () =>
      /in\.ctmpl:1:3: function "nope" not defined; those before go on/.test(await rendering.log()),
    );
  });

  it("keeps files while the agent is away, also where it forgot everything, and follows it again", async () => {
    const [port, dnsPort] = [await freePort(), await freePort()];
    const url = `http://127.0.0.1:${port}`;
    const start = async () => {
      const ports = ["--http-port", `${port}`, "--dns-port", `${dnsPort}`, "--docker-host", "off", "--environ", "off"];
      const started = await startProgram(
        [process.execPath, program, "agent", "-dev", ...ports],
        at(`agent-${++count}.log`),
      );
      undo.push(() => started.stop());
      await eventually("the agent answers", async () => (await fetch(`${url}/v1/status/leader`)).ok);
      return started;
    };
    const own = await start();
    const file = at("kept.conf");
    const register = (id: string): Promise<unknown> =>
      fetch(`${url}/v1/agent/service/register`, {
        method: "PUT",
        body: JSON.stringify({ Name: "kept", ID: id, Port: 80 }),
      });
    await register("one");
    await register("two");
    const log = at("kept.log");
    const command = [process.execPath, program, "render", "--haproxy", `kept:${file}`, "--http-addr", url];
    const rendering = await startProgram(command, log);
    undo.push(() => rendering.stop());
    await eventually("it is written", async () => /two/.test(await text("kept.conf")));
    const kept = await text("kept.conf");
    await own.stop();
    await eventually("it says that the agent is away", async () =>
      /files stay as they are/.test(await text("kept.log")),
    );
    await start();
    await eventually(
      "and what is held",
      async () => /"kept" are held: 2 of 2 instances vanished/.test(await text("kept.log")),
      40_000,
    );
    expect(await text("kept.conf")).toBe(kept);
    await register("two");
    await register("three");
    await eventually("what is there is written", async () => /three/.test(await text("kept.conf")));
  });

  it("reads a Consul's catalog where there is no Trilith, and says so", async () => {
    const consul = new ImitatedConsul(10_000);
    await consul.start();
    undo.push(() => consul.stop());
    const file = at("consul.out");
    await writeFile(
      at("consul.ctmpl"),
      'nodes {{len nodes}} {{range services}}{{.Name}} {{end}}{{range service "consul"}}{{.ID}}{{end}}\n',
    );
    const done = await runToEnd(
      [process.execPath, program, "render", "--once", "--template", `${at("consul.ctmpl")}:${file}`],
      { CONSUL_HTTP_ADDR: consul.url },
    );
    expect(done).toMatchObject({ exitCode: 0, err: expect.stringContaining("is a Consul, no Trilith agent") });
    expect(await readFile(file, "utf8")).toMatch(/^nodes \d+ .*consul/);
  });

  it("refuses what it cannot do, before anything is written", async () => {
    const gone = `127.0.0.1:${await freePort()}`;
    const said = async (...flags: readonly string[]) => {
      const done = await runToEnd([process.execPath, program, "render", ...flags], { CONSUL_HTTP_ADDR: gone });
      return [done.exitCode, done.err];
    };
    expect(await said()).toEqual([2, expect.stringContaining("no file is wanted")]);
    expect(await said("--haproxy", "web")).toEqual([
      2,
      expect.stringContaining("expected SERVICE:FILE[:COMMAND[:CHECK]]"),
    ]);
    expect(await said("--template", `${at("none")}:${at("x")}`)).toEqual([
      2,
      expect.stringContaining("there is no such file"),
    ]);
    expect(await said("--haproxy", `web:${at("x")}`, "--nginx", `web:${folder.path}/./x`)).toEqual([
      2,
      expect.stringContaining("is wanted twice"),
    ]);
    expect(await said("--haproxy", `web:${at("x")}`, "--once")).toEqual([
      1,
      expect.stringContaining("no agent answers at"),
    ]);
  });
});
