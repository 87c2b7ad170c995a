// Beside what was recorded: other parameters, wrong values and odd bodies of agent, catalog and health, as Consul 1.19's source answers them.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type RunningAgent, startAgent } from "../../../test/support/ground.ts";
import { ownName } from "../../../test/support/own-name.ts";

let agent: RunningAgent;
beforeAll(async () => {
  agent = await startAgent({ compat: "consul" });
});
afterAll(async () => {
  expect(agent.errors).toEqual([]);
  await agent.stop();
});

interface Answer {
  readonly status: number;
  readonly body: unknown;
  readonly headers: Headers;
}
async function ask(
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const answer = await fetch(agent.url + path, {
    method,
    headers,
    ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
  });
  const text = await answer.text();
  const json = /json/.test(answer.headers.get("content-type") ?? "");
  return { status: answer.status, body: json ? JSON.parse(text) : text, headers: answer.headers };
}

const NS = 'Invalid query parameter: "ns" - Namespaces are a Consul Enterprise feature';
const PARTITION = 'Invalid query parameter: "partition" - Partitions are a Consul Enterprise feature';
const REGISTER = "/v1/agent/service/register";
const NATIVE = "1 error occurred:\n\t* Port or SocketPath must be set for a Connect native service.\n\n";
const NOPE = "filter=Nope%20%3D%3D%20x";
const NODE = { Node: "n", Address: "192.0.2.1" };

it.each<[method: string, path: string, body: unknown, status: number, text: unknown]>([
  ["PUT", REGISTER, { Name: "x", Checks: [{}] }, 400, "Invalid check: TTL must be > 0 for TTL checks"],
  ["PUT", REGISTER, { Name: "x", Check: {} }, 200, ""],
  ["PUT", REGISTER, { Name: "x", Connect: { Native: true } }, 400, `Validation failed: ${NATIVE}`],
  ["PUT", `${REGISTER}?ns=a`, "{", 400, NS],
  ["GET", "/v1/agent/service/x?index=abc", undefined, 400, "Invalid index"],
  ["GET", "/v1/agent/service/x?wait=abc&ns=a", undefined, 400, "Invalid wait time"],
  ["GET", "/v1/agent/members?partition=x", undefined, 400, PARTITION],
  ["GET", "/v1/agent/members?wan=1&segment=a", undefined, 400, "Cannot provide a segment with wan=true"],
  [
    "GET",
    "/v1/agent/members?segment=a",
    undefined,
    500,
    "Network segments are not supported in this version of Consul",
  ],
  ["PUT", "/v1/agent/maintenance?ns=a&enable=false", undefined, 200, ""],
  ["PUT", "/v1/agent/force-leave/x?partition=a", undefined, 400, PARTITION],
  ["PUT", "/v1/agent/force-leave/alpha", undefined, 200, ""],
  ["GET", "/v1/catalog/nodes?partition=x", undefined, 400, PARTITION],
  ["GET", "/v1/catalog/datacenters?partition=x&ns=y", undefined, 200, ["dc1"]],
  ["PUT", "/v1/catalog/register?ns=a", "{", 400, NS],
  ["PUT", "/v1/catalog/register?stale&consistent&index=abc", NODE, 200, true],
  ["PUT", "/v1/catalog/register", { ...NODE, CreateIndex: 7, ModifyIndex: 8 }, 200, true],
  [
    "PUT",
    "/v1/catalog/register",
    { ...NODE, WriteRequest: {} },
    400,
    'Request decode failed: json: unknown field "WriteRequest"',
  ],
  [
    "PUT",
    "/v1/catalog/register",
    { ...NODE, Namespace: "a" },
    400,
    'Request decode failed: json: unknown field "Namespace" - Namespaces are a Consul Enterprise feature',
  ],
  ["PUT", "/v1/catalog/register", { ...NODE, PeerName: "p" }, 500, "cannot register requests with PeerName in them"],
  [
    "PUT",
    "/v1/catalog/register",
    { Checks: [{ Name: "c", PeerName: "p" }] },
    500,
    "cannot register requests with PeerName in them",
  ],
  ["PUT", "/v1/catalog/register", { ...NODE, Service: { Service: "x", Connect: { Native: true } } }, 500, NATIVE],
  [
    "PUT",
    "/v1/catalog/register",
    { ...NODE, Service: { ID: "m1", Service: "m", Meta: { "a b": "c" } } },
    500,
    "failed inserting service: Invalid Service Meta for node n and serviceID m1: Couldn't load metadata pair ('a b', 'c'): Key contains invalid characters",
  ],
  ["GET", "/v1/catalog/service/m", undefined, 200, []],
  ["PUT", "/v1/catalog/deregister", { Node: "n", Datacenter: "nowhere" }, 500, "No path to datacenter"],
  [
    "PUT",
    "/v1/coordinate/update",
    { Node: "n", Datacenter: "nowhere", Coord: { Vec: [0, 0, 0, 0, 0, 0, 0, 0] } },
    500,
    "No path to datacenter",
  ],
  ["GET", "/v1/coordinate/nodes?ns=x", undefined, 200, []],
  ["GET", "/v1/coordinate/node/?partition=x", undefined, 400, PARTITION],
  ["GET", "/v1/internal/ui/service-topology/", undefined, 400, "Missing service name"],
  ["GET", "/v1/internal/ui/service-topology/web", undefined, 400, "Missing service kind"],
  ["GET", "/v1/internal/ui/service-topology/web?kind=x", undefined, 400, 'Unsupported service kind "x"'],
  [
    "GET",
    "/v1/internal/ui/service-topology/web?kind=",
    undefined,
    200,
    { Protocol: "tcp", TransparentProxy: false, Upstreams: [], Downstreams: [], FilteredByACLs: false },
  ],
  ["GET", "/v1/internal/ui/gateway-services-nodes/", undefined, 400, "Missing gateway name"],
  ["GET", "/v1/internal/ui/gateway-services-nodes/gw", undefined, 200, []],
  ["GET", "/v1/internal/ui/metrics-proxy/api", undefined, 404, "Metrics proxy is not enabled"],
  ["GET", "/v1/internal/ui/services?peer=x", undefined, 200, []],
  ["GET", "/v1/internal/ui/node/", undefined, 400, "Missing node name"],
  ["GET", "/v1/catalog/gateway-services/", undefined, 400, "Missing gateway name"],
  ["GET", "/v1/catalog/gateway-services/x", undefined, 200, []],
  ["GET", "/v1/catalog/service/?index=abc", undefined, 400, "Invalid index"],
  ["GET", "/v1/health/state/?wait=abc", undefined, 400, "Invalid wait time"],
  ["GET", `/v1/catalog/nodes?${NOPE}&index=abc`, undefined, 400, "Invalid index"],
  ["GET", `/v1/catalog/nodes?${NOPE}&ns=a`, undefined, 500, expect.stringMatching(/^Failed to create/)],
  ["GET", `/v1/health/node/x?${NOPE}&ns=a`, undefined, 400, NS],
  ["GET", `/v1/health/service/x?${NOPE}&dc=nowhere`, undefined, 500, "No path to datacenter"],
  ["GET", "/v1/health/service/x?passing=no&index=abc", undefined, 400, "Invalid index"],
  ["GET", `/v1/health/service/x?${NOPE}&index=1`, undefined, 500, 'Selector "Nope" is not valid'],
  ["GET", `/v1/health/service/x?${NOPE}&cached`, undefined, 500, 'Selector "Nope" is not valid'],
  [
    "GET",
    `/v1/health/service/x?${NOPE}&index=1&near=_agent`,
    undefined,
    500,
    expect.stringMatching(/^Failed to create/),
  ],
  ["GET", "/v1/health/connect/x?passing=no", undefined, 400, "Invalid value for ?passing"],
  [
    "GET",
    "/v1/health/ingress/x?filter=Nope%20%3D%3D%20x",
    undefined,
    500,
    'Failed to create boolean expression evaluator: Selector "Nope" is not valid',
  ],
  ["GET", "/v1/health/service/consul?peer=x", undefined, 200, []],
])("%s %s %j", async (method, path, body, status, text) => {
  const answer = await ask(method, path, body);
  expect([answer.status, answer.body]).toEqual([status, text]);
});

it("looks at a namespace's header before the query, and at none where only nodes are meant", async () => {
  const header = { "X-Consul-Namespace": "a" };
  expect((await ask("GET", "/v1/catalog/services?ns=b", undefined, header)).body).toBe(
    'Invalid header: "X-Consul-Namespace" - Namespaces are a Consul Enterprise feature',
  );
  expect((await ask("GET", "/v1/catalog/nodes?ns=b", undefined, header)).status).toBe(200);
});

it("tells the members of the wide network for any value of ?wan", async () => {
  const { body } = await ask("GET", "/v1/agent/members?wan=0");
  expect((body as { Name: string }[]).map(({ Name }) => Name)).toEqual(["alpha.dc1"]);
});

it("takes weights that are none as not given", async () => {
  for (const Weights of [
    { Passing: 0, Warning: 0 },
    { Passing: -5, Warning: 70_000 },
    { Passing: 1, Warning: -1 },
  ]) {
    await ask("PUT", "/v1/catalog/register", { ...NODE, Service: { Service: "w", Weights } });
    const { body } = await ask("GET", "/v1/catalog/service/w");
    expect((body as { ServiceWeights: unknown }[])[0]?.ServiceWeights).toEqual({ Passing: 1, Warning: 1 });
  }
});

describe("of the mesh", () => {
  it("there are the proxies that say so and the services that are connected natively", async () => {
    const put = (node: string, Service: unknown): Promise<Answer> =>
      ask("PUT", "/v1/catalog/register", { Node: node, Address: "192.0.2.1", Service });
    await put("m1", { Service: "api", Port: 80 });
    await put("m2", { Service: "api", Port: 81, Connect: { Native: true } });
    await put("m1", {
      Service: "api-proxy",
      Kind: "connect-proxy",
      Port: 82,
      Proxy: { DestinationServiceName: "api" },
    });
    const health = await ask("GET", "/v1/health/connect/api");
    expect((health.body as { Service: { Port: number } }[]).map(({ Service }) => Service.Port)).toEqual([81, 82]);
    const catalog = await ask("GET", "/v1/catalog/connect/api?filter=ServicePort%20%3D%3D%2082");
    expect((catalog.body as { ServiceName: string }[]).map((one) => one.ServiceName)).toEqual(["api-proxy"]);
    expect((await ask("GET", "/v1/health/connect/api-proxy")).body).toEqual([]);
    expect((await ask("GET", "/v1/health/ingress/api")).body).toEqual([]);
  });

  it("a proxy that comes wakes who waits for it", async () => {
    const before = await ask("GET", "/v1/health/connect/late");
    const index = before.headers.get("x-consul-index");
    const waiting = ask("GET", `/v1/health/connect/late?index=${index}&wait=20s`);
    await ask("PUT", "/v1/catalog/register", {
      ...NODE,
      Service: {
        ...{ Service: "late-proxy", Kind: "connect-proxy", Port: 1 },
        Proxy: { destination_service_name: "late" },
      },
    });
    expect((await waiting).body).toHaveLength(1);
  });
});

it("puts the last one in the place of one that is left out by ?passing, as Consul does", async () => {
  for (const [i, Status] of ["critical", "passing", "passing"].entries())
    await ask("PUT", "/v1/catalog/register", {
      Node: `p${i}`,
      Address: "192.0.2.1",
      Service: { Service: "three", Port: i },
      Check: { CheckID: "c", Name: "c", Status },
    });
  const ports = async (query: string): Promise<unknown> =>
    ((await ask("GET", `/v1/health/service/three?${query}`)).body as { Node: { Node: string } }[]).map(
      ({ Node }) => Node.Node,
    );
  expect(await ports("")).toEqual(["p0", "p1", "p2"]);
  expect(await ports("passing")).toEqual(["p2", "p1"]);
});

it("takes sessions as short as it was told to", async () => {
  const brief = await startAgent({ protocols: { consul: { sessionTtlMinMs: 2000 } } });
  try {
    const create = async (TTL: string): Promise<readonly [number, string]> => {
      const answer = await fetch(`${brief.url}/v1/session/create`, { method: "PUT", body: JSON.stringify({ TTL }) });
      return [answer.status, await answer.text()];
    };
    expect((await create("2s"))[0]).toBe(200);
    expect(await create("1s")).toEqual([500, "Invalid Session TTL '1000000000', must be between [2s=24h0m0s]"]);
  } finally {
    await brief.stop();
  }
});

it("knows no coordinates where they are switched off", async () => {
  const without = await startAgent({ protocols: { consul: { coordinates: false } } });
  try {
    for (const [method, path] of [
      ["GET", "datacenters"],
      ["GET", "nodes"],
      ["GET", "node/alpha"],
      ["PUT", "update"],
    ] as const) {
      const answer = await fetch(`${without.url}/v1/coordinate/${path}`, { method });
      expect([answer.status, await answer.text()], path).toEqual([401, "Coordinate support disabled"]);
    }
    const self = (await (await fetch(`${without.url}/v1/agent/self`)).json()) as { Coord: unknown };
    expect(self.Coord).toBeNull();
  } finally {
    await without.stop();
  }
});

it("hands on to the datacenter that a body names", async () => {
  const other = await startAgent({ node: "omega", datacenter: "dc2" });
  const here = await startAgent({ datacenters: { dc2: [other.url] } });
  try {
    const put = async (path: string, body: unknown): Promise<readonly [number, string]> => {
      const answer = await fetch(here.url + path, { method: "PUT", body: JSON.stringify(body) });
      return [answer.status, await answer.text()];
    };
    const there = async (): Promise<readonly string[]> =>
      ((await (await fetch(`${other.url}/v1/catalog/nodes`)).json()) as { Node: string }[]).map(({ Node }) => Node);
    // No name that could be the beginning of a node's ID.
    const named = { Node: "yonder", Address: "192.0.2.9", Datacenter: "DC2" };
    expect(await put("/v1/catalog/register", named)).toEqual([200, "true"]);
    expect(await there()).toEqual(["omega", "yonder"]);
    expect(await (await fetch(`${here.url}/v1/catalog/node/yonder`)).json()).toBeNull();
    const Coord = { Vec: [1, 0, 0, 0, 0, 0, 0, 0], Error: 1, Adjustment: 0, Height: 0.001 };
    expect(await put("/v1/coordinate/update", { Node: "yonder", Datacenter: "dc2", Coord })).toEqual([200, ""]);
    expect(await (await fetch(`${other.url}/v1/coordinate/node/yonder`)).json()).toEqual([
      { Node: "yonder", Segment: "", Coord },
    ]);
    expect(await put("/v1/catalog/deregister", { Node: "yonder", Datacenter: "dc2" })).toEqual([200, "true"]);
    expect(await there()).toEqual(["omega"]);
    expect(await put("/v1/catalog/register", { ...named, Datacenter: "dc3" })).toEqual([500, "No path to datacenter"]);
    expect(await put("/v1/catalog/register", { ...named, Address: "" })).toEqual([
      500,
      "Must provide address if SkipNodeUpdate is not set",
    ]);
  } finally {
    await here.stop();
    await other.stop();
  }
});

it("sums up services for user interfaces: a node for every instance, sources of services only, proxies for their service", async () => {
  const put = (node: string, Service: object, Check?: object): Promise<Answer> =>
    ask("PUT", "/v1/catalog/register", {
      ...{ Node: node, Address: "192.0.2.1", NodeMeta: { "external-source": "node" }, Service },
      ...(Check === undefined ? {} : { Check }),
    });
  await put("u2", { ID: "s1", Service: "sum", Tags: ["b", "a"], Meta: { "external-source": "nomad" } });
  await put("u1", { ID: "s1", Service: "sum", Tags: ["a"], Meta: { "external-source": "aws" } });
  await put("u1", { ID: "s2", Service: "sum" }, { CheckID: "c", Name: "c", Status: "warning" });
  const proxy = { Kind: "connect-proxy", Port: 1, Proxy: { DestinationServiceName: "sum", Mode: "transparent" } };
  await put("u3", { Service: "sum-proxy", ...proxy }, { CheckID: "c", Name: "c", Status: "passing" });
  const { body } = await ask("GET", "/v1/internal/ui/services");
  const [sum, sidecar] = (body as { Name: string }[]).filter(({ Name }) => Name.startsWith("sum"));
  const common = { GatewayConfig: {}, ConnectNative: false, ConnectedWithGateway: false, ChecksCritical: 0 };
  expect(sum).toEqual({
    ...common,
    ...{ Name: "sum", Datacenter: "dc1", Tags: ["a", "b"], Nodes: ["u1", "u1", "u2"], InstanceCount: 3 },
    ...{ ExternalSources: ["aws", "nomad"], ChecksPassing: 1, ChecksWarning: 1 },
    ...{ TransparentProxy: true, ConnectedWithProxy: true },
  });
  expect(sidecar).toEqual({
    ...common,
    ...{ Kind: "connect-proxy", Name: "sum-proxy", Datacenter: "dc1", Tags: null, Nodes: ["u3"], InstanceCount: 1 },
    ...{ ExternalSources: null, ChecksPassing: 1, ChecksWarning: 0 },
    ...{ TransparentProxy: false, ConnectedWithProxy: false },
  });
  const node = (await ask("GET", "/v1/internal/ui/node/u1")).body as {
    readonly TaggedAddresses: unknown;
    readonly Services: readonly { readonly ID: string; readonly Tags: unknown }[];
    readonly Checks: readonly { readonly ServiceTags: unknown }[];
  };
  expect(node.TaggedAddresses).toBeNull();
  expect(node.Services.map(({ ID, Tags }) => [ID, Tags])).toEqual([
    ["s1", ["a"]],
    ["s2", null],
  ]);
  expect(node.Checks.map(({ ServiceTags }) => ServiceTags)).toEqual([null]);
});

it("gives scrapers what they accept", async () => {
  const accept = async (Accept: string): Promise<string | null> =>
    (await ask("GET", "/v1/agent/metrics", undefined, { Accept })).headers.get("x-consul-reason");
  const off = "Prometheus is not enabled since its retention time is not positive";
  expect(await accept("application/openmetrics-text; version=1.0.0,*/*")).toBe(off);
  expect(await accept("text/plain;version=0.4.0")).toBe(off);
  expect(await accept("text/plain")).toBeNull();
});

it("keeps the definition of a check as Consul does: what it does not know is left out, its TTL a number", async () => {
  const Definition = { HTTP: "http://x/", Interval: "10s", TTL: "15s", Nonsense: 1, Header: { A: ["b"] }, Body: "" };
  const Check = { CheckID: "d", Name: "d", ExposedPort: 21_500, Definition };
  expect((await ask("PUT", "/v1/catalog/register", { Node: "def", Address: "192.0.2.1", Check })).body).toBe(true);
  expect((await ask("GET", "/v1/health/node/def")).body).toMatchObject([
    {
      ExposedPort: 21_500,
      Type: "http",
      Definition: { HTTP: "http://x/", Interval: "10s", TTL: 15_000_000_000, Header: { A: ["b"] } },
    },
  ]);
});

it("the nearest datacenter is the one that answers soonest, not the first one told", async () => {
  const far = await startAgent({ node: "omega", datacenter: "dc3" });
  const here = await startAgent({ datacenters: { dc2: ["http://127.0.0.1:1"], dc3: [far.url] } });
  try {
    await fetch(`${far.url}/v1/catalog/register`, {
      method: "PUT",
      body: JSON.stringify({ ...NODE, Service: { Service: "only-there", Port: 1 } }),
    });
    const query = { Name: "q", Service: { Service: "only-there", Failover: { NearestN: 1 } } };
    await fetch(`${here.url}/v1/query`, { method: "POST", body: JSON.stringify(query) });
    const execute = async (): Promise<{ readonly Datacenter: string; readonly Nodes: readonly unknown[] }> =>
      (await (await fetch(`${here.url}/v1/query/q/execute`)).json()) as never;
    while ((await execute()).Nodes.length === 0) await new Promise((resolve) => setTimeout(resolve, 20));
    expect((await execute()).Datacenter).toBe("dc3");
  } finally {
    await here.stop();
    await far.stop();
  }
});

it.each([
  ["/v1/health/connect/none?cached", "MISS", "streaming"],
  ["/v1/health/ingress/none?cached", "MISS", "blocking-query"],
  ["/v1/catalog/connect/none?cached", "MISS", "blocking-query"],
  ["/v1/health/connect/none?cached&near=_agent", "MISS", "blocking-query"],
  ["/v1/catalog/nodes?cached", null, "blocking-query"],
])("%s: from the cache or streamed as the services themselves", async (path, cache, backend) => {
  const { headers } = await ask("GET", path.replace("none", ownName("none")));
  expect([headers.get("x-cache"), headers.get("x-consul-query-backend")]).toEqual([cache, backend]);
});

it("shows proxies and native services in Consul's names, to the agent's own callers only where there is something", async () => {
  const put = async (body: object): Promise<unknown> => (await ask("PUT", REGISTER, body)).status;
  const proxy = { destination_service_name: "db", localServicePort: 5, Config: { a_b: 1 } };
  expect(await put({ Name: "db-proxy", Kind: "connect-proxy", Port: 7, Proxy: proxy })).toBe(200);
  expect(await put({ Name: "native", Port: 8, Connect: { native: true } })).toBe(200);
  expect(await put({ Name: "plain", Port: 9, Connect: {}, Proxy: { Mode: "direct" } })).toBe(200);
  const shown = { DestinationServiceName: "db", LocalServicePort: 5, Config: { a_b: 1 } };
  const whole = { ...shown, Mode: "", MeshGateway: {}, Expose: {} };
  expect((await ask("GET", "/v1/agent/service/db-proxy")).body).toMatchObject({ Kind: "connect-proxy", Proxy: whole });
  expect((await ask("GET", "/v1/agent/service/native")).body).toMatchObject({ Connect: { Native: true } });
  const plain = (await ask("GET", "/v1/agent/service/plain")).body as object;
  expect(["Proxy" in plain, "Connect" in plain]).toEqual([false, false]);
  expect((await ask("GET", "/v1/catalog/service/db-proxy")).body).toMatchObject([
    { ServiceProxy: whole, ServiceConnect: {} },
  ]);
  expect((await ask("GET", "/v1/health/service/native")).body).toMatchObject([
    { Service: { Connect: { Native: true }, Proxy: { Mode: "", MeshGateway: {}, Expose: {} } } },
  ]);
});
