// A directory in memory under a test's control: the real tables, evaluation and waiters, without a store; its truthfulness can be switched.
import type { Clock } from "../../src/base/clock.ts";
import type { Directory, Written } from "../../src/contracts/directory.ts";
import type { Row } from "../../src/contracts/storage.ts";
import { evaluate } from "../../src/directory/evaluate.ts";
import { FrozenView } from "../../src/directory/tables/frozen-view.ts";
import { Tables } from "../../src/directory/tables.ts";
import { Waiters } from "../../src/directory/watch.ts";
import { NODE_ALIVE_CHECK, NODE_DEAD_OUTPUT, type Status } from "../../src/model/check.ts";
import type { Instance, Origin } from "../../src/model/instance.ts";
import type { Node } from "../../src/model/node.ts";
import type { Reason } from "../../src/model/reason.ts";
import { type Change, keyOf, type Scope } from "../../src/model/record.ts";

/** A `Directory` with switches. */
export interface TestDirectory extends Directory {
  /** How many wait. */
  readonly waiting: number;
  /** Puts the store away (views turn stale) or back. */
  reachable(on: boolean): void;
  /** The first picture is there. */
  becomeReady(): void;
  /** Loses everything without a word, as a store that was wiped or restored does. */
  lose(keep: (table: string, key: string) => boolean): void;
}

/** `ready` false: empty and not ready until `becomeReady`. */
export function testDirectory(clock: Clock, ready = true): TestDirectory {
  let tables = new Tables();
  const waiters = new Waiters();
  let awaySince: number | undefined;
  let isReady = ready;
  const readyWaiters: (() => void)[] = [];
  let view: FrozenView | undefined;
  let ids = 0;
  const renew = (): void => {
    view = undefined;
  };
  return {
    get waiting() {
      return waiters.count;
    },
    view() {
      if (awaySince === undefined && view?.fresh === true) return view;
      view ??= new FrozenView(tables.clone(), awaySince === undefined && isReady, awaySince ?? clock.now());
      return view;
    },
    async write(changes, expect = []): Promise<Written> {
      const result = evaluate(tables, changes, expect, `w${ids++}`, clock.now());
      if (result.kind === "failed") return { result: "expectation-failed" };
      if (result.kind === "nothing") return { result: "written", index: tables.index };
      const index = tables.index + 1;
      const rows = result.changes.map(
        (change): Row => ({
          table: change.table,
          key: change.key,
          value: change.op === "put" ? change.value : undefined,
          createIndex: tables.get(change.table, change.key)?.createIndex ?? index,
          modifyIndex: index,
        }),
      );
      const touched = tables.apply(rows, index);
      renew();
      waiters.wake(touched);
      return { result: "written", index };
    },
    changed(scope: Scope, after, signal) {
      const at = tables.at(scope);
      return at > after && !signal.aborted ? Promise.resolve(at) : waiters.wait(scope, after, signal);
    },
    barrier: async () => tables.index,
    ready: (signal) =>
      new Promise((resolve, reject) => {
        if (signal?.aborted) return reject(signal.reason);
        if (isReady) return resolve();
        readyWaiters.push(resolve);
        signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
      }),
    reachable(on) {
      awaySince = on ? undefined : clock.now();
      renew();
    },
    becomeReady() {
      isReady = true;
      renew();
      for (const resolve of readyWaiters.splice(0)) resolve();
    },
    lose(keep) {
      const rows: Row[] = [];
      for (const table of ["node", "service", "check"] as const)
        for (const [key, entry] of tables.entries(table))
          if (!keep(table, key))
            rows.push({ table, key, value: undefined, createIndex: entry.createIndex, modifyIndex: tables.index + 1 });
      const next = tables.clone();
      const touched = next.apply(rows, tables.index + 1);
      tables = next;
      renew();
      waiters.wake(touched);
    },
  };
}

/** A node, as a change. */
export function nodeChange(
  name: string,
  address: string,
  more: Partial<Pick<Node, "external" | "id" | "witnessed">> = {},
): Change {
  return {
    op: "put",
    table: "node",
    key: keyOf.node(name),
    value: { id: "", name, address, datacenter: "dc1", taggedAddresses: {}, labels: {}, ...more },
  };
}

/** An instance, as a change; `api`, first-hand, unless told. */
export function serviceChange(
  node: string,
  id: string,
  name: string,
  more: Partial<Instance> & { readonly origin?: Origin } = {},
): Change {
  return {
    op: "put",
    table: "service",
    key: keyOf.service(node, id),
    value: {
      id,
      name,
      node,
      tags: [],
      labels: {},
      address: "",
      port: 0,
      origin: { source: "api", authority: "first-hand" },
      ...more,
    },
  };
}

/** A check, as a change. */
export function checkChange(
  node: string,
  id: string,
  status: Status,
  more: { serviceId?: string; output?: string; notes?: string; type?: string } = {},
): Change {
  return {
    op: "put",
    table: "check",
    key: keyOf.check(node, id),
    value: { id, node, name: id, status, notes: "", output: "", serviceId: "", type: "", ...more },
  };
}

/** A node's liveness check, as Consul words it. */
export function aliveChange(node: string, alive: boolean): Change {
  return checkChange(node, NODE_ALIVE_CHECK, alive ? "passing" : "critical", {
    output: alive ? "Agent alive and reachable" : NODE_DEAD_OUTPUT,
  });
}

/** A removal of an instance. */
export function goneChange(node: string, id: string, why?: Omit<Reason, "atMs">): Change {
  return {
    op: "delete",
    table: "service",
    key: keyOf.service(node, id),
    ...(why === undefined ? {} : { why: { ...why, atMs: 0 } }),
  };
}
