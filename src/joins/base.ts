// What every step of a start builds upon: the machine, the settings, the data folder, and who this agent is.
import { systemClock } from "../base/clock.ts";
import { systemDisk } from "../base/disk.ts";
import { type Durable, memoryDurable, openDurable } from "../base/durable.ts";
import { createHttp } from "../base/http.ts";
import { silentLog, tappedLog } from "../base/log.ts";
import { createMetrics, type Metrics, processMetrics } from "../base/metrics.ts";
import { systemNet } from "../base/net.ts";
import { systemProcesses } from "../base/process.ts";
import { systemRandom } from "../base/random.ts";
import type { Self } from "../contracts/ground.ts";
import type { Settings } from "../contracts/settings.ts";
import type { Parts } from "../trilith/parts.ts";
import type { TrilithOptions } from "../trilith/public.ts";
import { selfOf } from "../trilith/self.ts";
import type { Undo } from "../trilith/undo.ts";

export type Machine = Required<Omit<TrilithOptions, "reread">> & Pick<TrilithOptions, "reread">;

/** The machine, whole: this one's where nothing else is told. */
export function machineOf(options: TrilithOptions, undo: Undo): Machine {
  const http = createHttp();
  if (options.http === undefined) undo.push("HTTP clients", () => http.close());
  return {
    clock: systemClock,
    random: systemRandom,
    disk: systemDisk,
    net: systemNet,
    http,
    processes: systemProcesses,
    ...options,
    log: tappedLog(options.log ?? silentLog),
  };
}

/** There before a start, and over its whole life. */
export interface Frame {
  readonly settings: Settings;
  readonly undo: Undo;
  readonly parts: Parts;
  /** "dns" → "127.0.0.1:8600". */
  readonly listening: Map<string, string>;
  /** @throws TrilithError `stopped` where somebody asked to stop: what was begun then is not carried on */
  mustGoOn(): void;
}

export interface Base extends Machine, Frame {
  readonly metrics: Metrics;
  readonly durable: Durable;
  readonly self: Self;
  /** Another text after each start: by it others tell this life of the agent from the one before. */
  readonly life: string;
}

/** Opens the data folder, and finds out who this agent is. */
export async function openBase(frame: Frame, machine: Machine): Promise<Base> {
  const { settings, undo, listening } = frame;
  const metrics = createMetrics();
  processMetrics(metrics);
  const durable =
    settings.dev || settings.dataDir === undefined ? memoryDurable() : await openDurable(settings.dataDir);
  undo.push("the data folder", () => durable.close());
  frame.mustGoOn();
  const self = await selfOf(settings, durable, machine, listening);
  return { ...machine, ...frame, metrics, durable, self, life: machine.random.uuid() };
}
