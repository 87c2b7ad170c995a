// Kinds of services: what Consul 1.19 refuses of proxies, gateways and localities, in its words.
import { describe, expect, it } from "vitest";
import { type KindFacts, kindFaults, multiError } from "./kind-faults.ts";

const facts = (some: Partial<KindFacts>): KindFacts => ({
  kind: "",
  port: 0,
  socketPath: "",
  proxy: undefined,
  connect: undefined,
  locality: undefined,
  ...some,
});

describe("kindFaults", () => {
  it.each<[Partial<KindFacts>, readonly string[]]>([
    [{}, []],
    [{ kind: "nonsense" }, []],
    [
      { kind: "connect-proxy" },
      [
        "Port or SocketPath must be set for a connect-proxy",
        "Proxy.DestinationServiceName must be non-empty for Connect proxy services",
      ],
    ],
    [{ kind: "connect-proxy", port: 1, proxy: { DestinationServiceName: "web" } }, []],
    [{ kind: "connect-proxy", socketPath: "/s", proxy: { destination_service_name: "web" } }, []],
    [
      { kind: "connect-proxy", port: 1, proxy: { DestinationServiceName: "*" }, connect: { Native: true } },
      [
        "Proxy.DestinationServiceName must not be a wildcard for Connect proxy services",
        "A Proxy cannot also be Connect Native, only typical services",
      ],
    ],
    [{ kind: "mesh-gateway" }, ["Port must be non-zero for a mesh-gateway"]],
    [{ kind: "ingress-gateway" }, []],
    [
      {
        kind: "terminating-gateway",
        port: 1,
        proxy: { DestinationServiceName: "x", LocalServicePort: 0, Upstreams: [] },
      },
      ["The Proxy.DestinationServiceName configuration is invalid for a terminating-gateway"],
    ],
    [
      { kind: "api-gateway", connect: { sidecar_service: {} } },
      ["A api-gateway cannot have a sidecar service defined"],
    ],
    [{ connect: { native: true } }, ["Port or SocketPath must be set for a Connect native service."]],
    [{ connect: { native: true }, port: 1 }, []],
    [{ locality: { zone: "z" } }, ["zone cannot be set without region"]],
    [{ locality: { zone: "z", region: "r" } }, []],
  ])("%j", (some, faults) => expect(kindFaults(facts(some))).toEqual(faults));
});

it("writes several errors as go-multierror does", () => {
  expect(multiError([])).toBeUndefined();
  expect(multiError(["a"])).toBe("1 error occurred:\n\t* a\n\n");
  expect(multiError(["a", "b"])).toBe("2 errors occurred:\n\t* a\n\t* b\n\n");
});
