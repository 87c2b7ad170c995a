// What of this host should stand in the directory: its node, its sign of life, its own service, everything in its list.
import { messageOf } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import { type Check, NODE_ALIVE_CHECK } from "../model/check.ts";
import type { Instance } from "../model/instance.ts";
import type { Node } from "../model/node.ts";
import type { Entry, Tables } from "../model/record.ts";
import type { HostTable, Ref } from "./carry.ts";
import { type Listing, newStep } from "./listing.ts";
import { OWN } from "./owners.ts";
import { same } from "./reconcile.ts";
import type { Standing } from "./standing.ts";

export interface HostTruthOptions {
  readonly listing: Listing;
  readonly standing: Pick<Standing, "carried">;
  /** This host's; another one when its labels change. */
  readonly node: () => Node;
  readonly alive: Check;
  readonly selfInstance: Instance | undefined;
  readonly log: Log;
}

/** What the carrier compares the directory with. */
export class HostTruth {
  readonly #options: HostTruthOptions;
  readonly #listing: Listing;

  constructor(options: HostTruthOptions) {
    this.#options = options;
    this.#listing = options.listing;
  }

  ownerOf(ref: Ref): string {
    if (ref.table === "service") return this.#listing.services.get(ref.id)?.from ?? OWN;
    return this.#listing.checks.get(ref.id)?.from ?? OWN;
  }

  *all(): Iterable<Ref> {
    yield { table: "node", id: this.#options.node().name };
    yield { table: "check", id: NODE_ALIVE_CHECK };
    if (this.#options.selfInstance !== undefined) yield { table: "service", id: this.#options.selfInstance.id };
    for (const id of this.#listing.services.keys()) yield { table: "service", id };
    for (const id of this.#listing.checks.keys()) yield { table: "check", id };
  }

  wanted(ref: Ref, now: Entry<HostTable> | undefined): Tables[HostTable] | undefined {
    if (ref.table === "node") return this.#options.node();
    if (ref.table === "service") {
      if (ref.id === this.#options.selfInstance?.id) return this.#options.selfInstance;
      return this.#wantedService(ref.id, now as Entry<"service"> | undefined);
    }
    if (ref.id === NODE_ALIVE_CHECK) return this.#options.alive;
    const check = this.#listing.checks.get(ref.id)?.check;
    return check === undefined ? undefined : this.#options.standing.carried(check, now as Entry<"check"> | undefined);
  }

  #wantedService(id: string, now: Entry<"service"> | undefined): Instance | undefined {
    const held = this.#listing.services.get(id);
    if (held === undefined || held.instance.enableTagOverride !== true || now === undefined) return held?.instance;
    if (same(now.tags, held.instance.tags)) return held.instance;
    // Others may set its tags in the catalog, and what they set wins here, too.
    const step = newStep();
    const taken = this.#listing.serviceRecord(held.from, held.authority, held.registration, [...now.tags]);
    this.#listing.setService(step, id, taken);
    this.#listing.services.set(id, this.#listing.withChecks(taken));
    this.#listing.version.grow();
    for (const promise of step.kept)
      promise.catch((error: unknown) => {
        this.#options.log.error(`the tags of service "${id}" could not be kept`, { error: messageOf(error) });
      });
    return taken.instance;
  }
}
