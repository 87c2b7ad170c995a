// Agents without a server on a real tailnet: found by tailscaled's LocalAPI, heard through the tunnels, lost and found again.
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { eventually, havePrograms, ownFolder } from "../support/peers.ts";
import { Member } from "../support/peers-mode.ts";
import { haveTailnet, startTailnet, type Tailnet } from "../support/tailnet.ts";

const here = (await haveTailnet()) && (await havePrograms("dig"));

describe.skipIf(!here)("agents without a server on a real tailnet", { timeout: 240_000 }, () => {
  let folder: Awaited<ReturnType<typeof ownFolder>>;
  let net: Tailnet;
  let all: Member[];
  const everywhere = async (hosts: string): Promise<void> => {
    await Promise.all(all.map((one) => one.sees(hosts, "web", 60_000)));
  };

  beforeAll(async () => {
    folder = await ownFolder("peers-tailnet-real");
    net = await startTailnet(join(folder.path));
    all = net.nodes.map(
      (node) =>
        new Member(
          {
            name: node.name,
            address: "127.0.0.1",
            within: (...command) => node.within(...command),
            unplug: async () => {},
            plug: async () => {},
          },
          folder.path,
          ["--peers", "tailnet", "--peers-tailscaled", node.socketPath],
        ),
    );
  }, 600_000);
  /** All are there, also after a test that did not come to its end. */
  beforeEach(async () => {
    for (const node of net.nodes) await node.mend();
    await Promise.all(all.map((one) => (one.isRunning ? undefined : one.start())));
    await everywhere(net.nodes.map(({ name }) => name).join(" "));
  }, 240_000);
  afterAll(async () => {
    await Promise.all((all ?? []).map((one) => one.stop("SIGKILL")));
    await net?.stop();
    await folder?.remove();
  });

  it("answers for all at their addresses in the tailnet", async () => {
    const names = net.nodes.map(({ name }) => name).join(" ");
    await everywhere(names);
    const [a] = all as [Member];
    const [, second, third] = net.nodes;
    expect(await a.dns(`${second?.name}.node.consul`)).toBe(second?.address);
    expect(await a.dns(`${third?.name}.web.service.consul`)).toBe(third?.address);
    await a.knows(net.nodes.map(({ name }) => `${name}:alive`).join(" "));
  });

  it("loses who is killed, goes down or is logged in anew, and finds it again", async () => {
    const [first, second, third] = net.nodes.map(({ name }) => name) as [string, string, string];
    const [a, b, c] = all as [Member, Member, Member];
    await c.stop("SIGKILL");
    await Promise.all([a, b].map((one) => one.sees(`${first} ${second}`, "web", 40_000)));
    await c.start();
    await everywhere(`${first} ${second} ${third}`);
    await net.nodes[2]?.tailscale("down");
    await Promise.all([a, b].map((one) => one.sees(`${first} ${second}`, "web", 40_000)));
    await eventually("it says so", async () => /is stopped/.test((await c.trilith("doctor")).out));
    await net.nodes[2]?.up();
    await everywhere(`${first} ${second} ${third}`);
  });
});
