// The hook's table as a program sees it: read when it is needed, again when another has taken its place, and kept where there is none any more.
import type { Clock } from "../../base/clock.ts";
import type { NetworkNamespace } from "../../base/network-namespace.ts";
import type { SharedFile } from "../../base/shared-file.ts";
import { ipBytes } from "../../wire/dns/address.ts";
import { SUPERSEDED_AT } from "../../wire/hook-table.ts";
import { type IndexedService, openTableIndex, type TableIndex } from "../../wire/hook-table-index.ts";

export interface TableParts {
  readonly open: (path: string) => SharedFile | undefined;
  readonly clock: Pick<Clock, "monotonic">;
  /** Where the table is. */
  readonly path: string;
  /** The network that this program is in: in another one than the agent's, the agent's 127.0.0.1 is reached by its host's address. Absent = in the same. */
  readonly network?: () => NetworkNamespace | undefined;
  /** Asks somebody where it is instead; undefined where nobody knows. Asked only while there is no table, and for a service only. */
  readonly locate?: () => Promise<string | undefined>;
}

/** The table of this moment. */
export interface CurrentTable {
  /** The service that a host name stands for. A promise while it is found out where the table is. */
  named(host: string): IndexedService | undefined | Promise<IndexedService | undefined>;
  /** A service by its own name, or its instances with one tag. */
  service(name: string, tag?: string): IndexedService | undefined;
  /** Where it is, or would be. */
  path(): string;
  /** True where there is a table. */
  isThere(): boolean;
  /** The service whose magic address this is. */
  at(address: string): IndexedService | undefined;
  /** The two magic addresses of a service of this table. */
  addressesOf(service: IndexedService): { readonly v4: string; readonly v6: string };
  close(): void;
}

/** Where an agent for everybody on a host has its table. */
export const DEFAULT_TABLE = "/run/trilith/table";

/** Where no table is, it is looked for at most so often; a known one is looked at by its name so often. */
const LOOK_MS = 1_000;
const ASK_MS = 5_000;
/** A name and the connection to it are one look. */
const FRESH_MS = 1;
/** An agent that was killed leaves its table behind, and the next one may have another: whoever told the place is asked again so often. */
const ASK_AGAIN_MS = 10_000;
/** Of the default range, as long as no table says another: cheap to see in text. */
const MAYBE_MAGIC = /^(::ffff:)?127\.(12[89]|1[3-9]\d|2\d\d)\./i;
const MAYBE_SERVICE = /\.(service|connect)\.|^_[^.]+\._[^.]+\./i;

interface Loaded {
  readonly file: SharedFile;
  readonly index: TableIndex;
}

/** See `CurrentTable`. Opens nothing yet. */
export function createCurrentTable({ open, clock, path: first, network, locate }: TableParts): CurrentTable {
  let path = first;
  let loaded: Loaded | undefined;
  let looked = Number.NEGATIVE_INFINITY;
  let checked = Number.NEGATIVE_INFINITY;
  let asked = Number.NEGATIVE_INFINITY;
  let asking: Promise<void> | undefined;
  /** Who connects again and again does so to one service. */
  let last:
    | { readonly address: string; readonly index: TableIndex; readonly found: IndexedService | undefined }
    | undefined;
  /** The table was superseded, but what comes after it was not there. */
  let missed = false;

  /** False where there is no table that can be used; what was known before stays. */
  const load = (): boolean => {
    looked = clock.monotonic();
    const file = open(path);
    if (file === undefined) return false;
    try {
      const index = openTableIndex(file.bytes, network?.());
      loaded?.file.close();
      loaded = { file, index };
      return true;
    } catch {
      // Another version, or damaged: as if there were none.
      file.close();
      return false;
    }
  };

  const now = (): TableIndex | undefined => {
    const atMs = clock.monotonic();
    const mayLook = atMs - looked >= LOOK_MS;
    if (loaded === undefined) {
      if (mayLook) load();
    } else if (atMs - checked < FRESH_MS) {
      return loaded.index;
    } else if (loaded.file.u32At(SUPERSEDED_AT) !== 0) {
      // Where the next one cannot be read (yet), not every call looks for it.
      if (mayLook || !missed) missed = !load();
    } else if (mayLook) {
      // A table may be taken away without a word: with its folder, or by an agent that was ended halfway.
      looked = clock.monotonic();
      missed = loaded.file.isReplaced() && !load();
    }
    checked = atMs;
    // The next agent may have it elsewhere; until that is known, the old one is what there is.
    if (loaded !== undefined && (missed || (path !== first && atMs - asked >= ASK_AGAIN_MS))) mayAsk();
    return loaded?.index;
  };

  const ask = async (): Promise<void> => {
    asked = clock.monotonic();
    const found = await locate?.().catch(() => undefined);
    asking = undefined;
    if (found === undefined || (found === path && loaded !== undefined && !missed)) return;
    path = found;
    missed = !load();
  };
  const mayAsk = (): Promise<void> | undefined => {
    if (locate !== undefined && asking === undefined && clock.monotonic() - asked >= ASK_MS) asking = ask();
    return asking;
  };

  return {
    named(host) {
      const known = loaded?.index;
      if (known === undefined ? !MAYBE_SERVICE.test(host) : !known.isInDomain(host)) return undefined;
      const index = now();
      if (index !== undefined) return safely(() => index.named(host));
      return mayAsk()?.then(() => safely(() => loaded?.index.named(host)));
    },
    service(name, tag) {
      const index = now();
      const text = tag === undefined ? name : `${tag}.${name}`;
      return index === undefined ? undefined : safely(() => index.named(`${text}.service.${index.domain}`));
    },
    path: () => path,
    isThere: () => now() !== undefined,
    at(address) {
      const known = loaded?.index;
      if (known === undefined ? !MAYBE_MAGIC.test(address) : !known.mayHold(address)) return undefined;
      if (last !== undefined && address === last.address && now() === last.index) return last.found;
      const bytes = ipBytes(address);
      if (bytes === undefined || (known !== undefined && known.slotOf(bytes) === undefined)) return undefined;
      const index = now();
      const slot = index?.slotOf(bytes);
      if (index === undefined || slot === undefined) return undefined;
      const found = safely(() => index.at(slot));
      last = { address, index, found };
      return found;
    },
    addressesOf: (service) => (loaded as Loaded).index.addressesOf(service.slot),
    close() {
      loaded?.file.close();
      loaded = undefined;
    },
  };
}

/** A program must not fail for what is written in a table: a service that cannot be read is none. */
function safely<T>(look: () => T | undefined): T | undefined {
  try {
    return look();
  } catch {
    return undefined;
  }
}
