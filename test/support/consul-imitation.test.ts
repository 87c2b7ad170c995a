// The stand-in for Consul answers as the recorded one did, step by step, where a client host meets it.
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { ImitatedConsul } from "./consul-imitation.ts";

interface Step {
  readonly id: string;
  readonly method?: string;
  readonly path?: string;
  readonly body?: unknown;
}
const folder = new URL("../conformance/consul/", import.meta.url);
const load = <T>(path: string): T => JSON.parse(readFileSync(new URL(path, folder), "utf8")) as T;
const { steps } = load<{ steps: Step[] }>("scenarios/txn-catalog.json");
const recorded = load<{ steps: Record<string, { status: number; json?: unknown }> }>("expected/txn-catalog.json").steps;

/** Numbers and identities differ from run to run; whether an index moved is compared elsewhere. */
function masked(value: unknown, key = ""): unknown {
  if (key === "CreateIndex" || key === "ModifyIndex") return "an index";
  if (key === "ID" && typeof value === "string" && /^<uuid|^[0-9a-f-]{36}$/.test(value)) return "a UUID";
  // An empty list of a service's tags is told as null or [] depending on how it came in.
  if ((key === "Tags" || key === "ServiceTags") && (value === null || (Array.isArray(value) && value.length === 0)))
    return "no tags";
  if (Array.isArray(value)) return value.map((each) => masked(each));
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, masked(each, name)]));
}

describe("the stand-in for Consul", () => {
  const consul = new ImitatedConsul(10_000);
  beforeAll(() => consul.start());
  afterAll(() => consul.stop());
  const STEPS = [
    ...[
      "node-set",
      "service-set",
      "service-read",
      "service-unknown-node",
      "service-cas-stale",
      "service-cas",
      "check-set-critical",
    ],
    ...["check-delete-cas-stale", "check-delete", "service-delete", "service-delete-named"],
    ...["node-delete-cas-stale", "node-delete", "node-verb-unknown", "service-verb-unknown", "check-verb-unknown"],
  ];

  test.each(STEPS)("txn-catalog: %s", async (id) => {
    const step = steps.find((each) => each.id === id);
    const known = recorded[id];
    if (step === undefined || known === undefined) throw new Error(`${id} is not recorded`);
    // Its keys are not the stand-in's business.
    const operations = Array.isArray(step.body)
      ? (step.body as Record<string, unknown>[]).filter((each) => each["KV"] === undefined)
      : undefined;
    const answer = await fetch(consul.url + step.path, {
      method: step.method ?? "GET",
      ...(operations === undefined
        ? {}
        : // What the scenario captured a step before.
          {
            body: JSON.stringify(operations).replace('"{{mi}}"', String(consul.service("bar", "db1")?.["ModifyIndex"])),
          }),
    });
    const skipped = Array.isArray(step.body) ? step.body.length - (operations?.length ?? 0) : 0;
    const json = (await answer.json()) as { Errors?: { OpIndex: number }[] | null };
    for (const each of json.Errors ?? []) each.OpIndex += skipped;
    expect([answer.status, masked(json)]).toEqual([known.status, masked(known.json)]);
  });

  test("serfHealth of a node that is no member costs the node its entry", async () => {
    const body = JSON.stringify([
      { Node: { Verb: "set", Node: { Node: "x", Address: "192.0.2.1" } } },
      { Check: { Verb: "set", Check: { Node: "x", CheckID: "serfHealth", Name: "s", Status: "passing" } } },
    ]);
    expect((await fetch(`${consul.url}/v1/txn`, { method: "PUT", body })).status).toBe(200);
    expect(consul.node("x")).toBeUndefined();
  });
});
