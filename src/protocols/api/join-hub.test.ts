// The line that client hosts read: whoever reads it, whenever and however often it broke off, ends with what the directory holds.
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { systemClock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { createMetrics } from "../../base/metrics.ts";
import { systemRandom } from "../../base/random.ts";
import type { View } from "../../contracts/directory.ts";
import { JOINED_TABLES, readLine } from "../../contracts/join.ts";
import type { Row } from "../../contracts/storage.ts";
import { createDirectory, type LocalDirectory } from "../../directory/local.ts";
import { memoryStorage } from "../../directory/storage/memory.ts";
import { Tables } from "../../directory/tables.ts";
import { type Change, keyOf } from "../../model/record.ts";
import { JoinHub } from "./join-hub.ts";

const origin = { source: "api", authority: "first-hand" } as const;
const nodePut = (name: string, address: string): Change => ({
  op: "put",
  table: "node",
  key: keyOf.node(name),
  value: { id: "", name, address, datacenter: "dc1", taggedAddresses: {}, labels: {} },
});

/** One step of history. Nodes are put first, so that everything finds its own. */
const step = fc.oneof(
  fc.record({ what: fc.constant("node" as const), n: fc.nat(2), v: fc.nat(2) }),
  fc.record({ what: fc.constant("service" as const), n: fc.nat(2), s: fc.nat(3), name: fc.nat(2), v: fc.nat(2) }),
  fc.record({ what: fc.constant("check" as const), n: fc.nat(2), s: fc.nat(3), v: fc.nat(2) }),
  fc.record({ what: fc.constant("drop" as const), n: fc.nat(2), s: fc.nat(4) }),
  fc.record({ what: fc.constant("key" as const), v: fc.nat(5) }),
  fc.record({ what: fc.constant("alive" as const), n: fc.nat(2), v: fc.nat(1) }),
  fc.record({ what: fc.constant("read" as const) }),
  fc.record({ what: fc.constant("break" as const), forget: fc.boolean() }),
);

async function apply(
  directory: LocalDirectory,
  at: typeof step extends fc.Arbitrary<infer T> ? T : never,
): Promise<void> {
  const changes: Change[] = [];
  const node = "n" in at ? `N${at.n}` : "";
  if (at.what === "node") changes.push(nodePut(node, `10.0.0.${at.v}`));
  else if (at.what === "service")
    changes.push(nodePut(node, "10.0.0.1"), {
      op: "put",
      table: "service",
      key: keyOf.service(node, `s${at.s}`),
      value: { id: `s${at.s}`, name: `web${at.name}`, node, tags: [], labels: {}, address: "", port: at.v, origin },
    });
  else if (at.what === "check") {
    const known = directory.view().get("service", keyOf.service(node, `s${at.s}`)) !== undefined;
    changes.push(nodePut(node, "10.0.0.1"), {
      op: "put",
      table: "check",
      key: keyOf.check(node, `c${at.s}`),
      value: {
        ...{ id: `c${at.s}`, node, name: "c", notes: "", type: "", serviceId: known ? `s${at.s}` : "" },
        status: at.v === 0 ? "critical" : "passing",
        output: String(at.v),
      },
    });
  } else if (at.what === "drop")
    changes.push(
      at.s === 4
        ? { op: "delete", table: "node", key: keyOf.node(node) }
        : { op: "delete", table: "service", key: keyOf.service(node, `s${at.s}`) },
    );
  else if (at.what === "key") {
    const value = { key: "k", value: new Uint8Array([at.v]), flags: 0n, lockIndex: 0 };
    changes.push({ op: "put", table: "kv", key: "k", value });
  } else if (at.what === "alive")
    changes.push({ op: "put", table: "alive", key: keyOf.alive(node), value: { node, life: String(at.v) } });
  if (changes.length > 0) await directory.write(changes);
}

/** What a client host makes of the lines. */
class Reader {
  tables = new Tables();
  after = 0;
  line = "";
  #snapshot: Row[] = [];

  read(hub: JoinHub): void {
    const pieces = hub.since(this.after, this.line);
    this.line = hub.line;
    for (let piece = pieces.next(); ; piece = pieces.next()) {
      if (piece.done === true) {
        this.after = piece.value;
        return;
      }
      const batch = readLine(piece.value);
      if (batch.kind === "delta") {
        // As the directory takes deltas.
        const known = this.tables.index;
        this.tables.apply(
          batch.rows.filter(({ modifyIndex }) => modifyIndex > known),
          batch.index,
        );
      } else if (batch.kind === "snapshot") {
        this.#snapshot.push(...batch.rows);
        if (!batch.complete) continue;
        this.tables = Tables.from(this.#snapshot, batch.index);
        this.#snapshot = [];
      }
    }
  }
}

const content = (from: Pick<View, "list"> | Tables): unknown =>
  JOINED_TABLES.map((table) => [...(from as View).list(table)].map((entry) => ({ ...entry })));

describe("the line of changes", () => {
  it("leads every reader to what the directory holds", async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
        const ground = { clock: systemClock, random: systemRandom, log: silentLog };
        const directory = createDirectory(memoryStorage(), { ...ground, metrics: createMetrics() });
        await directory.start();
        const hub = new JoinHub({ ...ground, directory });
        let leave = hub.enter();
        const reader = new Reader();
        const catchUp = async (): Promise<void> => {
          const { index } = directory.view();
          hub.reach(index);
          while (!hub.beyond(index - 1, hub.line)) await hub.next(AbortSignal.timeout(5_000));
          reader.read(hub);
        };
        try {
          for (const at of steps) {
            if (at.what === "read") await catchUp();
            else if (at.what === "break") {
              leave();
              leave = hub.enter();
              if (at.forget) reader.after = 0;
            } else await apply(directory, at);
          }
          await catchUp();
          expect(content(reader.tables)).toEqual(content(directory.view()));
          expect(reader.after).toBe(directory.view().index);
        } finally {
          leave();
          await directory.stop();
        }
      }),
      { numRuns: 150 },
    );
  });

  it("is another one where the store went back: everybody reads everything again, at once", async () => {
    const ground = { clock: systemClock, random: systemRandom, log: silentLog };
    const made = () => createDirectory(memoryStorage(), { ...ground, metrics: createMetrics() });
    const [before, after] = [made(), made()];
    await Promise.all([before.start(), after.start()]);
    for (const s of [0, 1, 2]) await apply(before, { what: "service", n: 0, s, name: 0, v: 1 });
    await apply(after, { what: "node", n: 1, v: 1 });
    let now = before;
    const directory = {
      view: () => now.view(),
      changed: (...args: Parameters<LocalDirectory["changed"]>) => now.changed(...args),
    } as LocalDirectory;
    const hub = new JoinHub({ ...ground, directory });
    const leave = hub.enter();
    const reader = new Reader();
    reader.read(hub);
    expect(reader.after).toBeGreaterThan(after.view().index);
    const woken = hub.next(AbortSignal.timeout(2_000));
    now = after;
    await apply(before, { what: "node", n: 2, v: 1 });
    await woken;
    for (const v of [1, 2]) {
      expect(hub.beyond(reader.after, reader.line)).toBe(true);
      reader.read(hub);
      expect(content(reader.tables)).toEqual(content(after.view()));
      expect(hub.beyond(reader.after, reader.line)).toBe(false);
      const next = hub.next(AbortSignal.timeout(2_000));
      await apply(after, { what: "service", n: 1, s: 0, name: 0, v });
      hub.reach(after.view().index);
      await next;
    }
    leave();
    await Promise.all([before.stop(), after.stop()]);
  });

  it("gives the reasons of what went, and nothing of keys", async () => {
    const ground = { clock: systemClock, random: systemRandom, log: silentLog };
    const directory = createDirectory(memoryStorage(), { ...ground, metrics: createMetrics() });
    await directory.start();
    await apply(directory, { what: "service", n: 0, s: 0, name: 0, v: 1 });
    const hub = new JoinHub({ ...ground, directory });
    const leave = hub.enter();
    const reader = new Reader();
    reader.read(hub);
    const why = { code: "deregistered", text: "by hand", confirmed: true, atMs: 5 } as const;
    const kv = { key: "k", value: new Uint8Array(), flags: 0n, lockIndex: 0 };
    await directory.write([{ op: "put", table: "kv", key: "k", value: kv }]);
    await directory.write([
      { op: "delete", table: "service", key: keyOf.service("N0", "s0"), why },
      { op: "delete", table: "kv", key: "k" },
    ]);
    const { index } = directory.view();
    while (!hub.beyond(index - 1, hub.line)) await hub.next(AbortSignal.timeout(5_000));
    reader.read(hub);
    const graves = [...reader.tables.list("grave")];
    expect(graves.map((grave) => grave.why)).toContainEqual(why);
    expect(graves.flatMap((grave) => grave.scopes).filter((scope) => scope.startsWith("kv:"))).toEqual([]);
    expect(reader.tables.count("kv")).toBe(0);
    leave();
    await directory.stop();
  });
});
