// What the service manager is told, by whom, and what is said where it cannot be told or does not listen.
import { describe, expect, test } from "vitest";
import { silentLog } from "./log.ts";
import { serviceManager } from "./notify.ts";
import type { Finished } from "./process.ts";

const said = (output = "", exitCode = 0): Finished => ({
  exitCode,
  signal: null,
  output: Buffer.from(output),
  totalBytes: output.length,
});

/** A manager over programs that only write down how they were called. */
function managed(
  options: {
    readonly run?: (words: readonly string[], signal: AbortSignal | undefined) => Promise<Finished>;
    readonly proc?: Readonly<Record<string, string>>;
    readonly env?: Readonly<Record<string, string>>;
    readonly socket?: string;
  } = {},
) {
  const { run, proc = {}, env = {}, socket = "@x" } = options;
  const ran: string[] = [];
  const warnings: string[] = [];
  const timers: (() => void)[] = [];
  const environment: Record<string, string | undefined> = { NOTIFY_SOCKET: socket, PATH: "/bin" };
  const manager = serviceManager({
    processes: {
      pid: 77,
      env: (name) => env[name],
      proc: async (path) => proc[path],
      async run(words, { env: given, signal }) {
        ran.push([...(given === undefined ? [] : [JSON.stringify(given)]), ...words].join(" "));
        return run === undefined ? said() : await run(words, signal);
      },
    },
    clock: {
      after(_, callback) {
        timers.push(callback);
        return { cancel: () => timers.splice(timers.indexOf(callback), 1) };
      },
    },
    log: { ...silentLog, part: () => ({ ...silentLog, warn: (text) => warnings.push(text) }) },
    environment,
    monotonicUsec: () => 123n,
  });
  const settled = async (): Promise<void> => {
    for (let i = 0; i < 30; i++) await Promise.resolve();
  };
  return { manager, ran, warnings, timers, environment, settled };
}

const NOTIFY = '{"NOTIFY_SOCKET":"@x"} systemd-notify';
/** Without CAP_SYS_ADMIN, in a unit of the system's. */
const SOMEBODY = {
  "self/status": "Name:\tnode\nCapEff:\t0000000000000400\n",
  "self/cgroup": "0::/system.slice/consul.service\n",
};

describe("the service manager", () => {
  test("is told of the start, a reload and the end, in this order, each when the one before was heard", async () => {
    const { manager, ran, warnings, environment, settled } = managed();
    expect(environment).toEqual({ PATH: "/bin" });
    manager?.status("waiting for\nsomebody");
    manager?.ready("node a");
    await settled();
    manager?.reloading();
    manager?.reloading();
    manager?.ready("node b");
    manager?.ready("node c");
    await settled();
    manager?.stopping();
    manager?.ready("never");
    await settled();
    expect(ran).toEqual([
      `${NOTIFY} --status=waiting for somebody`,
      `${NOTIFY} --pid=77 --ready --status=node a`,
      `${NOTIFY} --status=reading files again RELOADING=1 MONOTONIC_USEC=123`,
      `${NOTIFY} --status=reading files again RELOADING=1 MONOTONIC_USEC=123`,
      `${NOTIFY} --pid=77 --ready --status=node c`,
      `${NOTIFY} STOPPING=1 --status=stopping`,
    ]);
    expect(warnings).toEqual([]);
  });

  test("is not there without NOTIFY_SOCKET", () => {
    expect(managed({ socket: "" }).manager).toBeUndefined();
  });

  test("gets no number of a process of a container", async () => {
    const { manager, ran, settled } = managed({ env: { container: "podman" } });
    manager?.ready("a");
    await settled();
    expect(ran).toEqual([`${NOTIFY} --ready --status=a`]);
  });

  test.each([
    [
      async () => Promise.reject(Object.assign(new Error("spawn"), { code: "ENOENT" })),
      "systemd-notify is not on the PATH",
    ],
    [async () => said("Failed to notify init system: Connection refused\n", 1), "Connection refused"],
    [async () => said("", 3), "systemd-notify exited with 3"],
  ])("why it cannot be told is logged once", async (run, why) => {
    const { manager, warnings, settled } = managed({ run });
    manager?.ready("a");
    manager?.status("b");
    await settled();
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toContain(why);
  });

  const hanging = (_: readonly string[], signal: AbortSignal | undefined): Promise<Finished> =>
    new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason)));

  test("that does not read is given up", async () => {
    const { manager, warnings, timers, settled } = managed({ run: hanging });
    manager?.ready("a");
    await settled();
    expect(timers).toHaveLength(1);
    timers[0]?.();
    await settled();
    expect(warnings[0]).toContain("took longer than 6000 ms");
    expect(timers).toHaveLength(0);
  });

  test("is told of the end at once, whatever was still to be told", async () => {
    const { manager, ran, warnings, settled } = managed({ run: hanging });
    manager?.ready("a");
    manager?.status("b");
    await settled();
    manager?.stopping();
    await settled();
    expect(ran.map((line) => line.slice(NOTIFY.length + 1))).toEqual([
      "--pid=77 --ready --status=a",
      "STOPPING=1 --status=stopping",
    ]);
    expect(warnings).toEqual([]);
  });

  test.each([
    [SOMEBODY, "main", "systemctl show", true],
    [SOMEBODY, "all", "systemctl show", false],
    [
      { ...SOMEBODY, "self/cgroup": "0::/user.slice/user-7.slice/user@7.service/app.slice/consul.service" },
      "main",
      "systemctl --user show",
      true,
    ],
    [{ ...SOMEBODY, "self/status": "CapEff:\t000001ffffffffff\n" }, "main", undefined, false],
    [{ ...SOMEBODY, "self/cgroup": "0::/init.scope\n" }, "main", undefined, false],
  ])("that hears only the main process is told of by name: %j %s", async (proc, access, asked, told) => {
    const run = async ([name]: readonly string[]): Promise<Finished> => said(name === "systemctl" ? `${access}\n` : "");
    const { manager, ran, warnings, settled } = managed({ run, proc });
    manager?.ready("a");
    await settled();
    manager?.ready("b");
    await settled();
    expect(ran.filter((line) => line.startsWith("systemctl"))).toEqual(
      asked === undefined ? [] : [`${asked} --property=NotifyAccess --value -- consul.service`],
    );
    expect(warnings).toHaveLength(told ? 1 : 0);
    if (told)
      expect(warnings[0]).toMatch(
        /consul\.service \(NotifyAccess=main\).*edit consul\.service" and add: \[Service\] NotifyAccess=all$/,
      );
  });
});
