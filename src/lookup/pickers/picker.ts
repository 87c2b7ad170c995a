// What a picker is.
import type { Random } from "../../base/random.ts";
import type { Endpoint } from "../../model/query.ts";
import type { Asker, Here } from "../address.ts";

/** What a picker may look at besides the endpoints. */
export interface PickContext {
  readonly random: Random;
  readonly asker: Asker | undefined;
  readonly here: Here;
}

/**
 * Orders endpoints and keeps the first `limit` (a whole number, at least 0, or infinity). Gets a list that it must not change; may return
 * that very list. What is asked for often enough comes first often enough: an endpoint with weight above 0 never starves.
 */
export type Picker = (endpoints: readonly Endpoint[], limit: number, context: PickContext) => readonly Endpoint[];
