// `trilith agent` where a start fails or takes long: what is said, the exit code, and that SIGTERM is obeyed all the same.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { freePort, ownFolder } from "../support/peers.ts";

const main = resolve(import.meta.dirname, "../../dist/cli/main.js");
let folder: Awaited<ReturnType<typeof ownFolder>>;
beforeAll(async () => {
  folder = await ownFolder("cli-start");
});
afterAll(() => folder.remove());

async function agent(words: readonly string[]) {
  const ports = [`-http-port=${await freePort()}`, "-dns-port=-1", "-docker-host=off"];
  const child = spawn(process.execPath, [main, "agent", ...ports, ...words], { stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  child.stderr.on("data", (chunk: Buffer) => {
    said += chunk.toString();
  });
  const ended = once(child, "close").then(([code]) => ({ code: code as number | null, said }));
  return { child, ended };
}

it.each([
  ["/proc/trilith", "cannot be made there"],
  ["/dev/null", "something that is no folder"],
])("says that %s cannot be the data folder", async (path, says) => {
  const { ended } = await agent([`-data-dir=${path}`]);
  const { code, said } = await ended;
  expect(said).toContain(`trilith agent: the data folder ${path} `);
  expect(said).toContain(says);
  expect(code).toBe(1);
});

it("stops at the first SIGTERM while a store that does not answer keeps it from being up", async () => {
  const silent = createServer((socket) => socket.on("error", () => {}));
  silent.listen(0, "127.0.0.1");
  await once(silent, "listening");
  try {
    const url = `http://127.0.0.1:${(silent.address() as AddressInfo).port}`;
    const called = once(silent, "connection");
    const { child, ended } = await agent([`-data-dir=${join(folder.path, "data")}`, "-etcd", url]);
    await called;
    child.kill("SIGTERM");
    expect((await ended).code).toBe(0);
  } finally {
    silent.close();
  }
});
