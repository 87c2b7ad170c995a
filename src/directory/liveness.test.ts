// Liveness on a directory and a clock under control: who is declared dead, when, by whom, and who is not.
import { afterEach, describe, expect, test } from "vitest";
import { type FakeClock, fakeClock } from "../../test/simulated/clock.ts";
import {
  aliveChange,
  checkChange,
  nodeChange,
  serviceChange,
  type TestDirectory,
  testDirectory,
} from "../../test/support/directory.ts";
import { callbackLog, silentLog } from "../base/log.ts";
import { systemRandom } from "../base/random.ts";
import { NODE_ALIVE_CHECK, NODE_DEAD_OUTPUT } from "../model/check.ts";
import { type Change, keyOf } from "../model/record.ts";
import { createLiveness, type Liveness, type LivenessOptions } from "./liveness.ts";

const sign = (node: string, life = "l"): Change => ({
  op: "put",
  table: "alive",
  key: keyOf.alive(node),
  value: { node, life },
});
const unsign = (node: string): Change => ({ op: "delete", table: "alive", key: keyOf.alive(node) });

describe("liveness", () => {
  let clock: FakeClock;
  let directory: TestDirectory;
  const running: Liveness[] = [];
  /** Every status of a node's check, in order. */
  const history = new Map<string, string[]>();

  function setUp(): void {
    clock = fakeClock();
    directory = testDirectory(clock);
    history.clear();
    const write = directory.write.bind(directory);
    directory.write = async (changes, expects, signal) => {
      const result = await write(changes, expects, signal);
      if (result.result === "written")
        for (const change of changes)
          if (change.op === "put" && change.table === "check" && change.value.id === NODE_ALIVE_CHECK)
            history.set(change.value.node, [...(history.get(change.value.node) ?? []), change.value.status]);
      return result;
    };
  }

  function liveness(node: string, more: Partial<LivenessOptions> = {}): Liveness {
    const made = createLiveness({
      directory,
      storage: {
        async alive(name, life, _ttl, signal) {
          await directory.write([sign(name, life)]);
          await new Promise<void>((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
        },
      },
      node,
      nodeId: `id-${node}`,
      life: `${node}-1`,
      ttlMs: 15_000,
      clock,
      random: systemRandom,
      log: silentLog,
      ...more,
    });
    running.push(made);
    made.start();
    return made;
  }
  const node = (name: string, more: { external?: boolean } = {}): Change[] => [
    nodeChange(name, "10.0.0.1", more),
    aliveChange(name, true),
  ];
  const status = (name: string): string | undefined =>
    directory.view().get("check", keyOf.check(name, NODE_ALIVE_CHECK))?.status;

  afterEach(async () => {
    for (const each of running.splice(0)) await each.stop();
    expect(clock.timers).toBe(0);
    expect(directory.waiting).toBe(0);
  });

  test("a node whose sign goes is critical in a moment; its own agent alone says otherwise; nothing flaps", async () => {
    setUp();
    await directory.write([...node("a"), ...node("B-1"), sign("b-1")]);
    liveness("a");
    await clock.advance(20_000);
    expect(status("b-1")).toBe("passing");
    await directory.write([unsign("b-1")]);
    await clock.advance(2_000);
    expect(directory.view().get("check", keyOf.check("b-1", NODE_ALIVE_CHECK))).toMatchObject({
      status: "critical",
      output: NODE_DEAD_OUTPUT,
      name: NODE_ALIVE_CHECK,
      origin: { source: "liveness", text: expect.stringContaining('noticed by node "a"') },
    });
    // Its agent returns: first the check, then, late, the sign.
    await directory.write([aliveChange("B-1", true)]);
    await clock.advance(5_000);
    await directory.write([sign("b-1", "2")]);
    await clock.advance(60_000);
    expect(history.get("B-1")).toEqual(["passing", "critical", "passing"]);
  });

  test("of several survivors one writes", async () => {
    setUp();
    await directory.write([...node("a"), ...node("b"), ...node("c"), ...node("dead"), sign("dead")]);
    for (const name of ["a", "b", "c"]) liveness(name);
    await clock.advance(20_000);
    await directory.write([unsign("dead")]);
    await clock.advance(60_000);
    expect(history).toEqual(
      new Map([
        ["a", ["passing"]],
        ["b", ["passing"]],
        ["c", ["passing"]],
        ["dead", ["passing", "critical"]],
      ]),
    );
  });

  test("external nodes, nodes without the check and sick ones are left alone", async () => {
    setUp();
    await directory.write([
      ...node("a"),
      ...node("printer", { external: true }),
      nodeChange("bare", "10.0.0.2"),
      nodeChange("sick", "10.0.0.3"),
      checkChange("sick", NODE_ALIVE_CHECK, "critical", { output: "said so itself" }),
    ]);
    const before = directory.view().at("checks");
    liveness("a", { reapAfterMs: 1_000 });
    await clock.advance(120_000);
    expect(directory.view().at("checks")).toBe(before);
    expect(directory.view().count("node")).toBe(4);
  });

  test("a sign that never was is waited for; one that died while nobody looked is noticed after the start", async () => {
    setUp();
    await directory.write([...node("a"), ...node("new"), ...node("dead")]);
    liveness("a");
    await clock.advance(14_000);
    await directory.write([sign("new")]);
    expect(status("dead")).toBe("passing");
    await clock.advance(10_000);
    expect(status("dead")).toBe("critical");
    expect(status("new")).toBe("passing");
  });

  test("who is cut off himself declares nobody dead, and gives the others time to be back", async () => {
    setUp();
    await directory.write([...node("a"), ...node("b"), sign("b")]);
    liveness("a");
    await clock.advance(20_000);
    directory.reachable(false);
    await clock.advance(30_000);
    // The store is back; both leases ran out meanwhile, this node's sign is made again at once, the other's a little later.
    await directory.write([unsign("a"), unsign("b")]);
    directory.reachable(true);
    await clock.advance(500);
    await directory.write([sign("a", "a-1")]);
    await clock.advance(4_000);
    await directory.write([sign("b")]);
    await clock.advance(60_000);
    expect(history.get("b")).toEqual(["passing"]);
    // And where it does not come back, the verdict is only later.
    await directory.write([unsign("b")]);
    await clock.advance(5_000);
    expect(history.get("b")).toEqual(["passing", "critical"]);
  });

  test("losing one's own sign together with another's is no verdict", async () => {
    setUp();
    await directory.write([...node("a"), ...node("b"), sign("b")]);
    liveness("a");
    await clock.advance(20_000);
    await directory.write([unsign("b")]);
    await clock.advanceNow(100);
    await directory.write([unsign("a")]);
    await clock.advance(1_000);
    await directory.write([sign("a", "a-1")]);
    await directory.write([sign("b")]);
    await clock.advance(60_000);
    expect(history.get("b")).toEqual(["passing"]);
  });

  test("the dead are removed after their time, once, by whoever is there, and not when they are back", async () => {
    setUp();
    await directory.write([
      ...node("a"),
      ...node("b"),
      ...node("c"),
      sign("b"),
      sign("c"),
      serviceChange("b", "s", "web"),
    ]);
    const first = liveness("a", { reapAfterMs: 3_600_000 });
    await clock.advance(1_000);
    await directory.write([unsign("b"), unsign("c")]);
    await clock.advance(60_000);
    expect([status("b"), status("c")]).toEqual(["critical", "critical"]);
    await first.stop();
    await clock.advance(1_800_000);
    // Another process knows from the record when it was.
    liveness("a", { reapAfterMs: 3_600_000, life: "a-2" });
    await clock.advance(60_000);
    await directory.write([aliveChange("c", true), sign("c", "2")]);
    expect(directory.view().get("node", "b")).toBeDefined();
    await clock.advance(1_800_000);
    expect(directory.view().get("node", "b")).toBeUndefined();
    expect(directory.view().residents("web")).toEqual([]);
    expect([...directory.view().list("grave")].map(({ why }) => why?.code)).toContain("reaped");
    expect(status("c")).toBe("passing");
  });

  test("two live hosts of one name: the second gives no sign until the first is gone", async () => {
    setUp();
    await directory.write([
      {
        op: "put",
        table: "node",
        key: "a",
        value: { ...(nodeChange("a", "10.0.0.9") as { value: object }).value, id: "other" } as never,
      },
      sign("a", "other-life"),
    ]);
    const lines: string[] = [];
    liveness("a", { log: callbackLog((level, _part, text) => void (level === "error" && lines.push(text))) });
    await clock.advance(60_000);
    expect(lines).toEqual([expect.stringContaining('another live host is called "a" (node ID other at 10.0.0.9)')]);
    expect(directory.view().get("alive", "a")?.life).toBe("other-life");
    await directory.write([unsign("a")]);
    await clock.advance(100);
    expect(directory.view().get("alive", "a")?.life).toBe("a-1");
  });

  test("stopping before starting is nothing, starting twice is once, not ready is no verdict", async () => {
    setUp();
    await createLiveness({
      directory,
      storage: { alive: async () => {} },
      node: "x",
      nodeId: "x",
      life: "x",
      ttlMs: 1_000,
      clock,
      random: systemRandom,
      log: silentLog,
    }).stop();
    directory = testDirectory(clock, false);
    let signs = 0;
    const one = liveness("a", {
      storage: {
        alive: (_node, _life, _ttl, signal) => {
          signs++;
          return new Promise((resolve) => signal.addEventListener("abort", () => resolve(), { once: true }));
        },
      },
    });
    one.start();
    await clock.advance(60_000);
    expect(signs).toBe(0);
    directory.becomeReady();
    await clock.advance(1_000);
    expect(signs).toBe(1);
  });
});
