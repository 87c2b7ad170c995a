// The stable order: by node, then ID, the same for the same endpoints every time, as files and lists want it.
import type { Picker } from "./picker.ts";

/** Endpoints come from the filter in this order already. */
export const stable: Picker = (endpoints, limit) => (limit >= endpoints.length ? endpoints : endpoints.slice(0, limit));
