// When checks are asked, when pushed ones run out, when what stays critical goes, and when an output that changed alone may travel.
import type { Clock } from "../base/clock.ts";
import { Deadlines } from "../base/deadlines.ts";
import type { Metrics } from "../base/metrics.ts";
import type { Random } from "../base/random.ts";
import type { Shortage } from "../base/shortage.ts";
import type { Probe, Target } from "../contracts/probe.ts";
import type { Check, CheckSpec, Outcome } from "../model/check.ts";
import type { Entry } from "../model/record.ts";
import { keepAfterMs } from "./host-list.ts";
import { sameRecord } from "./reconcile.ts";
import type { CheckRecord } from "./records.ts";
import { Scheduler } from "./schedule.ts";

/** What happens to checks as time goes by. */
export interface Happening {
  /** A check was asked and answered. */
  answered(spec: CheckSpec, outcome: Outcome): void;
  /** A check could not be asked, for this host lacks what that takes. */
  short(spec: CheckSpec, shortage: Shortage): void;
  /** Nobody reported to a pushed check in time. */
  ranOut(checkId: string): void;
  /** A check was critical for so long that its service is to go. */
  outlived(checkId: string): void;
  /** An output that changed alone was held back long enough. */
  outputDue(checkId: string): void;
  /** A report that changed nothing waited long enough to be kept. */
  keepDue(checkId: string): void;
}

export interface StandingOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly metrics: Metrics;
  readonly probes: ReadonlyMap<string, Probe>;
  readonly checkUpdateMs: number;
  readonly maxRunning: number | undefined;
  /** Set where several clockworks run in one agent: in front of the names of this one's gauges. */
  readonly label?: string;
  /** Where a check's service is reached, at the moment of asking. */
  readonly target: (checkId: string) => Target;
  readonly happening: Happening;
}

/** Bytes of output kept where a check does not say. */
export const OUTPUT_MAX_BYTES = 4096;
/** Consul's shortest time from critical to deregistered. */
const MIN_DEREGISTER_AFTER_MS = 60_000;

/** The clockwork of all checks of a host. */
export class Standing {
  readonly #options: StandingOptions;
  readonly #scheduler: Scheduler;
  readonly #ttls: Deadlines;
  readonly #reaps: Deadlines;
  readonly #heldOutputs: Deadlines;
  readonly #keeps: Deadlines;
  /** Pushed checks whose last report is not kept yet. */
  readonly #unkept = new Set<string>();
  /** Outputs that were held back long enough, by check. */
  readonly #dueOutputs = new Map<string, string>();
  readonly #outputs = new Map<string, string>();
  #stopped = false;

  constructor(options: StandingOptions) {
    this.#options = options;
    const { clock, random, metrics, maxRunning, happening } = options;
    this.#scheduler = new Scheduler({ clock, random, ...(maxRunning === undefined ? {} : { maxRunning }) });
    this.#ttls = new Deadlines(clock, (id) => happening.ranOut(id));
    this.#reaps = new Deadlines(clock, (id) => happening.outlived(id));
    this.#heldOutputs = new Deadlines(clock, (id) => {
      this.#dueOutputs.set(id, this.#outputs.get(id) ?? "");
      happening.outputDue(id);
    });
    this.#keeps = new Deadlines(clock, (id) => happening.keepDue(id));
    const prefix = options.label === undefined ? "agent" : `agent_${options.label}`;
    metrics.gauge(`${prefix}_checks_running`, "Checks that are being asked", () => this.#scheduler.running);
    metrics.gauge(
      `${prefix}_checks_waiting`,
      "Checks that are due and wait for their turn",
      () => this.#scheduler.waiting,
    );
  }

  /** Starts the clockwork of a check, anew where it ran in another form. `ttlLeftMs`: what is left of a pushed check's time. */
  begin(record: CheckRecord, ttlLeftMs?: number): void {
    const { spec } = record;
    this.end(spec.id);
    if (this.#stopped) return;
    this.statusChanged(record);
    if (spec.kind === "ttl") this.reported(spec, ttlLeftMs);
    else if (spec.kind !== "none" && spec.kind !== "alias") this.#ask(spec);
  }

  end(checkId: string): void {
    this.#scheduler.delete(checkId);
    this.#ttls.delete(checkId);
    this.#reaps.delete(checkId);
    this.kept(checkId);
    this.#release(checkId);
  }

  /** A pushed check has its full time again, or what is left of it. */
  reported(spec: CheckSpec, leftMs?: number): void {
    if (spec.kind === "ttl" && spec.ttlMs !== undefined && spec.ttlMs > 0)
      this.#ttls.set(spec.id, leftMs ?? spec.ttlMs);
  }

  /** Milliseconds until a pushed check runs out; undefined where it has run out or is none. */
  ttlLeftMs(checkId: string): number | undefined {
    return this.#ttls.left(checkId);
  }

  /** A report changed nothing but the time of the next one that is due: it is kept some time later. */
  keepLater(spec: CheckSpec): void {
    if (spec.kind !== "ttl" || this.#unkept.has(spec.id) || this.#stopped) return;
    this.#unkept.add(spec.id);
    this.#keeps.set(spec.id, keepAfterMs(spec.ttlMs ?? 0));
  }

  /** A check was kept as it stands. */
  kept(checkId: string): void {
    this.#unkept.delete(checkId);
    this.#keeps.delete(checkId);
  }

  /** The checks whose last report is not kept yet. */
  unkept(): readonly string[] {
    return [...this.#unkept];
  }

  statusChanged({ spec, check }: CheckRecord): void {
    if (spec.deregisterAfterMs === undefined || spec.deregisterAfterMs <= 0 || check.serviceId === "") return;
    if (check.status !== "critical") this.#reaps.delete(spec.id);
    else if (!this.#reaps.has(spec.id))
      this.#reaps.set(spec.id, Math.max(MIN_DEREGISTER_AFTER_MS, spec.deregisterAfterMs));
  }

  /** The check as the directory should have it now: with the output it has there while a change of output alone is held back. */
  carried(check: Check, now: Entry<"check"> | undefined): Check {
    const { checkUpdateMs, random } = this.#options;
    if (now === undefined || checkUpdateMs <= 0) return check;
    const held: Check = { ...check, output: now.output };
    if (now.output === check.output || !sameRecord(now, held)) {
      this.#release(check.id);
      return check;
    }
    if (this.#dueOutputs.get(check.id) === check.output) return check;
    this.#outputs.set(check.id, check.output);
    // Like Consul, at a moment within the second half of the time, so that many do not come together.
    if (!this.#heldOutputs.has(check.id))
      this.#heldOutputs.set(check.id, checkUpdateMs * (0.5 + random.fraction() / 2));
    return held;
  }

  /** Resolves when nothing is asked any more. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#ttls.clear();
    this.#reaps.clear();
    this.#heldOutputs.clear();
    this.#keeps.clear();
    await this.#scheduler.stop();
  }

  #release(checkId: string): void {
    this.#heldOutputs.delete(checkId);
    this.#dueOutputs.delete(checkId);
    this.#outputs.delete(checkId);
  }

  #ask(spec: CheckSpec): void {
    const { probes, metrics, target, happening } = this.#options;
    const timeoutMs = spec.timeoutMs > 0 ? spec.timeoutMs : (probes.get(spec.kind)?.defaultTimeoutMs ?? 10_000);
    const outputMaxBytes = spec.outputMaxBytes ?? OUTPUT_MAX_BYTES;
    const runs = metrics.counter("agent_check_runs_total", "Checks asked", { kind: spec.kind });
    this.#scheduler.set(spec.id, {
      intervalMs: spec.intervalMs,
      timeoutMs,
      light: probes.get(spec.kind)?.light === true,
      run: async (signal) => {
        runs.add();
        const probe = probes.get(spec.kind);
        if (probe === undefined)
          return {
            status: "critical",
            output: `nothing here can ask a check of kind "${spec.kind}": known are ${[...probes.keys()].sort().join(", ")}`,
            final: true,
          };
        return await probe.run(spec.detail, target(spec.id), signal, { outputMaxBytes, timeoutMs });
      },
      done: (outcome) => happening.answered(spec, outcome),
      short: (shortage) => happening.short(spec, shortage),
    });
  }
}
