// Services and this host's node taken out of routing, and put back: maintenance by hand, drains of what is on its way out.
import { TrilithError, wrap } from "../base/error.ts";
import type { Reason } from "../model/reason.ts";
import type { Carrier } from "./carry.ts";
import type { HostList } from "./host-list.ts";
import { type Listing, newStep } from "./listing.ts";
import { OWN } from "./owners.ts";
import { maintenanceSpec } from "./records.ts";

/** What taking out of routing works on. */
export interface OutOfRoutingGround {
  readonly listing: Listing;
  readonly list: HostList;
  readonly carrier: Carrier;
}

/** See `Agent.maintenance` and `Agent.drain`. */
export class OutOfRouting {
  readonly #ground: OutOfRoutingGround;
  readonly #listing: Listing;

  constructor(ground: OutOfRoutingGround) {
    this.#ground = ground;
    this.#listing = ground.listing;
  }

  /** As `Agent.maintenance`. */
  async maintenance(serviceId: string, on: boolean, reason = ""): Promise<void> {
    const service = this.#listing.services.get(serviceId);
    if (serviceId !== "" && service === undefined)
      throw new TrilithError(
        "not-found",
        `Unknown service ID ${JSON.stringify(serviceId)}. Ensure that the service ID is passed, not the service name.`,
      );
    const spec = maintenanceSpec(serviceId, reason);
    if (on === this.#listing.checks.has(spec.id)) return;
    const step = newStep();
    if (on) this.#listing.putCheck(step, OWN, service?.authority ?? "first-hand", spec, serviceId);
    else this.#listing.setCheck(step, spec.id, undefined);
    if (service !== undefined)
      this.#listing.note(
        service.instance.name,
        serviceId,
        on ? `is in maintenance: ${spec.notes}` : "is no longer in maintenance",
      );
    await this.#listing.commit(
      step,
      `setting the maintenance of ${serviceId === "" ? "the node" : `service "${serviceId}"`}`,
    );
  }

  /** As `Agent.drain`. */
  async drain(serviceId: string, draining: boolean, why: Reason): Promise<void> {
    const held = this.#listing.services.get(serviceId);
    if (held === undefined)
      throw new TrilithError(
        "not-found",
        `there is no service ${JSON.stringify(serviceId)} on this host to be drained`,
      );
    if (draining === this.#listing.draining.has(serviceId)) return;
    if (draining) this.#listing.draining.set(serviceId, why);
    else this.#listing.draining.delete(serviceId);
    this.#listing.note(
      held.instance.name,
      serviceId,
      draining ? `is draining: ${why.text}` : `is routable again: ${why.text}`,
    );
    const record = this.#listing.withChecks(
      this.#listing.serviceRecord(held.from, held.authority, held.registration, held.instance.tags),
    );
    this.#listing.services.set(serviceId, record);
    this.#listing.version.grow();
    const kept = this.#ground.list.service(serviceId, this.#listing.keptService(record));
    const carried = this.#ground.carrier.touch([{ table: "service", id: serviceId }]);
    await Promise.all([kept, carried]).catch((error: unknown) => {
      throw wrap(error, `draining service "${serviceId}"`);
    });
  }
}
