// The real program killed without warning and started again: how pushed checks stood, the time left to them, drains, maintenance.
import { join, resolve } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { eventually, freePort, ownFolder, startProgram } from "../support/peers.ts";

const main = resolve(import.meta.dirname, "../../src/cli/main.ts");
let folder: Awaited<ReturnType<typeof ownFolder>>;
let program: Awaited<ReturnType<typeof startProgram>> | undefined;
let base = "";

beforeEach(async () => {
  folder = await ownFolder("checks-restart");
});
afterEach(async () => {
  await program?.stop();
  await folder.remove();
});

async function start(port: number): Promise<void> {
  base = `http://127.0.0.1:${port}`;
  program = await startProgram(
    [
      ...[process.execPath, "--import", "tsx", main, "agent", "-data-dir", join(folder.path, "data"), "-node", "alpha"],
      ...["-http-port", String(port), "-dns-port", "-1", "-docker-host", "off", "-environ", "off"],
    ],
    join(folder.path, "log"),
  );
  await eventually("it answers", async () => (await fetch(`${base}/v1/agent/checks`)).ok, 60_000);
}

async function call(method: string, path: string, body?: unknown): Promise<unknown> {
  const answer = await fetch(base + path, { method, ...(body === undefined ? {} : { body: JSON.stringify(body) }) });
  const text = await answer.text();
  expect([path, answer.status, answer.ok ? "" : text]).toEqual([path, 200, ""]);
  return text === "" ? undefined : JSON.parse(text);
}

const checks = async (): Promise<Record<string, string>> =>
  Object.fromEntries(
    Object.entries((await call("GET", "/v1/agent/checks")) as Record<string, { Status: string; Output: string }>).map(
      ([id, { Status, Output }]) => [id, `${Status}: ${Output}`],
    ),
  );

test("killed and started again", async () => {
  const port = await freePort();
  await start(port);
  await call("PUT", "/v1/agent/service/register", {
    Name: "web",
    Checks: [
      { CheckID: "long", TTL: "1h" },
      { CheckID: "short", TTL: "3s" },
      { CheckID: "quiet", TTL: "1h" },
    ],
  });
  await call("PUT", "/v1/agent/service/register", { Name: "db", Check: { CheckID: "follows", AliasService: "web" } });
  await call("PUT", "/v1/agent/check/warn/long?note=so-so");
  const reportedAt = Date.now();
  await call("PUT", "/v1/agent/check/pass/short?note=alive");
  await call("PUT", "/v1/agent/check/pass/quiet");
  await call("POST", "/v1/trilith/drain/db?reason=moving");
  await call("PUT", "/v1/agent/service/maintenance/web?enable=true&reason=disks");
  await program?.stop("SIGKILL");
  await start(port);
  const stood = await checks();
  expect(stood).toMatchObject({
    long: "warning: so-so",
    quiet: "passing: ",
    "_service_maintenance:web": "critical: ",
    follows: 'critical: Aliased check "Service Maintenance Mode" failing: ',
  });
  // The time that it was away counts, and no more than that time.
  await eventually("its time is over", async () => (await checks())["short"]?.startsWith("critical: TTL expired"));
  expect(Date.now() - reportedAt).toBeGreaterThan(2_900);
  expect((await checks())["short"]).toBe("critical: TTL expired (last output before timeout follows): alive");
  const why = JSON.stringify(await call("GET", "/v1/trilith/why/db"));
  expect(why).toContain("draining");
  await call("POST", "/v1/trilith/drain/db?off");
  await call("PUT", "/v1/agent/service/maintenance/web?enable=false");
  await program?.stop("SIGKILL");
  await start(port);
  expect(await checks()).not.toHaveProperty("_service_maintenance:web");
  const listed = JSON.stringify(await call("GET", "/v1/trilith/list"));
  expect(listed).toContain('"draining":0');
  expect(listed).not.toContain('"draining":1');
}, 180_000);
