// Two whole agents on one etcd: what one registers the other finds; one dies, is stopped, is restarted; etcd goes away and comes back.
import { describe, expect, test } from "vitest";
import { systemClock } from "../../src/base/clock.ts";
import { silentLog } from "../../src/base/log.ts";
import { createMetrics } from "../../src/base/metrics.ts";
import { systemRandom } from "../../src/base/random.ts";
import { createDirectory, type LocalDirectory } from "../../src/directory/local.ts";
import { type Check, NODE_ALIVE_CHECK } from "../../src/model/check.ts";
import type { Registration } from "../../src/model/instance.ts";
import { keyOf, scope } from "../../src/model/record.ts";
import { createTrilith, type Trilith } from "../../src/trilith.ts";
import { QUIET } from "../support/agent-process.ts";
import { etcdStorage } from "../support/etcd.ts";
import { etcdAgents } from "../support/etcd-agents.ts";
import { eventually, havePrograms, ownFolder } from "../support/peers.ts";

const here = await havePrograms("etcd", "etcdctl");
const LIVENESS_MS = 3_000;
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
const service = (id: string, name: string, port: number): Registration => ({
  id,
  name,
  tags: [],
  labels: {},
  address: "127.0.0.1",
  port,
  checks: [],
});

describe.skipIf(!here)("two agents on one etcd", () => {
  const etcd = etcdAgents(LIVENESS_MS, { antiEntropyMs: 2_000 });
  const { inside } = etcd;
  async function outside(name: string, livenessMs = LIVENESS_MS) {
    const agent = await etcd.outside(name, livenessMs);
    return {
      ...agent,
      async register(id: string, service: string, at: number) {
        const body = JSON.stringify({ ID: id, Name: service, Port: at, Address: "127.0.0.1" });
        const answer = await fetch(`${agent.url}/v1/agent/service/register`, { method: "PUT", body });
        expect([answer.status, await answer.text()]).toEqual([200, ""]);
      },
    };
  }
  /** Every status that was ever written to the node's check. */
  const transitions = (name: string): string[] =>
    etcd.witness.changes
      .filter(({ table, key }) => table === "check" && key === keyOf.check(name, NODE_ALIVE_CHECK))
      .map(({ value }) => (value as Check | undefined)?.status ?? "gone");
  const routable = (agent: Trilith, name: string): number =>
    agent.lookup.resolveNow({ service: name }).endpoints.length;
  const status = (name: string): string | undefined =>
    (etcd.witness.value("check", keyOf.check(name, NODE_ALIVE_CHECK)) as Check | undefined)?.status;

  test("two directories see each other's writes, each in order and none missing", async () => {
    const directories: LocalDirectory[] = [];
    for (let i = 0; i < 2; i++) {
      const directory = createDirectory(await etcdStorage([etcd.node.endpoint], { prefix: etcd.prefix }), {
        clock: systemClock,
        random: systemRandom,
        log: silentLog,
        metrics: createMetrics(),
      });
      await directory.start();
      etcd.ends.push(() => directory.stop());
      await directory.ready();
      directories.push(directory);
    }
    const [a, b] = directories as [LocalDirectory, LocalDirectory];
    const COUNT = 60;
    const write = async (directory: LocalDirectory, key: string): Promise<void> => {
      for (let i = 1; i <= COUNT; i++) {
        const value = { key, value: Buffer.from(String(i)), flags: 0n, lockIndex: 0 };
        expect((await directory.write([{ op: "put", table: "kv", key, value }])).result).toBe("written");
        // What is acknowledged to the writer is in its view, and in the other's after a barrier.
        expect(Number(directory.view().get("kv", key)?.flags)).toBe(0);
        if (i % 10 === 0) {
          const other = directory === a ? b : a;
          await other.barrier();
          expect(Number(Buffer.from(other.view().get("kv", key)?.value ?? []).toString())).toBeGreaterThanOrEqual(i);
        }
      }
    };
    const read = async (directory: LocalDirectory, key: string): Promise<number[]> => {
      const seen: number[] = [];
      for (let after = directory.view().at(scope.kv(key)); seen.at(-1) !== COUNT; ) {
        after = await directory.changed(scope.kv(key), after, AbortSignal.timeout(30_000));
        const entry = directory.view().get("kv", key);
        if (entry !== undefined) seen.push(Number(Buffer.from(entry.value).toString()));
      }
      return seen;
    };
    const [ofA, ofB] = await Promise.all([read(b, "a"), read(a, "b"), write(a, "a"), write(b, "b")]);
    for (const seen of [ofA, ofB]) {
      expect(seen).toEqual([...new Set(seen)].sort((x, y) => x - y));
      expect(seen.at(-1)).toBe(COUNT);
    }
    const values = (): Uint8Array[] =>
      etcd.witness.changes.filter(({ key }) => key === "a").map(({ value }) => (value as { value: Uint8Array }).value);
    // The witness hears of it in its own time.
    await eventually("witnessed", () => values().length >= COUNT);
    expect(values().map((value) => Number(Buffer.from(value).toString()))).toEqual(
      Array.from({ length: COUNT }, (_, i) => i + 1),
    );
  });

  test("services and keys of one are found at the other", { timeout: 120_000 }, async () => {
    const a = await inside("a");
    const b = await outside("b");
    await b.register("web-b", "web", 8001);
    await a.agent.register("api", service("web-a", "web", 8002));
    await eventually("both at a", () => routable(a, "web") === 2);
    const atB = await eventually("both at b", async () => {
      const found = (await (await fetch(`${b.url}/v1/health/service/web?passing`)).json()) as {
        Service: { ID: string };
      }[];
      return found.length === 2 && found;
    });
    expect(atB.map(({ Service }) => Service.ID).sort()).toEqual(["web-a", "web-b"]);
    expect(await (await fetch(`${b.url}/v1/kv/k`, { method: "PUT", body: "from b" })).text()).toBe("true");
    await a.directory.barrier();
    expect(Buffer.from(a.kv.get("k")?.value ?? []).toString()).toBe("from b");
    expect(await a.kv.set("k", Buffer.from("from a"))).toBe(true);
    expect(await (await fetch(`${b.url}/v1/kv/k?raw&consistent`)).text()).toBe("from a");
  });

  test("one is killed: out of answers, critical once; it returns: passing once, with its services", {
    timeout: 120_000,
  }, async () => {
    const a = await inside("a");
    const b = await outside("b");
    await b.register("only-b", "only", 8001);
    await eventually("found", () => routable(a, "only") === 1);
    await b.stop("SIGKILL");
    await etcd.witness.until("critical", () => status("b") === "critical");
    await eventually("out of answers", () => routable(a, "only") === 0);
    expect(a.directory.view().get("check", keyOf.check("b", NODE_ALIVE_CHECK))).toMatchObject({
      output: "Agent not live or unreachable",
      origin: { source: "liveness" },
    });
    expect(a.directory.view().residents("only")).toHaveLength(1);
    await b.start();
    await etcd.witness.until("passing", () => status("b") === "passing");
    await eventually("in answers again", () => routable(a, "only") === 1);
    await pause(LIVENESS_MS * 2);
    expect(transitions("b")).toEqual(["passing", "critical", "passing"]);
    expect(transitions("a")).toEqual(["passing"]);
  });

  test("one stands still for longer than its sign of life lasts, and goes on", { timeout: 120_000 }, async () => {
    const a = await inside("a");
    const b = await outside("b");
    await b.register("only-b", "only", 8001);
    await eventually("found", () => routable(a, "only") === 1);
    b.signal("SIGSTOP");
    await etcd.witness.until("critical", () => status("b") === "critical");
    b.signal("SIGCONT");
    await etcd.witness.until("passing", () => status("b") === "passing");
    await eventually("in answers again", () => routable(a, "only") === 1);
    await pause(LIVENESS_MS * 2);
    expect(transitions("b")).toEqual(["passing", "critical", "passing"]);
    expect(transitions("a")).toEqual(["passing"]);
  });

  test("an upgrade within the time is seen by nobody", { timeout: 120_000 }, async () => {
    // The start from sources takes seconds on a busy machine.
    const livenessMs = 4 * LIVENESS_MS;
    const a = await inside("a");
    const b = await outside("b", livenessMs);
    await b.register("only-b", "only", 8001);
    await eventually("found", () => routable(a, "only") === 1);
    // The witness may hear of it later than "a" does.
    await eventually("witnessed", () =>
      etcd.witness.changes.some(({ table, key }) => table === "service" && key.includes("only-b")),
    );
    const before = etcd.witness.changes.length;
    await b.stop("SIGTERM");
    await b.start();
    await pause(livenessMs + LIVENESS_MS);
    expect(transitions("b")).toEqual(["passing"]);
    expect(routable(a, "only")).toBe(1);
    // Nothing but its new sign of life was written, and perhaps how far the two are from each other, which they measure from time to time.
    const written = etcd.witness.changes.slice(before).filter(({ key }) => !key.startsWith("consul.coordinate"));
    expect(written.map(({ table }) => table)).toEqual(["alive"]);
  });

  test("an agent whose port is taken tells nobody of itself", { timeout: 60_000 }, async () => {
    const a = await inside("a");
    await eventually("known", () => etcd.witness.changes.some(({ table, key }) => table === "alive" && key === "a"));
    const { port } = new URL((await outside("b")).url);
    const folder = await ownFolder("port-taken");
    etcd.ends.push(() => folder.remove());
    const c = createTrilith({
      ...{ node: "c", storage: "etcd", dataDir: folder.path, httpPort: Number(port), advertiseAddress: "127.0.0.1" },
      ...{ protocols: QUIET, etcd: { endpoints: [etcd.node.endpoint], prefix: etcd.prefix, livenessMs: LIVENESS_MS } },
    });
    await expect(c.start()).rejects.toMatchObject({ code: "address-in-use" });
    // What was written before this is with the witness before it, too.
    await a.agent.register("api", service("last", "last", 8001));
    await eventually("the last", () => etcd.witness.changes.some(({ key }) => key.includes("last")));
    expect(etcd.witness.changes.filter(({ key }) => /^c(\W|$)/.test(key))).toEqual([]);
    expect(etcd.witness.changes.filter(({ key }) => /^b(\W|$)/.test(key))).not.toEqual([]);
  });

  test("etcd away: registering answers, lookups go on, and all is made up for when it is back", {
    timeout: 120_000,
  }, async () => {
    const a = await inside("a");
    const b = await outside("b");
    await b.register("before", "before", 8001);
    await eventually("found", () => routable(a, "before") === 1);
    await etcd.node.stop();
    await eventually("noticed", () => !a.directory.view().fresh);
    await a.agent.register("api", service("during-a", "during", 8002));
    await b.register("during-b", "during", 8003);
    expect(a.lookup.resolveNow({ service: "before" })).toMatchObject({ fresh: false, endpoints: { length: 1 } });
    const passing = await fetch(`${b.url}/v1/health/service/before?passing&stale`);
    expect([passing.status, ((await passing.json()) as unknown[]).length]).toEqual([200, 1]);
    await expect(a.kv.set("k", Buffer.from("v"))).rejects.toMatchObject({ code: "unavailable" });
    // Longer than signs of life last.
    await pause(LIVENESS_MS * 2);
    await etcd.node.start();
    await eventually("caught up", () => a.directory.view().fresh && routable(a, "during") === 2);
    expect(await a.kv.set("k", Buffer.from("v"))).toBe(true);
    await pause(LIVENESS_MS * 2);
    expect(transitions("a")).toEqual(["passing"]);
    expect(transitions("b")).toEqual(["passing"]);
  });

  test("etcd stands still until all signs of life have run out: nobody is declared dead for it", {
    timeout: 120_000,
  }, async () => {
    const a = await inside("a");
    const b = await outside("b");
    await b.register("only-b", "only", 8001);
    await eventually("found", () => routable(a, "only") === 1);
    etcd.node.pause();
    await pause(LIVENESS_MS * 2.5);
    etcd.node.resume();
    await eventually("followed again", () => a.directory.view().fresh);
    await pause(LIVENESS_MS * 3);
    expect(transitions("a")).toEqual(["passing"]);
    expect(transitions("b")).toEqual(["passing"]);
    expect(routable(a, "only")).toBe(1);
  });
});
