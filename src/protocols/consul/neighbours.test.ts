// What stands beside the recorded requests: other parameters, odd values, missing and empty parts. Expectations after Consul 1.19's source.
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type RunningAgent, startAgent } from "../../../test/support/ground.ts";
import { ownName } from "../../../test/support/own-name.ts";

let agent: RunningAgent;
beforeAll(async () => {
  agent = await startAgent({ compat: "consul", protocols: { consul: { txnMaxBytes: 2 << 20 } } });
});
afterAll(async () => {
  expect(agent.errors).toEqual([]);
  await agent.stop();
});

interface Got {
  readonly status: number;
  /** JSON where it is some, else text. */
  readonly body: unknown;
  readonly headers: Headers;
}
async function ask(method: string, path: string, body?: unknown): Promise<Got> {
  const answer = await fetch(agent.url + path, {
    method,
    redirect: "manual",
    ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
  });
  const text = await answer.text();
  const json = answer.headers.get("content-type") === "application/json";
  return { status: answer.status, body: json ? (JSON.parse(text) as unknown) : text, headers: answer.headers };
}

type Case = readonly [method: string, path: string, body: unknown, status: number, answer: unknown];
const table = (cases: readonly Case[]): void => {
  for (const [method, path, body, status, answer] of cases)
    it(`${method} ${path} ${body === undefined ? "" : JSON.stringify(body).slice(0, 90)}`, async () => {
      const got = await ask(method, path, body);
      expect([got.status, got.body]).toEqual([status, answer]);
    });
};

describe("requests as such", () => {
  table([
    ["GET", "/v1/kv/a?x=%zz", undefined, 500, ""],
    ["GET", "/v1/catalog/nodes?a=1;b=2", undefined, 500, ""],
    ["OPTIONS", "/v1/catalog/nodes?a=%", undefined, 500, ""],
    ["GET", "/v1/%73tatus/peers?x=%ff", undefined, 200, [expect.any(String)]],
    ["GET", "/v1%2Fstatus/peers", undefined, 404, "Invalid URL path: not a recognized HTTP API endpoint\n"],
  ]);

  it("keeps a key whose slashes are escaped, and finds its route by the rest", async () => {
    expect((await ask("PUT", "/v1/k%76/esc%2Faped", "x")).body).toBe(true);
    expect((await ask("GET", "/v1/kv/esc/aped?raw")).body).toBe("x");
  });
});

it.each([
  ["gzip", 1399, null],
  ["gzip", 1400, "gzip"],
  ["deflate, gzip;q=0.5", 1400, "gzip"],
  ["gzip;q=0", 1400, null],
  ["deflate, br", 1400, null],
])("a client that takes %s gets %i bytes as %s", async (accepted, size, coding) => {
  await ask("PUT", "/v1/kv/sized", "x".repeat(size));
  const answer = await fetch(`${agent.url}/v1/kv/sized?raw`, { headers: { "Accept-Encoding": accepted } });
  expect([answer.headers.get("content-encoding"), (await answer.text()).length]).toEqual([coding, size]);
});

describe("keys", () => {
  table([
    ["PUT", "/v1/kv/?dc=nowhere", "x", 400, "Missing key name"],
    ["PUT", "/v1/kv/a?dc=nowhere&flags=x", "x", 500, 'strconv.ParseUint: parsing "x": invalid syntax'],
    ["PUT", "/v1/kv/a?dc=nowhere", "x", 500, "No path to datacenter"],
    ["GET", "/v1/kv/?index=abc", undefined, 400, "Invalid index"],
    ["GET", "/v1/kv/?wait=1", undefined, 400, "Invalid wait time"],
    ["PUT", "/v1/kv/a?stale&consistent", "x", 400, "Cannot specify ?stale with ?consistent, conflicting semantics."],
    ["PUT", "/v1/kv/a?release=", "x", 500, "raft apply failed: missing session"],
    ["PUT", "/v1/kv/a?flags=", "x", 500, 'strconv.ParseUint: parsing "": invalid syntax'],
    [
      "PUT",
      "/v1/kv/a?flags=18446744073709551616",
      "x",
      500,
      'strconv.ParseUint: parsing "18446744073709551616": value out of range',
    ],
    ["DELETE", "/v1/kv/?recurse&cas=1", undefined, 400, "Conflicting flags: cas=1&recurse=\n"],
    ["DELETE", "/v1/kv/?cas=x", undefined, 400, "Missing key name"],
    ["DELETE", "/v1/kv/a?dc=nowhere&cas=x", undefined, 500, 'strconv.ParseUint: parsing "x": invalid syntax'],
  ]);
});

describe("sessions", () => {
  const create = "/v1/session/create";
  table([
    ["PUT", create, { Node: "" }, 500, "Must provide Node"],
    ["PUT", `${create}?stale&consistent`, {}, 200, { ID: expect.any(String) }],
    ["PUT", `${create}?dc=nowhere`, "{", 400, expect.stringMatching(/^Request decode failed: /)],
    ["PUT", `${create}?dc=nowhere`, {}, 500, "No path to datacenter"],
    ["PUT", create, { LockDelay: "soon" }, 400, 'Request decode failed: time: invalid duration "soon"'],
    ["PUT", `${create}?ns=x`, {}, 400, 'Invalid query parameter: "ns" - Namespaces are a Consul Enterprise feature'],
    ["GET", "/v1/session/info/?wait=soon", undefined, 400, "Invalid wait time"],
    ["GET", "/v1/session/node/?index=x", undefined, 400, "Invalid index"],
    ["PUT", "/v1/session/renew/?dc=nowhere", undefined, 400, "Missing session"],
    ["PUT", "/v1/session/destroy/?dc=nowhere", undefined, 400, "Missing session"],
    ["PUT", "/v1/session/destroy/x?stale&consistent", undefined, 200, true],
  ]);

  const made = async (body: unknown): Promise<Record<string, unknown>> => {
    const { ID } = (await ask("PUT", create, body)).body as { ID: string };
    return ((await ask("GET", `/v1/session/info/${ID}`)).body as Record<string, unknown>[])[0] ?? {};
  };
  it("takes null where a list is for an empty one, and elsewhere for nothing said", async () => {
    expect(await made({ Checks: null, Name: null, LockDelay: null, TTL: null })).toMatchObject({
      NodeChecks: [],
      Name: "",
      LockDelay: 15_000_000_000,
      TTL: "",
    });
    expect(await made({ NodeChecks: null })).toMatchObject({ NodeChecks: [] });
    expect(await made("null")).toMatchObject({ NodeChecks: ["serfHealth"] });
  });
  it("finds a session by its ID in capitals", async () => {
    const { ID } = (await ask("PUT", create, { TTL: "10s" })).body as { ID: string };
    for (const [method, verb] of [
      ["GET", "info"],
      ["PUT", "renew"],
    ] as const)
      expect((await ask(method, `/v1/session/${verb}/${ID.toUpperCase()}`)).body).toMatchObject([{ ID }]);
    await ask("PUT", `/v1/session/destroy/${ID.toUpperCase()}`);
    expect((await ask("GET", `/v1/session/info/${ID}`)).body).toEqual([]);
  });
  it("takes a lock delay that is neither number nor text for none", async () => {
    expect(await made({ LockDelay: true })).toMatchObject({ LockDelay: 0 });
    expect(await made({ lockdelay: 7 })).toMatchObject({ LockDelay: 7_000_000_000 });
  });
});

describe("transactions", () => {
  const read = {
    Index: 1,
    LastContact: 0,
    KnownLeader: true,
    ConsistencyLevel: "",
    NotModified: false,
    Backend: 0,
    ResultsFilteredByACLs: false,
  };
  const get = { KV: { Verb: "get", Key: "none" } };
  const missing = `key "none" doesn't exist`;
  table([
    ["PUT", "/v1/txn", "null", 200, { Results: [], Errors: null, ...read }],
    [
      "PUT",
      "/v1/txn",
      [{}, get, {}, get],
      409,
      {
        Results: null,
        Errors: [
          { OpIndex: 0, What: missing },
          { OpIndex: 1, What: missing },
        ],
        ...read,
      },
    ],
    [
      "PUT",
      "/v1/txn",
      [{ KV: { Verb: "get-or-empty", Key: "none", Index: 5, Flags: 3, Session: "s", Value: "YQ==" } }],
      200,
      {
        Results: [
          { KV: { LockIndex: 0, Key: "none", Flags: 3, Value: null, Session: "s", CreateIndex: 0, ModifyIndex: 5 } },
        ],
        Errors: null,
        ...read,
      },
    ],
    [
      "PUT",
      "/v1/txn",
      [{ KV: { Verb: "set", Key: "f", Flags: -1 } }],
      400,
      "Failed to parse body: json: cannot unmarshal number -1 into Go struct field KVTxnOp.Flags of type uint64",
    ],
    [
      "PUT",
      "/v1/txn",
      [{ KV: { Verb: "set", Key: "f", Flags: "7" } }],
      400,
      expect.stringMatching(/^Failed to parse body: json: cannot unmarshal string into Go struct field KVTxnOp.Flags/),
    ],
    [
      "PUT",
      "/v1/txn",
      [{ KV: { Verb: "cas", Key: "f", Index: -1 } }],
      400,
      "Failed to parse body: json: cannot unmarshal number -1 into Go struct field KVTxnOp.Index of type uint64",
    ],
    ["PUT", "/v1/txn?stale&consistent", [get], 400, "Cannot specify ?stale with ?consistent, conflicting semantics."],
    [
      "PUT",
      "/v1/txn?stale&consistent",
      [{ KV: { Verb: "set", Key: "sc" } }],
      200,
      expect.objectContaining({ Errors: null }),
    ],
    [
      "PUT",
      "/v1/txn",
      [{ KV: { Verb: "set", Key: "big", Value: Buffer.alloc(524_289).toString("base64") } }],
      413,
      'Value for key "big" is too large (524289 > 524288 bytes)',
    ],
    [
      "PUT",
      "/v1/txn",
      [{ KV: { Verb: "get-tree", Key: "" } }],
      409,
      expect.objectContaining({ Errors: [{ OpIndex: 0, What: "Must provide key" }], KnownLeader: false }),
    ],
  ]);

  it("may be larger than a value where that is configured", async () => {
    const value = Buffer.alloc(400_000, 1).toString("base64");
    const ops = [1, 2, 3].map((n) => ({ KV: { Verb: "set", Key: `large/${n}`, Value: value } }));
    expect((await ask("PUT", "/v1/txn", ops)).status).toBe(200);
    const tooLarge = await ask("PUT", "/v1/txn", [...ops, ...ops]);
    expect([tooLarge.status, tooLarge.body]).toEqual([
      413,
      expect.stringMatching(/too large, max size: 2097152 bytes\. See .*#txn_max_req_len\.$/),
    ]);
  });

  it("sets, reads and deletes services and checks by their index", async () => {
    type Txn = { Results: Record<string, { ModifyIndex: number }>[] | null; Errors: { What: string }[] | null };
    const run = async (...ops: unknown[]): Promise<Txn> => (await ask("PUT", "/v1/txn", ops)).body as Txn;
    const what = async (...ops: unknown[]): Promise<string | undefined> => (await run(...ops)).Errors?.[0]?.What;
    const node = ownName("cas");
    const service = (Verb: string, ModifyIndex?: number): unknown => ({
      Service: {
        Verb,
        Node: node,
        Service: { ID: "s", Service: "s", ...(ModifyIndex === undefined ? {} : { ModifyIndex }) },
      },
    });
    const check = (Verb: string, ModifyIndex?: number): unknown => ({
      Check: { Verb, Check: { Node: node, CheckID: "c", ...(ModifyIndex === undefined ? {} : { ModifyIndex }) } },
    });
    expect(await what(service("cas", 0))).toBe("Missing node registration");
    await run({ Node: { Verb: "set", Node: { Node: node, Address: "192.0.2.1" } } });
    for (const [op, kind, name] of [
      [service, "Service", "service"],
      [check, "Check", "check"],
    ] as const) {
      const about = `${name} "${name[0]}" on node "${node}"`;
      expect(await what(op("cas", 7))).toBe(`failed to set ${about}, index is stale`);
      const at = (await run(op("cas", 0))).Results?.[0]?.[kind]?.ModifyIndex;
      expect(await what(op("cas", 0))).toBe(`failed to set ${about}, index is stale`);
      expect((await run(op("get"))).Results?.[0]?.[kind]?.ModifyIndex).toBe(at);
      expect(await what(op("delete-cas", 7))).toBe(`failed to delete ${about}, index is stale`);
      expect(await run(op("delete-cas", at))).toEqual({ Results: [], Errors: null });
      expect(await what(op("get"))).toBe(`${about} doesn't exist`);
      expect(await what(op("delete-cas", 0))).toBe(`failed to delete ${about}, index is stale`);
      expect(await run(op("delete"))).toEqual({ Results: [], Errors: null });
    }
  });

  it("tells of nothing else where a lock is delayed, nor does a put look at the session", async () => {
    const key = ownName("delayed");
    const { ID } = (await ask("PUT", "/v1/session/create", { LockDelay: "10s" })).body as { ID: string };
    expect((await ask("PUT", `/v1/kv/${key}?acquire=${ID}`, "x")).body).toBe(true);
    await ask("PUT", `/v1/session/destroy/${ID}`);
    const lock = { KV: { Verb: "lock", Key: key, Session: "nobody" } };
    const { body } = await ask("PUT", "/v1/txn", [get, lock]);
    expect(body).toEqual({
      Results: null,
      Errors: [{ OpIndex: 1, What: `failed to lock key "${key}" due to lock delay` }],
    });
    expect((await ask("PUT", `/v1/kv/${key}?acquire=nobody`, "x")).body).toBe(false);
    expect((await ask("PUT", "/v1/kv/undelayed?acquire=nobody", "x")).body).toBe(
      'raft apply failed: invalid session "nobody"',
    );
  });
});

describe("what looks at fewer options", () => {
  table([
    ["GET", "/v1/query?ns=x&partition=y", undefined, 200, []],
    ["GET", "/v1/status/peers?ns=x", undefined, 200, [expect.any(String)]],
    ["PUT", "/v1/event/fire/some?ns=x&stale&consistent", "", 200, expect.objectContaining({ Name: "some" })],
    ["PUT", "/v1/txn?ns=x", [], 200, expect.objectContaining({ Results: [] })],
    ["PUT", "/v1/snapshot?stale&consistent", "no snapshot", 500, expect.stringMatching(/./)],
    ["GET", "/v1/query/none/execute?limit=x&wait=x", undefined, 400, "Invalid wait time"],
    ["GET", "/v1/query/none/explain?limit=x&index=x", undefined, 400, "Invalid index"],
    ["GET", "/v1/query/none/explain?limit=x", undefined, 500, 'Bad limit: strconv.Atoi: parsing "x": invalid syntax'],
    [
      "GET",
      "/v1/query/none/execute?connect=x",
      undefined,
      500,
      `Error parsing 'connect' value: strconv.ParseBool: parsing "x": invalid syntax`,
    ],
  ]);
});

it.each([
  ["OPTIONS", "/v1/query/x", 200, "OPTIONS,GET,PUT,DELETE", ""],
  ["OPTIONS", "/v1/query/x/execute", 200, "OPTIONS,GET", ""],
  ["OPTIONS", "/v1/query/x/explain", 200, "OPTIONS,GET", ""],
  ["PATCH", "/v1/query/x", 405, "GET,PUT,DELETE", "method PATCH not allowed"],
  ["DELETE", "/v1/query/x/explain", 405, "GET", "method DELETE not allowed"],
])("%s %s tells the methods of what is there", async (method, path, status, allow, text) => {
  const { headers, ...got } = await ask(method, path);
  expect([got.status, headers.get("allow"), got.body]).toEqual([status, allow, text]);
});

it("finds a node by its ID, or by as much of it as only one has", async () => {
  const [node, twin] = [ownName("byid"), ownName("twin")];
  const id = "5f0c1d2e-aaaa-4bbb-8ccc-0123456789ab";
  const enter = (Node: string, ID: string): Promise<Got> =>
    ask("PUT", "/v1/catalog/register", { Node, ID, Address: "192.0.2.7", Service: { Service: node } });
  await enter(node, id);
  await enter(twin, "5f0c1d2e-bbbb-4bbb-8ccc-0123456789ab");
  const found = async (text: string): Promise<unknown> => {
    const { body } = await ask("GET", `/v1/catalog/node/${text}`);
    return (body as { Node: { Node: string } } | null)?.Node.Node;
  };
  for (const text of [id, id.toUpperCase(), "5f0c1d2eaa", "5f0c1d2eaab", "5f0c1d2e-aaaa-"])
    expect([text, await found(text)]).toEqual([text, node]);
  for (const text of ["5f0c1d2e", "5f0c1d2ecc", "5f0c1d2e-aa", `${id}00`, "5", "zz", "5-f-0-c-1-d"])
    expect([text, await found(text)]).toEqual([text, undefined]);
  const { body } = await ask("GET", `/v1/catalog/node-services/${id}`);
  expect(body).toMatchObject({ Node: { Node: node }, Services: [{ Service: node }] });
});

it("streams no answer that configuration entries complete", async () => {
  for (const [path, backend] of [
    ["/v1/health/service/consul?index=1", "streaming"],
    ["/v1/health/service/consul?index=1&merge-central-config", "blocking-query"],
  ] as const)
    expect((await ask("GET", path)).headers.get("x-consul-query-backend")).toBe(backend);
});

describe("a mesh that is off", () => {
  const off = "Connect must be enabled in order to use this endpoint";
  const none = "Intention not found";
  table([
    ["GET", "/v1/connect/ca/roots", undefined, 500, off],
    ["PUT", "/v1/connect/ca/configuration", {}, 500, off],
    ["GET", "/v1/agent/connect/ca/leaf/web", undefined, 500, off],
    ["GET", "/v1/discovery-chain/web", undefined, 500, off],
    ["POST", "/v1/connect/intentions", {}, 500, off],
    ["GET", "/v1/connect/intentions/match", undefined, 500, "required query parameter 'by' not set"],
    [
      "GET",
      "/v1/connect/intentions/match?by=x",
      undefined,
      500,
      "'by' parameter must be one of 'source' or 'destination'",
    ],
    ["GET", "/v1/connect/intentions/match?by=source", undefined, 500, "required query parameter 'name' not set"],
    ["GET", "/v1/connect/intentions/match?by=source&name=a&name=b", undefined, 200, { a: [], b: [] }],
    [
      "GET",
      "/v1/connect/intentions/match?by=source&name=peer:x/y",
      undefined,
      500,
      'name "peer:x/y" is invalid: cannot specify a peer here',
    ],
    ["GET", "/v1/connect/intentions/check?source=a", undefined, 500, "required query parameter 'destination' not set"],
    ["GET", "/v1/connect/intentions/check?source=a&destination=b", undefined, 200, { Allowed: true }],
    ["GET", "/v1/connect/intentions/check?source=a&destination=b&dc=nowhere", undefined, 500, "No path to datacenter"],
    ["GET", "/v1/connect/intentions/exact?destination=b", undefined, 500, "required query parameter 'source' not set"],
    ["GET", "/v1/connect/intentions/exact?source=a&destination=b", undefined, 404, none],
    ["DELETE", "/v1/connect/intentions/exact?source=a&destination=b", undefined, 500, off],
    ["GET", "/v1/connect/intentions/8f246b77-f3e1-ff88-5b48-8ec93abf3e05", undefined, 404, none],
    ["GET", "/v1/peering/west", undefined, 404, 'Peering not found for "west"'],
    ["POST", "/v1/peering/token", {}, 500, off],
    ["GET", "/v1/exported-services", undefined, 200, []],
    ["GET", "/v1/exported-services?ns=x", undefined, 200, []],
    ["POST", "/v1/internal/acl/authorize", [], 401, "ACL support disabled"],
    ["DELETE", "/v1/connect/intentions", undefined, 405, "method DELETE not allowed"],
  ]);
});

it("answers a waiter on nothing when its time is over", async () => {
  const { headers } = await ask("GET", "/v1/peerings");
  const index = headers.get("x-consul-index");
  expect((await ask("GET", `/v1/peerings?index=${index}&wait=20ms`)).body).toEqual([]);
});
