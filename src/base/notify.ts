// What the service manager that started this process is told (sd_notify), by systemd's own systemd-notify: Node.js has no datagram sockets of the unix kind.
import type { Clock } from "./clock.ts";
import { codeOf, messageOf } from "./error.ts";
import type { Log } from "./log.ts";
import type { Processes } from "./process.ts";

/** Told one after the other; what cannot be told is logged once and holds nothing up. [sd_notify(3)] */
export interface ServiceManager {
  /** It is up, or up again after a reload; `status` is the line that `systemctl status` shows. */
  ready(status: string): void;
  status(text: string): void;
  /** Its configuration is being read again: `ready` follows. */
  reloading(): void;
  /** It is about to end. What was still to be told is dropped. */
  stopping(): void;
}

type Machine = Pick<Processes, "pid" | "env" | "run" | "proc">;

/** It answers within milliseconds; systemd-notify itself waits five seconds for a manager that does not read. */
const PATIENCE_MS = 6_000;
/** Ending waits no longer than that. */
const LAST_WORDS_MS = 1_000;
const STATUS_CHARACTERS = 400;
/** CAP_SYS_ADMIN: who has it may speak in its parent's name [unix(7), SCM_CREDENTIALS]. */
const SYS_ADMIN_BIT = 21n;

/** A status is one line. */
const oneLine = (text: string): string =>
  text
    .replace(/\p{Cc}+/gu, " ")
    .slice(0, STATUS_CHARACTERS)
    .trim();

/**
 * The manager that waits to hear from this process; undefined where none does. Takes NOTIFY_SOCKET out of the environment, so that no program which this
 * process starts (scripts of checks, handlers of watches) speaks in its name.
 */
export function serviceManager(parts: {
  readonly processes: Machine;
  readonly clock: Pick<Clock, "after">;
  readonly log: Log;
  readonly environment?: Record<string, string | undefined>;
  /** Microseconds of CLOCK_MONOTONIC. */
  readonly monotonicUsec?: () => bigint;
}): ServiceManager | undefined {
  const { environment = process.env } = parts;
  const socket = environment["NOTIFY_SOCKET"];
  delete environment["NOTIFY_SOCKET"];
  if (socket === undefined || socket === "") return undefined;
  const { processes, clock } = parts;
  const log = parts.log.part("systemd");
  const monotonicUsec = parts.monotonicUsec ?? (() => process.hrtime.bigint() / 1000n);
  let turn: Promise<void> = Promise.resolve();
  let failed = false;
  let looked = false;
  let under = new AbortController();
  let reloads = 0;
  let ending = false;

  const fail = (why: string): void => {
    if (failed) return;
    failed = true;
    log.warn(
      `systemd could not be told how this agent is: ${why}; a unit of Type=notify is ended when its TimeoutStartSec is over: give it Type=exec, or see to that`,
    );
  };

  const run = async (words: readonly string[], limitMs: number, ended: AbortSignal): Promise<void> => {
    const late = new AbortController();
    const alarm = clock.after(limitMs, () => late.abort(new Error(`systemd-notify took longer than ${limitMs} ms`)));
    try {
      const { exitCode, output } = await processes.run(["systemd-notify", ...words], {
        signal: AbortSignal.any([late.signal, ended]),
        env: { NOTIFY_SOCKET: socket },
      });
      if (exitCode !== 0)
        fail(oneLine(Buffer.from(output).toString("utf8")) || `systemd-notify exited with ${exitCode}`);
    } catch (error) {
      if (ended.aborted) return;
      fail(codeOf(error) === "not-found" ? "the program systemd-notify is not on the PATH" : messageOf(error));
    } finally {
      alarm.cancel();
    }
  };

  const tell = (words: readonly string[], limitMs = PATIENCE_MS): void => {
    if (ending) return;
    const { signal } = under;
    turn = turn.then(() => (signal.aborted ? undefined : run(words, limitMs, signal)));
  };
  // Reload's $MAINPID is this process also behind npx or a shell. Numbers of a container's processes say nothing outside of it.
  const whose = processes.env("container") === undefined ? [`--pid=${processes.pid}`] : [];

  return {
    ready(status) {
      reloads = Math.max(0, reloads - 1);
      if (reloads > 0 || ending) return;
      tell([...whose, "--ready", `--status=${oneLine(status)}`]);
      if (looked) return;
      looked = true;
      const { signal } = under;
      turn = turn.then(async () => {
        const why = failed || signal.aborted ? undefined : await unheard(processes, signal);
        if (why !== undefined && !signal.aborted) log.warn(why);
      });
    },
    status: (text) => tell([`--status=${oneLine(text)}`]),
    reloading() {
      reloads++;
      tell(["--status=reading files again", "RELOADING=1", `MONOTONIC_USEC=${monotonicUsec()}`]);
    },
    stopping() {
      under.abort(new Error("the agent stops"));
      under = new AbortController();
      tell(["STOPPING=1", "--status=stopping"], LAST_WORDS_MS);
      ending = true;
    },
  };
}

/** Why the manager drops what it is told, without a word to whoever tells it; undefined where it does not, or where that cannot be known. */
async function unheard(processes: Machine, signal: AbortSignal): Promise<string | undefined> {
  const rights = /^CapEff:\s*([0-9a-f]+)$/m.exec((await processes.proc("self/status")) ?? "")?.[1];
  if (rights === undefined || ((BigInt(`0x${rights}`) >> SYS_ADMIN_BIT) & 1n) === 1n) return undefined;
  const group = /^(?:0:|\d+:name=systemd):(.*)$/m.exec((await processes.proc("self/cgroup")) ?? "")?.[1] ?? "";
  const unit = group.split("/").findLast((name) => name.endsWith(".service"));
  if (unit === undefined) return undefined;
  const user = /\/user@\d+\.service\//.test(group) ? ["--user"] : [];
  const asked = ["systemctl", ...user, "show", "--property=NotifyAccess", "--value", "--", unit];
  // Without an answer nothing is known to be wrong.
  const answer = await processes.run(asked, { signal }).catch(() => undefined);
  const access = answer?.exitCode === 0 ? Buffer.from(answer.output).toString("utf8").trim() : "";
  if (!["none", "main", "exec"].includes(access)) return undefined;
  return `systemd hears only the main process of ${unit} (NotifyAccess=${access}), and this one must speak through a program without its rights: it is ended when TimeoutStartSec is over. "systemctl${user.map((word) => ` ${word}`).join("")} edit ${unit}" and add: [Service] NotifyAccess=all`;
}
