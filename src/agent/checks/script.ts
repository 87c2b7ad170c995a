// The script check: runs a command; exit 0 passing, 1 warning, anything else critical (3 of the Nagios plugins, too). Texts as Consul writes them.
import type { Processes } from "../../base/process.ts";
import { throwIfShort } from "../../base/shortage.ts";
import { defaultLimits, type Limits, type Probe, type Target } from "../../contracts/probe.ts";
import type { Outcome } from "../../model/check.ts";
import { Tail, tailNote, timedOut } from "../../wire/check-output.ts";
import { fieldsOf } from "./detail.ts";
import { goExecError } from "./go-text.ts";

/** The command and its arguments; no shell comes in between. */
export interface ScriptDetail {
  readonly args: readonly string[];
}

/** How long a command that was told to end may take before it is killed. */
const GRACE_MS = 1000;

/** Makes the script probe. */
export function scriptProbe(processes: Processes): Probe<ScriptDetail> {
  return {
    kind: "script",
    defaultTimeoutMs: 30_000,
    parse(raw) {
      const fields = fieldsOf("script", raw, ["args"]);
      const args = fields.texts("args");
      if (args.length === 0 || args[0] === "")
        fields.fail("args", 'the command and its arguments: ["/bin/check", "-v"]');
      if (args.some((arg) => arg.includes("\0"))) fields.fail("args", "texts without NUL");
      return { args };
    },
    async run(detail, _target: Target, signal, limits: Limits = defaultLimits): Promise<Outcome> {
      const said = new Tail(limits.outputMaxBytes);
      try {
        const ended = await processes.run(detail.args, {
          signal,
          keepBytes: 0,
          graceMs: GRACE_MS,
          onOutput: (chunk) => said.add(chunk),
        });
        return {
          status: ended.exitCode === 0 ? "passing" : ended.exitCode === 1 ? "warning" : "critical",
          output: tailNote(said.bytes(), said.totalBytes),
        };
      } catch (error) {
        if (!signal.aborted) throwIfShort(error);
        const output = signal.aborted ? timedOut(limits.timeoutMs, said) : goExecError(error, detail.args[0] ?? "");
        return { status: "critical", output, final: true };
      }
    },
  };
}
