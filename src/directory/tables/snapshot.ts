// A store's whole content, put together from the parts that it comes in.
import type { Batch, Row } from "../../contracts/storage.ts";
import type { Index } from "../../model/record.ts";
import { Tables } from "../tables.ts";

/** Parts of a snapshot, in the order they came. */
export class Snapshot {
  #rows: Row[] = [];
  #index: Index = 1;

  /** Takes the next part. */
  take(batch: Extract<Batch, { kind: "snapshot" }>): void {
    for (const row of batch.rows) this.#rows.push(row);
    this.#index = Math.max(1, batch.index);
  }

  /** The tables that its rows make. */
  tables(): Tables {
    return Tables.from(this.#rows, this.#index);
  }

  /** Lets go of the rows. */
  clear(): void {
    this.#rows = [];
  }
}
