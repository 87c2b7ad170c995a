// Services and checks registered, and taken away again, one at a time: what is wrong with them, and who may.
import type { Clock } from "../base/clock.ts";
import { InputError, TrilithError } from "../base/error.ts";
import type { CheckRegistration } from "../contracts/agent.ts";
import type { CheckSpec } from "../model/check.ts";
import type { Registration } from "../model/instance.ts";
import type { Reason } from "../model/reason.ts";
import { type Listing, newStep } from "./listing.ts";
import type { Overriding } from "./overriding.ts";
import { checkConflictOf, conflictOf, mayTake } from "./owners.ts";
import { normalize, registrationFault, whoIs } from "./reconcile.ts";

/** What registering works on. */
export interface RegisteringGround {
  readonly listing: Listing;
  readonly overriding: Overriding;
  readonly clock: Pick<Clock, "now">;
  /** @throws TrilithError where the check may not be asked, or not by its source */
  readonly mustBeAskable: (from: string, spec: CheckSpec) => void;
  /** Told of IDs that another source may have now. */
  readonly freed: (ids: readonly string[]) => void;
}

/** See `Agent.register`. */
export class Registering {
  readonly #ground: RegisteringGround;
  readonly #listing: Listing;

  constructor(ground: RegisteringGround) {
    this.#ground = ground;
    this.#listing = ground.listing;
  }

  /** As `Agent.register`. */
  async register(from: string, r: Registration, options: { readonly replaceChecks?: boolean } = {}): Promise<void> {
    const fault = registrationFault(r);
    if (fault !== undefined) throw new InputError("", fault);
    const asked = normalize(r);
    for (const spec of asked.checks) this.#ground.mustBeAskable(from, spec);
    const conflict = conflictOf(this.#listing.held(), from, asked);
    if (conflict !== undefined) throw new TrilithError("conflict", conflict);
    const step = newStep();
    this.#ground.overriding.putOverridden(step, from, "first-hand", asked, options.replaceChecks === true);
    await this.#listing.commit(step, `registering service "${asked.id}"`);
  }

  /** As `Agent.deregister`. */
  async deregister(from: string, id: string, why?: Reason): Promise<void> {
    const held = this.#listing.services.get(id);
    const hidden = this.#listing.hidden.get(id);
    if (held === undefined && hidden !== undefined && mayTake(from, hidden.from)) {
      await this.#ground.overriding.hide(id, undefined);
      return;
    }
    if (held === undefined)
      throw new TrilithError(
        "not-found",
        `Unknown service ID ${JSON.stringify(id)}. Ensure that the service ID is passed, not the service name.`,
      );
    if (!mayTake(from, held.from))
      throw new TrilithError(
        "conflict",
        `service "${id}" is held by ${held.from} (${whoIs(held.registration)}) and cannot be deregistered by ${from}`,
      );
    const step = newStep();
    this.#listing.removeService(
      step,
      id,
      why ?? {
        code: "deregistered",
        text: `was deregistered by ${from}`,
        confirmed: true,
        atMs: this.#ground.clock.now(),
      },
    );
    await this.#listing.commit(step, `deregistering service "${id}"`);
    this.#ground.freed([id]);
  }

  /** As `Agent.registerCheck`. */
  async registerCheck(from: string, check: CheckRegistration): Promise<void> {
    const { serviceId, ...given } = check;
    const id = given.id === "" ? given.name : given.id;
    if (id === "") throw new InputError("", "the check has neither an id nor a name: expected at least one of them");
    const spec: CheckSpec = { ...given, id, name: given.name === "" ? id : given.name };
    const service = this.#listing.services.get(serviceId);
    if (serviceId !== "" && service === undefined)
      throw new TrilithError("not-found", `ServiceID ${JSON.stringify(serviceId)} does not exist`);
    this.#ground.mustBeAskable(from, spec);
    const conflict = checkConflictOf(this.#listing.held(), from, id, serviceId);
    if (conflict !== undefined) throw new TrilithError("conflict", conflict);
    const step = newStep();
    this.#listing.putCheck(step, from, service?.authority ?? "first-hand", spec, serviceId);
    await this.#listing.commit(step, `registering check "${id}"`);
  }

  /** As `Agent.deregisterCheck`. */
  async deregisterCheck(from: string, id: string): Promise<void> {
    const held = this.#listing.mustHold(id);
    if (!mayTake(from, held.from))
      throw new TrilithError("conflict", `check "${id}" is held by ${held.from} and cannot be deregistered by ${from}`);
    const step = newStep();
    this.#listing.setCheck(step, id, undefined);
    await this.#listing.commit(step, `deregistering check "${id}"`);
  }
}
