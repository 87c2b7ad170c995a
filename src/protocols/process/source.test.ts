// The agent's side of `trilith run`: wrappers that come, state, fall silent and come back; over real HTTP, with processes of our own making.
import { PassThrough } from "node:stream";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { eventually } from "../../../test/support/peers.ts";
import { systemClock } from "../../base/clock.ts";
import { TrilithError } from "../../base/error.ts";
import { createHttp, type IncomingMessage, type ServerResponse } from "../../base/http.ts";
import { silentLog } from "../../base/log.ts";
import type { Listening } from "../../base/net.ts";
import type { HeldService } from "../../contracts/agent.ts";
import type { SourceList } from "../../contracts/source.ts";
import { createProcessSource, type ProcessMachine, type ProcessSource } from "./source.ts";
import type { Statement } from "./statement.ts";

const http = createHttp();
let source: ProcessSource;
let server: Listening;
let lists: SourceList[];
let stop: () => Promise<void>;
let alive: Map<number, number>;
let reports: string[];
/** By how much the clock is ahead; and held back: the agent does not take a list over before this resolves. */
let late = 0;
let adopting: Promise<void> | undefined;
/** Held back: nobody knows of a process whether it lives before this resolves. */
let looking: Promise<void> | undefined;

async function start(
  held: readonly HeldService[] = [],
  environ?: NonNullable<ProcessMachine["environ"]>,
): Promise<void> {
  const controller = new AbortController();
  source = createProcessSource({
    clock: { ...systemClock, monotonic: () => systemClock.monotonic() + late },
    log: silentLog,
    processes: {
      exists: (pid) => alive.has(pid),
      proc: async (path) => {
        await looking;
        const startTicks = alive.get(Number(path.split("/")[0]));
        return startTicks === undefined ? undefined : `1 (x) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 ${startTicks} 0`;
      },
    },
    agent: {
      services: () => new Map(held.map((service) => [service.instance.id, service])),
      report: async (check, { status }) => {
        if (check === "unknown") throw new TrilithError("not-found", "no such check");
        reports.push(`${check} ${status}`);
      },
    },
    parse: (kind, detail) => {
      if (detail["url"] === "bad") throw new TrilithError("invalid", "http check: url: bad");
      return { kind, detail };
    },
    ...(environ === undefined ? {} : { environ }),
  });
  lists = [];
  const listen = async (): Promise<void> => {
    for await (const list of source.watch(controller.signal)) {
      lists.push(list);
      await adopting;
    }
  };
  const done = (async () => {
    // What the agent cannot take over is told once more.
    while (!controller.signal.aborted)
      await listen().catch(() => {
        adopting = undefined;
      });
  })();
  server = await http.serve({ host: "127.0.0.1", port: 0 }, source.handle);
  stop = async () => {
    controller.abort();
    await done;
    await server.close();
  };
}

beforeEach(() => {
  late = 0;
  alive = new Map();
  reports = [];
  adopting = undefined;
  looking = undefined;
});
afterEach(async () => {
  await stop();
});

/** A host on which no process says anything. */
const nobody: NonNullable<ProcessMachine["environ"]> = {
  table: {
    here: () => true,
    pulse: () => ({ pids: "", sockets: "" }),
    pids: async () => [],
    stat: () => undefined,
    environ: async () => undefined,
    network: () => undefined,
    sockets: async () => undefined,
    table: async () => "",
  },
  checks: { scripts: false, probes: new Map(), nodeAddress: "" },
  self: 99,
};

const statement = (pid: number, ports: readonly number[], more: Partial<Statement> = {}): Statement => ({
  pid,
  start: pid * 100,
  part: "",
  name: `p${pid}`,
  command: "x",
  tags: [],
  labels: {},
  ports: ports.map((port, i) => ({
    protocol: "tcp",
    port,
    host: "",
    name: `p${pid}${i === 0 ? "" : `-${port}`}`,
    first: i === 0,
  })),
  checks: [],
  draining: false,
  ...more,
});

/** A wrapper: lines in, replies out. */
async function wrapper(): Promise<{ send(line: object): void; replies: string[]; cut(): void; ended: Promise<void> }> {
  const body = new PassThrough();
  // The head goes out with the first bytes.
  body.write("\n");
  const replies: string[] = [];
  const over = new AbortController();
  const response = await http.request({
    url: `http://127.0.0.1:${server.port}/`,
    method: "POST",
    headers: { "content-type": "application/x-ndjson" },
    body,
    bodyTimeoutMs: 0,
    signal: over.signal,
  });
  expect(response.status).toBe(200);
  const ended = (async () => {
    try {
      let rest = "";
      for await (const chunk of response.body) {
        rest += String(chunk);
        const lines = rest.split("\n");
        rest = lines.pop() ?? "";
        replies.push(...lines);
      }
    } catch {
      // Cut off.
    }
  })();
  return { send: (line) => void body.write(`${JSON.stringify(line)}\n`), replies, cut: () => over.abort(), ended };
}

const ids = (): string[] => (lists.at(-1)?.list ?? []).map(({ id }) => id).sort();
const until = (what: string, ask: () => boolean): Promise<boolean> => eventually(what, ask, 10_000);

describe("wrappers", () => {
  it("make up the list together, and are told when the agent has it", async () => {
    await start();
    const one = await wrapper();
    alive.set(1, 100).set(2, 200);
    let adopt = (): void => {};
    adopting = new Promise((resolve) => {
      adopt = resolve;
    });
    one.send({ n: 1, state: statement(1, [80, 81]) });
    await until("the list", () => ids().length === 2);
    expect(one.replies).toEqual([]);
    adopt();
    await until("the acknowledgement", () => one.replies.length === 1);
    expect(one.replies).toEqual(['{"taken":1}']);
    const two = await wrapper();
    two.send({ n: 7, state: statement(2, [90]) });
    await until("both", () => ids().length === 3);
    expect(ids()).toEqual(["p1:1:80", "p1:1:81", "p2:2:90"]);
    expect(source.state().text).toBe("2 programs under `trilith run`");
    const count = lists.length;
    one.send({ n: 2, state: statement(1, [80, 81]) });
    await until("the repetition's acknowledgement", () => one.replies.includes('{"taken":2}'));
    expect(lists.length).toBe(count);
    one.send({ n: 3, state: statement(1, [81], { draining: true }) });
    await until("the change", () => ids().length === 2);
    expect(lists.at(-1)?.gone?.get("p1:1:80")).toMatchObject({ code: "stopped", confirmed: true });
    expect(lists.at(-1)?.list[0]?.draining).toBe(true);
  });

  it("say that their program ended, and why", async () => {
    await start();
    const one = await wrapper();
    one.send({ n: 1, state: statement(1, [80]) });
    await until("the list", () => ids().length === 1);
    one.send({ n: 2, gone: { died: true, text: "process 1 exited with code 3" } });
    await until("the acknowledgement", () => one.replies.includes('{"taken":2}'));
    expect(ids()).toEqual([]);
    expect(lists.at(-1)?.gone?.get("p1:1:80")).toMatchObject({ code: "died", text: "process 1 exited with code 3" });
  });

  it("fall silent: a dead process goes at once, a living one stays until it is gone", async () => {
    await start();
    alive.set(2, 200);
    const one = await wrapper();
    const two = await wrapper();
    one.send({ n: 1, state: statement(1, [80]) });
    two.send({ n: 1, state: statement(2, [90]) });
    await until("both", () => ids().length === 2);
    one.cut();
    two.cut();
    await until("the dead one gone", () => ids().join() === "p2:2:90");
    expect(source.state().text).toBe("1 program under `trilith run`, 1 without a wrapper");
    // Somebody else got the number.
    alive.set(2, 201);
    await until("the other gone", () => ids().length === 0);
    expect(lists.at(-1)?.gone?.get("p2:2:90")?.text).toBe("process 2 is gone, and so is its wrapper");
  });

  it("that went away while their program was to stop leave it in answers if it still runs later", async () => {
    await start();
    alive.set(1, 100);
    const one = await wrapper();
    one.send({ n: 1, state: statement(1, [80], { draining: true }) });
    await until("the list", () => lists.at(-1)?.list[0]?.draining === true);
    one.cut();
    await until("away", () => source.state().text.includes("without a wrapper"));
    late = 9000;
    await new Promise((resolve) => setTimeout(resolve, 600));
    expect(lists.at(-1)?.list[0]?.draining).toBe(true);
    late = 11_000;
    await until("the end of the drain", () => lists.at(-1)?.list[0]?.draining === undefined);
    expect(ids()).toEqual(["p1:1:80"]);
  });

  it("that come back while their program is looked at still say that it is to stop", async () => {
    await start();
    alive.set(1, 100);
    const state = statement(1, [80], { draining: true });
    const one = await wrapper();
    one.send({ n: 1, state });
    await until("the list", () => lists.at(-1)?.list[0]?.draining === true);
    one.cut();
    await until("away", () => source.state().text.includes("without a wrapper"));
    let look = (): void => {};
    looking = new Promise((resolve) => {
      look = resolve;
    });
    late = 11_000;
    await new Promise((resolve) => setTimeout(resolve, 700));
    const two = await wrapper();
    two.send({ n: 2, state });
    await until("back", () => source.state().text === "1 program under `trilith run`");
    look();
    await until("the reply", () => two.replies.length === 1);
    expect(lists.at(-1)?.list[0]?.draining).toBe(true);
  });

  it("come back to what stayed, and nothing changes", async () => {
    await start();
    alive.set(1, 100);
    const one = await wrapper();
    one.send({ n: 1, state: statement(1, [80]) });
    await until("the list", () => ids().length === 1);
    const count = lists.length;
    one.cut();
    await until("away", () => source.state().text.includes("without a wrapper"));
    const again = await wrapper();
    again.send({ n: 1, state: statement(1, [80]) });
    await until("back", () => again.replies.length === 1);
    expect(lists.slice(count).every((list) => list.list.length === 1)).toBe(true);
    alive.delete(1);
    // While a wrapper speaks for it, its word counts.
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(ids()).toEqual(["p1:1:80"]);
  });

  it("push results of checks, also for checks that are not there yet", async () => {
    await start();
    const one = await wrapper();
    one.send({ n: 1, report: { check: "unknown", status: "passing", output: "" } });
    one.send({ n: 2, report: { check: "c", status: "warning", output: "" } });
    await until("the report", () => reports.length === 1);
    expect(reports).toEqual(["c warning"]);
  });
});

describe("refusals", () => {
  it.each<[string, object, string]>([
    ["what is no statement", { n: 1, state: { pid: 0 } }, "pid: 0: expected a process ID"],
    [
      "a check that its probe refuses",
      {
        n: 1,
        state: statement(1, [80], {
          checks: [{ kind: "http", detail: { url: "bad" }, intervalMs: 1, ttlMs: 0, id: "", name: "" }],
        }),
      },
      "http check: url: bad",
    ],
  ])("of %s end the stream with the reason", async (_, line, text) => {
    await start();
    const one = await wrapper();
    one.send(line);
    await one.ended;
    expect(one.replies).toEqual([JSON.stringify({ error: text })]);
    expect(ids()).toEqual([]);
  });

  it("of lines without end", async () => {
    await start();
    const one = await wrapper();
    one.send({ n: 1, state: statement(1, [80], { command: "x".repeat(1_100_000) }) });
    await one.ended;
    expect(one.replies[0]).toContain("a line is longer than");
  });

  it("of other methods and types", async () => {
    await start();
    const url = `http://127.0.0.1:${server.port}/`;
    const get = await http.request({ url });
    expect([get.status, get.headers["allow"], await get.text()]).toEqual([405, "POST", "method GET not allowed\n"]);
    const post = await http.request({ url, method: "POST", headers: { "content-type": "text/plain" }, body: "{}" });
    expect([post.status, await post.text()]).toEqual([
      415,
      "expected lines of JSON with the content type application/x-ndjson\n",
    ]);
  });

  it("of peers that are not on this host", async () => {
    await start();
    for (const [remoteAddress, wanted] of [
      ["192.0.2.1", 403],
      ["::ffff:192.0.2.1", 403],
      ["2001:db8::1", 403],
      ["::ffff:127.0.0.1", 405],
      ["::1", 405],
      [undefined, 405],
    ] as const) {
      let status = 0;
      await source.handle(
        { socket: { remoteAddress }, method: "GET", headers: {} } as unknown as IncomingMessage,
        {
          writeHead: (code: number) => {
            status = code;
          },
          end() {},
        } as unknown as ServerResponse,
      );
      expect([remoteAddress, status]).toEqual([remoteAddress, wanted]);
    }
  });
});

describe("the list", () => {
  it("is told anew where the agent could not take it over, also while processes are looked at", async () => {
    adopting = Promise.reject(new Error("no space left on device"));
    adopting.catch(() => {});
    await start([], nobody);
    await until("the list once more", () => lists.length === 2);
    alive.set(1, 100);
    const one = await wrapper();
    one.send({ n: 1, state: statement(1, [80]) });
    await until("the list", () => ids().length === 1);
    await until("the reply", () => one.replies.length === 1);
  });
});

describe("a restart of the agent", () => {
  const held = (pid: number, source = "process"): HeldService =>
    ({
      instance: {
        id: `p${pid}:${pid}:80`,
        name: `p${pid}`,
        tags: ["t"],
        labels: {},
        address: "",
        port: 80,
        node: "n",
        origin: { source, authority: "first-hand", foreignId: `${pid}:${pid * 100}:80/tcp`, text: "process" },
      },
      checks: [],
    }) as HeldService;

  it("keeps a wrapper that comes back while its process is looked for", async () => {
    alive.set(1, 100).set(2, 200);
    let look = (): void => {};
    looking = new Promise((resolve) => {
      look = resolve;
    });
    await start([held(1), held(2)]);
    const one = await wrapper();
    one.send({ n: 1, state: statement(1, [80]) });
    await until("it is there", () => source.state().text === "1 program under `trilith run`");
    look();
    await until("the first list", () => ids().length === 2);
    expect(source.state().text).toBe("2 programs under `trilith run`, 1 without a wrapper");
  });

  it("that is followed by a stop at once does not hold it up, though processes are still to be looked at", async () => {
    let look = (): void => {};
    looking = new Promise((resolve) => {
      look = resolve;
    });
    await start([held(1)], nobody);
    const began = systemClock.monotonic();
    const stopping = stop();
    stop = async () => {};
    look();
    await stopping;
    expect(systemClock.monotonic() - began).toBeLessThan(1500);
  });

  it("keeps what lives and drops what died, from the first list on", async () => {
    alive.set(1, 100);
    await start([held(1), held(2), held(3, "api")]);
    await until("the first list", () => lists.length > 0);
    expect(lists[0]?.list).toEqual([
      {
        id: "p1:1:80",
        name: "p1",
        tags: ["t"],
        labels: {},
        address: "",
        port: 80,
        checks: [],
        foreignId: "1:100:80/tcp",
        text: "process",
      },
    ]);
    expect(lists[0]?.gone?.get("p2:2:80")?.text).toBe("process 2 ended while no agent was running");
    alive.delete(1);
    await until("the living one gone", () => ids().length === 0);
  });
});
