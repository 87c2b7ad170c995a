// Why an instance is gone, as its grave tells.
import type { View } from "../contracts/directory.ts";
import type { Reason } from "../model/reason.ts";
import type { Index } from "../model/record.ts";
import type { Facts } from "./filter.ts";

/** Graves are found by when they were dug: their keys begin with that time in fifteen digits. */
const TIME_DIGITS = 15;
/** Graves are looked up in spans of ten to the power of this many milliseconds (100 s). */
const SPAN_DIGITS = 5;
const SPAN_MS = 10 ** SPAN_DIGITS;

/** What a grave tells. */
export interface Buried {
  readonly at: Index;
  readonly why: Reason | undefined;
}
/** What a view's graves tell of services, found once per view; `whole` once all graves had to be read. */
const graves = new WeakMap<View, { readonly found: Map<string, Buried>; whole: boolean }>();

/** The grave of an instance that was there before; undefined where nobody is known to have removed it (the store lost it). */
export function whyGone(view: View, nowMs: number, facts: Facts): Buried | undefined {
  let known = graves.get(view);
  const read = (found: Map<string, Buried>, prefix: string): void => {
    for (const { gone, why, modifyIndex } of view.list("grave", prefix))
      for (const { table, key } of gone ?? [])
        if (table === "service" && (found.get(key)?.at ?? 0) < modifyIndex) found.set(key, { at: modifyIndex, why });
  };
  if (known === undefined) {
    known = { found: new Map(), whole: false };
    graves.set(view, known);
    for (const atMs of [nowMs, nowMs - SPAN_MS])
      read(
        known.found,
        String(Math.max(0, Math.floor(atMs)))
          .padStart(TIME_DIGITS, "0")
          .slice(0, -SPAN_DIGITS),
      );
  }
  const after = facts.resident.instance.modifyIndex;
  const recent = known.found.get(facts.key);
  if (recent !== undefined && recent.at > after) return recent;
  if (known.whole) return undefined;
  // Dug by a host whose clock is elsewhere, perhaps.
  known.whole = true;
  read(known.found, "");
  const any = known.found.get(facts.key);
  return any !== undefined && any.at > after ? any : undefined;
}
