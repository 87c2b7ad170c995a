// Tests how answering containers goes on is told: a bridge that comes later, one whose port is another's, and its end.
import { once } from "node:events";
import { createServer } from "node:net";
import { expect, it } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import { eventually, freePort } from "../../../test/support/peers.ts";
import { systemDisk } from "../../base/disk.ts";
import { silentLog } from "../../base/log.ts";
import { type Interface, systemNet } from "../../base/net.ts";
import type { Responder } from "./answer.ts";
import { createContainers } from "./containers.ts";
import { createPlaces } from "./places.ts";

it("says which bridges are answered, and of others why not and what to do", async () => {
  const clock = fakeClock();
  const port = await freePort();
  const other = createServer().listen(port, "127.0.0.3");
  await once(other, "listening");
  let interfaces: Interface[] = [];
  const bridge = (name: string, address: string): Interface => ({
    ...{ name, address, cidr: `${address}/24`, family: 4, internal: false },
  });
  const net = { ...systemNet, interfaces: () => interfaces };
  const responder: Responder = { respond: () => undefined, stop: () => {} };
  const { listener, state } = createContainers({
    ...{ net, clock, port, responder, log: silentLog, disk: systemDisk, places: createPlaces(net), tcpIdleMs: 1000 },
    ...{ bridges: true, procNet: "/nowhere", covered: () => false },
  });
  // Listening is the system's matter, and takes its time.
  const lookedUntil = (isSo: () => boolean): Promise<unknown> =>
    eventually("the bridges were looked at", async () => {
      await clock.advance(1000);
      return isSo();
    });
  try {
    await listener.start();
    expect(state()).toEqual({ ok: true, text: `port ${port} of containers' bridges, none yet` });
    interfaces = [bridge("docker0", "127.0.0.2"), bridge("br-0123456789ab", "127.0.0.3")];
    await lookedUntil(() => !state().ok);
    expect(state()).toEqual({
      ok: false,
      text: expect.stringMatching(
        new RegExp(
          `^answers containers at 127\\.0\\.0\\.2:${port} \\(docker0\\); containers on br-0123456789ab get no answers: 127\\.0\\.0\\.3:${port} is taken`,
        ),
      ) as string,
    });
    interfaces = [bridge("docker0", "127.0.0.2")];
    await lookedUntil(() => state().ok);
    expect(state()).toEqual({ ok: true, text: `answers containers at 127.0.0.2:${port} (docker0)` });
  } finally {
    other.close();
    await listener.stop();
  }
});
