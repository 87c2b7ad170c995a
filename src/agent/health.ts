// How the checks of this host's services stand: asked, reported, run out, standing as others stand; and what is deregistered for it.
import type { Clock } from "../base/clock.ts";
import { messageOf, TrilithError } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metrics.ts";
import type { Random } from "../base/random.ts";
import type { Directory } from "../contracts/directory.ts";
import type { Probe } from "../contracts/probe.ts";
import type { Outcome, Status } from "../model/check.ts";
import { head } from "../wire/check-output.ts";
import { Aliases } from "./alias.ts";
import { expiredOutput } from "./checks/ttl.ts";
import { type Listing, newStep, type Step } from "./listing.ts";
import { CheckRecord, isMaintenance } from "./records.ts";
import type { Shortages } from "./shortages.ts";
import { OUTPUT_MAX_BYTES, Standing } from "./standing.ts";

export interface HealthOptions {
  readonly listing: Listing;
  readonly directory: Directory;
  /** This host's node, and the address at which its services are asked that have none of their own. */
  readonly node: string;
  readonly address: string;
  readonly clock: Clock;
  readonly random: Random;
  readonly metrics: Metrics;
  readonly log: Log;
  readonly probes: ReadonlyMap<string, Probe>;
  readonly checkUpdateMs: number;
  readonly maxRunning: number | undefined;
  readonly missingNodePasses: boolean;
  /** Told of checks that could not be asked. */
  readonly shortages: Pick<Shortages, "met">;
  /** These ids are free again. */
  readonly freed: (ids: readonly string[]) => void;
  /** Aborted when the agent stops. */
  readonly signal: AbortSignal;
}

/** The clockwork of checks, and what its results change in the list. */
export class Health {
  readonly standing: Standing;
  readonly aliases: Aliases;
  readonly #options: HealthOptions;
  readonly #listing: Listing;

  constructor(options: HealthOptions) {
    this.#options = options;
    this.#listing = options.listing;
    const { directory, node, clock, random, metrics, probes, checkUpdateMs, maxRunning } = options;
    this.standing = new Standing({
      clock,
      random,
      metrics,
      probes,
      checkUpdateMs: checkUpdateMs,
      maxRunning: maxRunning,
      target: (checkId) => {
        const instance = this.#listing.services.get(this.#listing.checks.get(checkId)?.serviceId ?? "")?.instance;
        const { address = "", port = 0 } = instance ?? {};
        return { address: address === "" ? options.address : address, port };
      },
      happening: {
        answered: (spec, outcome) => {
          const held = this.#listing.checks.get(spec.id);
          if (held === undefined || held.spec !== spec) return;
          const status = held.counter.count(outcome);
          if (status === undefined) held.remember(clock.now(), outcome.status, outcome.output);
          else this.#standAndTell(held, status, outcome.output);
        },
        short: (spec, shortage) => options.shortages.met(spec.id, shortage),
        ranOut: (id) => {
          const held = this.#listing.checks.get(id);
          if (held !== undefined) this.#standAndTell(held, "critical", expiredOutput(held.check.output));
        },
        outlived: (id) => this.#reap(id),
        outputDue: (id) => this.#listing.touch([{ table: "check", id }]),
        keepDue: (id) => this.#listing.keepCheck(id),
      },
    });
    this.aliases = new Aliases({
      directory,
      clock,
      log: options.log,
      node: node,
      missingNodePasses: options.missingNodePasses,
      checksOf: (serviceId) =>
        [...(this.#listing.checksOf.get(serviceId) ?? [])].flatMap((id) => this.#listing.checks.get(id) ?? []),
      hasService: (id) => this.#listing.services.has(id),
      stands: (id, { status, output }) => {
        const held = this.#listing.checks.get(id);
        if (held !== undefined && (held.check.status !== status || held.check.output !== output))
          this.#standAndTell(held, status, output);
      },
    });
  }

  async report(checkId: string, outcome: Outcome): Promise<void> {
    const held = this.#listing.mustHold(checkId);
    const { spec } = held;
    if ((spec.kind !== "ttl" && spec.kind !== "none") || isMaintenance(checkId))
      throw new TrilithError("invalid", `CheckID ${JSON.stringify(checkId)} does not have associated TTL`);
    this.standing.reported(spec);
    this.#options.log.debug("Check status updated", { check: checkId, status: outcome.status });
    const step = newStep();
    this.#stand(step, held, outcome.status, head(outcome.output, spec.outputMaxBytes ?? OUTPUT_MAX_BYTES));
    if (step.kept.length === 0) this.standing.keepLater(spec);
    if (step.checks.size > 0) await this.#listing.commit(step, `keeping the state of check "${checkId}"`);
    // The same may just be on its way for somebody else.
    else await this.#listing.arrived(checkId);
  }

  #reap(checkId: string): void {
    const held = this.#listing.checks.get(checkId);
    if (held === undefined || held.check.status !== "critical") return;
    const service = this.#listing.services.get(held.serviceId);
    if (service === undefined) return;
    const step = newStep();
    const text = `check "${checkId}" was critical for longer than ${Math.round((held.spec.deregisterAfterMs ?? 0) / 1000)} s`;
    this.#options.log.info(`service "${held.serviceId}" is deregistered`, { why: text });
    this.#listing.removeService(step, held.serviceId, {
      code: "reaped",
      text,
      confirmed: true,
      atMs: this.#options.clock.now(),
    });
    this.#listing.commit(step, `deregistering service "${held.serviceId}"`).then(
      () => this.#options.freed([held.serviceId]),
      (error: unknown) => {
        if (!this.#options.signal.aborted) this.#options.log.error(messageOf(error));
      },
    );
  }

  /** A result of the agent's own asking. */
  #standAndTell(held: CheckRecord, status: Status, output: string): void {
    const step = newStep();
    const before = held.check.status;
    this.#stand(step, held, status, output);
    if (step.checks.size === 0) return;
    if (before !== status)
      this.#options.log.debug(status === "critical" ? "Check is now critical" : "Check status updated", {
        check: held.check.id,
        status,
        before,
        output: output.slice(0, 200),
      });
    // A status that cannot be kept or carried now is still true: nothing is undone, the carrier tries again.
    this.#listing.version.grow();
    for (const promise of step.kept)
      promise.catch((error: unknown) => {
        this.#options.log.error(`the status of check "${held.check.id}" could not be kept`, {
          error: messageOf(error),
        });
      });
    this.#listing.touch([{ table: "check", id: held.check.id }]);
  }

  #stand(step: Step, held: CheckRecord, status: Status, output: string): void {
    const { check, spec, from } = held;
    held.remember(this.#options.clock.now(), status, output);
    if (check.status === status && check.output === output) return;
    this.#listing.setCheck(step, spec.id, new CheckRecord(from, { ...check, status, output }, spec, held));
  }
}
