// Regular expressions in RE2's syntax that take linear time whatever the pattern: patterns come from outside, and must not be able to stop the agent.
import { InputError } from "../base/error.ts";
import { EDGE, type Node, parsePattern, type Test } from "./regexp-syntax.ts";

type Step =
  | { readonly kind: "char"; readonly test: Test; readonly next: number }
  | { readonly kind: "assert"; readonly holds: (before: number, after: number) => boolean; readonly next: number }
  /** Ways to go on, the preferred one first. */
  | { readonly kind: "split"; readonly next: readonly number[] }
  | { readonly kind: "save"; readonly slot: number; readonly next: number }
  | { readonly kind: "match" };

/** A compiled pattern. */
export interface Pattern {
  /** Whether the pattern occurs anywhere in the text. */
  found(text: string): boolean;
  /** The leftmost match and its groups in the order of their parentheses, "" for those that took no part; undefined without a match. */
  groups(text: string): readonly string[] | undefined;
}

const MAX_STEPS = 3000;

/** Writes a tree down as steps, from its end to its beginning; `next` is where to go on. */
class Program {
  readonly steps: Step[] = [{ kind: "match" }];

  #push(step: Step): number {
    if (this.steps.length >= MAX_STEPS) throw new InputError("", "error parsing regexp: expression too large");
    return this.steps.push(step) - 1;
  }

  add(node: Node, next: number): number {
    switch (node.kind) {
      case "empty":
        return next;
      case "char":
        return this.#push({ kind: "char", test: node.test, next });
      case "assert":
        return this.#push({ kind: "assert", holds: node.holds, next });
      case "seq":
        return node.parts.reduceRight((then, part) => this.add(part, then), next);
      case "any":
        return this.#push({ kind: "split", next: node.parts.map((part) => this.add(part, next)) });
      case "group": {
        const end = this.#push({ kind: "save", slot: 2 * node.number + 1, next });
        return this.#push({ kind: "save", slot: 2 * node.number, next: this.add(node.part, end) });
      }
      case "repeat": {
        const ways = (more: number): number[] => (node.lazy ? [next, more] : [more, next]);
        let then = next;
        if (node.max === Number.POSITIVE_INFINITY) {
          const loop: number[] = [];
          const split = this.#push({ kind: "split", next: loop });
          loop.push(...ways(this.add(node.part, split)));
          then = split;
        } else
          for (let i = node.min; i < node.max; i++)
            then = this.#push({ kind: "split", next: ways(this.add(node.part, then)) });
        for (let i = 0; i < node.min; i++) then = this.add(node.part, then);
        return then;
      }
    }
  }
}

/** Compiles a pattern. @throws InputError in Go's words ("error parsing regexp: missing closing ]: `[`") */
export function compile(pattern: string): Pattern {
  const { tree, groups } = parsePattern(pattern);
  const program = new Program();
  const start = program.add(tree, 0);
  const { steps } = program;
  return {
    found: (text) => occurs(steps, start, codesOf(text)),
    groups(text) {
      const ends = firstMatch(steps, start, codesOf(text));
      if (ends === undefined) return undefined;
      const chars = [...text];
      return Array.from({ length: groups + 1 }, (_, i) => {
        const [from, to] = [ends[2 * i], ends[2 * i + 1]];
        return from === undefined || to === undefined ? "" : chars.slice(from, to).join("");
      });
    },
  };
}

const codesOf = (text: string): readonly number[] => Array.from(text, (char) => char.codePointAt(0) as number);

function occurs(steps: readonly Step[], start: number, codes: readonly number[]): boolean {
  let alive: number[] = [];
  const marks = new Int32Array(steps.length).fill(-1);
  let before = EDGE;
  for (let at = 0; at <= codes.length; at++) {
    const after = at === codes.length ? EDGE : (codes[at] as number);
    const reading: number[] = [];
    // A match may begin anywhere: the start is tried again at every place.
    const stack = [start, ...alive];
    for (let step = stack.pop(); step !== undefined; step = stack.pop()) {
      if (marks[step] === at) continue;
      marks[step] = at;
      const it = steps[step] as Step;
      if (it.kind === "match") return true;
      if (it.kind === "char") reading.push(step);
      else if (it.kind === "split") stack.push(...it.next);
      else if (it.kind === "save" || it.holds(before, after)) stack.push(it.next);
    }
    if (at === codes.length) return false;
    alive = [];
    for (const step of reading) {
      const it = steps[step] as Step & { readonly kind: "char" };
      if (it.test(after)) alive.push(it.next);
    }
    before = after;
  }
  return false;
}

/** Where groups begin (even places) and end (odd places); the whole match is group 0. */
type Ends = readonly (number | undefined)[];

/**
 * The leftmost match, of those at one place the one that a backtracking engine would find first. All ways are walked at once in the
 * order of preference, each step at most once per character.
 */
function firstMatch(steps: readonly Step[], start: number, codes: readonly number[]): Ends | undefined {
  let alive: { readonly step: number; readonly ends: Ends }[] = [];
  let best: Ends | undefined;
  const marks = new Int32Array(steps.length).fill(-1);
  let before = EDGE;
  for (let at = 0; at <= codes.length; at++) {
    const after = at === codes.length ? EDGE : (codes[at] as number);
    const next: typeof alive = [];
    // Whoever began further left is preferred; after a match nobody begins.
    if (best === undefined) alive.push({ step: start, ends: [at] });
    const stack = alive.reverse();
    for (let way = stack.pop(); way !== undefined; way = stack.pop()) {
      const { step, ends } = way;
      if (marks[step] === at) continue;
      marks[step] = at;
      const it = steps[step] as Step;
      if (it.kind === "match") {
        best = [ends[0], at, ...ends.slice(2)];
        // What is left is less preferred.
        break;
      }
      if (it.kind === "char") {
        if (after !== EDGE && it.test(after)) next.push({ step: it.next, ends });
      } else if (it.kind === "split") {
        for (let i = it.next.length - 1; i >= 0; i--) stack.push({ step: it.next[i] as number, ends });
      } else if (it.kind === "save") {
        const saved = [...ends];
        saved[it.slot] = at;
        stack.push({ step: it.next, ends: saved });
      } else if (it.holds(before, after)) stack.push({ step: it.next, ends });
    }
    if (next.length === 0 && best !== undefined) return best;
    alive = next;
    before = after;
  }
  return best;
}
