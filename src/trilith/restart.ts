// What of other settings a reload does not take: it waits for a restart, and is told by name.
import type { Settings } from "../contracts/settings.ts";

/** Taken by a reload, or told otherwise: protocols each for itself. */
const TAKEN: readonly (keyof Settings)[] = [
  "nodeLabels",
  "checkTls",
  "guard",
  "protocols",
  "peers",
  "ignored",
  "untilRestart",
];

/** The settings from which protocols are told on a reload: their own configuration as it is now, everything else as it was at the start. */
export function reloaded(before: Settings, now: Settings): Settings {
  const { peers: _, ...protocols } = now.protocols;
  // Whether there is a server, nobody changes while the agent runs.
  const { peers } = before.protocols;
  const among = before.peers === undefined || now.peers === undefined ? {} : { peers: now.peers };
  return { ...before, ...among, protocols: peers === undefined ? protocols : { ...protocols, peers } };
}

/** What counts after a restart only, as whoever told the settings calls it; by the settings' own names where that is not known. */
export function waiting(before: Settings, now: Settings): readonly string[] {
  // Among agents without a server protocols/peers says itself what waits.
  const server = (before.peers === undefined) === (now.peers === undefined) ? [] : ["peers"];
  const [was, is] = [before.untilRestart, now.untilRestart];
  if (was === undefined && is === undefined) {
    const names = Object.keys({ ...before, ...now }) as (keyof Settings)[];
    const others = names.filter((name) => !TAKEN.includes(name));
    return [...different(before, now, others), ...server];
  }
  return [
    ...different(was ?? {}, is ?? {}, [...new Set([...Object.keys(was ?? {}), ...Object.keys(is ?? {})])]),
    ...server,
  ];
}

function different<T extends object>(before: T, now: T, names: readonly (keyof T & string)[]): readonly string[] {
  return names.filter((name) => JSON.stringify(before[name]) !== JSON.stringify(now[name]));
}
