// Service files under a real agent in a process of its own: dropped in, changed, broken, reloaded by SIGHUP, removed while it was down.
import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach, beforeEach, expect, it } from "vitest";
import { eventually, freePort, ownFolder, startProgram } from "../support/peers.ts";

const main = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));
let folder: Awaited<ReturnType<typeof ownFolder>>;
let agent: Awaited<ReturnType<typeof startProgram>> | undefined;
let port: number;
let targetPort: number;
let healthy = true;
const target = createServer((_request, response) => response.writeHead(healthy ? 200 : 500).end("target"));

async function start(): Promise<void> {
  agent = await startProgram(
    [
      ...[process.execPath, "--import", "tsx", main, "agent", "--data-dir", join(folder.path, "data")],
      ...[
        "--http-port",
        String(port),
        "--dns-port",
        "-1",
        "--docker-host",
        "off",
        "--environ",
        "off",
        "--services",
        join(folder.path, "more"),
      ],
      ...["--config-file", join(folder.path, "consul.hcl")],
    ],
    join(folder.path, "log"),
  );
  await eventually("the agent", async () => (await fetch(`http://127.0.0.1:${port}/v1/agent/self`)).ok, 60_000);
}

interface Service {
  readonly Port: number;
  readonly Tags: readonly string[];
}
const get = async <T>(path: string): Promise<T> => (await (await fetch(`http://127.0.0.1:${port}${path}`)).json()) as T;
const services = (): Promise<Record<string, Service>> => get("/v1/agent/services");
const ids = async (): Promise<string> =>
  Object.keys(await services())
    .sort()
    .join();
const passing = async (name: string): Promise<number> =>
  (await get<unknown[]>(`/v1/health/service/${name}?passing`)).length;
async function put(name: string, text: string): Promise<void> {
  await writeFile(join(folder.path, `${name}.new`), text);
  await rename(join(folder.path, `${name}.new`), join(folder.path, name));
}

beforeEach(async () => {
  folder = await ownFolder("file-agent");
  await mkdir(join(folder.path, "data/services.d"), { recursive: true });
  port = await freePort();
  await new Promise<void>((resolve) => target.listen(0, "127.0.0.1", resolve));
  targetPort = (target.address() as { port: number }).port;
  await put("consul.hcl", 'node_name = "filetest"\nservice { id = "conf" name = "conf" port = 1 }\n');
  await start();
});
afterEach(async () => {
  await agent?.stop();
  target.closeAllConnections();
  await new Promise((resolve) => target.close(resolve));
  await folder.remove();
});

// One story: what each part leaves the next begins with.
it("service files are read when dropped, changed, broken and reloaded, forgotten when removed", {
  timeout: 180_000,
}, async () => {
  // Files that are dropped into a folder are services with checks; also into one that was not there at start.
  await eventually("the configured service", async () => (await ids()) === "conf");
  await put(
    "data/services.d/web.hcl",
    `service { id = "web-1" name = "web" port = ${targetPort} tags = ["v1"]
       check { http = "http://127.0.0.1:${targetPort}/" interval = "1s" } }`,
  );
  await mkdir(join(folder.path, "more"));
  await put(
    "more/db.json",
    '{"service": {"name": "db", "port": 5432}, "check": {"name": "disk", "ttl": "1h", "status": "passing"}}',
  );
  await eventually("both", async () => (await ids()) === "conf,db,web-1");
  await eventually("the check to pass", async () => (await passing("web")) === 1);
  expect(Object.keys(await get<object>("/v1/agent/checks")).sort()).toEqual(["disk", "service:web-1"]);
  healthy = false;
  await eventually("the check to fail", async () => (await passing("web")) === 0);
  healthy = true;
  await eventually("the check to pass again", async () => (await passing("web")) === 1);

  // Files that go bad change nothing, and are told with line and key.
  await put("data/services.d/web.hcl", 'service {\n  id = "web-1"\n  name = "web"\n  prot = 1\n  port = "x"\n}');
  await put("data/services.d/zed.hcl", 'service { name = "zed" }');
  await eventually("the other file", async () => (await ids()) === "conf,db,web-1,zed");
  const told = await eventually("the complaint", async () => {
    const text = JSON.stringify(await get("/v1/trilith/doctor"));
    return text.includes("web.hcl:5") ? text : undefined;
  });
  expect(told).toContain("web.hcl:5: service.port: must be a whole number, not");
  expect((await services())["web-1"]).toMatchObject({ Port: targetPort, Tags: ["v1"] });
  await put("data/services.d/web.hcl", `service { id = "web-1" name = "web" port = ${targetPort} tags = ["v2"] }`);
  await eventually("v2", async () => (await services())["web-1"]?.Tags[0] === "v2");
  await eventually(
    "nothing to complain about",
    async () => !JSON.stringify(await get("/v1/trilith/doctor")).includes("web.hcl:5"),
  );

  // They are read again on SIGHUP, what was deregistered by hand and Consul's configuration included.
  await fetch(`http://127.0.0.1:${port}/v1/agent/service/deregister/zed`, { method: "PUT" });
  await put("consul.hcl", 'node_name = "filetest"\nservice { id = "conf" name = "conf" port = 2 }\n');
  expect(await ids()).toBe("conf,db,web-1");
  process.kill(agent?.pid ?? 0, "SIGHUP");
  await eventually("zed back", async () => (await ids()) === "conf,db,web-1,zed");
  await eventually("the new port", async () => (await services())["conf"]?.Port === 2);

  // Files removed while no agent runs are gone with its next start, and so is a removed check.
  await agent?.stop();
  await rm(join(folder.path, "data/services.d/zed.hcl"));
  await put("more/db.json", '{"service": {"name": "db", "port": 5433}}');
  await start();
  await eventually("zed gone", async () => (await ids()) === "conf,db,web-1");
  expect((await services())["db"]?.Port).toBe(5433);
  await eventually("the check gone", async () => !("disk" in (await get<object>("/v1/agent/checks"))));
  await rm(join(folder.path, "data/services.d/web.hcl"));
  await eventually("web gone", async () => (await ids()) === "conf,db");

  // Files that ask for scripts are refused, because nobody allowed them.
  await put("more/s.hcl", 'service {\n  name = "s"\n  check {\n    args = ["/bin/true"]\n    interval = "1s"\n  }\n}');
  await eventually("the complaint", async () =>
    JSON.stringify(await get("/v1/trilith/doctor")).includes(
      "s.hcl:3: service.check: script checks are off on this agent",
    ),
  );
  expect(await ids()).toBe("conf,db");
});
