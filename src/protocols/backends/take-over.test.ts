// The list of another service is taken over while back ends POST themselves.
import { expect, it } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import type { HeldService } from "../../contracts/agent.ts";
import type { Registration } from "../../model/instance.ts";
import { configureBackends } from "./config.ts";
import { takeOver } from "./server.ts";

const held = (id: string, name: string, foreignId: string, port: number): HeldService =>
  ({
    instance: {
      id,
      name,
      address: "10.0.0.1",
      port,
      origin: { source: "backends", authority: "first-hand", foreignId },
    },
    checks: [],
  }) as unknown as HeldService;

it("leaves a back end alone that has POSTed itself anew meanwhile", async () => {
  const config = configureBackends({ service: "shop" });
  if (config === undefined) throw new Error("it is on");
  const services = new Map(["a", "b"].map((id) => [`old-${id}`, held(`old-${id}`, "old", id, 80)]));
  await takeOver({
    ...{ config, clock: fakeClock(), tcp: undefined },
    agent: {
      services: () => services,
      async register(_from: string, { id, name, foreignId = "", port }: Registration) {
        services.set(id, held(id, name, foreignId, port));
        // While the first one is taken over the second one says that it is at another port now.
        if (id === "shop-a") services.set("shop-b", held("shop-b", "shop", "b", 81));
      },
      async deregister(_from: string, id: string) {
        services.delete(id);
      },
      async report() {},
    } as never,
  });
  expect([...services.values()].map(({ instance: { id, port } }) => `${id} ${port}`).sort()).toEqual([
    "shop-a 80",
    "shop-b 81",
  ]);
});
