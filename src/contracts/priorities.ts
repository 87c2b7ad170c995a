// Priorities as DNS SRV and SkyDNS give them: of a service's instances those of the lowest number are used as long as one of them answers [RFC2782].
import type { CheckSpec } from "../model/check.ts";
import type { Registration } from "../model/instance.ts";
import { keyOf } from "../model/record.ts";
import type { View } from "./directory.ts";
import type { Probe } from "./probe.ts";

/** An instance on an external node with its priority: the lower the number, the earlier it is used. */
export interface Prioritised {
  readonly registration: Registration;
  /** From 0 on. */
  readonly priority: number;
}

/** How the instances of one service are asked whether they answer. */
export interface PriorityChecks {
  readonly source: string;
  /** The probe "tcp"; undefined where nothing can be asked (UDP): then the lowest number alone is used. */
  readonly tcp: Probe | undefined;
  /** How often each is asked. */
  readonly intervalMs: number;
}

const TIMEOUT_MS = 2_000;

/**
 * The instances of one service with checks that keep the others out while one of the lowest number answers. Where all have one priority nothing is
 * added. Reads the checks' results in the view: whoever sees the same directory says the same.
 */
export function byPriority(
  view: View,
  service: readonly Prioritised[],
  { source, tcp, intervalMs }: PriorityChecks,
): readonly Registration[] {
  const levels = [...new Set(service.map(({ priority }) => priority))].sort((a, b) => a - b);
  const [lowest = 0] = levels;
  if (levels.length <= 1) return service.map(({ registration }) => registration);
  const tcpId = ({ id }: Registration): string => `${source}:tcp:${id}`;
  const answers = ({ registration }: Prioritised): boolean =>
    view.get("check", keyOf.check(registration.external?.node.name ?? "", tcpId(registration)))?.status !== "critical";
  const used =
    tcp === undefined
      ? lowest
      : (levels.find((level) => service.some((each) => each.priority === level && answers(each))) ?? lowest);
  return service.map(({ registration, priority }) => {
    const checks: CheckSpec[] = [...registration.checks];
    const asked = { timeoutMs: TIMEOUT_MS, initial: "passing", notes: "" } as const;
    if (tcp !== undefined && registration.port > 0)
      checks.push({
        ...{ id: tcpId(registration), name: "reachable", kind: "tcp", detail: tcp.parse({}), intervalMs, ...asked },
      });
    if (priority !== used)
      checks.push({
        ...{ id: `${source}:standby:${registration.id}`, name: "standby", kind: "none", detail: null },
        notes:
          priority > used
            ? `stands by: priority ${priority} is used where none of priority ${used} answers`
            : `does not answer: priority ${used} is used meanwhile`,
        ...{ intervalMs: 0, timeoutMs: 0, initial: "critical" },
      });
    return { ...registration, checks };
  });
}
