// The laws of stores over the simulated one, and the laws of the directory over a store that misbehaves, by many seeds.
import { describe, expect, test } from "vitest";
import { TrilithError } from "../../src/base/error.ts";
import { silentLog } from "../../src/base/log.ts";
import { createMetrics } from "../../src/base/metrics.ts";
import type { View } from "../../src/contracts/directory.ts";
import type { Row } from "../../src/contracts/storage.ts";
import { createDirectory, type LocalDirectory } from "../../src/directory/local.ts";
import { sameValue } from "../../src/model/codec.ts";
import {
  type Change,
  type Expect,
  type Grave,
  type Index,
  keyOf,
  type Scope,
  scope,
  type Table,
} from "../../src/model/record.ts";
import { describeStorage } from "../conformance/storage/suite.ts";
import { fakeClock } from "./clock.ts";
import { type Faults, SimulatedStore, seededRandom } from "./store.ts";

let seeds = 0;
for (const [name, faults] of [
  ["well-behaved", {}],
  ["slow and repeating", { turns: 8, repeat: 0.3, away: 0.1, snapshot: 0.1, compact: 0.05 }],
  ["of unknown outcomes", { turns: 5, unknown: 0.3, unavailable: 0.1, compact: 0.02 }],
] as const)
  describeStorage(`simulated, ${name}`, async () => {
    const store = new SimulatedStore(++seeds, faults);
    return {
      client: async () => store.client(),
      restart: async () => true,
      compact: async () => store.compact(),
      end: async () => store.heal(),
    };
  });

const NODES = ["n1", "N2"];
const NAMES = ["web", "Api"];
const IDS = ["a", "b"];
const CHECKS = ["serfHealth", "own"];
const KEYS = ["k", "k/a", "k/a/b", "l"];
const SCOPES: readonly Scope[] = [
  "nodes",
  "services",
  "checks",
  ...NODES.map(scope.node),
  ...NAMES.flatMap((name) => [scope.service(name), scope.instances(name), scope.checksOf(name)]),
  ...KEYS.map(scope.kv),
  scope.tree(""),
  scope.tree("k/"),
  scope.tree("k/a"),
  scope.tree("z"),
];

/** What a scope shows, worked out from bare rows by the words of the contract, without any of the directory's code. */
function project(rows: readonly Row[], wanted: Scope): string {
  const all = <T>(table: Table): (T & { i: number })[] =>
    rows.filter((row) => row.table === table).map((row) => ({ ...(row.value as T), i: row.modifyIndex }));
  type Service = { node: string; id: string; name: string; tags: string[] };
  type Check = { node: string; id: string; serviceId: string };
  const nodes = all<{ name: string }>("node");
  const services = all<Service>("service");
  const checks = all<Check>("check");
  const lower = (text: string): string => text.toLowerCase();
  const nodeOf = (on: string): number | undefined => nodes.find(({ name }) => lower(name) === lower(on))?.i;
  const serviceOf = (check: Check): (Service & { i: number }) | undefined =>
    services.find((each) => lower(each.node) === lower(check.node) && each.id === check.serviceId);
  const [kind, rest = ""] = [wanted.split(":", 1)[0], wanted.slice(wanted.indexOf(":") + 1)];
  const show = (): unknown => {
    switch (kind) {
      case "nodes":
        return nodes.map(({ name, i }) => [name, i]);
      case "services":
        return services.map(({ node, id, i }) => [node, id, i]);
      case "checks":
        return checks.map((check) => [check.node, check.id, check.i, serviceOf(check)?.name, serviceOf(check)?.tags]);
      case "node":
        return [
          nodeOf(rest),
          services.filter(({ node }) => lower(node) === rest).map(({ id, i }) => [id, i]),
          checks.filter(({ node }) => lower(node) === rest).map(({ id, i }) => [id, i]),
        ];
      case "instances":
      case "service":
        return services
          .filter(({ name }) => lower(name) === rest)
          .map((each) => [
            each.node,
            each.id,
            each.i,
            nodeOf(each.node),
            kind === "instances" ||
              checks
                .filter((check) => lower(check.node) === lower(each.node) && ["", each.id].includes(check.serviceId))
                .map(({ id, i }) => [id, i]),
          ]);
      case "kv":
        return all<{ key: string }>("kv")
          .filter(({ key }) => key === rest)
          .map(({ i }) => i);
      case "tree":
        return all<{ key: string }>("kv")
          .filter(({ key }) => key.startsWith(rest))
          .map(({ key, i }) => [key, i]);
      default:
        return undefined;
    }
  };
  const checksOfService = (): unknown =>
    checks.flatMap((check) => {
      const service = serviceOf(check);
      return service !== undefined && lower(service.name) === rest
        ? [[check.node, check.id, check.i, service.name, service.tags]]
        : [];
    });
  const shown = kind === "checks" && wanted !== "checks" ? checksOfService() : show();
  return JSON.stringify(Array.isArray(shown) ? shown.map((each) => JSON.stringify(each)).sort() : shown);
}

/** Which scopes each transaction changed. */
function changesOf(store: SimulatedStore): Map<Scope, Index[]> {
  const state = new Map<string, Row>();
  const shown = new Map<Scope, string>(SCOPES.map((each) => [each, project([], each)]));
  const changed = new Map<Scope, Index[]>(SCOPES.map((each) => [each, []]));
  for (const { index, rows } of store.log) {
    for (const row of rows) {
      const name = `${row.table}\u0000${row.key}`;
      if (row.value === undefined) state.delete(name);
      else state.set(name, row);
    }
    const now = [...state.values()];
    for (const each of SCOPES) {
      const next = project(now, each);
      if (next === shown.get(each)) continue;
      shown.set(each, next);
      changed.get(each)?.push(index);
    }
  }
  return changed;
}

const rowsOf = (view: View): Row[] =>
  (["node", "service", "check", "kv", "session", "alive", "kept", "grave"] as const).flatMap((table) =>
    Array.from(view.list(table), ({ createIndex, modifyIndex, ...value }) => ({
      table,
      key: "",
      value: value as unknown as Row["value"],
      createIndex,
      modifyIndex,
    })),
  );

/** `SEEDS=500` looks longer, `SEED=7` at one only. */
const SEEDS = Number(process.env["SEEDS"] ?? 30);

const TROUBLES: readonly (readonly [string, Partial<Faults>])[] = [
  ["none", {}],
  ["delays and repetitions", { turns: 10, repeat: 0.3, away: 0.1 }],
  ["unknown outcomes", { turns: 6, unknown: 0.25, unavailable: 0.05 }],
  ["compaction", { turns: 6, compact: 0.2, snapshot: 0.2, repeat: 0.2 }],
  [
    "everything",
    { turns: 10, unknown: 0.2, unavailable: 0.05, repeat: 0.2, away: 0.1, compact: 0.1, snapshot: 0.1, breaks: 0.05 },
  ],
];

async function run(seed: number, faults: Partial<Faults>): Promise<void> {
  const store = new SimulatedStore(seed, faults);
  const clock = fakeClock();
  const random = seededRandom(seed ^ 0x5eed);
  const pick = <T>(from: readonly T[]): T => from[random.below(from.length)] as T;
  const base = (n: number) => ({
    clock,
    random: seededRandom(seed * 31 + n),
    log: silentLog,
    metrics: createMetrics(),
  });
  const directories = [0, 1].map((n) => createDirectory(store.client(), base(n)));
  let over = false;
  const time = (async () => {
    while (!over) await clock.advance(200);
  })();
  await Promise.all(directories.map((directory) => directory.start()));
  await Promise.all(directories.map((directory) => directory.ready()));

  // Watchers: look, wait until told, look again.
  const watching = new AbortController();
  interface Wake {
    readonly scope: Scope;
    readonly from: Index;
    readonly to: Index;
  }
  const wakes: Wake[] = [];
  const asleep = new Map<
    string,
    { readonly scope: Scope; readonly after: Index; readonly directory: LocalDirectory }
  >();
  const watchers = directories.flatMap((directory, n) =>
    SCOPES.map(async (each) => {
      let from = directory.view();
      for (;;) {
        const after = from.at(each);
        asleep.set(`${n} ${each}`, { scope: each, after, directory });
        const at = await directory.changed(each, after, watching.signal);
        const to = directory.view();
        expect(at).toBeGreaterThan(after);
        expect(to.at(each)).toBeGreaterThanOrEqual(at);
        wakes.push({ scope: each, from: from.index, to: to.index });
        from = to;
      }
    }),
  );
  const watched = Promise.allSettled(watchers);

  // Writers.
  const kept: { readonly view: View; readonly rows: Row[] }[] = [];
  const written = new Map<string, Index>();
  const refused: string[] = [];
  const operation = (view: View): { changes: Change[]; expect: Expect[] } => {
    const node = pick(NODES);
    const id = pick(IDS);
    const key = pick(KEYS);
    const text = String(random.below(3));
    const putNode: Change = {
      op: "put",
      table: "node",
      key: keyOf.node(node),
      value: { id: "", name: node, address: `10.0.0.${text}`, datacenter: "dc1", taggedAddresses: {}, labels: {} },
    };
    const putService: Change = {
      op: "put",
      table: "service",
      key: keyOf.service(node, id),
      value: {
        id,
        name: pick(NAMES),
        node,
        tags: random.below(2) === 0 ? [] : ["t"],
        labels: {},
        address: "",
        port: random.below(2),
        origin: { source: "api", authority: "first-hand" },
      },
    };
    const check = pick(CHECKS);
    const putCheck: Change = {
      op: "put",
      table: "check",
      key: keyOf.check(node, check),
      value: {
        id: check,
        node,
        name: "",
        status: "passing",
        notes: "",
        output: text,
        serviceId: pick(["", ...IDS]),
        type: "",
      },
    };
    const putKey: Change = {
      op: "put",
      table: "kv",
      key,
      value: { key, value: Buffer.from(text), flags: 0n, lockIndex: 0 },
    };
    switch (random.below(10)) {
      case 0:
        return { changes: [putNode], expect: [] };
      case 1:
      case 2:
        return { changes: [putNode, putService], expect: [] };
      case 3:
        return {
          changes: [putNode, putService, { ...putCheck, value: { ...putCheck.value, serviceId: id } }],
          expect: [],
        };
      case 4:
        return { changes: [putCheck], expect: [] };
      case 5:
        return { changes: [{ op: "delete", table: "service", key: keyOf.service(node, id) }], expect: [] };
      case 6:
        return {
          changes: [
            random.below(2) === 0
              ? { op: "delete", table: "node", key: keyOf.node(node) }
              : { op: "delete", table: "check", key: keyOf.check(node, check) },
          ],
          expect: [],
        };
      case 7:
        return { changes: [{ op: "delete", table: "kv", key }], expect: [] };
      case 8:
        return { changes: [putKey], expect: [{ table: "kv", key, at: view.get("kv", key)?.modifyIndex ?? 0 }] };
      default:
        return { changes: [putKey], expect: [] };
    }
  };
  const writers = directories.flatMap((directory, n) =>
    [0, 1].map(async (w) => {
      for (let i = 0; i < 25; i++) {
        const mark = `mark/${n}.${w}.${i}`;
        const { changes, expect: expected } = operation(directory.view());
        const marked: Change[] = [
          ...changes,
          {
            op: "put",
            table: "kv",
            key: mark,
            value: { key: mark, value: new Uint8Array(0), flags: 0n, lockIndex: 0 },
          },
        ];
        try {
          const outcome = await directory.write(marked, expected);
          if (outcome.result === "written") {
            written.set(mark, outcome.index);
            expect(directory.view().index).toBeGreaterThanOrEqual(outcome.index);
            expect(directory.view().get("kv", mark)?.createIndex).toBe(outcome.index);
          } else if (outcome.result === "expectation-failed") refused.push(mark);
        } catch (error) {
          if (!(error instanceof TrilithError)) throw error;
          expect(["invalid", "unavailable"]).toContain(error.code);
          refused.push(mark);
        }
        if (random.below(8) === 0) {
          const view = directory.view();
          kept.push({ view, rows: rowsOf(view) });
        }
      }
    }),
  );
  await Promise.all(writers);
  store.heal();
  await Promise.all(directories.map((directory) => directory.barrier()));
  // A connection that broke a moment ago comes back after its pause.
  while (directories.some((directory) => !directory.view().fresh)) await clock.settle();
  await clock.settle();

  const changed = changesOf(store);
  const last = new Map(Array.from(changed, ([each, at]) => [each, at.at(-1) ?? 1]));
  const lastChange = (each: Scope): Index => last.get(each) ?? 1;
  for (const directory of directories) {
    const view = directory.view();
    expect(view.fresh).toBe(true);
    expect(view.index).toBe(store.index);
    // The view is the truth.
    const found = rowsOf(view);
    expect(found).toHaveLength(store.rows.length);
    for (const row of store.rows) {
      const entry = view.get(row.table, row.key);
      const { createIndex, modifyIndex, ...value } = entry ?? { createIndex: 0, modifyIndex: 0 };
      expect([row.table, row.key, createIndex, modifyIndex]).toEqual([
        row.table,
        row.key,
        row.createIndex,
        row.modifyIndex,
      ]);
      expect(sameValue(value, row.value)).toBe(true);
    }
    // Indexes tell the last change, exactly where no history was lost.
    for (const each of SCOPES) {
      expect([each, view.at(each)]).toEqual([
        each,
        expect.toSatisfy((at: number) => at >= lastChange(each) && at <= store.index),
      ]);
      if ((faults.compact ?? 0) === 0 && (faults.snapshot ?? 0) === 0 && !each.startsWith("checks"))
        expect([each, view.at(each)]).toEqual([each, lastChange(each)]);
    }
  }
  // Nothing acknowledged is lost, nothing refused is there.
  const marks = new Map(store.rows.filter(({ key }) => key.startsWith("mark/")).map((row) => [row.key, row]));
  for (const [mark, index] of written)
    expect(marks.get(mark)).toMatchObject({ createIndex: index, modifyIndex: index });
  for (const mark of refused) expect(marks.has(mark)).toBe(false);
  // Services have their nodes, checks their services: also with several writers.
  const view = (directories[0] as LocalDirectory).view();
  for (const service of view.list("service")) expect(view.get("node", keyOf.node(service.node))).toBeDefined();
  for (const check of view.list("check")) {
    expect(view.get("node", keyOf.node(check.node))).toBeDefined();
    if (check.serviceId !== "") expect(view.get("service", keyOf.service(check.node, check.serviceId))).toBeDefined();
  }
  // Nobody was woken for nothing, nobody sleeps on what is stale.
  // A service that is removed or renamed counts as a change of checks: another writer may have put one on it meanwhile.
  const removals = store.log.filter(({ rows }) =>
    rows.some(
      ({ table, value }) =>
        (table === "service" && value === undefined) ||
        (table === "grave" && (value as Grave | undefined)?.why?.code === "replaced"),
    ),
  );
  for (const each of SCOPES)
    if (each.startsWith("checks"))
      changed.set(each, [...(changed.get(each) ?? []), ...removals.map(({ index }) => index)]);
  for (const wake of wakes)
    expect([wake, changed.get(wake.scope)?.some((index) => index > wake.from && index <= wake.to)]).toEqual([
      wake,
      true,
    ]);
  for (const { scope: each, after } of asleep.values()) expect([each, after >= lastChange(each)]).toEqual([each, true]);
  // Views that were kept have not changed.
  for (const { view: old, rows } of kept) expect(sameValue(rowsOf(old), rows)).toBe(true);
  // After a restart no scope stands before its last change.
  const again = createDirectory(store.client(), base(9));
  await again.start();
  await again.ready();
  for (const each of SCOPES) expect([each, again.view().at(each) >= lastChange(each)]).toEqual([each, true]);

  watching.abort();
  await watched;
  await Promise.all([...directories, again].map((directory) => directory.stop()));
  expect(directories.every(({ waiting }) => waiting === 0)).toBe(true);
  over = true;
  await time;
  expect(clock.timers).toBe(0);
}

describe("the directory over a store that misbehaves", () => {
  for (const [name, faults] of TROUBLES)
    test(`${name}: views are true, indexes only grow, wakes have reasons, nothing is lost`, async () => {
      const only = Number(process.env["SEED"] ?? 0);
      for (let seed = only || 1; seed <= (only || SEEDS); seed++) {
        try {
          await run(seed, faults);
        } catch (error) {
          throw new Error(`seed ${seed}: ${(error as Error).message}`, { cause: error });
        }
      }
    });
});
