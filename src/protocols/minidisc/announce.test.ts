// What of a host is told on the tailnet: its own, routable, and reached from there.
import { describe, expect, it } from "vitest";
import type { HeldCheck, HeldService } from "../../contracts/agent.ts";
import type { Status } from "../../model/check.ts";
import type { Instance } from "../../model/instance.ts";
import { offersOf } from "./announce.ts";

const TAILNET = "100.64.0.1";
const service = (name: string, more: Partial<Instance> = {}): HeldService => ({
  instance: {
    id: name,
    node: "alpha",
    name,
    tags: [],
    labels: {},
    address: "",
    port: 80,
    origin: { source: "docker", authority: "first-hand" },
    ...more,
  },
  checks: [],
});
const check = (serviceId: string, status: Status, id = `c-${serviceId}`): HeldCheck =>
  ({ check: { id, serviceId, status }, spec: {}, history: [] }) as unknown as HeldCheck;
const told = (services: HeldService[], checks: HeldCheck[] = []): string =>
  offersOf({ node: { id: "n-1", address: "192.0.2.1" }, services, checks, own: [TAILNET] })
    .map(({ name, address = "", port, health }) => `${name} ${address}:${port} ${health}`)
    .join(", ");

describe("what is told on the tailnet", () => {
  it.each<[string, Partial<Instance>, string]>([
    ["the host's own address", {}, "web :80 passing"],
    ["every address", { address: "0.0.0.0" }, "web :80 passing"],
    ["the node's address, which stands for all", { address: "192.0.2.1" }, "web :80 passing"],
    ["the tailnet's address", { address: TAILNET }, `web ${TAILNET}:80 passing`],
    [
      "one of several",
      { address: "192.0.2.1", addresses: [{ host: TAILNET, port: 81, reach: "tailnet" }] },
      `web ${TAILNET}:81 passing`,
    ],
    ["loopback only", { address: "127.0.0.1" }, ""],
    ["loopback only, by name", { address: "localhost" }, ""],
    ["another address of the LAN", { address: "192.0.2.9" }, ""],
    ["a bridge", { address: "172.17.0.2", addresses: [{ host: "172.17.0.2", port: 80, reach: "bridge" }] }, ""],
    [
      "another host's tailnet address",
      { address: "100.64.0.9", addresses: [{ host: "100.64.0.9", port: 80, reach: "tailnet" }] },
      "",
    ],
    ["no port", { port: 0 }, ""],
    ["draining", { draining: true }, ""],
    ["second-hand", { origin: { source: "zk", authority: "second-hand" } }, ""],
    ["from the tailnet", { origin: { source: "minidisc", authority: "first-hand" } }, ""],
    ["the agent itself", { origin: { source: "agent", authority: "first-hand" } }, ""],
  ])("%s", (_, more, expected) => {
    expect(told([service("web", more)])).toBe(expected);
  });

  it("goes by health and maintenance, of the service and of the node", () => {
    const web = [service("web")];
    expect(told(web, [check("web", "warning")])).toBe("web :80 warning");
    expect(told(web, [check("web", "passing"), check("web", "critical")])).toBe("");
    expect(told(web, [check("other", "critical")])).toBe("web :80 passing");
    expect(told(web, [check("", "critical", "disk")])).toBe("");
    expect(told(web, [check("", "warning", "_node_maintenance")])).toBe("");
    expect(told(web, [check("web", "warning", "_service_maintenance:web")])).toBe("");
  });
});
