// The protocol "process": programs started by `trilith run` are services.
import { InputError, TrilithError } from "../../base/error.ts";
import { defineProtocol, type Protocol } from "../../contracts/protocol.ts";
import { createProcessSource } from "./source.ts";

/** Where wrappers connect; see README.md. */
const PREFIX = "/v1/trilith/run";

export const processes: Protocol<boolean, "clock" | "log" | "processes" | "agent" | "probes"> = defineProtocol({
  name: "process",
  needs: ["clock", "log", "processes", "agent", "probes"],
  /** `false` = off; there is nothing else to say. */
  configure(raw): boolean {
    if (raw === undefined || raw === null || raw === true) return true;
    if (raw === false) return false;
    if (typeof raw === "object" && !Array.isArray(raw) && Object.keys(raw).length === 0) return true;
    throw new TrilithError("invalid", `process: expected true, false or {}, found ${JSON.stringify(raw)}`);
  },
  setup(on, ground) {
    if (!on) return undefined;
    const source = createProcessSource({
      clock: ground.clock,
      log: ground.log.part("process"),
      processes: ground.processes,
      agent: ground.agent,
      parse(kind, detail) {
        const probe = ground.probes.get(kind);
        if (probe === undefined) throw new InputError("check", `this agent has no way to run ${kind} checks`);
        return probe.parse(detail);
      },
    });
    return { source, routes: [{ prefix: PREFIX, handle: source.handle }] };
  },
});
