// A second opinion: who refuses is gone, who is silent or answers is not.
import { createServer, type Server } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { fakeClock } from "../../test/simulated/clock.ts";
import { systemClock } from "../base/clock.ts";
import { TrilithError } from "../base/error.ts";
import { type Net, systemNet } from "../base/net.ts";
import { systemRandom } from "../base/random.ts";
import { createSecondOpinion, type Suspect } from "./second-opinion.ts";

const suspect = (address: string, port: number, tags: readonly string[] = []): Suspect => ({
  service: "web",
  address,
  port,
  tags,
});

function stand(suspects: Suspect[], connect: Net["connect"]) {
  const clock = fakeClock();
  const lost: string[] = [];
  const opinion = createSecondOpinion({
    clock,
    random: { ...systemRandom, fraction: () => 0.5 },
    net: { connect },
    suspects: () => suspects,
    confirmLost(service, address, port) {
      lost.push(`${service} ${address}:${port}`);
      suspects.splice(
        suspects.findIndex((one) => one.address === address && one.port === port),
        1,
      );
    },
  });
  return { clock, lost, opinion };
}

const refusal = (): Error =>
  new TrilithError("unavailable", "refused", Object.assign(new Error("refused"), { code: "ECONNREFUSED" }));

describe("the second opinion", () => {
  const servers: Server[] = [];
  afterEach(async () => {
    for (const server of servers.splice(0)) await new Promise((closed) => server.close(closed));
  });

  it("confirms what refuses, and only that", async () => {
    const asked: string[] = [];
    const suspects = [suspect("10.0.0.1", 80), suspect("10.0.0.2", 80), suspect("10.0.0.3", 80)];
    const { clock, lost, opinion } = stand(suspects, async (to) => {
      const host = "host" in to ? to.host : "";
      asked.push(host);
      if (host === "10.0.0.1") throw refusal();
      if (host === "10.0.0.2")
        throw new TrilithError("unavailable", "no route", Object.assign(new Error(), { code: "EHOSTUNREACH" }));
      return { destroy() {} } as never;
    });
    opinion.wanted();
    opinion.wanted();
    expect(asked).toEqual([]);
    await clock.advance(3_000);
    expect(lost).toEqual(["web 10.0.0.1:80"]);
    expect(asked.sort()).toEqual(["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    await clock.advance(13_000);
    expect(asked).toHaveLength(5);
    suspects.length = 0;
    await clock.advance(60_000);
    expect(asked).toHaveLength(5);
    await opinion.stop();
  });

  it("leaves alone what a TCP connection from here says nothing about", async () => {
    let asked = 0;
    const { clock, opinion } = stand(
      [
        suspect("127.0.0.1", 80),
        suspect("::1", 80),
        suspect("db.example", 80),
        suspect("10.0.0.1", 53, ["udp"]),
        suspect("10.0.0.1", 0),
      ],
      async () => {
        asked++;
        throw refusal();
      },
    );
    opinion.wanted();
    await clock.advance(3_000);
    expect(asked).toBe(0);
    await opinion.stop();
  });

  it("gives up on the silent, and stops in the middle of asking", async () => {
    let aborted = 0;
    const hang: Net["connect"] = (_to, signal) =>
      new Promise((_resolve, reject) => {
        signal?.addEventListener("abort", () => {
          aborted++;
          reject(signal.reason);
        });
      });
    const { clock, lost, opinion } = stand([suspect("10.0.0.9", 80)], hang);
    opinion.wanted();
    await clock.advance(2_400);
    await clock.advance(2_000);
    expect(aborted).toBe(1);
    await clock.advance(12_000);
    await opinion.stop();
    expect(aborted).toBe(2);
    expect(lost).toEqual([]);
  });

  it("knows a refusal by a real kernel's word", async () => {
    const server = createServer();
    servers.push(server);
    const port = await new Promise<number>((listening) =>
      server.listen(0, "127.0.0.1", () => listening((server.address() as { port: number }).port)),
    );
    const open = await systemNet.connect({ host: "127.0.0.1", port });
    open.destroy();
    await new Promise((closed) => server.close(closed));
    servers.length = 0;
    const error = await systemNet.connect({ host: "127.0.0.1", port }).catch((reason: unknown) => reason);
    expect((error as { cause?: { code?: string } }).cause?.code).toBe("ECONNREFUSED");
    expect(systemClock.now()).toBeGreaterThan(0);
  });
});
