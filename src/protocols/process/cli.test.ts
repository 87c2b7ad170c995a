// The wrapper on a machine of our own making: what it states when, and what it does where ports cannot be looked at.
import { EventEmitter } from "node:events";
import type { Readable } from "node:stream";
import { PassThrough } from "node:stream";
import { describe, expect, it } from "vitest";
import { eventually } from "../../../test/support/peers.ts";
import { systemClock } from "../../base/clock.ts";
import { InputError, TrilithError } from "../../base/error.ts";
import type { HttpRequest, HttpResponse } from "../../base/http.ts";
import type { ChildProcess, Processes } from "../../base/process.ts";
import { systemRandom } from "../../base/random.ts";
import { type RunFlags, type RunMachine, run } from "./cli.ts";
import type { Line, StatedPort } from "./statement.ts";

const flags: RunFlags = {
  command: ["/usr/bin/thing", "-x"],
  tags: [],
  labels: {},
  ports: [],
  checks: [],
  interval: "10s",
  drain: "0s",
  stopTimeout: "10s",
  agent: { base: "http://agent", shown: "agent" },
};

/** A machine with one child, whose agent keeps what it is told. */
function machine(files: Record<string, string>, links: Record<string, string> = {}, answers = true) {
  const told: Line[] = [];
  const killed: string[] = [];
  let look = (): void => {};
  let signal = (_: NodeJS.Signals): void => {};
  const child = Object.assign(new EventEmitter(), {
    pid: 10,
    kill(name: string) {
      killed.push(name);
      return true;
    },
  });
  const processes = {
    pid: 9,
    start: () => child as unknown as ChildProcess,
    proc: async (path: string) => {
      if (path === "10/net/tcp") look();
      return files[path];
    },
    procList: async (path: string) => (files[path] ?? "").split(" ").filter((word) => word !== ""),
    procLink: async (path: string) => links[path],
    startTime: async () => undefined,
  } as unknown as Processes;
  const request = async (asked: HttpRequest): Promise<HttpResponse> => {
    if (!answers) throw new TrilithError("unavailable", "nobody there");
    const reply = new PassThrough();
    let rest = "";
    (asked.body as Readable).on("data", (chunk: Buffer) => {
      rest += chunk.toString();
      const lines = rest.split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) {
        told.push(JSON.parse(line) as Line);
        reply.write(`${JSON.stringify({ taken: told.at(-1)?.n })}\n`);
      }
    });
    asked.signal?.addEventListener("abort", () => reply.destroy(new Error("over")));
    return { status: 200, statusText: "OK", headers: {}, body: reply, text: async () => "" };
  };
  const made: RunMachine = {
    clock: systemClock,
    random: systemRandom,
    processes,
    http: { request, serve: () => Promise.reject(new Error("not here")), close: async () => {} },
    onSignals(_names, callback) {
      signal = callback;
      return { close() {} };
    },
  };
  const ports = (): readonly StatedPort[] | undefined => {
    const last = told.filter((line) => "state" in line).at(-1);
    return last !== undefined && "state" in last ? last.state.ports : undefined;
  };
  const onLook = (callback: () => void): void => {
    look = () => {
      look = () => {};
      callback();
    };
  };
  return {
    made,
    onLook,
    told,
    killed,
    child,
    files,
    ports,
    signal: (name: NodeJS.Signals) => signal(name),
  };
}

const HEAD = "head\n";
const row = (local: string, inode: number): string => `0: ${local} 00000000:0000 0A x y z 0 0 ${inode} 1\n`;
const linux = (): Record<string, string> => ({
  "self/stat": "9 (node) S 1 9 9 0 -1",
  "9/stat": "9 (node) S 1 9 9 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 50 0",
  "10/stat": "10 (thing) S 9 9 9 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 60 0",
  "10/task": "10",
  "10/task/10/children": "",
  "10/fd": "3",
  "10/net/tcp": HEAD,
});

describe("the wrapper", () => {
  it("states ports as they come, by the program's name, and its end", async () => {
    const m = machine(linux(), { "10/fd/3": "socket:[7]", "10/ns/net": "n" });
    const code = run(flags, { err: () => {} }, m.made);
    await eventually("a first word", () => m.ports()?.length === 0);
    m.files["10/net/tcp"] = HEAD + row("00000000:0050", 7) + row("00000000:0051", 8);
    await eventually("the port", () => m.ports()?.length === 1);
    expect(m.ports()).toEqual([{ protocol: "tcp", port: 80, host: "", name: "thing", first: true }]);
    const first = m.told[0];
    expect(first !== undefined && "state" in first ? first.state : undefined).toMatchObject({
      pid: 10,
      start: 60,
      command: "/usr/bin/thing -x",
    });
    m.child.emit("exit", 3, null);
    expect(await code).toBe(3);
    expect(m.told.at(-1)).toMatchObject({ gone: { died: true, text: "process 10 (thing) exited with code 3" } });
  });

  it("tells how a program ended, not that its sockets were closed a moment before", async () => {
    const m = machine(linux(), { "10/fd/3": "socket:[7]", "10/ns/net": "n" });
    m.files["10/net/tcp"] = HEAD + row("00000000:0050", 7);
    const code = run(flags, { err: () => {} }, m.made);
    await eventually("the port", () => m.ports()?.length === 1);
    m.files["10/net/tcp"] = HEAD;
    // Nothing is seen to listen, and its end is told right after.
    m.onLook(() => setTimeout(() => m.child.emit("exit", 3, null), 20));
    expect(await code).toBe(3);
    expect(m.ports()).toHaveLength(1);
    expect(m.told.at(-1)).toMatchObject({ gone: { died: true, text: "process 10 (thing) exited with code 3" } });
  });

  it("tells that a port is gone from a program that lives on", async () => {
    const m = machine(linux(), { "10/fd/3": "socket:[7]", "10/ns/net": "n" });
    m.files["10/net/tcp"] = HEAD + row("00000000:0050", 7);
    const code = run(flags, { err: () => {} }, m.made);
    await eventually("the port", () => m.ports()?.length === 1);
    m.files["10/net/tcp"] = HEAD;
    await eventually("no port", () => m.ports()?.length === 0);
    m.child.emit("exit", 0, null);
    expect(await code).toBe(0);
  });

  it("drains before the program gets SIGTERM; a second signal ends the wait", async () => {
    const m = machine(linux(), { "10/fd/3": "socket:[7]", "10/ns/net": "n" });
    m.files["10/net/tcp"] = HEAD + row("00000000:0050", 7);
    const code = run({ ...flags, drain: "1h" }, { err: () => {} }, m.made);
    await eventually("the port", () => m.ports()?.length === 1);
    m.signal("SIGTERM");
    await eventually("the drain", () => m.told.some((line) => "state" in line && line.state.draining));
    expect(m.killed).toEqual([]);
    m.signal("SIGTERM");
    await eventually("the signal", () => m.killed.length > 0);
    m.child.emit("exit", null, "SIGTERM");
    expect(await code).toBe(143);
    expect(m.killed).toEqual(["SIGTERM"]);
    expect(m.told.at(-1)).toMatchObject({ gone: { died: false, text: "process 10 (thing) was ended by SIGTERM" } });
  });

  it("says that a program is back which ignores SIGTERM", async () => {
    const m = machine(linux(), { "10/fd/3": "socket:[7]", "10/ns/net": "n" });
    m.files["10/net/tcp"] = HEAD + row("00000000:0050", 7);
    const err: string[] = [];
    const code = run({ ...flags, stopTimeout: "50ms" }, { err: (text) => void err.push(text) }, m.made);
    await eventually("the port", () => m.ports()?.length === 1);
    m.signal("SIGTERM");
    await eventually("the end of the drain", () => err.join().includes("back in answers"));
    expect(m.told.filter((line) => "state" in line).map((line) => "state" in line && line.state.draining)).toEqual(
      expect.arrayContaining([false, true, false]),
    );
    m.child.emit("exit", 0, null);
    expect(await code).toBe(0);
  });

  it("passes a signal on at once where no agent is", async () => {
    const m = machine(linux(), {}, false);
    const err: string[] = [];
    const code = run({ ...flags, drain: "1h" }, { err: (text) => void err.push(text) }, m.made);
    await eventually("the note", () => err.join().includes("no agent answers at agent"));
    m.signal("SIGTERM");
    await eventually("the signal", () => m.killed.length > 0);
    m.child.emit("exit", null, "SIGTERM");
    expect(await code).toBe(143);
  });

  it("tells once that the agent refused, and asks it again", async () => {
    let asked = 0;
    const m = machine(linux(), { "10/fd/3": "socket:[7]", "10/ns/net": "n" });
    const refusing: RunMachine = {
      ...m.made,
      http: {
        ...m.made.http,
        request: async () => {
          asked++;
          const body = new PassThrough();
          body.end('{"error":"http check: url: bad"}\n');
          return { status: 200, statusText: "OK", headers: {}, body, text: async () => "" };
        },
      },
    };
    const err: string[] = [];
    const code = run(flags, { err: (text) => void err.push(text) }, refusing);
    await eventually("a few tries", () => asked === 4);
    expect(err).toEqual(['trilith run: the agent at agent did not register "thing": http check: url: bad\n']);
    m.child.emit("exit", 0, null);
    expect(await code).toBe(0);
  });

  it("takes the user's word for a port that somebody else's process listens on", async () => {
    const m = machine(linux());
    const code = run({ ...flags, ports: ["8080"] }, { err: () => {} }, m.made);
    await eventually("a first word", () => m.ports()?.length === 0);
    m.files["10/net/tcp"] = HEAD + row("0100007F:1F90", 99) + row("00000000:0016", 98);
    await eventually("the port", () => m.ports()?.length === 1);
    expect(m.ports()?.[0]).toMatchObject({ port: 8080, host: "127.0.0.1", name: "thing" });
    m.child.emit("exit", 0, null);
    expect(await code).toBe(0);
  });

  it("needs --port where there is no /proc, and registers it unseen", async () => {
    const m = machine({});
    await expect(run(flags, { err: () => {} }, m.made)).rejects.toThrow("--port: is needed on this system");
    const code = run({ ...flags, ports: ["8080", "9090"] }, { err: () => {} }, m.made);
    await eventually("the ports", () => m.ports()?.length === 2);
    expect(m.ports()?.map(({ name }) => name)).toEqual(["thing", "thing-9090"]);
    m.child.emit("exit", 0, null);
    expect(await code).toBe(0);
  });

  it.each<[Partial<RunFlags>, string]>([
    [{ command: [] }, "a command is missing"],
    [{ name: "a/b" }, "expected a name without slashes"],
    [{ name: "a\nb" }, "and control characters"],
    [{ ports: ["0"] }, "--port"],
    [{ ports: ["http"] }, "--port"],
    [{ interval: "0s" }, "--interval"],
    [{ drain: "soon" }, "--drain"],
    [{ drain: "-1s" }, "--drain"],
    [{ checks: ["nonsense"] }, "--check"],
  ])("refuses %j", async (wrong, text) => {
    const failed = run({ ...flags, ...wrong }, { err: () => {} }, machine(linux()).made);
    await expect(failed).rejects.toThrow(InputError);
    await expect(failed).rejects.toThrow(text);
  });
});
