// What operators say about services in place of their sources: kept, matched by the names under which people know them, applied.
import { InputError, messageOf } from "../base/error.ts";
import type { HeldOverride } from "../contracts/agent.ts";
import type { Probe } from "../contracts/probe.ts";
import type { SourceList } from "../contracts/source.ts";
import type { Registration } from "../model/instance.ts";
import { goneKeyOf } from "../model/instance.ts";
import type { Override } from "../model/override.ts";
import { addWords, applyWords, changedFacts } from "../model/override-words.ts";
import type { Reason } from "../model/reason.ts";
import { registrationFault, same, whoIs } from "./reconcile.ts";

/** A registration as its source made it, and whose it is. */
export interface Original {
  readonly from: string;
  readonly registration: Registration;
}

interface Said {
  readonly override: Override;
  readonly from: string | undefined;
}

/** A container's ID may be cut short by people down to so many characters. */
const SHORTEST_ID = 6;

/** How directly a target names a registration: by its id, by the thing's own name, by the service's name; 0 = not at all. */
function closeness(target: string, r: Registration): number {
  if (target === (r.id === "" ? r.name : r.id)) return 3;
  if (r.aka?.some((name, i) => name === target || (i > 0 && isShort(target, name))) === true) return 2;
  return target.toLowerCase() === r.name.toLowerCase() ? 1 : 0;
}

function isShort(target: string, id: string): boolean {
  return target.length >= SHORTEST_ID && id.startsWith(target);
}

export interface OverridesOptions {
  readonly probes: ReadonlyMap<string, Probe>;
  readonly now: () => number;
}

/** All overrides of one host. */
export class Overrides {
  readonly #options: OverridesOptions;
  /** By target in lower case. */
  readonly #kept = new Map<string, Override>();
  readonly #stated = new Map<string, readonly Override[]>();
  /** What could not be applied, by target. */
  readonly #faults = new Map<string, { readonly from: string; readonly about: string; readonly text: string }>();

  constructor(options: OverridesOptions) {
    this.#options = options;
  }

  /** Puts back what was kept. `stated`: what sources said last, which holds until they say it again or something else. */
  load(kept: ReadonlyMap<string, Override>, stated: ReadonlyMap<string, readonly Override[]>): void {
    for (const [key, override] of kept) this.#kept.set(key, override);
    for (const [from, overrides] of stated) this.#stated.set(from, overrides);
  }

  /** What it would be once the words are added, without taking it over. `known`: everything it may be about. @throws InputError */
  planned(given: string, words: readonly string[], by: string, known: Iterable<Original>): Override {
    const target = given.trim();
    if (target === "" || /[\u0000-\u001f]/.test(target))
      throw new InputError("override", "expected an instance's id, a service's name, or a container's name or ID");
    const about = [...known].filter(({ registration }) => closeness(target, registration) > 0);
    // What is made anew with another ID keeps its name.
    const lasting = about
      .map(({ registration: { aka = [] } }) =>
        aka.indexOf(target) > 0 || aka.slice(1).some((id) => isShort(target, id)) ? aka[0] : undefined,
      )
      .find((name) => name !== undefined);
    const name = lasting ?? target;
    const old = this.#kept.get(name.toLowerCase());
    const set = addWords(old?.set ?? [], words);
    const override: Override = { for: name, set, by, atMs: this.#options.now() };
    for (const { registration } of about) {
      const after = this.#applied(registration, set);
      const fault = after === undefined ? undefined : registrationFault(after);
      if (fault !== undefined) throw new InputError("override", `${whoIs(registration)}: ${fault}`);
    }
    return override;
  }

  /** Takes one over, or (undefined) forgets it. */
  set(target: string, override: Override | undefined): void {
    if (override === undefined) this.#kept.delete(target.toLowerCase());
    else this.#kept.set(target.toLowerCase(), override);
  }

  get(target: string): Override | undefined {
    return this.#kept.get(target.toLowerCase());
  }

  /** Takes over what a source states. True where that is something else than before. */
  state(from: string, overrides: readonly Override[]): boolean {
    const before = this.#stated.get(from) ?? [];
    if (same(before, overrides)) return false;
    if (overrides.length === 0) this.#stated.delete(from);
    else this.#stated.set(from, overrides);
    return true;
  }

  /** What overrides make of a registration; undefined = one hides it. */
  apply(from: string, r: Registration): Registration | undefined {
    const by = this.#about(r);
    if (by.length === 0) return r;
    const words = by.flatMap(({ override }) => override.set);
    const about = by.map(({ override }) => override.for).join(", ");
    try {
      const after = this.#applied(r, words);
      const fault = after === undefined ? undefined : registrationFault(after);
      if (fault !== undefined) throw new InputError("", fault);
      this.#faults.delete(`${from}\0${r.id}`);
      if (after === undefined) return undefined;
      return {
        ...after,
        overridden: { by: by.map(({ override }) => override), original: changedFacts(r, after), registration: r },
      };
    } catch (error) {
      const text = `the override for "${about}" cannot hold for ${whoIs(r)} and is left out: ${messageOf(error)}`;
      this.#faults.set(`${from}\0${r.id}`, { from: "override", about: r.id, text });
      return r;
    }
  }

  /** A source's whole list with what is said about it; what is hidden is gone for that reason. */
  over(from: string, whole: SourceList): SourceList {
    for (const key of this.#faults.keys()) if (key.startsWith(`${from}\0`)) this.#faults.delete(key);
    if (this.#kept.size === 0 && this.#stated.size === 0) return whole;
    const gone = new Map<string, Reason>(whole.gone ?? []);
    const list = whole.list.flatMap((r) => {
      const after = this.apply(from, r);
      if (after === undefined) gone.set(goneKeyOf({ ...r, id: r.id === "" ? r.name : r.id }), this.hiding(r));
      return after ?? [];
    });
    return { ...whole, list, gone };
  }

  /** Why a hidden service is not there. */
  hiding(r: Registration): Reason {
    const { override } = this.#about(r).findLast(({ override }) => override.set.includes("hidden")) ?? {};
    const text = `is hidden by the override for "${override?.for ?? r.id}", set by ${override?.by ?? "an operator"}`;
    return { code: "deregistered", text, confirmed: true, atMs: this.#options.now() };
  }

  /** All of them, with what they change at present. */
  held(known: readonly Original[]): readonly HeldOverride[] {
    const one = (override: Override, from?: string): HeldOverride => ({
      ...override,
      ...(from === undefined ? {} : { from }),
      matches: known.flatMap(({ from: source, registration: r }) =>
        closeness(override.for, r) === 0
          ? []
          : [
              {
                id: r.id === "" ? r.name : r.id,
                service: r.name,
                from: source,
                hidden: this.apply(source, r) === undefined,
                ...(r.text === undefined ? {} : { text: r.text }),
              },
            ],
      ),
    });
    return [
      ...[...this.#stated].flatMap(([from, overrides]) => overrides.map((override) => one(override, from))),
      ...[...this.#kept.values()].map((override) => one(override)),
    ];
  }

  complaints(): readonly { readonly from: string; readonly about: string; readonly text: string }[] {
    return [...this.#faults.values()];
  }

  /** Those about a registration, the closest last; what was said at run time outweighs what a file says as closely. */
  #about(r: Registration): readonly Said[] {
    const said: (Said & { readonly close: number })[] = [];
    const add = (override: Override, from: string | undefined): void => {
      const close = closeness(override.for, r);
      if (close > 0) said.push({ override, from, close });
    };
    for (const [from, overrides] of this.#stated) for (const override of overrides) add(override, from);
    for (const override of this.#kept.values()) add(override, undefined);
    return said.sort((a, b) => a.close - b.close);
  }

  #applied(r: Registration, words: readonly string[]): Registration | undefined {
    return applyWords(r, words, (kind, detail) => {
      const probe = this.#options.probes.get(kind);
      if (probe === undefined) throw new InputError("check", `this agent has no way to run ${kind} checks`);
      return probe.parse(detail);
    });
  }
}
