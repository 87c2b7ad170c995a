// Stone 1 with what stands behind it: the store that the settings name, other servers, and signs of life.
import type { Durable } from "../base/durable.ts";
import type { Ground } from "../contracts/ground.ts";
import type { Storage } from "../contracts/storage.ts";
import { createLiveness } from "../directory/liveness.ts";
import { createDirectory, type LocalDirectory } from "../directory/local.ts";
import { createOthers, type Others } from "../directory/remote/others.ts";
import { lmdbStorage } from "../directory/storage/lmdb.ts";
import { memoryStorage } from "../directory/storage/memory.ts";
import { createVouching } from "../directory/vouch.ts";
import type { Base } from "./base.ts";

export interface Truth {
  readonly directory: LocalDirectory;
  readonly storage: Storage;
  readonly others: Others;
}

/** The directory, not started yet. */
export async function makeTruth(base: Base): Promise<Truth> {
  const { settings, self, durable, http, clock, random, log, metrics, undo } = base;
  const others = createOthers({ settings, node: self.node, durable, http, clock, random, log });
  const storage = others.storage ?? (await storageOf(base, durable));
  const directory = createDirectory(storage, { clock, random, log, metrics });
  undo.push("the directory", () => directory.stop());
  return { directory, storage, others };
}

/** The store that the settings name; etcd's client is loaded only when it is meant. */
async function storageOf({ settings, clock, random, disk, log }: Base, durable: Durable): Promise<Storage> {
  if (settings.storage === "etcd" && settings.etcd !== undefined) {
    const { createEtcdStorage } = await import("../directory/storage/etcd.ts");
    return await createEtcdStorage(settings.etcd, { clock, random, disk, log: log.part("etcd") });
  }
  return settings.dev || settings.storage === "memory" ? memoryStorage() : lmdbStorage(durable);
}

/** Signs of life: this node's own, and those of nodes that gave theirs to this agent. */
export interface Signs {
  readonly vouch: Ground["vouch"];
  /** From now on this node lives. */
  begin(): void;
  /** Revokes nothing: a restart is not seen by anybody. */
  end(): Promise<void>;
}

/** Among peers, signs of life that are left from an earlier life of this agent count for so long. */
const PEERS_LIVENESS_MS = 4_000;

export function makeSigns(base: Base, { directory, storage }: Truth): Signs {
  const { settings, self, life, clock, random, log, undo } = base;
  const vouching = createVouching({ directory, clock, log, first: () => liveness.start() });
  undo.push("signs of life of client hosts", () => vouching.stop());
  const ttlMs =
    settings.join?.livenessMs ??
    settings.etcd?.livenessMs ??
    (settings.peers === undefined ? 15_000 : PEERS_LIVENESS_MS);
  const kept = storage.alive === undefined ? vouching : (storage as Pick<Required<Storage>, "alive">);
  const { node, nodeId } = self;
  const liveness = createLiveness({ directory, storage: kept, node, nodeId, life, ttlMs, clock, random, log });
  return {
    vouch: (of, itsLife, forMs, signal) =>
      (kept === vouching ? vouching.vouch : kept.alive).call(kept, of, itsLife, forMs, signal),
    end: () => liveness.stop(),
    begin: () => {
      // An embedded store has nobody to look after until a client host joins.
      if (storage.alive !== undefined) liveness.start();
      else vouching.inherit(node, ttlMs);
    },
  };
}
