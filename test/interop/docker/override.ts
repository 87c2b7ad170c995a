// Overrides on a real container and a real process: set, listed, explained and undone by the command line, kept over restarts of everything.
import { type ChildProcess, spawn } from "node:child_process";
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import type { OverrideJson, Settings, WhyJson } from "../../../src/index.ts";
import { createTrilith, type Trilith } from "../../../src/trilith.ts";
import { type Docker, startDocker } from "../../support/docker.ts";
import { ownName, triedBefore } from "../../support/own-name.ts";
import { eventually, freePort, havePrograms, ownFolder } from "../../support/peers.ts";
import { type Done, runToEnd } from "../../support/program.ts";

const ready = process.getuid?.() === 0 && (await havePrograms("dockerd", "docker", "iptables", "ip", "busybox"));
const MAIN = fileURLToPath(new URL("../../../src/cli/main.ts", import.meta.url));
const SERVER = `
  const { createServer } = require("node:http");
  createServer((_, response) => response.end("ok")).listen(Number(process.argv[1]), "127.0.0.1");
`;

describe.skipIf(!ready)("overrides", () => {
  let docker: Docker;
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let trilith: Trilith;
  let settings: Partial<Settings>;
  let plainPort: number;
  let plain: ChildProcess;

  beforeAll(async () => {
    docker = await startDocker("override");
    folder = await ownFolder("override");
    plainPort = await freePort();
    settings = {
      ...{ node: "alpha", dataDir: join(folder.path, ownName("data")), storage: "lmdb", httpPort: await freePort() },
      protocols: { docker: { endpoints: [docker.host] }, dns: { port: await freePort() } },
    };
    trilith = createTrilith(settings);
    await trilith.start();
    plain = spawn(process.execPath, ["-e", SERVER, String(plainPort)], {
      env: { ...process.env, SERVICE_NAME: "plain", SERVICE_TAGS: "a,b" },
    });
  }, 180_000);
  beforeEach(async (context) => {
    if (!triedBefore(context)) return;
    await trilith.stop();
    await docker.clear();
    settings = { ...settings, dataDir: join(folder.path, ownName("data")) };
    trilith = createTrilith(settings);
    await trilith.start();
  });
  afterAll(async () => {
    plain?.kill("SIGKILL");
    await trilith?.stop();
    await docker?.remove();
    await folder?.remove();
  }, 60_000);

  const cli = (...args: string[]): Promise<Done> =>
    runToEnd([process.execPath, "--import", "tsx", MAIN, ...args], {
      ...{ TRILITH_HTTP_ADDR: `127.0.0.1:${settings.httpPort}`, USER: "ann", SUDO_USER: "ann", NO_COLOR: "1" },
    });
  const endpoints = (service: string) => trilith.lookup.resolveNow({ service }).endpoints;
  const found = (service: string) => eventually(`${service} is found`, () => endpoints(service)[0]);
  const why = async (service: string): Promise<WhyJson> =>
    JSON.parse((await cli("why", service, "--json")).out) as WhyJson;
  const again = async (): Promise<void> => {
    await trilith.stop();
    trilith = createTrilith(settings);
    await trilith.start();
    await trilith.settled(10_000);
    await trilith.agent.synced();
  };

  test("a container keeps its new name over its re-creation, a restart of the agent, and until it is undone", async () => {
    const start = () => docker.docker("run", "-d", "--name", "web-1", "-p", "80", "-e", "SERVICE_NAME=web", "bbweb");
    const id = await start();
    await found("web");
    // By the container's ID, cut short as docker shows it: kept for its name.
    const set = await cli("override", id.slice(0, 12), "name=shop", "tags+=v2", "weight=7", "check=http:/@1");
    expect(set).toMatchObject({ exitCode: 0, err: "" });
    expect(set.out).toContain("web-1: name=shop tags+=v2 weight=7 check=http:/@1\n");
    expect(endpoints("web")).toEqual([]);
    expect(await eventually("the override's check passes", () => endpoints("shop")[0])).toMatchObject({ weight: 7 });

    await docker.docker("rm", "-f", "web-1");
    await eventually("it is gone", () => endpoints("shop").length === 0);
    await start();
    await eventually("it is back under its new name", () => endpoints("shop")[0]);
    const before = endpoints("shop")[0]?.resident.instance;
    await again();
    await eventually("it is found after the restart", () => endpoints("shop")[0]);
    expect(endpoints("shop")[0]?.resident.instance).toEqual(before);

    const told = await why("shop");
    expect(told.instances[0]).toMatchObject({
      tags: ["v2"],
      registeredBy: {
        source: "docker",
        text: expect.stringMatching(/^container web-1 /),
        words: ["env SERVICE_NAME=web"],
      },
      overridden: {
        by: [{ for: "web-1", by: "ann on this host" }],
        original: { name: "web", tags: [] },
      },
    });
    expect(told.answers.map(({ protocol, text }) => `${protocol} ${text}`)).toEqual(
      expect.arrayContaining([expect.stringMatching(/^dns shop\.service\.consul\. SRV: \S+:\d+ \(weight 7\)$/)]),
    );
    expect((await why("web")).overrides).toMatchObject([{ for: "web-1", matches: [{ service: "web" }] }]);

    const undone = await cli("override", "web-1", "--undo");
    expect(undone).toMatchObject({ exitCode: 0, out: "web-1: as its source says it again\n" });
    await found("web");
    expect(endpoints("shop")).toEqual([]);
    expect((await cli("override", "web-1", "--undo")).err).toContain('there is no override for "web-1"');
  }, 180_000);

  test("a process is hidden and comes back; what matches nothing is noted and told by the doctor", async () => {
    const { resident } = await found("plain");
    expect((await cli("override", "plain", "hidden")).out).toContain(": hidden\n");
    expect(endpoints("plain")).toEqual([]);
    expect(trilith.directory.view().residents("plain")).toEqual([]);
    await again();
    expect(endpoints("plain")).toEqual([]);
    const text = await cli("why", "plain");
    expect(text.exitCode).toBe(1);
    expect(text.out).toContain(`hides ${resident.instance.id}, which process calls "plain"`);
    expect(text.out).toMatch(/is hidden by the override for "plain", set by ann on this host/);
    await cli("override", "plain", "--undo");
    const back = await found("plain");
    expect(back.resident.instance).toMatchObject({ id: resident.instance.id, tags: ["a", "b"] });
    expect((await why("plain")).instances[0]?.registeredBy.words).toEqual([
      "env SERVICE_NAME=plain",
      "env SERVICE_TAGS=a,b",
    ]);

    const note = await cli("override", "nobody", "weight=2");
    expect(note.exitCode).toBe(0);
    expect(note.out).toContain("Note: nothing here is called");
    expect((await cli("doctor")).out).toContain(
      'the override for "nobody" (weight=2; by ann on this host) changes nothing',
    );
    expect((await cli("override", "--list", "--json")).out).toContain('"for": "nobody"');
    await cli("override", "nobody", "--undo");
    const wrong = await cli("override", "plain", "colour=red");
    expect(wrong.exitCode).not.toBe(0);
    expect(wrong.err).toContain("expected one of name=, tags=");
  }, 180_000);

  test("a file says it, too, and takes it back; over HTTP others need the right", async () => {
    await found("plain");
    const file = join(settings.dataDir ?? "", "services.d", "overrides.json");
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, JSON.stringify({ overrides: [{ for: "plain", set: ["name=filed"] }] }));
    await found("filed");
    expect((await why("filed")).instances[0]?.overridden?.by).toMatchObject([{ by: `${file}:1: overrides[0]` }]);
    const url = `http://127.0.0.1:${settings.httpPort}/v1/trilith/override/plain`;
    const gone = await fetch(url, { method: "DELETE" });
    expect([gone.status, await gone.text()]).toEqual([404, expect.stringContaining(`stands in ${file}:1`)]);
    await writeFile(file, "{}");
    await found("plain");
    const body = JSON.stringify({ set: ["weight=3"], by: "page" });
    for (const headers of [{ "x-forwarded-for": "203.0.113.7" }, { origin: "https://evil.example" }])
      expect((await fetch(url, { method: "PUT", body, headers })).status).toBe(403);
    const put = await fetch(url, { method: "PUT", body });
    expect(((await put.json()) as OverrideJson).by).toBe("page on this host");
    for (const bad of ["x", "{}", '{"set":["hidden"],"by":1}'])
      expect((await fetch(url, { method: "PUT", body: bad })).status).toBe(400);
    expect((await fetch(url, { method: "DELETE" })).status).toBe(200);
    expect(endpoints("plain")[0]?.weight).toBe(1);
  }, 120_000);
});
