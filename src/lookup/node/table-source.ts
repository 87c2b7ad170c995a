// The hook's table as a source of names, for programs whose agent does not answer.
import type { Clock } from "../../base/clock.ts";
import { TrilithError } from "../../base/error.ts";
import type { IndexedService } from "../../wire/hook-table-index.ts";
import { type NameSource, type Names, pause } from "../grpc/names.ts";
import type { CurrentTable } from "./table.ts";

/** How often it is looked whether the table says something else. */
const LOOK_MS = 1_000;

/** It knows names and one tag, and no labels. `path` is for messages. */
export function tableSource(table: CurrentTable, path: string, clock: Pick<Clock, "after">): NameSource {
  const mustBeThere = (): void => {
    if (!table.isThere()) throw new TrilithError("unavailable", `there is no table of the hook at ${path}`);
  };
  return {
    name: `the hook's table at ${path}`,
    async reach() {
      mustBeThere();
    },
    async *follow({ service, labels, tags = [] }, signal) {
      mustBeThere();
      if (Object.keys(labels).length > 0 || tags.length > 1)
        throw new TrilithError("unavailable", `the hook's table at ${path} knows a service and one tag, and no labels`);
      let told: IndexedService | undefined;
      for (let first = true; !signal.aborted; first = false) {
        const found = table.service(service, tags[0]);
        if (first || found !== told) yield namesOf(found);
        told = found;
        await pause(LOOK_MS, clock, signal);
      }
    },
  };
}

/** What an agent wrote that does not answer is the last known good. */
function namesOf(service: IndexedService | undefined): Names {
  const backends = service?.backends.filter(({ only, port }) => only !== "udp" && port !== 0) ?? [];
  const well = backends.filter(({ suspect }) => !suspect);
  return {
    fresh: false,
    known: service !== undefined,
    endpoints: (well.length > 0 ? well : backends).map(({ address, port, weight, tier }) => ({
      addresses: [{ host: address, port }],
      weight,
      tier,
      labels: service === undefined ? {} : { "trilith.balance": service.policy, "trilith.try": `${service.tryMs}ms` },
    })),
  };
}
