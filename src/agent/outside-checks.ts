// The checks that this host asks for instances on external nodes, and how they stand.
import type { Clock } from "../base/clock.ts";
import type { Metrics } from "../base/metrics.ts";
import type { Random } from "../base/random.ts";
import type { Shortage } from "../base/shortage.ts";
import type { Probe } from "../contracts/probe.ts";
import type { Check, CheckSpec } from "../model/check.ts";
import type { Instance } from "../model/instance.ts";
import type { Node } from "../model/node.ts";
import { same } from "./reconcile.ts";
import { CheckRecord } from "./records.ts";
import { Standing } from "./standing.ts";

export interface OutsideChecksOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly metrics: Metrics;
  readonly probes: ReadonlyMap<string, Probe>;
  readonly checkUpdateMs: number;
  readonly maxRunning: number | undefined;
  /** A check of this node (by key) stands otherwise now. */
  readonly changed: (nodeKey: string) => void;
  /** A check could not be asked, for this host lacks what that takes. */
  readonly short: (checkId: string, shortage: Shortage) => void;
}

interface Asked {
  readonly spec: CheckSpec;
  readonly at: { readonly nodeKey: string; readonly address: string; readonly port: number };
  record: CheckRecord;
}

/** Checks by node and id; what is no longer wanted is no longer asked. */
export class OutsideChecks {
  readonly #standing: Standing;
  readonly #asked = new Map<string, Asked>();

  constructor(options: OutsideChecksOptions) {
    const { clock, random, metrics, probes, checkUpdateMs, maxRunning } = options;
    this.#standing = new Standing({
      clock,
      random,
      metrics,
      probes,
      checkUpdateMs,
      maxRunning,
      label: "outside",
      target: (key) => this.#asked.get(key)?.at ?? { address: "", port: 0 },
      happening: {
        answered: (spec, outcome) => {
          const asked = this.#asked.get(spec.id);
          if (asked === undefined || asked.record.spec !== spec) return;
          const status = asked.record.counter.count(outcome);
          asked.record.remember(clock.now(), outcome.status, outcome.output);
          if (status === undefined) return;
          const { check } = asked.record;
          if (check.status === status && check.output === outcome.output) return;
          asked.record = new CheckRecord(
            asked.record.from,
            { ...check, status, output: outcome.output },
            spec,
            asked.record,
          );
          // An output that changed alone waits for the next whole comparison.
          if (check.status !== status) options.changed(asked.at.nodeKey);
        },
        short: (spec, shortage) => options.short(this.#asked.get(spec.id)?.spec.id ?? spec.id, shortage),
        ranOut: () => {},
        outlived: () => {},
        outputDue: () => {},
        keepDue: () => {},
      },
    });
  }

  /** Asks a check from now on, unless it is asked already in this form. `stood`: how it stands in the directory. */
  ask(instance: Instance, node: Node, nodeKey: string, spec: CheckSpec, stood: Check): void {
    if (spec.kind === "none") return;
    const key = keyOf(nodeKey, spec.id);
    const address = instance.address === "" ? node.address : instance.address;
    const at = { nodeKey, address, port: instance.port };
    const now = this.#asked.get(key);
    if (now !== undefined && same(now.spec, spec) && same(now.at, at)) return;
    // The standing knows checks by id, which is unique on one node only.
    const asking: CheckSpec = { ...spec, id: key };
    const record = new CheckRecord(instance.origin.source, stood, asking, now?.record);
    this.#asked.set(key, { spec, at, record });
    this.#standing.begin(record);
  }

  /** Ends the checks of a node that are not among these. */
  only(nodeKey: string, ids: ReadonlySet<string>): void {
    for (const [key, { at, spec }] of this.#asked) {
      if (at.nodeKey !== nodeKey || ids.has(spec.id)) continue;
      this.#asked.delete(key);
      this.#standing.end(key);
    }
  }

  /** How a check stands; undefined where this host does not ask it. */
  stands(nodeKey: string, spec: CheckSpec): Pick<Check, "status" | "output"> | undefined {
    const asked = this.#asked.get(keyOf(nodeKey, spec.id));
    return asked !== undefined && same(asked.spec, spec) ? asked.record.check : undefined;
  }

  /** The checks of one service, as this host holds them. */
  of(nodeKey: string, serviceId: string): readonly CheckRecord[] {
    return [...this.#asked.values()]
      .filter(({ at, record }) => at.nodeKey === nodeKey && record.serviceId === serviceId)
      .map(({ record }) => record);
  }

  async stop(): Promise<void> {
    await this.#standing.stop();
  }
}

function keyOf(nodeKey: string, checkId: string): string {
  return `${nodeKey}\u0000${checkId}`;
}
