// What this host holds and callers may be sent to: what a dialect without health of its own tells others.
import { type Status, worse } from "../model/check.ts";
import type { Instance } from "../model/instance.ts";
import type { Agent } from "./agent.ts";

/**
 * This host's instances that are neither critical nor draining, by id, in the order of the ids; undefined where the whole host is out. Those that
 * it has from others are among them (`origin.authority`).
 */
export function routableHere(agent: Pick<Agent, "services" | "checks">): ReadonlyMap<string, Instance> | undefined {
  const health = new Map<string, Status>();
  for (const { check } of agent.checks().values())
    health.set(check.serviceId, worse(health.get(check.serviceId) ?? "passing", check.status));
  if (health.get("") === "critical") return undefined;
  const held = [...agent.services().values()].map(({ instance }) => instance);
  return new Map(
    held
      .filter(({ id, draining }) => draining !== true && health.get(id) !== "critical")
      .sort((one, other) => (one.id < other.id ? -1 : 1))
      .map((instance) => [instance.id, instance]),
  );
}

/** Rings after each change of what this host holds, until the signal or the agent's end. */
export async function followHost(
  agent: Pick<Agent, "changed" | "version">,
  ring: () => void,
  signal: AbortSignal,
): Promise<void> {
  for (let at = agent.version(); !signal.aborted; ) {
    try {
      at = await agent.changed(at, signal);
    } catch {
      return;
    }
    ring();
  }
}
