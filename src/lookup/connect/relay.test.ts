// What passing bytes on costs in memory: no buffer is made for what passes, however much that is.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { getHeapStatistics } from "node:v8";
import { expect, it } from "vitest";
import { at, testConnector } from "../../../test/support/connect.ts";

const MEGABYTES = 512;

it("half a gigabyte passes through the same few buffers", async () => {
  const pump = spawn(process.execPath, [join(import.meta.dirname, "../../../test/support/pump.mjs"), `${MEGABYTES}`], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const said: string[] = [];
  pump.stdout.on("data", (data) => said.push(String(data)));
  const ended = once(pump, "exit");
  while (said.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  const made = testConnector([at(Number(said[0]))]);
  const { port } = await made.connector.proxy({ host: "127.0.0.1", port: 0 }, { service: "pump" });
  // Memory outside of the heap, which is given back only when the collector runs: what would be made for each chunk would pile up.
  const outside = (): number => getHeapStatistics().external_memory;
  const before = outside();
  let most = before;
  const look = setInterval(() => {
    most = Math.max(most, outside());
  }, 1);
  pump.stdin.write(`${port}`);
  await ended;
  clearInterval(look);
  await made.connector.stop(0);
  expect(said.join("")).toMatch(`arrived ${MEGABYTES * 1_048_576}`);
  expect(most - before).toBeLessThan(4 * 1_048_576);
});
