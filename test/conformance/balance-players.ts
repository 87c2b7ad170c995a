// Plays the same story to both implementations of docs/balancing.md: the C picker (native/test/picker.c, compiled once) and the TypeScript balancer.
import { execFile, spawnSync } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { constants, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { promisify } from "node:util";
import type { Backend, Policy, Target } from "../../src/lookup/balance/balancer.ts";
import { createBalancer } from "../../src/lookup/balance/create.ts";
import { seededRandom } from "../support/lookup.ts";
import { havePrograms } from "../support/peers.ts";

const ROOT = resolve(import.meta.dirname, "../..");
const POLICY_NUMBERS: Readonly<Record<Policy, number>> = {
  p2c: 0,
  "round-robin": 1,
  random: 2,
  least: 3,
  first: 4,
  sticky: 5,
};

/** One step of a story. `pick`: so many choices; `order`: one choice and all of its fall-backs; `outcome`: of a try of the list's backend. */
export type Step =
  | { readonly at: number }
  | { readonly list: readonly Backend[] }
  | { readonly policy: Policy }
  | { readonly pick: number; readonly caller?: number }
  | { readonly order: number }
  | { readonly outcome: number; readonly code?: Failure; readonly tookMs?: number };

/** A try's error, by the name that both know. */
export type Failure = keyof typeof constants.errno;

/** Plays a story; one list of indices for each `pick` and `order`. The same seed, the same choices. */
export interface Player {
  readonly name: string;
  play(story: readonly Step[], seed: number): number[][];
}

export const typescriptPlayer: Player = {
  name: "TypeScript",
  play(story, seed) {
    let nowMs = 0;
    let list: readonly Backend[] = [];
    let policy: Policy = "p2c";
    const balancer = createBalancer({ clock: { now: () => nowMs }, random: seededRandom(seed) });
    const told: number[][] = [];
    const order = (limit: number, caller: number): readonly Target[] =>
      balancer.order("web", list, { policy, limit, caller: String(caller) });
    const indices = (targets: readonly Target[]): number[] => targets.map(({ backend }) => list.indexOf(backend));
    for (const step of story) {
      if ("at" in step) nowMs = step.at;
      else if ("list" in step) list = step.list;
      else if ("policy" in step) policy = step.policy;
      else if ("order" in step) told.push(indices(order(list.length || 1, step.order)));
      else if ("pick" in step)
        told.push(Array.from({ length: step.pick }, () => indices(order(1, step.caller ?? 0))[0] ?? -1));
      else {
        const backend = list[step.outcome] as Backend;
        // The balancer takes outcomes by the target that it gave; asked for under another name, so that no turn of "web" is taken.
        const targets: readonly Target[] = balancer.order("outcomes", list, { policy: "first", limit: list.length });
        const target = targets.find((each) => each.backend === backend) as Target;
        balancer.report(
          target,
          step.code === undefined ? { ok: true, tookMs: step.tookMs ?? 1 } : { ok: false, code: step.code },
        );
      }
    }
    return told;
  },
};

/** The step as picker.c reads it. */
function lineOf(step: Step): string {
  if ("at" in step) return `at ${step.at}`;
  if ("policy" in step) return `policy ${POLICY_NUMBERS[step.policy]}`;
  if ("order" in step) return `order ${step.order}`;
  if ("pick" in step) return `pick ${step.pick} ${step.caller ?? 0}`;
  if ("outcome" in step) {
    const errno = step.code === undefined ? 0 : constants.errno[step.code];
    return `outcome ${step.outcome} ${errno} ${Math.round((step.tookMs ?? 1) * 1000)}`;
  }
  return ["list", ...step.list.map((each) => wordOf(each))].join(" ");
}

/** A backend as picker.c reads it. */
export function wordOf({ address, port, weight, tier, suspect }: Backend, flags = suspect === true ? 1 : 0): string {
  return `${address}/${port}/${weight}/${tier ?? 2}/${flags}`;
}

/** Compiles native/test/picker.c, with the checks of undefined behaviour (the address sanitizer would take longer to start than all else); `lines` hands it raw lines. */
export async function compilePicker(): Promise<
  Player & { lines(lines: readonly string[], seed: number): number[][]; dispose(): Promise<void> }
> {
  await havePrograms("cc");
  const folder = await mkdtemp(join(tmpdir(), "trilith-picker-"));
  const program = join(folder, "picker");
  const warnings = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-function"];
  const sanitize = ["-fsanitize=undefined", "-fno-sanitize-recover=all"];
  const source = join(ROOT, "native/test/picker.c");
  await promisify(execFile)("cc", [
    "-O1",
    "-std=gnu11",
    "-D_GNU_SOURCE",
    ...warnings,
    ...sanitize,
    source,
    "-o",
    program,
  ]);
  const lines = (all: readonly string[], seed: number): number[][] => {
    const { stdout, stderr, status } = spawnSync(program, [String(seed >>> 0)], {
      input: `${all.join("\n")}\n`,
      encoding: "utf8",
      maxBuffer: 1 << 28,
    });
    if (status !== 0) throw new Error(`picker ended with ${status}: ${stderr}`);
    return stdout
      .split("\n")
      .slice(0, -1)
      .map((line) => line.split(" ").filter(Boolean).map(Number));
  };
  return {
    name: "C",
    lines,
    play: (story, seed) => lines(story.map(lineOf), seed),
    dispose: () => rm(folder, { recursive: true, force: true }),
  };
}
