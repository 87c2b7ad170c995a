// Flat files written by real programs, and hosts files read by real resolvers: /etc/hosts itself in a mount namespace of the test's own.
import { execFile } from "node:child_process";
import { readFile, rename, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { startAgent } from "../support/ground.ts";
import { eventually, freePort, havePrograms, ownFolder, startProgram } from "../support/peers.ts";
import { program } from "../support/program.ts";

const run = promisify(execFile);
let folder: Awaited<ReturnType<typeof ownFolder>>;
const over: (() => Promise<unknown>)[] = [];
beforeEach(async () => {
  folder = await ownFolder("files");
});
afterEach(async () => {
  for (const end of over.splice(0).reverse()) await end();
  await folder.remove();
});

describe("flat files written by real programs", { timeout: 120_000 }, () => {
  it("slowly in place, by cp, mv and sed -i, and by a writer that is killed: never a half of one", async () => {
    const file = join(folder.path, "web.txt");
    const agent = await startAgent({ protocols: { flat: { files: folder.path, settle: "1500ms" } } });
    over.push(() => agent.stop());
    const seen: string[] = [];
    const watching = new AbortController();
    over.push(async () => watching.abort());
    void (async () => {
      for await (const { endpoints } of agent.trilith.lookup.follow(
        { service: "web", order: "stable" },
        watching.signal,
      ))
        seen.push(
          endpoints
            .map(({ port }) => port)
            .sort((a, b) => a - b)
            .join(" "),
        );
    })();
    const sees = (ports: string): Promise<unknown> =>
      eventually(`web is at ${ports}`, () => {
        if (seen.at(-1) !== ports) throw new Error(`it was ${seen.join(" | ")}`);
        return true;
      });
    const sh = (script: string): Promise<unknown> => run("sh", ["-c", script], { cwd: folder.path });
    await sees("");
    await sh("for n in 1 2 3 4 5; do printf 10.0.0.$n:80; sleep 0.1; echo 8$n; sleep 0.1; done >web.txt");
    await sees("8081 8082 8083 8084 8085");
    await sh("sed -i s/8085/8095/ web.txt");
    await sees("8081 8082 8083 8084 8095");
    await sh("sed s/8084/8094/ web.txt >.web && mv .web web.txt");
    await sees("8081 8082 8083 8094 8095");
    await sh("sed s/8083/8093/ web.txt >.web && cp .web web.txt && rm .web");
    await sees("8081 8082 8093 8094 8095");
    // Killed in the middle of a line: what is there is told apart by its missing end, for a while.
    const writer = await startProgram(
      ["sh", "-c", `printf '10.0.0.1:8081\\n10.0.0.2:80' >${file}; sleep 60`],
      join(folder.path, ".log"),
    );
    await eventually("it is cut", async () => (await readFile(file, "utf8")).endsWith(":80"));
    await writer.stop("SIGKILL");
    await new Promise((resolve) => setTimeout(resolve, 1500));
    await sh(
      "printf '10.0.0.1:8081\\n10.0.0.2:8082\\n10.0.0.3:8093\\n10.0.0.4:8094\\n10.0.0.5:8095\\n10.0.0.6:8096\\n' >.web; mv .web web.txt",
    );
    await sees("8081 8082 8093 8094 8095 8096");
    expect(seen.slice(1)).toEqual([
      "8081 8082 8083 8084 8085",
      ...["8081 8082 8083 8084 8095", "8081 8082 8083 8094 8095", "8081 8082 8093 8094 8095"],
      "8081 8082 8093 8094 8095 8096",
    ]);
  });

  it("a hosts file that is read and written at once: nothing goes round", async () => {
    const file = join(folder.path, "hosts");
    await writeFile(file, "10.0.0.9 mail\n");
    const own = join(folder.path, "own.hosts");
    const agent = await startAgent({
      protocols: { hosts: [file, { path: own, block: false }], flat: { files: [file, own] } },
    });
    over.push(() => agent.stop());
    const api = agent.trilith.agent;
    await api.register("api", {
      id: "w",
      name: "web",
      tags: [],
      labels: {},
      address: "192.0.2.1",
      port: 80,
      checks: [],
    });
    await eventually("all is written", async () => /192\.0\.2\.1\tweb/.test(await readFile(file, "utf8")));
    await eventually("here, too", async () =>
      /10\.0\.0\.9\tmail.*192\.0\.2\.1\tweb/s.test(await readFile(own, "utf8")),
    );
    // Time to do it wrong in: the next look at the files.
    await new Promise((resolve) => setTimeout(resolve, 6000));
    const { directory, lookup } = agent.trilith;
    expect([...directory.view().serviceNames()].sort()).toEqual(["consul", "mail", "web"]);
    expect(lookup.resolveNow({ service: "mail" }).endpoints).toHaveLength(1);
    await api.deregister("api", "w");
    await eventually("it is gone from both", async () => {
      const texts = await Promise.all([file, own].map((path) => readFile(path, "utf8")));
      return texts.every((text) => !text.includes("web"));
    });
    expect([...directory.view().serviceNames()].sort()).toEqual(["consul", "mail"]);
  });

  it("at a start while they cannot be read: what an earlier life knew stands", async () => {
    const list = join(folder.path, "web.json");
    await writeFile(list, '["10.0.0.1:80", "10.0.0.2:80"]');
    const settings = { dev: false, dataDir: join(folder.path, "data"), protocols: { flat: { files: list } } };
    const endpoints = (agent: Awaited<ReturnType<typeof startAgent>>): string =>
      agent.trilith.lookup
        .resolveNow({ service: "web", order: "stable" })
        .endpoints.map(({ address }) => address)
        .join();
    const first = await startAgent(settings);
    over.push(() => first.stop());
    await eventually("both", () => endpoints(first) === "10.0.0.1,10.0.0.2");
    await first.stop();
    await writeFile(list, "{");
    const second = await startAgent(settings);
    over.push(() => second.stop());
    await second.trilith.settled(5000);
    expect(endpoints(second)).toBe("10.0.0.1,10.0.0.2");
    await writeFile(`${list}.tmp`, '["10.0.0.1:80", "10.0.0.3:80"]');
    await rename(`${list}.tmp`, list);
    await eventually("the new one", () => endpoints(second) === "10.0.0.1,10.0.0.3");
  });
});

describe.runIf((await havePrograms("nsenter")) && process.getuid?.() === 0)("/etc/hosts", { timeout: 120_000 }, () => {
  it("mounted by itself: the block comes and goes in place, names resolve, others' lines and the agent's death change nothing", async () => {
    const file = join(folder.path, "hosts");
    const others = "127.0.0.1 localhost\n192.0.2.99 printer # mine\n";
    await writeFile(file, others);
    const { ino } = await stat(file);
    const config = join(folder.path, "config.json");
    await writeFile(config, JSON.stringify({ protocols: { hosts: { path: "/etc/hosts" } } }));
    const [http, dns] = [await freePort(), await freePort()];
    const agent = `exec ${process.execPath} ${program} agent --http-port ${http} --dns-port ${dns} --bind 127.0.0.1 --docker-host off --environ off --node alpha --data-dir ${folder.path}/data --config-file ${config}`;
    const holder = await startProgram(
      ["unshare", "-m", "sh", "-c", `mount --bind ${file} /etc/hosts && touch ${folder.path}/.up && exec sleep 1000`],
      join(folder.path, "holder.log"),
    );
    over.push(() => holder.stop("SIGKILL"));
    await eventually("it is mounted", () => stat(join(folder.path, ".up")).then(() => true));
    const within = ["nsenter", "-t", `${holder.pid}`, "-m"];
    const start = async (): Promise<Awaited<ReturnType<typeof startProgram>>> => {
      const running = await startProgram([...within, "sh", "-c", agent], join(folder.path, "agent.log"));
      over.push(() => running.stop("SIGKILL"));
      await eventually("it is up", async () => (await fetch(`http://127.0.0.1:${http}/v1/status/leader`)).ok);
      return running;
    };
    const put = async (path: string, body?: unknown): Promise<void> => {
      const answer = await fetch(`http://127.0.0.1:${http}/v1/agent/service/${path}`, {
        method: "PUT",
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      if (!answer.ok) throw new Error(await answer.text());
    };
    const resolved = async (name: string): Promise<string> => {
      const [nsenter = "", ...words] = within;
      const { stdout } = await run(nsenter, [...words, "getent", "-s", "files", "ahostsv4", name]).catch(() => ({
        stdout: "",
      }));
      return [...new Set(stdout.split("\n").flatMap((line) => line.split(/\s+/)[0] || []))].sort().join(" ");
    };
    const is = (name: string, addresses: string): Promise<unknown> =>
      eventually(`${name} is ${addresses}`, async () => {
        const now = await resolved(name);
        if (now !== addresses) throw new Error(`it is "${now}": ${await readFile(file, "utf8")}`);
        return true;
      });
    const first = await start();
    await put("register", { ID: "a", Name: "web", Address: "192.0.2.1", Port: 80 });
    await put("register", { ID: "b", Name: "web", Address: "192.0.2.2", Port: 80 });
    await put("register", { ID: "p", Name: "printer", Address: "192.0.2.3", Port: 80 });
    await is("web", "192.0.2.1 192.0.2.2");
    await is("web.service.consul", "192.0.2.1 192.0.2.2");
    expect(await resolved("printer")).toBe("192.0.2.99");
    expect((await readFile(file, "utf8")).startsWith(others)).toBe(true);
    await first.stop("SIGKILL");
    expect(await resolved("web")).toBe("192.0.2.1 192.0.2.2");
    await writeFile(file, (await readFile(file, "utf8")).replace(others, `${others}192.0.2.50 scanner\n`));
    await start();
    await put("deregister/b");
    await is("web", "192.0.2.1");
    expect(await resolved("scanner")).toBe("192.0.2.50");
    await put("maintenance/a?enable=true");
    await is("web", "");
    expect((await readFile(file, "utf8")).startsWith(`${others}192.0.2.50 scanner\n# BEGIN trilith`)).toBe(true);
    expect((await stat(file)).ino).toBe(ino);
  });
});
