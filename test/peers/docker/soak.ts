// A real dockerd for long: bursts of 40 starts and 40 kills in a row, and hundreds of container lives, after which nothing is left and nothing has grown.
// With TRILITH_SOAK=full twenty bursts and a thousand lives, which take ten minutes.
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createTrilith, type Trilith } from "../../../src/trilith.ts";
import { type Docker, startDocker } from "../../support/docker.ts";
import { bursts } from "../../support/docker-bursts.ts";
import { triedBefore } from "../../support/own-name.ts";
import { eventually, havePrograms } from "../../support/peers.ts";

const full = process.env["TRILITH_SOAK"] === "full";
const LIVES = full ? 1000 : 400;
const ROUNDS = full ? 20 : 5;
const PARALLEL = 8;
/** What a process may grow by between the 200th and the last life: caches that fill, not something kept for each life. */
const GROWTH_MAX_BYTES = 8 << 20;
const present = await havePrograms("dockerd", "docker", "iptables", "ip");

/** Bytes in use after everything that nobody holds was thrown away. */
function heapBytes(): number {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  collect();
  collect();
  return process.memoryUsage().heapUsed;
}

describe.runIf(present)("an agent beside a busy dockerd", () => {
  let docker: Docker;
  let agent: Trilith;
  beforeAll(async () => {
    docker = await startDocker("soak");
    agent = createTrilith({
      node: "n1",
      dataDir: `${docker.folder}/trilith`,
      httpPort: -1,
      protocols: {
        ...{ process: false, file: false, dns: { port: -1 } },
        docker: { host: docker.host, enabled: true, hostname: "soak", ip: "192.0.2.1" },
      },
    });
    await agent.start();
  });
  beforeEach(async (context) => {
    if (triedBefore(context)) await docker.clear();
  });
  afterAll(async () => {
    await agent?.stop();
    await docker?.remove();
  });
  const held = (): string[] => [...agent.agent.services().keys()].sort();

  it(`${ROUNDS} bursts of 40 starts and 40 kills in a row: nothing missing, nothing stale`, async () => {
    await bursts(docker, agent, "soak", ROUNDS);
    expect(held()).toEqual([]);
  }, 900_000);

  it(`${LIVES} container lives leave an empty directory and no more memory than before`, async () => {
    let begun = 0;
    let seen = 0;
    let middle = 0;
    const counting = new AbortController();
    const known = new Set<string>();
    const watching = (async () => {
      for (let version = 0; ; ) {
        version = await agent.agent.changed(version, counting.signal);
        for (const id of agent.agent.services().keys()) known.add(id);
      }
    })().catch(() => {});
    const live = async (): Promise<void> => {
      while (begun < LIVES) {
        const i = begun++;
        await docker.docker(
          "run",
          "--rm",
          "--name",
          `life${i}`,
          "-P",
          "-e",
          `SERVICE_NAME=s${i % 10}`,
          "bbexp1",
          "/bin/sleep",
          "0.3",
        );
        if (++seen === 200) middle = heapBytes();
      }
    };
    await Promise.all(Array.from({ length: PARALLEL }, live));
    await eventually("nothing is registered", () => held().length === 0);
    await agent.agent.synced();
    counting.abort();
    await watching;
    // Each of them was there for its 0.3 seconds.
    expect(known.size).toBeGreaterThan(LIVES * 0.95);
    known.clear();
    const view = agent.directory.view();
    expect([...view.list("service")].filter(({ origin }) => origin.source === "docker")).toEqual([]);
    expect([...view.list("check")].filter(({ serviceId }) => serviceId.startsWith("soak:"))).toEqual([]);
    const growth = heapBytes() - middle;
    console.log(
      `${LIVES} lives: heap ${(middle / 2 ** 20).toFixed(1)} MiB after 200, ${((middle + growth) / 2 ** 20).toFixed(1)} MiB at the end; RSS ${(process.memoryUsage().rss / 2 ** 20).toFixed(0)} MiB`,
    );
    expect(growth).toBeLessThan(GROWTH_MAX_BYTES);
  }, 1_800_000);
});
