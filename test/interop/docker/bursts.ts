// Bursts against a real dockerd: 40 parallel starts and 40 kills, three times, leave nothing missing and nothing stale (twenty times: test/peers).
import { expect, it } from "vitest";
import { createTrilith } from "../../../src/trilith.ts";
import { startDocker } from "../../support/docker.ts";
import { bursts } from "../../support/docker-bursts.ts";
import { havePrograms } from "../../support/peers.ts";

const present = await havePrograms("dockerd", "docker", "iptables", "ip");

it.runIf(present)(
  "three bursts of 40 parallel starts and 40 kills leave nothing missing and nothing stale",
  async () => {
    const docker = await startDocker("bursts");
    const agent = createTrilith({
      node: "n1",
      dataDir: `${docker.folder}/trilith`,
      httpPort: -1,
      protocols: {
        ...{ process: false, file: false, dns: { port: -1 } },
        docker: { host: docker.host, enabled: true, hostname: "burst", ip: "192.0.2.1" },
      },
    });
    try {
      await agent.start();
      await bursts(docker, agent, "burst", 3);
      expect(agent.agent.complaints()).toEqual([]);
    } finally {
      await agent.stop();
      await docker.remove();
    }
  },
  360_000,
);
