// The protocol "process": programs started by `trilith run` are services, and so are processes that say SERVICE_NAME in their environment.
import { InputError, TrilithError } from "../../base/error.ts";
import { defineProtocol, type Protocol } from "../../contracts/protocol.ts";
import { Announcements } from "./announcements.ts";
import { createProcessSource, type ProcessMachine } from "./source.ts";

/** Where wrappers connect; see README.md. */
const PREFIX = "/v1/trilith/run";
const ANNOUNCE = "/v1/trilith/announce";

export interface ProcessConfig {
  /** Processes are registered for what their environment says; default true. */
  readonly environ: boolean;
}

export const processes: Protocol<
  ProcessConfig | undefined,
  "clock" | "log" | "processes" | "agent" | "probes" | "self"
> = defineProtocol({
  name: "process",
  needs: ["clock", "log", "processes", "agent", "probes", "self"],
  /** `false` = off; `{environ?: boolean}`. */
  configure(raw): ProcessConfig | undefined {
    if (raw === undefined || raw === null || raw === true) return { environ: true };
    if (raw === false) return undefined;
    if (typeof raw !== "object" || Array.isArray(raw))
      throw new TrilithError(
        "invalid",
        `process: expected true, false or {"environ": false}, found ${JSON.stringify(raw)}`,
      );
    for (const key of Object.keys(raw))
      if (key !== "environ") throw new TrilithError("invalid", `process.${key}: unknown key; there is environ`);
    const { environ = true } = raw as { readonly environ?: unknown };
    if (typeof environ !== "boolean")
      throw new TrilithError("invalid", `process.environ: expected true or false, found ${JSON.stringify(environ)}`);
    return { environ };
  },
  setup(config, ground) {
    if (config === undefined) return undefined;
    const { table } = ground.processes;
    const missing = table === undefined || !table.here();
    const parse = (kind: string, detail: Readonly<Record<string, unknown>>): unknown => {
      const probe = ground.probes.get(kind);
      if (probe === undefined) throw new InputError("check", `this agent has no way to run ${kind} checks`);
      return probe.parse(detail);
    };
    const log = ground.log.part("process");
    const announcements = new Announcements({ ...ground, log, parse, changed: () => source.ring() });
    const environOf = ({ environ }: ProcessConfig): Pick<ProcessMachine, "environ"> => {
      if (!environ || missing) return {};
      const { processes, self, probes } = ground;
      const checks = { scripts: self.scripts.fromApi, probes, nodeAddress: self.advertiseAddress };
      return { environ: { table, self: processes.pid, checks } };
    };
    const source = createProcessSource({
      clock: ground.clock,
      log,
      processes: ground.processes,
      agent: ground.agent,
      ...environOf(config),
      ...(config.environ && missing
        ? {
            without:
              "processes with SERVICE_NAME are not looked for: not available here (only Linux has the /proc it takes)",
          }
        : {}),
      parse,
      announced: () => announcements.ports(),
    });
    return {
      source,
      routes: [
        { prefix: PREFIX, handle: source.handle },
        { prefix: ANNOUNCE, handle: announcements.handle },
      ],
      background: announcements,
      rereads: true,
      async reload(read) {
        const now = read === undefined ? undefined : processes.configure(read.raw);
        if (now !== undefined) source.scan(environOf(now).environ);
      },
    };
  },
});
