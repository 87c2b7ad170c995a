// The scanner on a table of processes of our own making: what it may not read, what hangs, and what it leaves alone while nothing happens.
import { describe, expect, it } from "vitest";
import { startAgent } from "../../../test/support/ground.ts";
import { eventually } from "../../../test/support/peers.ts";
import { systemClock } from "../../base/clock.ts";
import { silentLog } from "../../base/log.ts";
import { systemProcesses } from "../../base/process.ts";
import { type ProcessTable, systemProcessTable } from "../../base/process-table.ts";
import { Shortage } from "../../base/shortage.ts";
import { Scanner } from "./scanner.ts";
import { processes } from "./setup.ts";

const LISTENS =
  "head\n 0: 00000000:0050 00000000:0000 0A x y z 0 0 7 1\n 1: 00000000:0016 00000000:0000 0A x y z 0 0 8 1\n" +
  " 2: 00000000:0017 00000000:0000 0A x y z 0 0 9 1\n" +
  " 3: 00000000:0018 00000000:0000 0A x y z 0 0 10 1\n";
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

/** A host with these processes; `count` tells how often what was asked. */
function host(environs: Map<number, Uint8Array | "denied" | Promise<never>>) {
  const count = { pids: 0, environ: 0, table: 0 };
  const state = { pids: "1", sockets: "1", program: "a", short: false };
  const look = (): void => {
    if (state.short) throw new Shortage("no descriptors are left", new Error("EMFILE"));
  };
  const table: ProcessTable = {
    here: () => true,
    pulse: () => ({ pids: state.pids, sockets: state.sockets }),
    async pids() {
      look();
      count.pids++;
      return [...environs.keys()];
    },
    stat(pid) {
      look();
      return environs.has(pid)
        ? { name: `p${pid}`, startTicks: pid, program: state.program, kernel: pid === 2 }
        : undefined;
    },
    async environ(pid) {
      count.environ++;
      return (await environs.get(pid)) as Uint8Array | "denied" | undefined;
    },
    network: (pid) => (pid === 15 ? "net:[2]" : pid === 16 ? undefined : "net:[1]"),
    sockets: async (pid) => new Set(pid === 10 ? ["7"] : pid === 12 ? ["9"] : pid === 14 ? ["10"] : []),
    async table(name) {
      count.table++;
      return name === "tcp" ? LISTENS : "";
    },
  };
  const stop = new AbortController();
  const scanner = new Scanner(
    {
      clock: systemClock,
      log: silentLog,
      processes: { proc: async () => undefined, exists: (pid) => environs.has(pid) },
      table,
      self: 99,
      checks: { scripts: false, probes: new Map(), nodeAddress: "" },
    },
    new Map(),
  );
  let changes = 0;
  const over = scanner.run(stop.signal, () => void changes++);
  return {
    ...{ scanner, count, state },
    changes: () => changes,
    names: () => scanner.services.found.map(({ registration }) => registration.name),
    async stop() {
      stop.abort(new Error("over"));
      await over;
    },
  };
}

describe("the scanner", () => {
  it("reads nothing again while nothing happens, and says once what is there", async () => {
    const one = host(
      new Map([
        [2, bytes("SERVICE_NAME=kernel")],
        [10, bytes("SERVICE_NAME=web\0")],
        [99, bytes("SERVICE_NAME=own\0")],
      ]),
    );
    await eventually("it looked", () => one.names().length > 0);
    expect(one.names()).toEqual(["web"]);
    // Somebody listens who says nothing, so that all are looked at once more; nothing is read for that.
    await eventually("it looked twice", () => one.count.pids === 2);
    const before = { ...one.count };
    expect(before).toEqual({ pids: 2, environ: 1, table: 4 });
    await new Promise((resolve) => setTimeout(resolve, 700));
    expect(one.count).toEqual(before);
    expect(one.changes()).toBe(1);
    await one.stop();
    expect(one.scanner.text()).toBe("1 process says SERVICE_NAME");
  });

  it("reads an environment again when the process executes something else", async () => {
    const environs = new Map([[10, bytes("SERVICE_NAME=web\0")]]);
    const one = host(environs);
    await eventually("it looked", () => one.names().includes("web"));
    environs.set(10, bytes("SERVICE_NAME=other\0"));
    one.state.program = "b";
    await eventually("the other one", () => one.names().join() === "other");
    environs.delete(10);
    await eventually("none", () => one.names().length === 0);
    await one.stop();
  });

  it("takes nobody for gone while it cannot look for want of descriptors, and looks again when it can", async () => {
    const environs = new Map([[10, bytes("SERVICE_NAME=web\0")]]);
    const one = host(environs);
    await eventually("it looked", () => one.names().includes("web"));
    one.state.short = true;
    one.state.pids = "2";
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(one.names()).toEqual(["web"]);
    expect(one.changes()).toBe(1);
    // Who has ended is gone all the same: that much can be asked.
    environs.set(12, bytes("SERVICE_NAME=db\0"));
    environs.delete(10);
    await eventually("it is gone", () => one.names().length === 0);
    // The next look breaks off where it has seen that there is somebody new.
    await new Promise((resolve) => setTimeout(resolve, 500));
    one.state.short = false;
    await eventually("the new one", () => one.names().join() === "db");
    await one.stop();
  });

  it("says which ports may belong to whom it may not look at, and what would allow it", async () => {
    const one = host(
      new Map<number, Uint8Array | "denied">([
        [10, bytes("SERVICE_NAME=web\0")],
        [11, "denied"],
        [12, bytes("\0\0\0")],
        // It listens on nothing here.
        [13, bytes("\0\0\0")],
        // Its port is its own, and nobody else's.
        [14, bytes("PATH=/bin\0")],
      ]),
    );
    await eventually("it looked", () => one.names().length > 0);
    expect(one.scanner.text()).toBe(
      "1 process says SERVICE_NAME; p12 (port 23) wrote over its environment, so that nobody can read it: use trilith run, or trilith announce --pid; " +
        "1 process of others may not be looked at (perhaps behind port 22): run the agent with their rights, " +
        "as root or with the capabilities CAP_SYS_PTRACE and CAP_DAC_READ_SEARCH",
    );
    await one.stop();
  });

  it("tells of those in other network namespaces, of whose ports it knows nothing, apart", async () => {
    const one = host(
      new Map([
        [10, bytes("SERVICE_NAME=web\0")],
        [15, bytes("SERVICE_NAME=far\0")],
        [16, bytes("SERVICE_NAME=unknown\0")],
      ]),
    );
    await eventually("it looked", () => one.names().length > 0);
    expect(one.scanner.text()).toBe(
      "2 processes say SERVICE_NAME; 1 more does so in other network namespaces, whose ports are not seen here: trilith announce registers them, or an agent there",
    );
    expect(one.names()).toEqual(["web"]);
    await one.stop();
  });

  it("does not wait for a process that hangs in the kernel", async () => {
    const one = host(
      new Map<number, Uint8Array | Promise<never>>([
        [5, new Promise<never>(() => {})],
        [10, bytes("SERVICE_NAME=web\0")],
      ]),
    );
    await eventually("the other one", () => one.names().includes("web"));
    await one.stop();
  });

  it("is not there where the system has no /proc, which is said", async () => {
    const table = { ...systemProcessTable, here: () => false };
    const agent = await startAgent({ protocols: { process: {} } }, { processes: { ...systemProcesses, table } });
    expect(agent.trilith.sources().find(({ name }) => name === "process")).toMatchObject({
      ok: true,
      text: expect.stringMatching(/^processes with SERVICE_NAME are not looked for: not available here/),
    });
    await agent.stop();
  });

  it.each([
    [{ environ: "yes" }, /process.environ: expected true or false, found "yes"/],
    [{ enviorn: true }, /process.enviorn: unknown key; there is environ/],
    ["on", /process: expected true, false or/],
  ])("is configured by true, false and environ, not by %j", (raw, text) => {
    expect(() => processes.configure(raw)).toThrow(text);
  });
});
