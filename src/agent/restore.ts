// Puts back what was kept of this host's list by an earlier life of the agent.
import type { Clock } from "../base/clock.ts";
import { messageOf, type TrilithError } from "../base/error.ts";
import type { Log } from "../base/log.ts";
import type { CheckSpec } from "../model/check.ts";
import { type HostList, type Kept, type KeptCheck, keepAfterMs } from "./host-list.ts";
import type { Listing } from "./listing.ts";
import type { Overrides } from "./overrides.ts";
import { CheckRecord, checkOf, isMaintenance, isRefusal, unaskable } from "./records.ts";

export interface Restoring {
  readonly listing: Listing;
  readonly overrides: Pick<Overrides, "load">;
  readonly list: Pick<HostList, "check">;
  readonly node: string;
  readonly clock: Clock;
  readonly log: Log;
  readonly askFault: (from: string, spec: CheckSpec) => TrilithError | undefined;
}

/** Puts back what was kept, as it stood. */
export function restore(
  { services, checks, overrides: said, stated, hidden, complete }: Kept,
  { listing, overrides, list, node, clock, log, askFault }: Restoring,
): void {
  overrides.load(said, stated);
  for (const [id, kept] of hidden) if (!listing.services.has(id)) listing.hidden.set(id, kept);
  for (const [id, kept] of services) {
    if (listing.services.has(id)) continue;
    const { registration } = kept;
    if (kept.draining !== undefined) listing.draining.set(id, kept.draining);
    listing.services.set(id, listing.serviceRecord(kept.from, kept.authority, registration, kept.tags));
    if (kept.from !== "api") listing.source(kept.from).last.set(id, registration);
  }
  for (const [id, kept] of checks) {
    if (listing.checks.has(id)) continue;
    if (kept.serviceId !== "" && !listing.services.has(kept.serviceId)) {
      // Its service went in a write that did not take it along: nobody owns it any more.
      list.check(id, undefined).catch((error: unknown) => {
        log.warn(`check "${id}" of a service that is gone could not be forgotten`, { error: messageOf(error) });
      });
      continue;
    }
    const authority = services.get(kept.serviceId)?.authority ?? "first-hand";
    // What was allowed when it was registered need not be allowed now. What is kept stays as it is: it may be allowed again.
    const fault = isMaintenance(id) || isRefusal(kept.spec) ? undefined : askFault(kept.from, kept.spec);
    const spec = fault === undefined ? kept.spec : unaskable(kept.spec, fault.message);
    if (fault !== undefined)
      listing.ownComplaints.set(`unaskable\0${id}`, { from: kept.from, about: id, text: fault.message });
    const stands = fault === undefined ? kept : ({ status: "critical", output: fault.message } as const);
    const record = new CheckRecord(kept.from, checkOf(node, kept.from, authority, spec, kept.serviceId, stands), spec);
    listing.checks.set(id, record);
    listing.index(id, kept.serviceId);
    listing.begin(record, ttlLeft(kept, complete, clock));
  }
  for (const [id, record] of listing.services) listing.services.set(id, listing.withChecks(record));
  if (services.size + checks.size > 0) listing.version.grow();
}

/** A pushed check goes on with the time that was left to it: that nobody could report to an agent that was away is no excuse. */
function ttlLeft({ spec, expiresAtMs }: KeptCheck, complete: boolean, clock: Clock): number | undefined {
  const { ttlMs } = spec;
  if (expiresAtMs === undefined || ttlMs === undefined) return undefined;
  const leftMs = expiresAtMs - clock.now() + (complete ? 0 : keepAfterMs(ttlMs));
  return Math.min(Math.max(0, leftMs), ttlMs);
}
