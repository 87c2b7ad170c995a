// Bodies that nobody meant: random JSON close to Consul's, random bytes, random paths and parameters. No request may break the agent.
// biome-ignore-all lint/suspicious/noTemplateCurlyInString: the language of templates looks like it.
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { deregisterBody, registerBody } from "../../src/protocols/consul/bodies.ts";
import { decodeBody } from "../../src/protocols/consul/decode.ts";
import { Refusal } from "../../src/protocols/consul/errors.ts";
import { queryBody } from "../../src/protocols/consul/prepared.ts";
import { type RunningAgent, startAgent } from "../support/ground.ts";

let agent: RunningAgent;
beforeAll(async () => {
  agent = await startAgent();
});
afterAll(() => agent.stop());

const NAMES = [
  ...["ID", "Name", "Node", "Address", "Service", "Tags", "Meta", "NodeMeta", "Port", "Check", "Checks", "CheckID"],
  ...["ServiceID", "Status", "Output", "TTL", "Interval", "HTTP", "TCP", "Args", "Weights", "Passing", "Warning"],
  ...["TaggedAddresses", "lan", "Definition", "Header", "SkipNodeUpdate", "EnableTagOverride", "enable_tag_override"],
  ...["Connect", "SidecarService", "Proxy", "Kind", "Locality", "Zone", "SocketPath", "DeregisterCriticalServiceAfter"],
  ...["Template", "Type", "Regexp", "Failover", "NearestN", "Datacenters", "Targets", "Near", "ServiceMeta", "DNS"],
  ...["__proto__", "constructor", "toString", "Nonsense"],
  ...["Coord", "Vec", "Height", "Adjustment", "Segment", "MinQuorum", "CleanupDeadServers"],
] as const;
const key = fc.oneof(
  { weight: 8, arbitrary: fc.constantFrom(...NAMES) },
  { weight: 2, arbitrary: fc.constantFrom(...NAMES).map((name) => name.toLowerCase()) },
  { weight: 1, arbitrary: fc.string() },
);
const leaf = fc.oneof(
  fc.constantFrom<unknown>(
    "10s",
    "1h",
    "passing",
    "critical",
    "x",
    "127.0.0.1",
    "::",
    "http://127.0.0.1:1/",
    0,
    1,
    80,
    -1,
  ),
  fc.constantFrom<unknown>(1e300, 65_536, 10_000_000_000, null, true, false, "", "ten", "\u0000", "\ud800"),
  fc.string(),
  fc.double(),
);
const { body } = fc.letrec<{ body: unknown; object: unknown; list: unknown }>((tie) => ({
  body: fc.oneof({ maxDepth: 4, withCrossShrink: true }, leaf, tie("object"), tie("list")),
  object: fc.dictionary(key, tie("body"), { maxKeys: 8 }),
  list: fc.array(tie("body"), { maxLength: 4 }),
}));

describe("decoders", () => {
  it("give a value or say what is wrong", () => {
    for (const decoder of [registerBody, deregisterBody, queryBody])
      fc.assert(
        fc.property(
          fc.oneof(
            body.map((value) => new TextEncoder().encode(JSON.stringify(value))),
            fc.uint8Array(),
          ),
          (bytes) => {
            try {
              expect(typeof decodeBody<object>(bytes, decoder)).toBe("object");
            } catch (error) {
              expect(error).toBeInstanceOf(Refusal);
              expect((error as Refusal).status).toBe(400);
              expect((error as Refusal).message).toMatch(/^Request decode failed: ./);
            }
          },
        ),
      );
  });
  it("take names in any case and the later of two", () => {
    fc.assert(
      fc.property(fc.constantFrom("Node", "NODE", "node", "nOdE"), fc.string(), (name, value) => {
        const text = `{"Node":"first",${JSON.stringify(name)}:${JSON.stringify(value)}}`;
        expect(decodeBody(new TextEncoder().encode(text), deregisterBody)).toEqual({ Node: value });
      }),
    );
  });
});

const PATHS = [
  "/v1/agent/service/register",
  "/v1/agent/check/register",
  "/v1/agent/check/update/x",
  "/v1/catalog/register",
  "/v1/catalog/deregister",
  "/v1/coordinate/update",
  "/v1/config",
  "/v1/operator/autopilot/configuration",
  "/v1/snapshot",
];

describe("requests", () => {
  it("with odd bodies are refused or done, and never break", async () => {
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...PATHS), body, async (path, value) => {
        const answer = await fetch(agent.url + path, { method: "PUT", body: JSON.stringify(value) });
        const text = await answer.text();
        expect([200, 400, 404, 409, 500]).toContain(answer.status);
        if (answer.status !== 200) expect(text).not.toBe("");
      }),
      { numRuns: 400 },
    );
    expect(agent.errors).toEqual([]);
    expect((await fetch(`${agent.url}/v1/catalog/nodes`)).status).toBe(200);
  });

  it("for prepared queries are refused or kept, and what is kept can be carried out under any name", async () => {
    const texts = fc.oneof(
      fc.constantFrom("web", "${name.full}", "${match(1)}", "${", "$${x}", "${1}", "!a", "", "_ip", "n1", "10s", "-1s"),
      fc.string(),
    );
    const query = fc.record(
      {
        Name: fc.oneof(fc.constantFrom("", "a", "a-", "A-b"), fc.string()),
        Template: fc.record({
          Type: fc.constantFrom("name_prefix_match", "", "x"),
          Regexp: fc.oneof(fc.constantFrom("^a-(.+?)(b*)$", "[", "(a+)+$"), fc.string()),
          RemoveEmptyTags: fc.boolean(),
        }),
        Service: fc.record({
          Service: texts,
          Tags: fc.array(texts, { maxLength: 3 }),
          Near: texts,
          NodeMeta: fc.dictionary(texts, texts, { maxKeys: 2 }),
          Failover: fc.record({
            NearestN: fc.integer({ min: -1, max: 3 }),
            Datacenters: fc.array(texts, { maxLength: 2 }),
          }),
        }),
        DNS: fc.record({ TTL: texts }),
      },
      { requiredKeys: ["Service"] },
    );
    const url = `${agent.url}/v1/query`;
    await fc.assert(
      fc.asyncProperty(query, fc.oneof(texts, fc.constantFrom("a-bb", "A-B-c")), async (value, name) => {
        const made = await fetch(url, { method: "POST", body: JSON.stringify(value) });
        expect([200, 500]).toContain(made.status);
        const text = await made.text();
        if (made.status === 500) expect(text).toMatch(/^(Invalid prepared query|raft apply failed): ./);
        for (const verb of ["execute", "explain"]) {
          const answer = await fetch(`${url}/${encodeURIComponent(`x${name}`)}/${verb}`);
          await answer.arrayBuffer();
          expect([200, 400, 404, 500]).toContain(answer.status);
        }
        if (made.status !== 200) return;
        const { ID } = JSON.parse(text) as { ID: string };
        expect(await (await fetch(`${url}/${ID}`)).json()).toMatchObject([{ ID, Name: value.Name ?? "" }]);
        expect((await fetch(`${url}/${ID}`, { method: "DELETE" })).status).toBe(200);
      }),
      { numRuns: 200 },
    );
    expect(agent.errors).toEqual([]);
  });

  it("with odd paths and parameters are answered", async () => {
    const part = fc.oneof(
      fc.constantFrom("v1", "kv", "health", "service", "agent", "state", "any", "..", ""),
      fc.string(),
    );
    const parameter = fc.oneof(
      fc.constantFrom(
        "raw",
        "recurse",
        "keys",
        "separator=/",
        "index=1",
        "wait=1ms",
        "index=x",
        "tag",
        "passing=maybe",
      ),
      fc.constantFrom(
        "cas=0",
        "acquire=x",
        "release=",
        "flags=-1",
        "pretty",
        "stale",
        "consistent",
        "dc=x",
        "node-meta=a:b",
      ),
      fc.string().map(encodeURIComponent),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(part, { maxLength: 5 }),
        fc.array(parameter, { maxLength: 3 }),
        fc.constantFrom("GET", "PUT", "DELETE", "OPTIONS"),
        async (parts, parameters, method) => {
          const path = `/${parts.map((one) => encodeURIComponent(one)).join("/")}`;
          const answer = await fetch(`${agent.url}${path}?${parameters.join("&")}`, { method, redirect: "manual" });
          await answer.arrayBuffer();
          expect(answer.status).toBeLessThan(600);
        },
      ),
      { numRuns: 300 },
    );
    expect(agent.errors).toEqual([]);
  });

  it("write and read any value under any key", async () => {
    const name = fc.string({ unit: fc.constantFrom("a", "b", "/", "ż", "🂡", " ", "%", "?", "#", "+", "&", ".", "_") });
    await fc.assert(
      fc.asyncProperty(name, fc.uint8Array({ maxLength: 100 }), async (key, value) => {
        // Paths that Go would clean are other keys.
        fc.pre(key !== "" && !/(^|\/)\.{0,2}(\/|$)/.test(key));
        const url = `${agent.url}/v1/kv/${key.split("/").map(encodeURIComponent).join("/")}`;
        expect(await (await fetch(url, { method: "PUT", body: value as Uint8Array<ArrayBuffer> })).text()).toBe("true");
        expect(new Uint8Array(await (await fetch(`${url}?raw`)).arrayBuffer())).toEqual(value);
        const [pair] = (await (await fetch(url)).json()) as { Key: string; Value: string | null }[];
        expect(pair).toMatchObject({
          Key: key,
          Value: value.length === 0 ? null : Buffer.from(value).toString("base64"),
        });
      }),
    );
  });
});
