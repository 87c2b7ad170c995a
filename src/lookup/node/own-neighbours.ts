// The other programs of this process's user, by the counter files beside the hook's table.
import { systemClock } from "../../base/clock.ts";
import {
  atEnd,
  effectiveUid,
  errnoOf,
  isAlive,
  openCounterFile,
  ownProcess,
  startTicks,
} from "../../base/counter-file.ts";
import { systemRandom } from "../../base/random.ts";
import { createNeighbours, type Neighbours } from "../balance/neighbours.ts";

/** `table`: where the hook's table is at this moment. */
export function ownNeighbours(table: () => string): Neighbours {
  return createNeighbours({
    folder() {
      const path = table();
      const end = path.lastIndexOf("/");
      return end < 0 ? undefined : `${path.slice(0, end)}/observed`;
    },
    uid: effectiveUid,
    open: openCounterFile,
    own: ownProcess,
    isAlive,
    startTicks,
    errnoOf,
    atEnd,
    clock: systemClock,
    random: systemRandom,
  });
}
