// The sharp-drop guard: keeps instances in answers that went by hearsay, many at once, until the loss is confirmed or time is up.
import type { Clock, Timer } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Counter, Metrics } from "../base/metrics.ts";
import type { View } from "../contracts/directory.ts";
import type { Settings } from "../contracts/settings.ts";
import { NODE_ALIVE_CHECK, NODE_DEAD_OUTPUT } from "../model/check.ts";
import { addressOf } from "../model/instance.ts";
import type { Reason } from "../model/reason.ts";
import { whyGone } from "./buried.ts";
import type { Facts, ListCache, Picture } from "./filter.ts";
import type { Suspect } from "./second-opinion.ts";

/** A hold on a service; a new object whenever its members change. */
export interface Hold {
  /** Milliseconds since the epoch. */
  readonly sinceMs: number;
  /** Milliseconds since the epoch at which the hold ends by itself. */
  readonly untilMs: number;
  /** A sentence for people. */
  readonly text: string;
  /** What is kept in answers, as it last was when it could be answered, by key. */
  readonly members: ReadonlyMap<string, Facts>;
  /** Answers made while this hold stands, by kind of query, for the picture they were made from. */
  readonly lists: ListCache;
}

type GuardSettings = Omit<Settings["guard"], "perService">;

export interface Guard {
  /** Takes notice of the service's present picture and tells what is held. Cheap while nothing changed. */
  look(service: string, picture: Picture, view: View): Hold | undefined;
  /** Names (lower case) that the guard has seen, those that are gone from the directory included. */
  services(): Iterable<string>;
  /** True while there is any such service. */
  watches(): boolean;
  /** The service's panic threshold: as the settings say for it by name, else as its instances ask (`labelled`), else as for all. */
  panicPercent(service: string, labelled: number | undefined): number;
  release(service: string): boolean;
  confirmLost(service: string, address: string, port: number): boolean;
  held(): readonly {
    readonly service: string;
    readonly sinceMs: number;
    readonly text: string;
    readonly instances: number;
  }[];
  /** Everybody who is held, for a second opinion. */
  suspects(): readonly Suspect[];
  /** Other settings from now on; what is held, or was lost within the window, is weighed again by them. */
  take(settings: Settings["guard"]): void;
  /** Lets go of every timer and memory. */
  stop(): void;
}

/** An instance that left the answers by hearsay. */
interface Loss {
  readonly facts: Facts;
  /** Monotonic milliseconds. */
  readonly atMs: number;
  /** Why it went, as its source says; undefined where nobody said. */
  readonly text: string | undefined;
}

interface State {
  readonly name: string;
  picture: Picture;
  readonly lost: Map<string, Loss>;
  hold: Hold | undefined;
  /** How many losses were confirmed while held: they still count as gone, or confirming some would free the rest. */
  confirmed: number;
  timer: Timer | undefined;
  /** Monotonic milliseconds at which the hold began. */
  heldAtMs: number;
}

/** Over all services; beyond it nothing more is held, so that a source that makes names up cannot fill the memory. */
const MAX_LOSSES = 200_000;

/** Reasons that are hearsay even about a first-hand instance: its host was not heard of. */
const HOST_SILENT: ReadonlySet<Reason["code"]> = new Set(["expired", "reaped", "node-removed"]);

/** An empty guard. `changed(service)` is called when answers change although the directory did not. */
export function createGuard(parts: {
  readonly settings: Settings["guard"];
  /** This host's node name. */
  readonly node: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly changed: (service: string) => void;
  /** Called when a hold begins. */
  readonly holding?: () => void;
}): Guard {
  const { clock, log } = parts;
  const selfNode = parts.node.toLowerCase();
  const states = new Map<string, State>();
  let common: GuardSettings = parts.settings;
  const perService = new Map<string, GuardSettings>();
  const ownPanic = new Map<string, number>();
  const read = (settings: Settings["guard"]): void => {
    common = settings;
    perService.clear();
    ownPanic.clear();
    for (const [name, own] of Object.entries(settings.perService)) {
      perService.set(name.toLowerCase(), { ...settings, ...own });
      if (own.panicPercent !== undefined) ownPanic.set(name.toLowerCase(), own.panicPercent);
    }
  };
  read(parts.settings);
  let losses = 0;
  let overflowing = false;
  let sweeper: Timer | undefined;
  const holdsTotal: Counter = parts.metrics.counter("guard_holds_total", "Sharp drops that the guard held back");
  parts.metrics.gauge("guard_held_instances", "Instances kept in answers by the guard", () => {
    let count = 0;
    for (const { hold } of states.values()) count += hold?.members.size ?? 0;
    return count;
  });

  const settings = (service: string): GuardSettings => perService.get(service.toLowerCase()) ?? common;

  const forget = (state: State, key: string): void => {
    if (state.lost.delete(key)) losses--;
  };
  const forgetAll = (state: State): void => {
    losses -= state.lost.size;
    state.lost.clear();
  };

  /** Hearsay, or known for certain? Asked of what could be answered before and cannot now. */
  const isHearsay = (facts: Facts, picture: Picture, view: View): boolean => {
    const now = picture.byKey().get(facts.key);
    if (now !== undefined) {
      if (now.draining || now.maintenance !== undefined) return false;
      const critical = now.resident.checks.filter(({ status }) => status === "critical");
      return (
        critical.length > 0 &&
        now.resident.node.name.toLowerCase() !== selfNode &&
        critical.every(({ id, output }) => id === NODE_ALIVE_CHECK && output === NODE_DEAD_OUTPUT)
      );
    }
    // The same registration under another name: said by whoever registered it.
    if (view.get("service", facts.key) !== undefined) return false;
    const { instance } = facts.resident;
    const secondHand = instance.origin.authority === "second-hand";
    const grave = whyGone(view, clock.now(), facts);
    if (grave?.why !== undefined) return !grave.why.confirmed && (secondHand || HOST_SILENT.has(grave.why.code));
    if (secondHand) return true;
    // Another host's own instance that vanished without anybody having deleted it: the store lost it, nobody said so.
    return grave === undefined && instance.node.toLowerCase() !== selfNode;
  };

  const why = (state: State): string => {
    const missing = new Map<string, { count: number; readonly said: Set<string> }>();
    for (const { facts, text } of state.lost.values()) {
      const { instance } = facts.resident;
      const silent = state.picture.byKey().has(facts.key);
      const reason = silent
        ? `node "${instance.node}" is not heard of`
        : instance.origin.authority === "second-hand"
          ? `source "${instance.origin.source}" no longer lists them`
          : `node "${instance.node}" vanished`;
      const known = missing.get(reason) ?? { count: 0, said: new Set() };
      known.count++;
      if (text !== undefined && !silent) known.said.add(text);
      missing.set(reason, known);
    }
    return [...missing]
      .map(
        ([
          reason,
          {
            count,
            said: [first, ...more],
          },
        ]) => {
          const says = first === undefined ? "" : `: ${first}${more.length === 0 ? "" : ` (and ${more.length} more)`}`;
          return `${count}: ${reason}${says}`;
        },
      )
      .join("; ");
  };

  const endHold = (state: State, text: string, level: "info" | "warn" = "info"): void => {
    if (state.hold === undefined) return;
    state.timer?.cancel();
    state.timer = undefined;
    state.hold = undefined;
    state.confirmed = 0;
    log[level](`service "${state.name}": the guard's hold ended: ${text}`);
  };

  /** Drops the state where nothing needs remembering. */
  const tidy = (key: string, state: State): void => {
    if (state.hold === undefined && state.lost.size === 0 && !state.picture.guarded) states.delete(key);
  };

  const sweepLater = (windowMs: number): void => {
    sweeper ??= clock.after(windowMs + 1, () => {
      sweeper = undefined;
      let nextMs = Number.POSITIVE_INFINITY;
      for (const [key, state] of states) {
        if (state.hold !== undefined || state.lost.size === 0) continue;
        const { windowMs: window } = settings(key);
        purge(state, window);
        for (const { atMs } of state.lost.values()) nextMs = Math.min(nextMs, atMs + window - clock.monotonic());
        tidy(key, state);
      }
      if (nextMs < Number.POSITIVE_INFINITY) sweepLater(Math.max(0, nextMs));
    });
  };

  const purge = (state: State, windowMs: number): void => {
    const now = clock.monotonic();
    for (const [key, { atMs }] of state.lost) if (now - atMs > windowMs) forget(state, key);
  };

  /** A hold lasts `holdMs` from its beginning at most. */
  const endLater = (key: string, state: State, holdMs: number): void => {
    state.timer?.cancel();
    state.timer = clock.after(Math.max(0, state.heldAtMs + holdMs - clock.monotonic()), () => {
      forgetAll(state);
      endHold(state, `the longest time for holding, ${Math.round(holdMs / 1000)} s, is over`, "warn");
      tidy(key, state);
      parts.changed(key);
    });
  };

  /** Weighs what was lost against what was known: starts, renews or ends the hold. */
  const weigh = (key: string, state: State): void => {
    const { dropShare, minInstances, windowMs, holdMs } = settings(key);
    if (state.hold === undefined) purge(state, windowMs);
    const gone = state.lost.size + state.confirmed;
    const known = state.picture.routable().size + gone;
    const sharp = gone / known > dropShare;
    if (state.hold !== undefined && state.lost.size === 0)
      endHold(state, "every missing instance is back or its loss is confirmed");
    else if (state.hold !== undefined && !sharp)
      endHold(
        state,
        `${state.picture.routable().size} of ${known} instances are there, so the rest is believed to be gone`,
      );
    else if (state.hold !== undefined || (sharp && known >= minInstances)) {
      const first = state.hold === undefined;
      const sinceMs = state.hold?.sinceMs ?? clock.now();
      const members = new Map<string, Facts>();
      for (const [lostKey, { facts }] of state.lost) members.set(lostKey, facts);
      state.hold = {
        sinceMs,
        untilMs: state.hold?.untilMs ?? sinceMs + holdMs,
        text: `${gone} of ${known} instances went by hearsay within ${Math.round(windowMs / 1000)} s (${why(state)})`,
        members,
        lists: new Map(),
      };
      if (first) {
        parts.holding?.();
        holdsTotal.add();
        log.warn(
          `service "${state.name}": ${state.hold.text}; answers keep them until their loss is confirmed, at most ${Math.round(holdMs / 1000)} s`,
        );
        state.heldAtMs = clock.monotonic();
        endLater(key, state, holdMs);
      }
    } else if (state.lost.size > 0) sweepLater(windowMs);
    tidy(key, state);
  };

  const step = (key: string, state: State, picture: Picture, view: View): void => {
    const before = state.picture;
    state.picture = picture;
    let sockets: Set<string> | undefined;
    const answersElsewhere = ({ resident }: Facts): boolean => {
      sockets ??= new Set([...picture.routable().values()].map((facts) => socketOf(facts)));
      return sockets.has(`${addressOf(resident)}\u0000${resident.instance.port}`);
    };
    const atMs = clock.monotonic();
    // Consulted again on each change: what was hearsay may have come back or been confirmed since.
    for (const [lostKey, { facts }] of state.lost) {
      if (picture.routable().has(lostKey) || answersElsewhere(facts)) forget(state, lostKey);
      else if (!isHearsay(facts, picture, view)) {
        forget(state, lostKey);
        if (state.hold !== undefined) state.confirmed++;
      }
    }
    for (const [lostKey, facts] of before.routable()) {
      if (picture.routable().has(lostKey) || answersElsewhere(facts) || !isHearsay(facts, picture, view)) continue;
      if (losses >= MAX_LOSSES) {
        if (!overflowing) log.error(`more than ${MAX_LOSSES} instances went by hearsay; no more are held`);
        overflowing = true;
        break;
      }
      overflowing = false;
      const text = whyGone(view, clock.now(), facts)?.why?.text;
      state.lost.set(lostKey, { facts, atMs, text });
      losses++;
    }
    if (state.lost.size > 0 || state.hold !== undefined) weigh(key, state);
    else tidy(key, state);
  };

  return {
    panicPercent: (service, labelled) => ownPanic.get(service.toLowerCase()) ?? labelled ?? common.panicPercent,
    look(service, picture, view) {
      if (states.size === 0 && !picture.guarded) return undefined;
      const key = service.toLowerCase();
      const state = states.get(key);
      if (state === undefined) {
        if (picture.guarded)
          states.set(key, {
            name: service,
            picture,
            lost: new Map(),
            hold: undefined,
            confirmed: 0,
            timer: undefined,
            heldAtMs: 0,
          });
        return undefined;
      }
      if (state.picture !== picture) step(key, state, picture, view);
      return state.hold;
    },
    services: () => states.keys(),
    watches: () => states.size > 0,
    release(service) {
      const key = service.toLowerCase();
      const state = states.get(key);
      if (state?.hold === undefined) return false;
      forgetAll(state);
      endHold(state, "released by hand");
      tidy(key, state);
      parts.changed(key);
      return true;
    },
    confirmLost(service, address, port) {
      const key = service.toLowerCase();
      const state = states.get(key);
      if (state === undefined) return false;
      let found = false;
      for (const [lostKey, { facts }] of state.lost) {
        const { instance } = facts.resident;
        const here =
          (addressOf(facts.resident) === address && instance.port === port) ||
          instance.addresses?.some((one) => one.host === address && one.port === port) === true;
        if (!here) continue;
        found = true;
        forget(state, lostKey);
        if (state.hold !== undefined) {
          state.confirmed++;
          log.info(`service "${state.name}": the loss of "${instance.id}" at ${address}, port ${port}, is confirmed`);
        }
      }
      if (!found) return false;
      weigh(key, state);
      parts.changed(key);
      return true;
    },
    held: () =>
      [...states.values()].flatMap(({ name, hold }) =>
        hold === undefined
          ? []
          : [{ service: name, sinceMs: hold.sinceMs, text: hold.text, instances: hold.members.size }],
      ),
    suspects: () =>
      [...states.values()].flatMap(({ name, hold }) =>
        [...(hold?.members.values() ?? [])].map(({ resident }) => ({
          service: name,
          address: addressOf(resident),
          port: resident.instance.port,
          tags: resident.instance.tags,
        })),
      ),
    take(settings) {
      read(settings);
      for (const [key, state] of states) {
        if (state.lost.size === 0 && state.hold === undefined) continue;
        const { holdMs } = perService.get(key) ?? common;
        if (state.hold !== undefined) {
          state.hold = { ...state.hold, untilMs: state.hold.sinceMs + holdMs };
          endLater(key, state, holdMs);
        }
        weigh(key, state);
        parts.changed(key);
      }
    },
    stop() {
      sweeper?.cancel();
      sweeper = undefined;
      for (const { timer } of states.values()) timer?.cancel();
      states.clear();
      losses = 0;
    },
  };
}

function socketOf({ resident }: Facts): string {
  return `${addressOf(resident)}\u0000${resident.instance.port}`;
}
