// Client hosts as programs, started by the command line as people type it: the server dies and returns, they die and return, and in the end everything stands.
import { fileURLToPath } from "node:url";
import { afterEach, describe, expect, test } from "vitest";
import { eventually, freePort, ownFolder, startProgram } from "../support/peers.ts";

const MAIN = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));
const ROUNDS = 5;
let ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.reverse()) await end();
  ends = [];
});

interface Program {
  readonly url: string;
  start(): Promise<void>;
  kill(): Promise<void>;
}

async function agent(node: string, ...flags: string[]): Promise<Program> {
  const folder = await ownFolder(`join-${node}`);
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  let program: Awaited<ReturnType<typeof startProgram>> | undefined;
  const it: Program = {
    url,
    async start() {
      program = await startProgram(
        [
          ...[process.execPath, "--import", "tsx", MAIN, "agent", "-node", node, "-data-dir", `${folder.path}/data`],
          ...[
            "-http-port",
            String(port),
            "-dns-port",
            "-1",
            "-docker-host",
            "off",
            "-advertise",
            "127.0.0.1",
            "-quiet",
          ],
          ...flags,
        ],
        `${folder.path}/log`,
      );
      await eventually(`${node} answers`, async () => (await fetch(`${url}/v1/agent/self`)).ok, 60_000);
    },
    async kill() {
      await program?.stop("SIGKILL");
      program = undefined;
    },
  };
  ends.push(
    () => folder.remove(),
    () => it.kill(),
  );
  await it.start();
  return it;
}
async function register(at: Program, id: string): Promise<void> {
  const body = JSON.stringify({ ID: id, Name: "web", Port: 80, Tags: [id] });
  const answer = await fetch(`${at.url}/v1/agent/service/register`, { method: "PUT", body });
  expect([answer.status, await answer.text()]).toEqual([200, ""]);
}
const ids = async (at: Program): Promise<string[]> => {
  const found = (await (await fetch(`${at.url}/v1/health/service/web?passing`)).json()) as {
    Service: { ID: string };
  }[];
  return found.map(({ Service }) => Service.ID).sort();
};

describe("client hosts as programs", () => {
  test("whoever is killed, in the end all see all", { timeout: 300_000 }, async () => {
    const server = await agent("server");
    // Two spellings of the same.
    const one = await agent("one", "-join", server.url);
    const two = await agent("two", "-retry-join", server.url);
    const wanted: string[] = [];
    const add = async (at: Program, id: string): Promise<void> => {
      await register(at, id);
      wanted.push(id);
    };
    for (let round = 0; round < ROUNDS; round++) {
      await add(one, `one-${round}`);
      await add(two, `two-${round}`);
      if (round % 2 === 0) {
        await server.kill();
        await add(one, `one-away-${round}`);
        await add(two, `two-away-${round}`);
        if (round === 2) {
          // Also a client that starts while nobody is there.
          await two.kill();
          await two.start();
          await add(two, `two-alone-${round}`);
        }
        await server.start();
      } else {
        await one.kill();
        await add(server, `server-${round}`);
        await one.start();
      }
      const all = [...wanted].sort();
      for (const at of [server, one, two])
        await eventually(
          `round ${round}: all at ${at.url}`,
          async () => JSON.stringify(await ids(at)) === JSON.stringify(all),
          60_000,
        );
    }
  });
});
