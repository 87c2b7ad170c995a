// `trilith agent` where a start fails or takes long: what is said, the exit code, and that SIGTERM is obeyed all the same.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chown, mkdir } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { join, resolve } from "node:path";
import { text } from "node:stream/consumers";
import { afterAll, beforeAll, expect, it } from "vitest";
import { freePort, havePrograms, ownFolder } from "../support/peers.ts";

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
  let heard = (): void => {};
  child.stderr.on("data", (chunk: Buffer) => {
    said += chunk.toString();
    heard();
  });
  const ended = once(child, "close").then(([code]) => ({ code: code as number | null, said }));
  /** Also for what was said before anybody waited for it. */
  const says = (text: string): Promise<void> =>
    new Promise((resolve) => {
      heard = () => {
        if (said.includes(text)) resolve();
      };
      heard();
    });
  return { child, ended, says };
}

it.each([
  ["/proc/trilith", "cannot be made there"],
  ["/dev/null", "something that is not a folder"],
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
    const { child, ended, says } = await agent([`-data-dir=${join(folder.path, "data")}`, "-etcd", url]);
    await called;
    // Nobody is left without a word.
    await says(`waiting for an answer of ${url}`);
    child.kill("SIGTERM");
    expect((await ended).code).toBe(0);
  } finally {
    silent.close();
  }
});

/** As `docker run --user 23456` starts a program: a user that the system's list does not name. */
const nameless = ["--reuid", "23456", "--regid", "23456", "--clear-groups", process.execPath];

it("runs as a user without a name: where it has a home folder, or is told where to keep data", async () => {
  await havePrograms("setpriv");
  const home = join(folder.path, "nameless");
  await mkdir(home, { recursive: true });
  await chown(home, 23456, 23456);
  const words = [`-http-port=${await freePort()}`, "-dns-port=-1", "-docker-host=off"];
  const env = { PATH: process.env["PATH"], HOME: home };
  const child = spawn("setpriv", [...nameless, main, "agent", ...words], { env, stdio: ["ignore", "pipe", "inherit"] });
  try {
    let screen = "";
    for await (const chunk of child.stdout as AsyncIterable<Buffer>) {
      screen += chunk.toString();
      if (screen.includes("Ctrl-C stops the agent.")) break;
    }
    expect(screen).toContain(`data  ${home}/.local/share/trilith (lmdb)`);
  } finally {
    child.kill("SIGTERM");
  }
  expect(await once(child, "exit")).toEqual([0, null]);
});

it("says what to do where a user has no home folder", async () => {
  await havePrograms("setpriv");
  const child = spawn("setpriv", [...nameless, main, "agent", "-dns-port=-1"], { env: { PATH: process.env["PATH"] } });
  const said = text(child.stderr);
  expect(await once(child, "exit")).toEqual([2, null]);
  expect(await said).toMatch(/^trilith agent: --data-dir: this user has no home folder .*--dev\n$/);
});
