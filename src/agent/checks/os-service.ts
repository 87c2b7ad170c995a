// The os-service check: whether a unit of the operating system's service manager (systemd) is up.
import type { Processes } from "../../base/process.ts";
import { throwIfShort } from "../../base/shortage.ts";
import type { Probe, Target } from "../../contracts/probe.ts";
import { defaultLimits, type Limits } from "../../contracts/probe.ts";
import type { Outcome, Status } from "../../model/check.ts";
import { Tail, textOf, timedOut } from "../../wire/check-output.ts";
import { fieldsOf } from "./detail.ts";
import { goExecError } from "./go-text.ts";

/** Which unit. */
export interface OsServiceDetail {
  /** As systemctl takes it: "nginx", "nginx.service". */
  readonly name: string;
}

/** States of systemd units [systemctl(1), is-active]; what is not named is down. */
const STATE: Readonly<Record<string, Status>> = {
  active: "passing",
  reloading: "warning",
  refreshing: "warning",
  activating: "warning",
  deactivating: "warning",
  maintenance: "warning",
};

/** Makes the os-service probe. */
export function osServiceProbe(processes: Pick<Processes, "run">): Probe<OsServiceDetail> {
  return {
    kind: "os-service",
    defaultTimeoutMs: 30_000,
    parse(raw) {
      const fields = fieldsOf("os-service", raw, ["name"]);
      const name = fields.text("name", "");
      // Patterns would mean several units, of which one that is up would hide the others.
      if (!/^[A-Za-z0-9:_.@\\-]{1,255}$/.test(name)) fields.fail("name", 'the name of one unit, such as "nginx"');
      return { name };
    },
    async run({ name }, _target: Target, signal, limits: Limits = defaultLimits): Promise<Outcome> {
      const said = new Tail(limits.outputMaxBytes);
      try {
        const ended = await processes.run(["systemctl", "is-active", "--", name], {
          signal,
          keepBytes: 0,
          onOutput: (chunk) => said.add(chunk),
        });
        const words = textOf(said.bytes()).trim();
        if (ended.exitCode === 0) return { status: "passing", output: `Service "${name}" is healthy` };
        if (/^[a-z]+$/.test(words))
          return { status: STATE[words] ?? "critical", output: `OS Service unhealthy: service "${name}" is ${words}` };
        return { status: "critical", output: `systemd does not tell about service "${name}": ${words}`, final: true };
      } catch (error) {
        if (signal.aborted) return { status: "critical", output: timedOut(limits.timeoutMs, said), final: true };
        throwIfShort(error);
        return {
          status: "critical",
          output: `this host has no systemd to ask about service "${name}": ${goExecError(error, "systemctl")}`,
          final: true,
        };
      }
    },
  };
}
