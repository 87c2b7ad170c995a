// A program that registers itself: several names of one process live side by side, and go one by one.
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type RunningAgent, startAgent } from "../../../test/support/ground.ts";
import { freePort } from "../../../test/support/peers.ts";
import { advertise } from "./advertise.ts";

describe("advertise", () => {
  let agent: RunningAgent;
  beforeEach(async () => {
    agent = await startAgent({ protocols: { process: { environ: false } } });
  });
  afterEach(() => agent.stop());
  const names = (): string[] =>
    [...agent.trilith.agent.services().values()].map(({ instance }) => instance.name).sort();

  it("registers several services of one process, each with its own life", async () => {
    const one = await advertise({ name: "one", port: 4001, labels: { env: "prod" }, agent: agent.url });
    const two = await advertise({ name: "two", port: 4002, tags: ["t"], agent: agent.url });
    expect(one.registered && two.registered).toBe(true);
    expect(names()).toEqual(["one", "two"]);
    const [found] = agent.trilith.lookup.resolveNow({ service: "one", labels: { env: "prod" } }).endpoints;
    expect(found).toMatchObject({ port: 4001 });
    await one.drain();
    expect(agent.trilith.lookup.resolveNow({ service: "one" }).endpoints).toEqual([]);
    await one.drain(false);
    expect(agent.trilith.lookup.resolveNow({ service: "one" }).endpoints).toHaveLength(1);
    await one.stop();
    expect(names()).toEqual(["two"]);
    expect(one.registered).toBe(false);
    await two.stop();
    expect(names()).toEqual([]);
  });

  it("waits for an agent that is not there yet, without holding up the program", async () => {
    const port = await freePort();
    const states: string[] = [];
    const early = await advertise({
      name: "early",
      port: 1,
      agent: `127.0.0.1:${port}`,
      onState: (state) => states.push(state),
    });
    expect(early.registered).toBe(false);
    expect(states).toEqual(["away"]);
    const late = await startAgent({ httpPort: port, protocols: { process: { environ: false } } });
    await expect.poll(() => early.registered, { timeout: 10_000 }).toBe(true);
    await expect.poll(() => late.trilith.agent.services().size).toBe(1);
    await early.stop();
    await late.stop();
  });

  it.each([
    [{ name: "", port: 1 }, /name: "": expected a name/],
    [{ name: "x", port: 0 }, /port: 0: expected a whole number from 1 to 65535/],
    [{ name: "x", port: 1.5 }, /port: 1.5: expected/],
    [{ name: "x", port: 1, agent: "http://[" }, /is not an HTTP address/],
  ])("refuses %j", async (wrong, text) => {
    await expect(advertise(wrong)).rejects.toThrow(text);
  });

  it("tells what the agent says where it is not a Trilith agent", async () => {
    const off = await startAgent();
    await expect(advertise({ name: "x", port: 1, agent: off.url })).rejects.toThrow(/refuses "x"/);
    await off.stop();
  });
});
