// Taking over what sources list: whole lists, one at a time per source, with what overrides make of them; conflicts and faults are complained about.
import type { Clock } from "../base/clock.ts";
import { messageOf, type TrilithError } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import type { SourceList } from "../contracts/source.ts";
import type { CheckSpec } from "../model/check.ts";
import type { HostList } from "./host-list.ts";
import { type Complaint, type Listing, newStep, type SourceState } from "./listing.ts";
import type { Outside } from "./outside.ts";
import type { Overrides } from "./overrides.ts";
import type { Overriding } from "./overriding.ts";
import { conflictOf } from "./owners.ts";
import { reconcile } from "./reconcile.ts";
import { type CheckRecord, unaskable } from "./records.ts";

export interface AdoptionOptions {
  readonly listing: Listing;
  readonly overrides: Overrides;
  readonly overriding: Pick<Overriding, "hide" | "reapply">;
  readonly outside: Pick<Outside, "adopt">;
  readonly list: Pick<HostList, "stated">;
  readonly askFault: (from: string, spec: CheckSpec) => TrilithError | undefined;
  readonly clock: Clock;
  readonly log: Log;
  /** Aborted when the agent stops. */
  readonly signal: AbortSignal;
}

/** See `Agent.adopt` and `Agent.restate`. */
export class Adoption {
  readonly #options: AdoptionOptions;
  readonly #listing: Listing;

  constructor(options: AdoptionOptions) {
    this.#options = options;
    this.#listing = options.listing;
  }

  /** Takes a source's whole list; `again`: also what others deregistered meanwhile. */
  adopt(from: string, whole: SourceList, again = false): Promise<void> {
    if (this.#options.signal.aborted) return Promise.reject(this.#options.signal.reason);
    const source = this.#listing.source(from);
    return new Promise((resolve, reject) => {
      // A newer list speaks for the older one that still waits.
      const waiting = source.next?.waiting ?? [];
      waiting.push({ resolve, reject });
      source.next = { whole, again: again || source.next?.again === true, waiting };
      if (!source.busy) void this.#adoptAll(from, source);
    });
  }

  async #adoptAll(from: string, source: SourceState): Promise<void> {
    source.busy = true;
    for (let next = source.next; next !== undefined; next = source.next) {
      source.next = undefined;
      try {
        if (next.again)
          for (const [id, { checks }] of source.last)
            if (!this.#listing.services.has(id) || checks.some((spec) => !this.#listing.checks.has(spec.id)))
              source.last.delete(id);
        const { whole } = next;
        // From now on: who restates meanwhile must not bring the one before back.
        source.whole = whole;
        const restated = this.#options.overrides.state(from, whole.overrides ?? []);
        // Kept, so that after a restart nothing flaps while the other sources are read sooner.
        if (restated) await this.#options.list.stated(from, whole.overrides);
        const told = this.#options.overrides.over(from, whole);
        await this.#adoptOne(from, source, { ...told, list: told.list.filter((r) => r.external === undefined) });
        await this.#options.outside.adopt(from, told, next.again);
        await Promise.all(
          [...this.#listing.hidden]
            .filter(([, kept]) => kept.from === from)
            .map(([id]) => this.#options.overriding.hide(id, undefined)),
        );
        if (restated) await this.#options.overriding.reapply(from);
        for (const { resolve } of next.waiting) resolve();
      } catch (error) {
        for (const { reject } of next.waiting) reject(error);
      }
    }
    source.busy = false;
  }

  async #adoptOne(from: string, source: SourceState, whole: SourceList): Promise<void> {
    if (this.#options.signal.aborted) throw this.#options.signal.reason;
    const difference = reconcile(from, source.last, whole, this.#options.clock.now());
    const last = new Map(difference.list);
    const complaints = [...difference.complaints];
    const step = newStep();
    source.blocked.clear();
    // A thing that only got another id keeps how its checks stood.
    const stood = new Map<string, readonly CheckRecord[]>();
    for (const [id, oldId] of difference.renamed)
      stood.set(
        id,
        (this.#listing.services.get(oldId)?.registration.checks ?? []).flatMap(
          (spec) => this.#listing.checks.get(spec.id) ?? [],
        ),
      );
    const freed: string[] = [];
    for (const { id, why } of difference.gone) {
      if (this.#listing.services.get(id)?.from !== from) continue;
      this.#listing.removeService(step, id, why);
      freed.push(id);
    }
    for (const wanted of difference.put) {
      const conflict = conflictOf(this.#listing.held(), from, wanted);
      if (conflict !== undefined) {
        complaints.push({ about: wanted.id, text: conflict });
        last.delete(wanted.id);
        source.blocked.add(wanted.id);
        // What it changed into is somebody else's: the old form must not stay either.
        if (this.#listing.services.get(wanted.id)?.from === from)
          this.#listing.removeService(step, wanted.id, {
            code: "refused",
            text: conflict,
            confirmed: true,
            atMs: this.#options.clock.now(),
          });
        continue;
      }
      const checks = wanted.checks.map((spec) => {
        const fault = this.#options.askFault(from, spec);
        if (fault === undefined) return spec;
        complaints.push({ about: wanted.id, text: fault.message });
        return unaskable(spec, fault.message);
      });
      const authority = wanted.authority ?? whole.authority;
      this.#listing.putService(step, from, authority, { ...wanted, checks }, true, stood.get(wanted.id));
    }
    try {
      const refused: string[] = [];
      await this.#listing.commit(step, `adopting the list of ${from}`, (id, text) => {
        complaints.push({ about: id, text });
        refused.push(id);
      });
      for (const id of refused) {
        // What was refused is as it was before: in its old form, or not there.
        const old = this.#listing.services.get(id);
        if (old?.from === from) last.set(id, old.registration);
        else last.delete(id);
      }
    } finally {
      // Also after a failure: what was said about the list stays true.
      this.#tellNew(from, source.complaints, complaints);
      source.complaints = complaints;
    }
    // What somebody took over while this was being written is not held any more.
    for (const id of source.blocked) last.delete(id);
    source.last = last;
    this.offerAgain(freed, from);
  }

  /** Each complaint is one line in the log when it comes up: whoever dropped a bad file looks there first. */
  #tellNew(from: string, before: readonly Complaint[], now: readonly Complaint[]): void {
    const known = new Set(before.map(({ about, text }) => `${about}\0${text}`));
    for (const { about, text } of now) {
      if (known.has(`${about}\0${text}`)) continue;
      known.add(`${about}\0${text}`);
      this.#options.log.warn(text.startsWith(about) ? `${from}: ${text}` : `${from}: ${about}: ${text}`);
    }
  }

  async restate(from?: string): Promise<void> {
    if (this.#options.signal.aborted) throw this.#options.signal.reason;
    const adopting: Promise<void>[] = [];
    for (const [name, source] of this.#listing.sources) {
      const whole = source.next?.whole ?? source.whole;
      if (whole !== undefined && (from === undefined || name === from)) adopting.push(this.adopt(name, whole, true));
    }
    await Promise.all(adopting);
  }

  /** Lets sources that wanted freed ids have them. */
  offerAgain(ids: readonly string[], except?: string): void {
    for (const [from, source] of this.#listing.sources)
      if (from !== except && source.whole !== undefined && ids.some((id) => source.blocked.has(id)))
        this.adopt(from, source.next?.whole ?? source.whole).catch((error: unknown) => {
          if (!this.#options.signal.aborted)
            this.#options.log.warn(`the list of ${from} could not be adopted again`, { error: messageOf(error) });
        });
  }
}
