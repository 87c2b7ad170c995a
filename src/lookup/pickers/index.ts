// The pickers by name: each puts endpoints into an order and cuts the list to a limit.
import type { Query } from "../../model/query.ts";
import { near } from "./near.ts";
import type { Picker } from "./picker.ts";
import { random } from "./random.ts";
import { stable } from "./stable.ts";

export const pickers: Readonly<Record<NonNullable<Query["order"]>, Picker>> = { random, stable, near };
