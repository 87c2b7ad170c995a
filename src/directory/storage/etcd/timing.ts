// How to reach the etcd of a directory, and how patient its storage is.
import { type ClientTiming, clientTiming } from "../../../base/etcd/access.ts";
import type { Settings } from "../../../contracts/settings.ts";

/** How to reach etcd, and where in it the directory lies. */
export type EtcdSettings = NonNullable<Settings["etcd"]>;

/** How patient the storage is; milliseconds. */
export interface EtcdTiming extends ClientTiming {
  /** How long an index that was promised may be late before an event is provoked. */
  readonly tickMs: number;
  /** How long a commit can be repeated after an unknown outcome: at least so long, at most twice as long. */
  readonly repeatMs: number;
}

export const defaultTiming: EtcdTiming = { ...clientTiming, tickMs: 50, repeatMs: 600_000 };
