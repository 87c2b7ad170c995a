// Overrides at work: what operators say is kept, and everything that is held is brought into line with it.
import { TrilithError } from "../base/error.ts";
import type { HeldOverride } from "../contracts/agent.ts";
import type { SourceList } from "../contracts/source.ts";
import type { Registration } from "../model/instance.ts";
import type { Authority } from "../model/reason.ts";
import type { HostList, KeptService } from "./host-list.ts";
import { type Listing, newStep, type Step } from "./listing.ts";
import type { Original, Overrides } from "./overrides.ts";
import { conflictOf } from "./owners.ts";
import { normalize } from "./reconcile.ts";

export interface OverridingOptions {
  readonly listing: Listing;
  readonly overrides: Overrides;
  readonly list: HostList;
  /** Takes a source's list again. */
  readonly adopt: (from: string, whole: SourceList) => Promise<void>;
}

/** See `Agent.override`. */
export class Overriding {
  readonly #options: OverridingOptions;
  readonly #listing: Listing;
  readonly #overrides: Overrides;
  /** What is said is kept one after the other: each builds upon the words that were kept before. */
  #keeping: Promise<unknown> = Promise.resolve();

  constructor(options: OverridingOptions) {
    this.#options = options;
    this.#listing = options.listing;
    this.#overrides = options.overrides;
  }

  async override(target: string, words: readonly string[], by: string): Promise<HeldOverride> {
    const keeping = this.#keeping.then(async () => {
      const planned = this.#overrides.planned(target, words, by, this.#originals());
      await this.#options.list.override(planned.for.toLowerCase(), planned);
      this.#overrides.set(planned.for, planned);
      return planned;
    });
    this.#keeping = keeping.catch(() => {});
    const override = await keeping;
    await this.reapply();
    const held = this.overrides().find((one) => one.from === undefined && one.for === override.for);
    if (held === undefined) throw new TrilithError("internal", `the override for "${override.for}" was not kept`);
    for (const { service, id } of held.matches)
      for (const name of new Set([service, this.#listing.services.get(id)?.instance.name ?? service]))
        this.#listing.note(name, id, `override by ${by}: ${words.join(" ")}`);
    return held;
  }

  async undoOverride(target: string): Promise<boolean> {
    const held = this.overrides().find(
      (one) => one.from === undefined && one.for.toLowerCase() === this.#overrideKey(target),
    );
    if (held === undefined) return false;
    await this.#options.list.override(held.for.toLowerCase(), undefined);
    this.#overrides.set(held.for, undefined);
    await this.reapply();
    for (const { service, id } of held.matches)
      this.#listing.note(service, id, `override undone: ${held.set.join(" ")}`);
    return true;
  }

  overrides(): readonly HeldOverride[] {
    return this.#overrides.held(this.#originals());
  }

  /** The name under which an override is kept that was given for this target. */
  #overrideKey(target: string): string {
    const given = target.trim().toLowerCase();
    if (this.#overrides.get(given) !== undefined) return given;
    return this.#overrides.planned(target, ["hidden"], "", this.#originals()).for.toLowerCase();
  }

  /** Everything that is registered here, hidden or not, as its source says it. */
  #originals(): readonly Original[] {
    const known: Original[] = [];
    for (const [from, { whole }] of this.#listing.sources)
      for (const registration of whole?.list ?? []) known.push({ from, registration });
    for (const { from, asked } of this.#listing.services.values())
      if (this.#listing.sources.get(from)?.whole === undefined) known.push({ from, registration: asked });
    for (const { from, registration } of this.#listing.hidden.values()) known.push({ from, registration });
    return known;
  }

  /** Brings everything into line with the overrides as they are now. */
  async reapply(except?: string): Promise<void> {
    const adopting: Promise<void>[] = [];
    for (const [from, source] of this.#listing.sources) {
      const whole = source.next?.whole ?? source.whole;
      if (whole !== undefined && from !== except) adopting.push(this.#options.adopt(from, whole));
    }
    const step = newStep();
    for (const { from, asked, authority } of [...this.#listing.services.values()])
      if (this.#listing.sources.get(from)?.whole === undefined) this.putOverridden(step, from, authority, asked, false);
    for (const [id, { from, registration, authority }] of [...this.#listing.hidden])
      if (!this.#listing.services.has(id) && conflictOf(this.#listing.held(), from, registration) === undefined)
        this.putOverridden(step, from, authority, registration, true);
    await this.#listing.commit(step, "applying overrides");
    await Promise.all(adopting);
  }

  /** Holds a service as overrides want it, or hides it. */
  putOverridden(step: Step, from: string, authority: Authority, asked: Registration, replaceChecks: boolean): void {
    const { id } = asked;
    const held = this.#listing.services.get(id);
    const told = this.#overrides.apply(from, asked);
    if (told === undefined) {
      if (held !== undefined) this.#listing.removeService(step, id, this.#overrides.hiding(asked));
      step.kept.push(this.hide(id, { from, authority, registration: asked }));
      return;
    }
    if (this.#listing.hidden.has(id)) step.kept.push(this.hide(id, undefined));
    const registration = normalize(told);
    // What one override set up goes with it, and what another one replaced comes back.
    const named = new Set(registration.checks.map((spec) => spec.id));
    if (held?.from === from && (held.registration.overridden ?? registration.overridden) !== undefined)
      for (const spec of held.registration.checks)
        if (!named.has(spec.id) && this.#listing.checks.get(spec.id)?.from === from)
          this.#listing.setCheck(step, spec.id, undefined);
    this.#listing.putService(step, from, authority, registration, replaceChecks);
    const source = this.#listing.sources.get(from);
    if (source !== undefined && source.whole === undefined) source.last.set(id, registration);
  }

  /** Remembers what is hidden, or (undefined) forgets it. */
  hide(id: string, kept: KeptService | undefined): Promise<void> {
    if (kept === undefined) this.#listing.hidden.delete(id);
    else this.#listing.hidden.set(id, kept);
    return this.#options.list.hidden(id, kept);
  }
}
