// The way in: what every source tells is carried to the agent, and what a switched-off one left behind is taken out.
import type { Clock } from "../base/clock.ts";
import { messageOf, TrilithError } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import { jitter, type Random } from "../base/random.ts";
import type { Agent } from "../contracts/agent.ts";
import type { Directory, View } from "../contracts/directory.ts";
import type { Part } from "../contracts/protocol.ts";
import { lastKnown } from "../contracts/second-hand.ts";
import type { Source } from "../contracts/source.ts";
import { goneKeyOf } from "../model/instance.ts";
import type { Reason } from "../model/reason.ts";

/** Where what is carried goes, and with what. */
export interface Carrying {
  readonly agent: Agent;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

/** A source whose lists are on their way. */
export interface Carried {
  /** Resolves when it has told its first list, or was stopped: nobody waits for what will not come. */
  readonly first: Promise<void>;
  /** Resolves when it tells nothing any more, and what it told last is with the agent. */
  stop(): Promise<void>;
}

/** Carries a source's lists to the agent, until stopped. */
export function carry(source: Source, to: Carrying): Carried {
  const stop = new AbortController();
  let running: Promise<void> = Promise.resolve();
  const first = new Promise<void>((told) => {
    running = carryOn(source, to, stop.signal, told).finally(told);
  });
  return {
    first,
    async stop() {
      stop.abort(new TrilithError("stopped", "the source is no longer listened to"));
      await running;
    },
  };
}

/** For ever; a source that breaks is started again, later and later. */
async function carryOn(
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

const noLongerAsked = (name: string, clock: Clock): Reason => ({
  ...{ code: "deregistered", text: `the configuration of ${name} no longer asks for it` },
  ...{ confirmed: true, atMs: clock.now() },
});

/** Takes out what was registered one by one under a name, which stands in no list. */
export async function dropEach(name: string, { agent, clock }: Pick<Carrying, "agent" | "clock">): Promise<void> {
  for (const { instance } of [...agent.services().values()])
    if (instance.origin.source === name) await agent.deregister(name, instance.id, noLongerAsked(name, clock));
}

/** Takes out all that a source of this host told: nobody asks for it any more, so that no guard holds it either. */
export async function dropAll(
  name: string,
  { agent, clock, directory }: Pick<Carrying, "agent" | "clock"> & { readonly directory: Pick<Directory, "view"> },
): Promise<void> {
  const reason = noLongerAsked(name, clock);
  const own = [...agent.services().values()].filter(({ instance }) => instance.origin.source === name);
  const gone = new Map<string, Reason>([
    ...own.map(({ instance }) => [instance.id, reason] as const),
    ...lastKnown(directory.view(), name, agent.node.name).map((each) => [goneKeyOf(each), reason] as const),
  ]);
  await agent.adopt(name, { list: [], authority: "first-hand", gone });
}

/** Under which name a part brings services in, by its source or one by one; undefined where it does not. */
export function bringerOf(protocol: string, part: Part | undefined): string | undefined {
  return part?.source?.name ?? (part?.registers === true ? protocol : undefined);
}

/** What was brought in by what was switched off since has nobody left to take it out. `alive`: who brings in; `known`: all there can be. */
export async function dropLeftovers(
  to: Pick<Carrying, "agent" | "clock"> & { readonly directory: Pick<Directory, "view"> },
  alive: ReadonlySet<string>,
  known: readonly string[],
): Promise<void> {
  const { agent } = to;
  const held = heldBy(agent, to.directory.view());
  for (const name of known) if (held.has(name) && !alive.has(name)) await dropAll(name, to);
}

/** The sources that this host holds something of. */
function heldBy(agent: Agent, view: View): ReadonlySet<string> {
  const held = new Set([...agent.services().values()].map(({ instance }) => instance.origin.source));
  for (const { from } of agent.overrides()) if (from !== undefined) held.add(from);
  for (const { witnessed } of view.list("node"))
    for (const { source, by } of witnessed ?? []) if (by.includes(agent.node.name)) held.add(source);
  return held;
}
