// The way in: what every source tells is carried to the agent, and what a switched-off one left behind is taken out.
import { setMaxListeners } from "node:events";
import type { Clock } from "../base/clock.ts";
import { messageOf, TrilithError } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import { jitter, type Random } from "../base/random.ts";
import type { Agent } from "../contracts/agent.ts";
import type { View } from "../contracts/directory.ts";
import type { Source } from "../contracts/source.ts";
import type { Undo } from "./undo.ts";

/** Where what is carried goes, and with what. */
export interface Carrying {
  readonly agent: Agent;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** Carries every source's lists to the agent, until undone. Each promise resolves when its source has told its first list. */
export function carryAll(sources: readonly Source[], to: Carrying, undo: Undo): Promise<void>[] {
  const stop = new AbortController();
  // Each source listens to it, and there is no limit to their number.
  setMaxListeners(0, stop.signal);
  const running: Promise<void>[] = [];
  const first = sources.map(
    (source) => new Promise<void>((told) => running.push(carry(source, to, stop.signal, told))),
  );
  undo.push("the sources", async () => {
    stop.abort(new TrilithError("stopped", "the agent is stopping"));
    await Promise.all(running);
  });
  return first;
}

/** For ever; a source that breaks is started again, later and later. */
async function carry(
  source: Source,
  { agent, clock, random, log }: Carrying,
  signal: AbortSignal,
  told: () => void,
): Promise<void> {
  for (let pauseMs = 100; !signal.aborted; pauseMs = Math.min(pauseMs * 2, 30_000)) {
    try {
      for await (const list of source.watch(signal)) {
        await agent.adopt(source.name, list);
        told();
        pauseMs = 100;
      }
    } catch (error) {
      if (signal.aborted) return;
      log.error(`source ${source.name} broke and is started again`, { error: messageOf(error) });
    }
    await clock.sleep(jitter(pauseMs, 0.2, random), signal).catch(() => {});
  }
}

/** What a source brought in before it was switched off has nobody left to take it out. `known`: all there can be. */
export async function dropLeftovers(
  agent: Agent,
  view: View,
  running: readonly Source[],
  known: readonly string[],
): Promise<void> {
  const alive = new Set(running.map(({ name }) => name));
  const held = new Set([...agent.services().values()].map(({ instance }) => instance.origin.source));
  for (const { from } of agent.overrides()) if (from !== undefined) held.add(from);
  for (const { witnessed } of view.list("node"))
    for (const { source, by } of witnessed ?? []) if (by.includes(agent.node.name)) held.add(source);
  for (const name of known)
    if (held.has(name) && !alive.has(name)) await agent.adopt(name, { list: [], authority: "first-hand" });
}
