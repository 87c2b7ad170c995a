// Transactions and sessions over HTTP beyond what is recorded: all or nothing under contention, what operations see of each other, locks, times to live.
import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fakeClock } from "../../../test/simulated/clock.ts";
import { checkChange, nodeChange, serviceChange, testDirectory } from "../../../test/support/directory.ts";
import { type RunningAgent, startAgent } from "../../../test/support/ground.ts";
import { ownName } from "../../../test/support/own-name.ts";
import { eventually } from "../../../test/support/peers.ts";
import type { Records } from "../../contracts/kv.ts";
import { sameValue } from "../../model/codec.ts";
import type { Change, Table } from "../../model/record.ts";
import { keyOf } from "../../model/record.ts";
import { Draft, PENDING } from "./draft.ts";

let agent: RunningAgent;
beforeAll(async () => {
  agent = await startAgent({ compat: "consul" });
});
afterAll(async () => {
  expect(agent.errors).toEqual([]);
  await agent.stop();
});

interface Answer<T = unknown> {
  readonly status: number;
  readonly text: string;
  readonly json: T;
  readonly index: number;
}
async function ask<T = unknown>(method: string, path: string, body?: unknown): Promise<Answer<T>> {
  const answer = await fetch(agent.url + path, {
    method,
    ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
  });
  const text = await answer.text();
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    json = undefined;
  }
  return { status: answer.status, text, json: json as T, index: Number(answer.headers.get("x-consul-index")) };
}
interface Txn {
  readonly Results: readonly Record<string, Record<string, unknown>>[] | null;
  readonly Errors: readonly { readonly OpIndex: number; readonly What: string }[] | null;
}
const txn = (ops: unknown): Promise<Answer<Txn>> => ask<Txn>("PUT", "/v1/txn", ops);
const base64 = (text: string): string => Buffer.from(text).toString("base64");
const set = (key: string, value: string, more: object = {}): unknown => ({
  KV: { Verb: "set", Key: key, Value: base64(value), ...more },
});
const session = async (more: object = {}): Promise<string> =>
  (await ask<{ ID: string }>("PUT", "/v1/session/create", { LockDelay: "0s", ...more })).json.ID;

describe("a transaction", () => {
  test("adds up under contention: every increment counts once", async () => {
    // Adders of a try that failed may still be at work.
    const key = ownName("sum");
    await ask("PUT", `/v1/kv/${key}`, "0");
    let conflicts = 0;
    const add = async (): Promise<void> => {
      for (;;) {
        const [pair] = (await ask<{ Value: string; ModifyIndex: number }[]>("GET", `/v1/kv/${key}`)).json;
        const next = Number(Buffer.from(pair?.Value ?? "", "base64").toString()) + 1;
        const { status, json } = await txn([
          { KV: { Verb: "cas", Key: key, Value: base64(String(next)), Index: pair?.ModifyIndex } },
          set(`${key}/${next}`, "x"),
        ]);
        if (status === 200) return;
        expect([status, json.Errors?.[0]?.What]).toEqual([409, `failed to set key "${key}", index is stale`]);
        conflicts++;
      }
    };
    await Promise.all(
      Array.from({ length: 8 }, async () => {
        for (let i = 0; i < 5; i++) await add();
      }),
    );
    expect((await ask("GET", `/v1/kv/${key}?raw`)).text).toBe("40");
    expect((await ask<string[]>("GET", `/v1/kv/${key}/?keys`)).json).toHaveLength(40);
    expect(conflicts).toBeGreaterThan(0);
  });

  test("is seen whole or not at all", async () => {
    await txn([set("pair/a", "0"), set("pair/b", "0")]);
    let writing = true;
    const write = async (): Promise<void> => {
      try {
        for (let i = 1; i <= 50; i++)
          expect((await txn([set("pair/a", `${i}`), set("pair/b", `${i}`)])).status).toBe(200);
      } finally {
        writing = false;
      }
    };
    const read = async (): Promise<void> => {
      while (writing) {
        const values = (await ask<{ Value: string }[]>("GET", "/v1/kv/pair/?recurse")).json.map(({ Value }) => Value);
        expect(values[0]).toBe(values[1]);
      }
    };
    await Promise.all([write(), read()]);
  });

  test("operations see what those before them did, and leave nothing when one fails", async () => {
    const folder = ownName("seen");
    const { json, status } = await txn([
      set(`${folder}/a`, "1"),
      set(`${folder}/c`, "3"),
      { KV: { Verb: "get-tree", Key: `${folder}/` } },
      { KV: { Verb: "check-not-exists", Key: `${folder}/b` } },
      set(`${folder}/b`, "2"),
      { KV: { Verb: "delete", Key: `${folder}/a` } },
      { KV: { Verb: "get-tree", Key: `${folder}/` } },
      { KV: { Verb: "delete-tree", Key: `${folder}/` } },
      { KV: { Verb: "get-or-empty", Key: `${folder}/b` } },
      set(`${folder}/d`, "4"),
    ]);
    expect(status).toBe(200);
    expect(json.Results?.map(({ KV }) => [KV?.["Key"], KV?.["Value"]])).toEqual([
      [`${folder}/a`, null],
      [`${folder}/c`, null],
      [`${folder}/a`, base64("1")],
      [`${folder}/c`, base64("3")],
      [`${folder}/b`, null],
      [`${folder}/b`, base64("2")],
      [`${folder}/c`, base64("3")],
      [`${folder}/b`, null],
      [`${folder}/d`, null],
    ]);
    expect((await ask("GET", `/v1/kv/${folder}/?keys`)).json).toEqual([`${folder}/d`]);
    const failed = await txn([
      { KV: { Verb: "delete", Key: `${folder}/d` } },
      { KV: { Verb: "check-index", Key: `${folder}/d`, Index: 1 } },
      set(`${folder}/e`, "5"),
      { KV: { Verb: "get", Key: `${folder}/none` } },
    ]);
    expect(failed.json.Errors).toEqual([
      { OpIndex: 1, What: `failed to check index, key "${folder}/d" doesn't exist` },
      { OpIndex: 3, What: `key "${folder}/none" doesn't exist` },
    ]);
    expect((await ask("GET", `/v1/kv/${folder}/?keys`)).json).toEqual([`${folder}/d`]);
  });

  test("tells the indexes that everything got; what did not change keeps its own", async () => {
    const [first] = (await txn([set("idx", "1")])).json.Results ?? [];
    const again = (await txn([set("idx", "1"), set("idx2", "1")])).json.Results ?? [];
    expect(again[0]?.["KV"]?.["ModifyIndex"]).toBe(first?.["KV"]?.["ModifyIndex"]);
    const [pair] = (await ask<{ ModifyIndex: number; CreateIndex: number }[]>("GET", "/v1/kv/idx2")).json;
    expect(again[1]?.["KV"]).toMatchObject({ CreateIndex: pair?.CreateIndex, ModifyIndex: pair?.ModifyIndex });
    expect(pair?.ModifyIndex).toBeGreaterThan(Number(first?.["KV"]?.["ModifyIndex"]));
  });

  test("flags of 64 bits go in and come out whole, whatever the values look like", async () => {
    const body = '[{"KV":{"Verb":"set","Key":"\\"flags\\": 3304740253564472344,","Flags" : 3304740253564472344}}]';
    const { status, text } = await txn(body);
    expect(status).toBe(200);
    expect(text).toContain('"Flags": 3304740253564472344');
    const found = await txn([{ KV: { Verb: "get", Key: '"flags": 3304740253564472344,' } }]);
    expect(found.text).toContain('"Flags": 3304740253564472344');
    expect((await txn('[{"KV":{"Verb":"set","Key":"x","Flags":99999999999999999999}}]')).status).toBe(400);
    expect((await txn('[{"KV":{"Verb":"set","Key":"x","Flags":-1}}]')).status).toBe(400);
  });

  test("locks and unlocks by the same rules as keys", async () => {
    const key = ownName("lock");
    const [one, two] = [await session(), await session({ LockDelay: "60s" })];
    const lock = (id: string): unknown => ({ KV: { Verb: "lock", Key: key, Value: base64(id), Session: id } });
    expect((await txn([lock(one), set("txn/by", one)])).json.Results?.[0]?.["KV"]).toMatchObject({ LockIndex: 1 });
    expect((await txn([lock(one)])).json.Results?.[0]?.["KV"]).toMatchObject({ LockIndex: 1, Session: one });
    expect((await txn([lock(two), set("txn/by", two)])).json.Errors).toEqual([
      { OpIndex: 0, What: `failed to lock key "${key}", lock is already held` },
    ]);
    expect((await ask("GET", "/v1/kv/txn/by?raw")).text).toBe(one);
    // Handed over in one piece.
    const unlock = { KV: { Verb: "unlock", Key: key, Session: one } };
    expect((await txn([unlock, lock(two)])).json.Results?.[1]?.["KV"]).toMatchObject({ LockIndex: 2, Session: two });
    await ask("PUT", `/v1/session/destroy/${two}`);
    expect((await txn([lock(one)])).json.Errors).toEqual([
      { OpIndex: 0, What: `failed to lock key "${key}" due to lock delay` },
    ]);
    // While a lock is delayed nobody looks at who asks [Consul preCheck].
    expect((await txn([lock(two)])).json.Errors?.[0]?.What).toBe(`failed to lock key "${key}" due to lock delay`);
    const elsewhere = { KV: { Verb: "lock", Key: "txn/other", Session: two } };
    expect((await txn([elsewhere])).json.Errors?.[0]?.What).toBe(`invalid session "${two}"`);
  });

  test("a session that ends takes along what was locked by a transaction", async () => {
    const go = ownName("go");
    const id = await session({ Behavior: "delete" });
    const lock = (key: string): unknown => ({ KV: { Verb: "lock", Key: key, Session: id } });
    expect((await txn([lock(`${go}/a`), lock(`${go}/b`), set(`${go}/c`, "stays")])).status).toBe(200);
    await ask("PUT", `/v1/session/destroy/${id}`);
    expect((await ask("GET", `/v1/kv/${go}/?keys`)).json).toEqual([`${go}/c`]);
  });

  test("a check turned critical by a transaction ends the sessions that stand on it", async () => {
    const check = (Status: string): unknown => ({
      Check: { Verb: "set", Check: { Node: "outside", CheckID: "hb", Name: "hb", Status } },
    });
    const node = { Node: { Verb: "set", Node: { Node: "outside", Address: "192.0.2.9" } } };
    expect((await txn([node, check("passing")])).status).toBe(200);
    const id = await session({ Node: "outside", NodeChecks: ["hb"] });
    await ask("PUT", `/v1/kv/stands?acquire=${id}`, "x");
    expect((await txn([check("critical")])).status).toBe(200);
    const [pair] = (await ask<{ Session?: string }[]>("GET", "/v1/kv/stands")).json;
    expect(pair?.Session).toBeUndefined();
    expect((await ask("GET", `/v1/session/info/${id}`)).json).toEqual([]);
  });

  test("removing a node within it takes its services along, for the operations behind it as well", async () => {
    const service = { Service: { Verb: "set", Node: "brief", Service: { ID: "s", Service: "brief-s" } } };
    const get = { Service: { Verb: "get", Node: "brief", Service: { ID: "s" } } };
    const node = { Node: { Verb: "set", Node: { Node: "brief", Address: "192.0.2.7" } } };
    expect((await txn([node, service, get])).json.Results).toHaveLength(3);
    const gone = { Node: { Verb: "delete", Node: { Node: "BRIEF" } } };
    expect((await txn([gone, get])).json.Errors).toEqual([
      { OpIndex: 1, What: 'service "s" on node "brief" doesn\'t exist' },
    ]);
    expect((await ask<unknown[]>("GET", "/v1/catalog/service/brief-s")).json).toHaveLength(1);
    expect((await txn([gone])).status).toBe(200);
    expect((await ask("GET", "/v1/catalog/service/brief-s")).json).toEqual([]);
  });

  test("a key that is too long is refused with 413", async () => {
    expect((await txn([set("a".repeat(40_000), "x")])).status).toBe(413);
  });

  test.each([
    [{ Service: { Verb: "set", Node: "x", Service: { ID: "a\u0000b", Service: "s" } } }, 409],
    [{ Node: { Verb: "set", Node: { Node: "x", ID: "no-uuid" } } }, 409],
    [{ Check: { Verb: "set", Check: { Node: "x" } } }, 409],
  ])("%j is refused with %d", async (op, status) => {
    expect((await txn([op])).status).toBe(status);
  });

  test("whatever comes as a body gets an answer, and only 200 writes", async () => {
    const verb = fc.constantFrom(
      ...["set", "cas", "lock", "unlock", "get", "get-or-empty", "get-tree", "check-index", "check-session"],
      ...["check-not-exists", "delete", "delete-tree", "delete-cas", "x", ""],
    );
    const name = fc.constantFrom("f/a", "f/b", "", "__proto__", "é");
    const kv = fc.record(
      {
        Verb: verb,
        Key: name,
        Value: fc.constantFrom("", "YQ==", "!"),
        Index: fc.nat(3),
        Session: name,
        Flags: fc.nat(),
      },
      { requiredKeys: ["Verb"] },
    );
    const place = fc.record({ ID: name, Node: name, Address: name, ModifyIndex: fc.nat(3) }, { requiredKeys: [] });
    const op = fc.oneof(
      fc.record({ KV: kv }),
      fc.record({ Node: fc.record({ Verb: verb, Node: place }, { requiredKeys: [] }) }),
      fc.record({
        Service: fc.record(
          {
            Verb: verb,
            Node: name,
            Service: fc.record({ ID: name, Service: name, Port: fc.nat() }, { requiredKeys: [] }),
          },
          { requiredKeys: [] },
        ),
      }),
      fc.record({
        Check: fc.record(
          {
            Verb: verb,
            Check: fc.record({ Node: name, CheckID: name, ServiceID: name, Status: name }, { requiredKeys: [] }),
          },
          { requiredKeys: [] },
        ),
      }),
      fc.json(),
    );
    // An agent of its own: elsewhere the delay of a lock may run out meanwhile, which is written, too.
    const alone = await startAgent({ compat: "consul" });
    try {
      await fc.assert(
        fc.asyncProperty(fc.array(op, { maxLength: 6 }), async (ops) => {
          const before = alone.trilith.directory.view().index;
          const answer = await fetch(`${alone.url}/v1/txn`, { method: "PUT", body: JSON.stringify(ops) });
          expect([200, 400, 409, 413]).toContain(answer.status);
          expect(await answer.text()).not.toBe("");
          if (answer.status !== 200) expect(alone.trilith.directory.view().index).toBe(before);
        }),
        { numRuns: 300 },
      );
    } finally {
      await alone.stop();
    }
  });
});

describe("a draft", () => {
  test("shows what the directory shows once the changes are written", async () => {
    const node = fc.constantFrom("n1", "N1", "n2");
    const id = fc.constantFrom("a", "b");
    const key = fc.constantFrom("k", "k/1", "k/2", "l", "k\u{10000}", "k\uffff");
    const change: fc.Arbitrary<Change> = fc.oneof(
      node.map((name) => nodeChange(name, "10.0.0.1")),
      fc.tuple(node, id).map(([name, service]) => serviceChange(name, service, `s-${service}`)),
      fc
        .tuple(node, id, fc.constantFrom("", "a", "b"))
        .map(([name, check, about]) => checkChange(name, check, "passing", { serviceId: about })),
      key.map(
        (name): Change => ({
          op: "put",
          table: "kv",
          key: name,
          value: { key: name, value: new Uint8Array([1]), flags: 0n, lockIndex: 0 },
        }),
      ),
      node.map((name): Change => ({ op: "delete", table: "node", key: keyOf.node(name) })),
      fc
        .tuple(node, id)
        .map(([name, each]): Change => ({ op: "delete", table: "service", key: keyOf.service(name, each) })),
      fc
        .tuple(node, id)
        .map(([name, each]): Change => ({ op: "delete", table: "check", key: keyOf.check(name, each) })),
      key.map((name): Change => ({ op: "delete", table: "kv", key: name })),
    );
    const fits = (draft: Draft, each: Change): boolean => {
      if (each.op === "delete" || (each.table !== "service" && each.table !== "check")) return true;
      const { node: host } = each.value as { node: string };
      const about = each.table === "check" ? (each.value as { serviceId: string }).serviceId : "";
      return (
        draft.get("node", keyOf.node(host)) !== undefined &&
        (about === "" || draft.get("service", keyOf.service(host, about)) !== undefined)
      );
    };
    const content = (view: Records): unknown =>
      (["node", "service", "check", "kv"] as const satisfies readonly Table[]).map((table) =>
        Array.from(view.list(table), ({ createIndex: _, modifyIndex: __, ...rest }) => rest),
      );
    await fc.assert(
      fc.asyncProperty(
        fc.array(change, { maxLength: 8 }),
        fc.array(change, { maxLength: 8 }),
        async (before, after) => {
          const directory = testDirectory(fakeClock());
          for (const changes of [before, after]) {
            const draft = new Draft(directory.view());
            for (const each of changes) if (fits(draft, each)) draft.make(each);
            const shown = content(draft);
            expect((await directory.write(draft.changes, draft.expect)).result).toBe("written");
            expect(sameValue(shown, content(directory.view()))).toBe(true);
          }
        },
      ),
      { numRuns: 300 },
    );
  });

  test("relies on what it looked at, not on what it made itself", async () => {
    const directory = testDirectory(fakeClock());
    await directory.write([nodeChange("n1", "10.0.0.1")]);
    const draft = new Draft(directory.view());
    draft.rely("node", "N1");
    draft.rely("node", "n1");
    draft.make(nodeChange("n2", "10.0.0.2"));
    draft.rely("node", "n2");
    expect(draft.expect).toEqual([{ table: "node", key: "n1", at: 2 }]);
    expect(draft.get("node", "N2")).toMatchObject({ createIndex: PENDING, modifyIndex: PENDING });
    expect(directory.view().get("node", "n2")).toBeUndefined();
  });
});

describe("sessions over HTTP", () => {
  test("a waiter for one session wakes for it alone; one for the list wakes for each", async () => {
    const id = await session();
    const { index } = await ask("GET", `/v1/session/info/${id}`);
    const one = ask<unknown[]>("GET", `/v1/session/info/${id}?index=${index}&wait=20s`);
    const all = ask<unknown[]>("GET", `/v1/session/list?index=${index}&wait=20s`);
    const other = await session();
    expect((await all).json.length).toBeGreaterThan(1);
    const first = await Promise.race([one.then(() => "woken"), session().then(() => "asleep")]);
    expect(first).toBe("asleep");
    await ask("PUT", `/v1/session/destroy/${other}`);
    await ask("PUT", `/v1/session/destroy/${id}`);
    expect((await one).json).toEqual([]);
  });

  test("renewing moves no index", async () => {
    const id = await session({ TTL: "10s" });
    const { index } = await ask("GET", "/v1/session/list");
    for (let i = 0; i < 5; i++) expect((await ask("PUT", `/v1/session/renew/${id}`)).status).toBe(200);
    expect((await ask("GET", "/v1/session/list")).index).toBe(index);
  });

  test.each([
    [{ LockDelay: "0.5s" }, { LockDelay: 500_000_000 }],
    [{ LockDelay: 15 }, { LockDelay: 15_000_000_000 }],
    [{ LockDelay: 2_000_000_000 }, { LockDelay: 2_000_000_000 }],
    [{ Checks: [] }, { NodeChecks: [], ServiceChecks: null }],
    [{ ServiceChecks: [] }, { NodeChecks: ["serfHealth"], ServiceChecks: [] }],
    [{ TTL: "1h0m0s" }, { TTL: "1h0m0s" }],
    [
      { name: "lower", ttl: "90s" },
      { Name: "lower", TTL: "90s" },
    ],
  ])("%j is told as %j", async (asked, told) => {
    const { json } = await ask<{ ID: string }>("PUT", "/v1/session/create", asked);
    const [info] = (await ask<Record<string, unknown>[]>("GET", `/v1/session/info/${json.ID}`)).json;
    expect(info).toMatchObject(told);
    expect("Checks" in (info ?? {})).toBe(false);
  });

  test("leader election: the waiting candidate is woken and takes over", async () => {
    const key = ownName("leader");
    const [one, two] = [await session(), await session()];
    expect((await ask("PUT", `/v1/kv/${key}?acquire=${one}`, "one")).text).toBe("true");
    expect((await ask("PUT", `/v1/kv/${key}?acquire=${two}`, "two")).text).toBe("false");
    const { index } = await ask("GET", `/v1/kv/${key}`);
    const waiting = ask<{ Session?: string; LockIndex: number }[]>("GET", `/v1/kv/${key}?index=${index}&wait=20s`);
    await ask("PUT", `/v1/session/destroy/${one}`);
    expect((await waiting).json[0]).toMatchObject({ LockIndex: 1 });
    expect((await waiting).json[0]?.Session).toBeUndefined();
    expect((await ask("PUT", `/v1/kv/${key}?acquire=${two}`, "two")).text).toBe("true");
    expect((await ask<{ LockIndex: number }[]>("GET", `/v1/kv/${key}`)).json[0]).toMatchObject({
      LockIndex: 2,
      Session: two,
    });
  });
});

describe("a key with a time to live", () => {
  test("goes by itself, and its waiter is told", async () => {
    expect((await ask("PUT", "/v1/kv/brief?ttl=1s", "x")).text).toBe("true");
    const { index } = await ask("GET", "/v1/kv/brief");
    const began = performance.now();
    expect((await ask("GET", `/v1/kv/brief?index=${index}&wait=20s`)).status).toBe(404);
    expect(performance.now() - began).toBeGreaterThan(500);
    await eventually(
      "nothing is left of it",
      () => agent.trilith.directory.view().get("kept", keyOf.kept("key.ttl", "brief")) === undefined,
    );
  });

  test.each(["0s", "-1s", "soon", "30", ""])("of %j is refused", async (ttl) => {
    const { status, text } = await ask("PUT", `/v1/kv/brief?ttl=${ttl}`, "x");
    expect([status, text]).toEqual([400, expect.stringContaining("Invalid ttl: ")]);
  });

  test("goes with check-and-set and with locks", async () => {
    const id = await session();
    const key = ownName("both");
    expect((await ask("PUT", `/v1/kv/${key}?ttl=1h&cas=0`, "x")).text).toBe("true");
    expect((await ask("PUT", `/v1/kv/${key}?ttl=200ms&acquire=${id}`, "x")).text).toBe("true");
    await eventually("it is gone", async () => (await ask("GET", `/v1/kv/${key}`)).status === 404);
  });
});
